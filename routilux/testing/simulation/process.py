"""One simulated runtime process: the real engine, store and lease, without a thread. The world moves it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sqlalchemy.exc import DBAPIError

from routilux.core.activation import ActivationContext
from routilux.core.error_handler import ErrorStrategy
from routilux.core.mailbox import RoutineCell
from routilux.core.message import Activation
from routilux.core.outcome import Outcome
from routilux.core.registry import FlowRegistry
from routilux.core.run import Run
from routilux.engine.engine import MOST_INPUTS
from routilux.engine.facts import Facts
from routilux.engine.flow_catalog import FlowCatalog
from routilux.engine.inputs import Input, InputQueue
from routilux.engine.settings import Settings
from routilux.errors import LeaseLostError, RuntimeShutDownError
from routilux.ownership.alarm import Alarm
from routilux.runtime.activation_readers import ActivationReaders
from routilux.runtime.wiring import connect_parts
from routilux.store.backends.database import Database
from routilux.store.errors import PASSING, Fenced, classify
from routilux.store.writes.store import Store
from routilux.testing.simulation.clock import HostClock
from routilux.testing.simulation.stand_ins import (
    LEASE_S,
    Broken,
    EngineWithoutPauses,
    Room,
    SimulatedLease,
    StepwisePerformer,
    TransactionsWithoutPauses,
)

LONG_S = 30.0  # a longer time passes without heartbeats
MOST_WAITING = 1000  # no world has so many inputs at a time


class Injected(Exception):
    """The error with which the simulator lets logic fail."""


class Process:
    """A runtime with the flows of one release. `threads`: how many runs there may be at a time."""

    def __init__(
        self,
        number: int,
        database: Database,
        store: Store,
        clock: HostClock,
        registry: FlowRegistry,
        *,
        threads: int,
        settings: Settings,
        watch: Callable[[Process, Run, Activation, Outcome | None], None],
    ) -> None:
        self.number = number
        self.store = store
        self.clock = clock
        self.settings = settings
        self.is_paused = False
        self.fails_next = False  # the next activation that is retried on errors fails after its logic
        self.dies_next = False  # the next one that is not retried does
        self.is_turning = False  # its engine takes a turn now
        self.active: list[tuple[Run, Iterator[None]]] = []
        self._watch = watch
        self._executor = Room(threads)
        facts = Facts(lambda fact, error: None)
        self._flows = FlowCatalog(registry, facts)
        self.lease = SimulatedLease(database, clock, facts)
        inputs = InputQueue()
        self.assembly = connect_parts(
            TransactionsWithoutPauses(store, facts),
            clock,
            settings,
            self._flows,
            facts,
            inputs,
            executor=self._executor,
            permission=self.lease,
            lease=self.lease,
            alarm=Alarm(),
            recovers=True,
            is_real_time=False,
            prunes_history=False,  # the model reads the whole history
            engine_class=EngineWithoutPauses,
        )
        self.parts = self.assembly.parts
        self._performer = StepwisePerformer(
            self, inputs.put, ActivationReaders(store, clock, settings), facts
        )

    def register(self) -> None:
        """What a runtime does first, before its threads run."""
        self.assembly.handover.come_back()
        for name in self._flows.names():
            self._flows.prepare(name)

    def publish(self) -> None:
        """What it does next: publish its flows."""
        self.assembly.engine.again_if_fenced(self.assembly.handover.publish)
        self.assembly.reconciler.call()

    @property
    def key(self) -> int:
        return self.parts.transactions.runtime_key

    @property
    def input_count(self) -> int:
        return len(self.parts.inputs)

    def owns(self, worker_id: str) -> bool:
        return self.parts.workers.get(worker_id) is not None

    def put(self, entry: Input) -> None:
        self.parts.inputs.put(entry)

    def now_us(self) -> int:
        return self.clock.now_us()

    def turn(self, most: int = MOST_INPUTS) -> None:
        """What the engine's thread does with up to `most` inputs. Raises `Broken`."""
        engine = self.assembly.engine
        if self.input_count > MOST_WAITING:
            raise Broken(f"its inputs grow without end: {self.input_count} wait")
        self.is_turning = True
        try:
            engine.look()
            engine.step(self.parts.inputs.take(most))
        except Fenced:
            engine.failed_turn.fenced()
        except (RuntimeShutDownError, LeaseLostError) as error:
            raise Broken("the engine gave up") from error
        except Exception as error:
            if classify(error) not in PASSING:
                raise Broken(f"{type(error).__name__}: {error}") from error
            engine.recover(error, 1)
        finally:
            self.is_turning = False

    def renew(self) -> None:
        """A heartbeat. If it fails, the next one comes later."""
        try:
            self.lease.renew()
        except DBAPIError:
            self.lease._unbroken_since = self.clock.monotonic()

    @property
    def is_busy(self) -> bool:
        """Logic runs, or could run now."""
        return bool(self.active or self._executor.queue)

    def perform(self, choice: int) -> str | None:
        """One thread runs one more activation. Returns what it did, or None if there is nothing to run."""
        while self._executor.queue:
            run = self._executor.queue.popleft()
            self.active.append((run, self._performer.steps(run)))
        if not self.active:
            return None
        run, steps = self.active[choice % len(self.active)]
        if next(steps, self) is self:
            self.active.remove((run, steps))
            return f"{run.cell.routine_id}, whose thread becomes free"
        return run.cell.routine_id

    def can_run(self) -> bool:
        """Something of its workers runs, or could run now.

        A post that waits for room in a paused worker does not count: it waits for an operator.
        """
        recovery = self.parts.recovery
        posts = recovery.take_waiting_posts()
        can_run = self.assembly.engine.can_run()
        recovery.wait_for_room(posts)
        owners = [self.parts.workers.get(post.worker_id) for post in posts]
        return can_run or any(owner is None or owner.status != "paused" for owner in owners)

    def jobs_under_way(self) -> list[str]:
        """The jobs of activations that were handed out and are not settled."""
        runs = self.parts.scheduler.runs
        return sorted(
            {m.job.job_id for run in runs for a in run.activations[run.settled :] for m in a.messages}
        )

    def jobs_in_logic(self) -> list[str]:
        """The jobs of activations that have begun and are not settled."""
        begun = [(run, run.running[0]) for run, _ in self.active if run.running is not None]
        return sorted(
            {
                message.job.job_id
                for run, activation in begun
                if not run.cell.worker.is_forgotten and not run.is_broken
                if any(activation is each for each in run.activations[run.settled :])
                for message in activation.messages
            }
        )

    def next_times(self) -> list[int]:
        """When something of it comes due, in µs of the wall clock."""
        timers, due_at = self.parts.scheduler.timers, self.parts.redelivery.next_at
        times = [timers[0][0]] if timers else []
        return times if due_at is None else [*times, due_at]

    def die(self) -> None:
        """SIGKILL: the kernel frees its locks, nothing else happens."""
        self.lease.drop_sign()

    # called by the performer

    def before(self, run: Run, activation: Activation) -> None:
        self._watch(self, run, activation, None)

    def after(self, run: Run, activation: Activation, around: ActivationContext) -> None:
        outcome = around.outcome
        if outcome.failure is None and self._is_to_fail(run.cell, activation):
            around.fail(Injected("injected by the simulator"))
        self._watch(self, run, activation, outcome)

    def _is_to_fail(self, cell: RoutineCell, activation: Activation) -> bool:
        handler = cell.compiled.error_handler
        if not self.is_retried(cell):
            is_to_fail, self.dies_next = self.dies_next, False
        elif handler and activation.attempt <= handler.max_retries:
            is_to_fail, self.fails_next = self.fails_next, False
        else:
            return False
        return is_to_fail

    def is_retried(self, cell: RoutineCell) -> bool:
        handler = cell.compiled.error_handler
        return (
            handler is not None
            and handler.strategy == ErrorStrategy.RETRY
            and issubclass(Injected, handler.retryable_exceptions)
        )


__all__ = ["LEASE_S", "Broken", "Injected", "Process"]
