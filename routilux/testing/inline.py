"""The drive of a test: no threads. A caller that waits for the engine takes its turns and runs its logic.

    turn     inputs → one group commit → runs into the queue of the pool
    perform  the first run of the queue, in the calling thread
    idle     a turn that brought nothing, and an empty queue: only time can bring more

A call that waits for an answer (`post`, `exec`, a control) takes turns until it has it, and runs no logic
unless it waits for room in a slot. A call that waits for work (`job.wait`) runs what can run; then it lets
time pass, by moving the clock to what is due next. Inside logic only turns are taken: the logic that is
running has to end first.
"""

from __future__ import annotations

import contextvars
import math
import threading
from collections import deque
from collections.abc import Callable

from routilux.core.context import current_activation
from routilux.core.mailbox import RoutineCell
from routilux.core.outcome import Outcome
from routilux.core.run import Run
from routilux.engine.engine import MOST_INPUTS, Engine
from routilux.engine.inputs import RunEnded
from routilux.errors import StateError
from routilux.execution.performer import Performer
from routilux.ownership.lease import Lease
from routilux.runtime.drive import Driven, Waitable
from routilux.store.errors import Fenced
from routilux.testing.clock import TestClock
from routilux.testing.coroutines import PrivateLoop


class InlinePool:
    """Runs in the order they were handed over, until somebody performs them. There is always room."""

    is_full = False

    def __init__(self, performer: Performer) -> None:
        self._performer = performer
        self._queue: deque[Run] = deque()
        self._loop = PrivateLoop()

    def __len__(self) -> int:
        return len(self._queue)

    def has_room(self, cell: RoutineCell) -> bool:
        return True

    def reserve(self, run: Run) -> None:
        """Room is not counted."""

    def release(self, run: Run) -> None:
        """Room is not counted."""

    def submit(self, run: Run) -> None:
        self._queue.append(run)

    def perform(self) -> None:
        """The first run; if it is `async def`, with all others that are, side by side."""
        run = self._queue.popleft()
        if not run.cell.compiled.is_async:
            contextvars.Context().run(self._performer.perform, run)
            return
        together = [run, *(other for other in self._queue if other.cell.compiled.is_async)]
        self._queue = deque(other for other in self._queue if not other.cell.compiled.is_async)
        contextvars.Context().run(self._loop.run, *map(self._performer.perform_async, together))

    def let_go(self) -> list[Run]:
        """What has not begun and will not."""
        left, self._queue = list(self._queue), deque()
        return left

    def stop(self, timeout: float) -> None:
        self._loop.close()


class InlineDrive:
    """For one runtime; the counterpart of `routilux.runtime.drive.Threads`."""

    is_real_time = False

    def __init__(self, clock: TestClock) -> None:
        self.clock = clock
        self.activations = 0  # whose outcome has reached the engine
        self.is_running = False
        self.is_good = False  # whether logic may start: a turn for an answer alone starts nothing
        self._lock = threading.Lock()  # logic may have threads of its own, which post
        self._turning: int | None = None  # the thread that takes a turn
        self._engine: Engine
        self._pool: InlinePool

    def pool(self, size: int, performer: Performer) -> InlinePool:
        self._pool = InlinePool(performer)
        return self._pool

    def permission(self, lease: Lease) -> InlineDrive:
        return self

    def start(self, driven: Driven) -> None:
        """The alarm and the heartbeat stay off."""
        self._engine = driven.engine
        self.is_running = True

    def keep_alive(self, owner: object) -> None:
        """Without threads the program holds its runtime, or nothing does."""

    def join(self, timeout_s: float) -> None:
        self.is_running = False

    # waiting

    def wait_reply(self, receipt: Waitable, timeout_s: float) -> bool:
        parts = self._engine.parts
        if parts.scheduler.is_stopping:
            for run in self._pool.let_go():
                parts.inputs.put(RunEnded(run))
        while not receipt.wait(0):
            if parts.inputs.items:
                self._turn()
            elif not self.is_running:
                return False
            else:
                return self.wait_for(receipt, timeout_s, self.clock.monotonic() + timeout_s)
        return True

    def wait_for(self, event: Waitable, period_s: float, until: float | None) -> bool:
        """Without `until`, raises `StateError` if nothing can ever happen."""
        if current_activation() is not None:
            raise StateError(
                "a call inside logic waits for what cannot happen before this logic has returned"
            )
        while True:
            self.run(lambda: event.wait(0))
            if event.wait(0):
                return True
            last = None if until is None else math.ceil(until * 1e6)
            due = self.next_due()
            if due is not None and (last is None or due <= last):
                self.clock.move_to(due)
            elif last is not None:
                self.clock.move_to(last)
                self._turn()
                return event.wait(0)
            else:
                raise StateError(
                    "this would wait without end: nothing can run and nothing comes due (a paused job or"
                    " worker, a partial batch, a missing partner?); give it a timeout, or do what it needs"
                )

    # working

    def run(self, is_enough: Callable[[], bool] = lambda: False, most: float = math.inf) -> None:
        """Run what can run now, until nothing is left or it is enough. Raises `StateError` at `most`."""
        most += self.activations
        self._engine.parts.inbox.look_soon()
        self.is_good = True
        try:
            self._work(is_enough, most)
        finally:
            self.is_good = False
        while len(self._pool):  # what has begun is finished
            self._pool.perform()
            self._turn()

    def _work(self, is_enough: Callable[[], bool], most: float) -> None:
        while True:
            self._turn()
            if is_enough():
                return
            if len(self._pool):
                self._pool.perform()
            elif self._is_idle():
                return
            if self.activations > most:
                raise StateError(
                    "still not idle after so many activations: does something feed itself?"
                    " `most=` raises the limit"
                )

    def _is_idle(self) -> bool:
        parts = self._engine.parts
        return self._engine.pause_s() > 0 and not parts.redelivery.must_look and not parts.inbox.must_look

    def _turn(self) -> None:
        """What the engine's thread does again and again."""
        engine, me = self._engine, threading.get_ident()
        if self._turning == me:
            raise StateError("a callback of runtime.on() waits for the engine, which waits for the callback")
        with self._lock:
            self._turning = me
            try:
                engine.look()
                if engine.parts.timeouts.has_expired:
                    engine.step([])  # the time of a job is over before the logic that took so long returns
                inputs = engine.parts.inputs.take(MOST_INPUTS)
                self.activations += sum(type(entry) is Outcome for entry in inputs)
                engine.step(inputs)
            except Fenced:
                engine.failed_turn.fenced()
            finally:
                self._turning = None

    def next_due(self) -> int | None:
        """When time alone brings something next, µs since 1970; None: never."""
        parts = self._engine.parts
        instants = [
            at
            for at, _, cell in parts.scheduler.timers
            if cell.wake_at == at and cell.has_backlog and not cell.worker.is_forgotten
        ]
        instants += [
            round(entry.deadline * 1e6)
            for entry in parts.recovery.waiting_posts
            if entry.deadline is not None
        ]
        time_limit = parts.timeouts.next_at(parts.scheduler.runs)
        instants += [at for at in (parts.redelivery.next_at, time_limit) if at is not None]
        return min(instants, default=None)
