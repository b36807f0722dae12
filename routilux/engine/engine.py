"""The heart: one thread that owns every mailbox.

    inputs → one group commit (decide, rows, COMMIT) → answers, and runs to the executors → …

Nothing is acknowledged and no logic sees a message before the commit that holds it. While a commit waits for the
disk more inputs gather, so groups grow with the load by themselves.

`step` can be driven by hand, without the thread. The duties live in files of their own: grouping, which makes one commit
of what accepting, settling, owning, control and dispatching have to say; committing, keeping (loading and forgetting),
redelivery, takeover.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from sqlalchemy import Connection

from routilux.core.mailbox import RoutineCell, SlotQueue, WorkerCell
from routilux.core.outcome import Outcome
from routilux.core.run import Run
from routilux.core.states import ENDED_WORKER
from routilux.engine import counters, inbox, job_timeouts, recovery, redelivery, turn, waking, worker_loading
from routilux.engine.batch import Batch, Fact
from routilux.engine.clock import Clock
from routilux.engine.commit_window import Pace
from routilux.engine.inputs import Input, InputQueue, PostIn, Receipt, Task
from routilux.engine.settings import Settings
from routilux.errors import LeaseLostError, RuntimeShutDownError
from routilux.ownership import handover, maintenance
from routilux.store.errors import Failure, Fenced, classify
from routilux.store.writes.store import Store

log = logging.getLogger("routilux")
T = TypeVar("T")

MOST_INPUTS = 4096
QUIET_POLL_S, QUIET_POLL_POSTGRES_S = 0.25, 1.0


class Executor(Protocol):
    """Where runs go."""

    def has_room(self, cell: RoutineCell) -> bool: ...
    @property
    def is_full(self) -> bool: ...
    def take(self, run: Run) -> None: ...
    def give(self, run: Run) -> None: ...
    def submit(self, run: Run) -> None: ...


@dataclass(slots=True)
class Glance:
    """What the last look at the whole database found, and what tells that it still holds."""

    found: tuple[bool, bool, bool] = (True, True, True)  # as `ownership.glance`
    at: float = 0.0
    asked: object = None
    token: object = None


class Engine:
    """State of one runtime. Everything here is touched by the engine's thread only, except `inputs`."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        settings: Settings,
        executor: Executor,
        flows: worker_loading.Flows,
        on_facts: Callable[[list[Fact]], None],
    ) -> None:
        self.store = store
        self.clock = clock
        self.settings = settings
        self.executor = executor
        self.flows = flows
        self.inputs = InputQueue()
        quiet_poll_s = QUIET_POLL_S if store.database.is_sqlite else QUIET_POLL_POSTGRES_S
        self.pace = Pace(self.inputs, clock, settings.poll_s, quiet_poll_s)
        self.runtime_key = 0
        self.commit_n = 0
        self.workers: dict[int, WorkerCell] = {}
        self.by_id: dict[str, WorkerCell] = {}
        self.ready: deque[RoutineCell] = deque()
        self.runs: dict[
            Run, None
        ] = {}  # in order, as all that is gone through: a seed must make the same world
        self.lone_run: Run | None = None
        self.lone_cell: RoutineCell | None = None
        self.wakes: list[tuple[int, int, RoutineCell]] = []  # when, and which was noted first
        self.wake_n = 0
        self.low: dict[tuple[RoutineCell, SlotQueue], None] = {}
        self.waiting_posts: list[PostIn] = []
        self.convicted: dict[int, BaseException] = {}
        # (worker, first seq) -> why its commit is refused, and when that was found
        self.verdicts: dict[tuple[int, int], tuple[BaseException, float]] = {}
        self.careful = 0  # so many outcomes go one per commit, to find out which of them is refused
        self.newest: dict[str, WorkerCell] = {}
        self.mine: set[str] = set()  # workers that this Runtime object started: they stay while it lives
        self.wanted_flows: set[str] = set()
        self.wanted_workers: set[str] = set()
        self.unroutable: list[tuple[int, int, str, str]] = []
        self.watchers: list[tuple[Callable[[], bool], threading.Event]] = []
        self.must_reconcile = False
        self.reconciled_at = clock.monotonic()
        self.reconciled = 0  # so many times
        self.glance = Glance()
        self.reconcile: Callable[[], object] = lambda: None
        self.clock_is_real = True
        self.wants_facts = False
        self.wants_ends: Callable[[], bool] = lambda: True
        self.pruned_n = 0
        self.retention = maintenance.Retention()
        self.reidentify: Callable[[], None] = lambda: None
        self.watch_alarm: Callable[[], object] = lambda: None
        self.published: dict[str, str] = {}  # flow -> hash of the definition that is in the database
        # what is parked of them changed in ways that only SQL can count
        self.miscounted: dict[WorkerCell, None] = {}
        self.uncounted: dict[WorkerCell, None] = {}  # did something since their counters were written
        self.counted_at = 0  # when these were last gone through
        self.closed_at = float("-inf")  # when finished workers were looked for
        self.to_release: list[WorkerCell] = []  # cancelled: let go of after their commit
        self.flush_waiters = 0
        self.due = redelivery.Due()
        self.inbox = inbox.Seen()
        self.timeouts = job_timeouts.Watch(clock)
        self.lease_is_good: Callable[[], bool] = lambda: True
        self.is_stopping = False
        self.is_draining = False
        self.give_up_at: float | None = None
        self._stop = threading.Event()
        self.in_hand: list[Input] = []
        self.on_facts = on_facts

    # the loop

    def run(self) -> None:
        """Until `stop`: the body of the engine's thread."""
        failures = 0
        while not self._stop.is_set():
            self._rest()
            try:
                self.look()
                self.pace.linger()
                self.step(self.inputs.take(MOST_INPUTS))
                failures = 0
            except (RuntimeShutDownError, LeaseLostError) as error:
                log.error("engine stopped: %s", error)
                return
            except Fenced:
                recovery.fenced(self)
            except Exception as error:
                failures += 1
                recovery.heal(self, error, failures)

    def _rest(self) -> None:
        """Sleep until there may be something to do. Looking up costs more than asking a quiet file whether it was written."""
        while (pause := self.pause_s()) > 0:
            came = self.inputs.wait(pause)
            if came or pause < self.pace.quiet_poll_s or self.store.database.may_have_been_written():
                return

    def pause_s(self) -> float:
        """How long there is nothing to do, as far as is known."""
        if len(self.inputs) or self.low or (self.ready and not self.runs and self.may_dispatch()):
            return 0.0
        pause = self.pace.poll_s(is_running=bool(self.runs))
        now = self.clock.now_us()
        if self.wakes:
            pause = min(pause, max(0.0, (self.wakes[0][0] - now) / 1e6))
        if (due_in_s := self.due.in_s(now)) is not None:
            pause = min(pause, due_in_s)
        if self.inbox.again_at is not None:
            pause = min(pause, max(0.0, self.inbox.again_at - self.clock.monotonic()))
        if self.retention.is_walking:
            pause = min(pause, max(0.0, self.retention.next_at - self.clock.monotonic()))
        return pause

    def stop(self) -> None:
        self._stop.set()
        self.inputs.wake()

    def step(self, inputs: list[Input]) -> None:
        """One turn: what has come in, what is due, one group commit, and what follows from it."""
        tasks = [entry for entry in inputs if type(entry) is Task]
        for task in tasks:
            self._answer(task.receipt, task.run)
        if tasks:
            inputs = [entry for entry in inputs if type(entry) is not Task]
        inputs += self._posts_for_room()
        self.in_hand = inputs
        turn.commit(self, inputs)
        self.in_hand = []
        self.pace.after(inputs)
        counters.recount(self)
        self._tell_watchers()

    def look(self) -> None:
        """Reads that must see what memory sees: between two commits."""
        job_timeouts.look(self)  # lets go of jobs, so before others are read for this commit
        worker_loading.refill(self)
        redelivery.look(self)
        now = self.clock.monotonic()
        # the alarm rings for it; if it does not, it is the one to be mended
        if self.must_reconcile or now - self.reconciled_at > 2 * self.settings.reconcile_s:
            self.must_reconcile = False
            self.reconciled_at = now
            self.reconcile()
        maintenance.go_on(self)
        handover.close_finished(self)
        inbox.look(self)
        if self.wanted_flows or self.wanted_workers:
            handover.serve_wanted(self)
            self.inbox.must_look = True
            inbox.look(self)
        waking.timers(self)
        waking.flush(self)

    def _tell_watchers(self) -> None:
        """Whoever waits for a state of the whole is told when it holds."""
        for watcher in [w for w in self.watchers if w[0]()]:
            self.watchers.remove(watcher)
            watcher[1].set()

    def has_work(self) -> bool:
        """Something of my workers waits, is parked with a due time, or runs."""
        return bool(
            self.runs
            or len(self.inputs)
            or self.waiting_posts
            or any(w.has_work for w in self.workers.values())
        )

    def can_run(self) -> bool:
        """Something of my workers runs, or could run now."""
        return bool(self.runs or self.ready or self.low or len(self.inputs) or self.waiting_posts)

    def _posts_for_room(self) -> list[Input]:
        waiting, self.waiting_posts = self.waiting_posts, []
        return list(waiting)

    # what the duties share

    def pause(self, seconds: float) -> None:
        """Wait, unless the engine is told to stop."""
        self._stop.wait(seconds)

    def newest_worker(self, flow: str) -> WorkerCell | None:
        """The worker of mine that posts to a flow go to: the newest that takes any."""
        cell = self.newest.get(flow)
        if cell is not None and not cell.is_forgotten and cell.status not in ENDED_WORKER:
            return cell
        live = [w for w in self.workers.values() if w.flow_name == flow and w.status not in ENDED_WORKER]
        return max(live, key=lambda w: w.key, default=None)

    def patiently(self, call: Callable[[], T]) -> T:
        return handover.patiently(self, call)

    def read(self, work: Callable[[Connection], T]) -> T:
        """What a decision must know from the database. Repeated while its errors pass, as nothing is decided twice: `work`
        leaves no more in memory when it runs again."""

        def call() -> T:
            with self.store.read() as connection:
                return work(connection)

        return handover.patiently(self, call, drops=False)

    def note(self, cell: RoutineCell) -> None:
        """This routine may have something to run."""
        if not cell.is_ready and cell.can_run:
            cell.is_ready = True
            self.ready.append(cell)

    def has_room(self, cell: RoutineCell) -> bool:
        return self.executor.has_room(cell)

    @property
    def is_full(self) -> bool:
        return self.executor.is_full

    def take_room(self, run: Run) -> None:
        self.executor.take(run)

    def give_room(self, run: Run) -> None:
        """Once for each run: a commit may have decided over its end before it was refused."""
        if run in self.runs:
            del self.runs[run]
            self.executor.give(run)
        if self.lone_run is run:
            self.lone_run = None

    def may_dispatch(self) -> bool:
        return not self.is_stopping and self.lease_is_good()

    def in_flight(self, batch: Batch) -> list[object]:
        return [run.in_flight() for run in (*self.runs, *batch.planned)]

    def is_lock_timeout(self, error: BaseException) -> bool:
        return self.store.database.is_postgres and classify(error) is Failure.RETRY

    def reroute(self, batch: Batch, entry: PostIn) -> None:
        """Its worker is not mine (any more): the caller finds the owner and tries again."""
        batch.refusals.append((entry.receipt, worker_loading.NotMine(entry.worker_id)))

    def report_trouble(self, error: BaseException, attempt: int) -> None:
        log.log(
            logging.WARNING if attempt < 3 else logging.ERROR,
            "commit try %d failed, trying again: %s",
            attempt,
            error,
        )

    def gives_up(self, pause_s: float) -> bool:
        """Wait before another try. True: the deadline of a stop has passed."""
        if self.give_up_at is not None and time.monotonic() + pause_s > self.give_up_at:
            return True
        threading.Event().wait(pause_s)
        return False

    def _answer(self, receipt: Receipt, call: Callable[[], object]) -> None:
        receipt.is_taken = True
        try:
            receipt.resolve(self.again_if_fenced(call))
        except Exception as error:  # told to the caller, who waits on the receipt
            receipt.fail(error)

    def again_if_fenced(self, call: Callable[[], T]) -> T:
        """Under a new identity where another runtime took this one for dead: it was stopped for longer than its lease."""
        while True:
            try:
                return call()
            except Fenced:
                recovery.fenced(self)


__all__ = ["Engine", "Executor", "Outcome"]
