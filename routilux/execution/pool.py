"""The executors of one runtime behind one interface: threads for plain logic, the loop for `async def`."""

from __future__ import annotations

import threading

from routilux.core.mailbox import RoutineCell
from routilux.core.run import Run
from routilux.execution.executors import LoopExecutor, ThreadExecutor
from routilux.execution.performer import Performer

SHARED_SIZE = 100
ASYNC_RUNS = 1000
_shared_lock = threading.Lock()


class Pool:
    """Room, and the executor for each run.

    `size` 0: the runtimes of this process share a budget of 100 threads.
    """

    def __init__(self, size: int, performer: Performer) -> None:
        self._threads = ThreadExecutor(size or SHARED_SIZE, performer.perform, performer.broke_off)
        self._loop = LoopExecutor(performer.perform_async)
        self._async_runs = 0
        self._size = size

    def has_room(self, cell: RoutineCell) -> bool:
        if cell.compiled.is_async:
            return self._async_runs < ASYNC_RUNS
        return self._threads.free > 0 and (self._size > 0 or _shared.free > 0)

    @property
    def is_full(self) -> bool:
        return self._threads.free <= 0 and self._async_runs >= ASYNC_RUNS

    def reserve(self, run: Run) -> None:
        if run.cell.compiled.is_async:
            self._async_runs += 1
        else:
            self._threads.reserve()
            _shared.add(1 if self._size == 0 else 0)

    def release(self, run: Run) -> None:
        if run.cell.compiled.is_async:
            self._async_runs -= 1
        else:
            self._threads.release()
            _shared.add(-1 if self._size == 0 else 0)

    def submit(self, run: Run) -> None:
        if run.cell.compiled.is_async:
            self._loop.submit(run)
        else:
            self._threads.submit(run)

    def stop(self, timeout: float) -> None:
        self._threads.stop(timeout)
        self._loop.stop(timeout)


class _Shared:
    """How many threads of the process-wide budget are taken."""

    def __init__(self) -> None:
        self._taken = 0

    @property
    def free(self) -> int:
        return SHARED_SIZE - self._taken

    def add(self, count: int) -> None:
        with _shared_lock:
            self._taken += count


_shared = _Shared()
