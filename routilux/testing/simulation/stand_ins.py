"""What a simulated process has in place of threads, pauses and a wall clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Protocol

from sqlalchemy import Connection

from routilux.core.activation import ActivationContext, Readers
from routilux.core.mailbox import RoutineCell
from routilux.core.message import Activation
from routilux.core.outcome import Outcome
from routilux.core.run import Run
from routilux.engine.engine import Engine
from routilux.engine.facts import Facts
from routilux.engine.inputs import Input
from routilux.engine.transactions import Transactions
from routilux.execution.performer import Performer
from routilux.ownership.lease import Lease
from routilux.store.backends.database import Database
from routilux.testing.coroutines import PrivateLoop
from routilux.testing.simulation.clock import HostClock

LEASE_S = 9.0
MOST_TRIES = 20  # no accident lasts so long


class Broken(BaseException):
    """The engine failed in a way that no accident explains."""


class Watched(Protocol):
    """The process whose logic runs: it is told before and after each activation."""

    clock: HostClock

    def before(self, run: Run, activation: Activation) -> None: ...

    def after(self, run: Run, activation: Activation, around: ActivationContext) -> None: ...


class Room:
    """Room for so many runs. They wait until the world performs them."""

    def __init__(self, threads: int) -> None:
        self.queue: deque[Run] = deque()
        self._threads = threads
        self._taken = 0

    def has_room(self, cell: RoutineCell) -> bool:
        return self._taken < self._threads

    @property
    def is_full(self) -> bool:
        return self._taken >= self._threads

    def reserve(self, run: Run) -> None:
        self._taken += 1

    def release(self, run: Run) -> None:
        self._taken -= 1

    def submit(self, run: Run) -> None:
        self.queue.append(run)


class TransactionsWithoutPauses(Transactions):
    """The real transactions, without pauses. Trying without end is an error."""

    def report_failed_try(self, error: BaseException, attempt: int) -> None:
        if attempt > MOST_TRIES:
            raise Broken(f"it tries the same without end: {error}")

    def gives_up(self, pause_s: float) -> bool:
        return False


class EngineWithoutPauses(Engine):
    """The real engine, without pauses."""

    def pause(self, seconds: float) -> None:
        """No time passes."""


class StepwisePerformer(Performer):
    """The real performer, one activation at a time."""

    def __init__(
        self,
        process: Watched,
        report: Callable[[Input], None],
        readers: Callable[[Run], Readers],
        facts: Facts,
    ) -> None:
        super().__init__(process.clock, report, readers, facts)
        self._process = process

    def steps(self, run: Run) -> Iterator[None]:
        """As `perform`, but stops after each activation."""
        with closing(self._activations_of(run)) as begun:
            for around in begun:
                self._report(self._run_one(run, around))
                yield

    def _run_one(self, run: Run, around: ActivationContext) -> Outcome:
        activation = around.outcome.activation
        self._process.before(run, activation)
        if run.cell.compiled.is_async:
            with PrivateLoop() as loop:
                loop.run(self._run_coroutine(run, around))
        else:
            super()._run_one(run, around)
        self._process.after(run, activation, around)
        return around.outcome

    async def _run_coroutine(self, run: Run, around: ActivationContext) -> None:
        await self._run_one_async(run, around)


class SimulatedLease(Lease):
    """The real lease, on the simulated clock."""

    def __init__(self, database: Database, clock: HostClock, facts: Facts) -> None:
        super().__init__(database, clock, LEASE_S, "simulated", facts=facts, on_call=lambda: None)
        self._host = clock

    def clock_us(self, connection: Connection) -> int:
        return self._host.boot_us()
