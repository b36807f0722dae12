"""Where logic runs: threads, and one asyncio loop for `async def`.

What a run does there is in `performer`.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from routilux.core.run import Run


class ThreadExecutor:
    """At most `size` threads, started as they are needed.

    `on_error` is told of an error that `perform` raised.

    It wakes one thread at a time, the one that was busy last. As that one takes a run it wakes the next, if
    there is more to do. While a thread waits for something the others go on at once. While it computes they
    could not, and many short runs are over before they have tried.
    """

    def __init__(
        self,
        size: int,
        perform: Callable[[Run], None],
        on_error: Callable[[Run, BaseException], None],
        name: str = "routilux",
    ) -> None:
        self.size = size
        self._perform = perform
        self._on_error = on_error
        self._name = name
        self._lock = threading.Lock()
        self._runs: deque[Run] = deque()
        self._idle: list[threading.Lock] = []  # each thread without a run waits for its own
        self._is_waking = False  # a thread has been woken and is not there yet
        self._is_over = False
        self._threads: list[threading.Thread] = []
        self._active = 0

    @property
    def free(self) -> int:
        return self.size - self._active

    def reserve(self) -> None:
        """A run is planned; it will need a thread."""
        self._active += 1

    def release(self) -> None:
        self._active -= 1

    def submit(self, run: Run) -> None:
        with self._lock:
            self._runs.append(run)
            if not self._is_waking:
                self._wake()

    def _wake(self) -> None:
        """Under the lock: wake an idle thread, or start one if there may be more."""
        if self._idle:
            self._is_waking = True
            self._idle.pop().release()
        elif len(self._threads) < min(self._active, self.size):
            self._is_waking = True
            # daemon: the process can exit though logic never returns
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
                # a fresh context for each: context variables of one run do not leak into the next
                contextvars.Context().run(self._perform, run)
            except BaseException as error:  # the pool would miss a thread that ends
                self._on_error(run, error)

    def stop(self, timeout: float) -> None:
        """End the threads. Runs that have not begun are dropped."""
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
