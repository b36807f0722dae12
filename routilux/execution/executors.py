"""Where logic runs: threads, and one asyncio loop for `async def`. What a run does there is in `performing`."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from routilux.core.run import Run

log = logging.getLogger("routilux")


class ThreadExecutor:
    """At most `size` threads, started as they are needed.

    One thread is woken at a time, the one that was busy last; as it takes a run it wakes the next, if there is more to do. While
    it waits for something others go on at once; while it computes they could not, and many short runs are over before
    they have tried.
    """

    def __init__(self, size: int, perform: Callable[[Run], None], name: str = "routilux") -> None:
        self.size = size
        self._perform = perform
        self._name = name
        self._lock = threading.Lock()
        self._runs: deque[Run] = deque()
        self._idle: list[threading.Lock] = []  # what each thread without a run waits for
        self._is_waking = False  # a thread has been woken and is not there yet
        self._is_over = False
        self._threads: list[threading.Thread] = []
        self._active = 0

    @property
    def free(self) -> int:
        return self.size - self._active

    def take(self) -> None:
        """A run is planned: its thread is spoken for."""
        self._active += 1

    def give(self) -> None:
        self._active -= 1

    def submit(self, run: Run) -> None:
        with self._lock:
            self._runs.append(run)
            if not self._is_waking:
                self._wake()

    def _wake(self) -> None:
        """Under the lock: one more thread, if there is one that has nothing to do, or may be started."""
        if self._idle:
            self._is_waking = True
            self._idle.pop().release()
        elif len(self._threads) < min(self._active, self.size):
            self._is_waking = True
            # daemon: logic that never returns must not keep the process from exiting
            thread = threading.Thread(
                target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def _next(self, gate: threading.Lock, *, is_woken: bool) -> Run | None:
        with self._lock:
            if is_woken:
                self._is_waking = False
            if not self._runs:
                self._idle.append(gate)
                return None
            run = self._runs.popleft()
            if self._runs and not self._is_waking:
                self._wake()
            return run

    def _work(self) -> None:
        gate = threading.Lock()
        gate.acquire()
        is_woken = True
        while not self._is_over:
            run = self._next(gate, is_woken=is_woken)
            is_woken = run is None
            if run is None:
                gate.acquire()
                continue
            try:
                # a fresh context each: what logic leaves in context variables does not leak into the next run
                contextvars.Context().run(self._perform, run)
            except BaseException:  # a thread that ends would be missing for ever
                log.exception("a run of routine %r broke off", run.cell.routine_id)

    def stop(self, timeout: float) -> None:
        """What has been submitted and not begun is let go of."""
        with self._lock:
            self._is_over = True
            for gate in self._idle:
                gate.release()
            self._idle.clear()
        for thread in self._threads:
            thread.join(timeout)


class LoopExecutor:
    """One asyncio loop in a thread of its own, started with the first `async def` run."""

    def __init__(self, perform: Callable[[Run], Any]) -> None:
        self._perform = perform
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def submit(self, run: Run) -> None:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=self._loop.run_forever, name="routilux-asyncio", daemon=True
            )
            self._thread.start()
        self._loop.call_soon_threadsafe(self._start, run)

    def _start(self, run: Run) -> None:
        assert self._loop is not None
        task = self._loop.create_task(self._perform(run))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def stop(self, timeout: float) -> None:
        if self._loop is None or self._thread is None:
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout)
        if not self._thread.is_alive():
            self._loop.close()
