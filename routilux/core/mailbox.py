"""The routines of one worker in memory, each with its slots.

The engine's thread owns them; there are no locks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from routilux.core.message import Activation, Job, Message, Rerun
from routilux.core.policies import BatchSizePolicy
from routilux.core.slot_queue import WINDOW, SlotQueue
from routilux.core.states import JobStatus, WorkerStatus

if TYPE_CHECKING:
    from routilux.core.compiled import CompiledFlow, CompiledRoutine

MOST_IDLE_JOBS = 4096
Texts = dict[str, str]


class CellRun(Protocol):
    """What a cell and those that look into it ask of its runs. `Run` is one; it knows its cell."""

    @property
    def running(self) -> tuple[Activation, float] | None: ...
    @property
    def unsettled(self) -> list[Activation]: ...
    def held_messages(self) -> Iterator[Message]: ...
    def ask(self, snapshot: dict[str, list[Message]]) -> None: ...
    def stop(self) -> None: ...
    def break_off(self) -> None: ...


class RoutineCell:
    """One routine of one worker: its slots, its runs, and its requeued batches."""

    __slots__ = (
        "compiled",
        "is_asked",
        "is_ready",
        "last_fired_at",
        "needs_purge",
        "reruns",
        "routine_id",
        "runs",
        "slots",
        "wake_at",
        "worker",
    )

    def __init__(self, worker: WorkerCell, compiled: CompiledRoutine, window: int = WINDOW) -> None:
        self.worker = worker
        self.compiled = compiled
        self.routine_id = compiled.routine_id
        policy = compiled.policy
        size = policy.size if isinstance(policy, BatchSizePolicy) and isinstance(policy.size, int) else 0
        self.slots = {name: SlotQueue(slot, max(window, 2 * size)) for name, slot in compiled.slots.items()}
        self.reruns: deque[Rerun] = deque()
        self.runs: list[CellRun] = []
        self.is_ready = False
        self.needs_purge = False  # a job with messages in the windows was paused or has ended
        self.is_asked = False  # a custom policy said no; it is called again when a message arrives
        self.wake_at: int | None = None  # a policy's own timer, µs
        self.last_fired_at: int | None = None

    def mark_ready(self) -> bool:
        """Returns whether it enters the ready queue now; it is there once at most."""
        if self.is_ready or not self.can_run:
            return False
        self.is_ready = True
        return True

    def leave_ready(self) -> None:
        self.is_ready = False

    def requeue(self, rerun: Rerun) -> None:
        """Put a batch that has run before back into the line."""
        self.reruns.append(rerun)

    def return_rerun(self, rerun: Rerun) -> None:
        """A batch that was taken and did not run is first again."""
        self.reruns.appendleft(rerun)

    def ask_again(self) -> None:
        """Something has arrived, or its policy was not asked after all."""
        self.is_asked = False

    def asked(self, run: CellRun) -> None:
        """This run asks its policy; nobody else does until something arrives."""
        self.is_asked = True
        run.ask({name: list(queue.items) for name, queue in self.slots.items()})

    def purge_soon(self) -> None:
        """A job with messages in the windows was paused or has ended."""
        self.needs_purge = True

    def push(self, seq: int, job: Job, slot: str, text: str, now: int, produced_by: int | None) -> None:
        """Add a message to the line of a slot. If it does not fit into the window, it stays on disk."""
        self.slots[slot].push(seq, job, text, now, produced_by)
        self.is_asked = False
        if job.status == JobStatus.PAUSED:
            self.needs_purge = True

    def fired_at(self, at: int | None) -> None:
        """As the database has it."""
        self.last_fired_at = at or self.last_fired_at

    def stop_runs(self) -> None:
        for run in self.runs:
            run.stop()

    @property
    def can_run(self) -> bool:
        return self.compiled.call is not None and self.compiled.policy is not None

    def messages(self) -> Iterator[Message]:
        """All messages in memory: in the windows, in requeued batches, or in runs of an executor."""
        for queue in self.slots.values():
            yield from queue.items
        for rerun in self.reruns:
            yield from rerun.messages
        for run in self.runs:
            yield from run.held_messages()

    @property
    def has_backlog(self) -> bool:
        return bool(self.reruns) or any(queue.items or queue.has_more for queue in self.slots.values())


class WorkerCell:
    """A worker that this runtime owns."""

    __slots__ = (
        "deaths",
        "flow",
        "flow_name",
        "held_count",
        "idle_since",
        "is_forgotten",
        "is_named",
        "jobs",
        "jobs_limit",
        "key",
        "lock_tries",
        "next_n",
        "next_seq",
        "refreshed_at",
        "routines",
        "state",
        "status",
        "suspects",
        "timed_count",
        "worker_id",
    )

    def __init__(
        self,
        key: int,
        worker_id: str,
        flow_name: str,
        flow: CompiledFlow,
        *,
        is_named: bool,
        window: int = WINDOW,
    ) -> None:
        self.key = key
        self.worker_id = worker_id
        self.flow_name = flow_name
        self.flow = flow
        self.is_named = is_named
        self.status: str = WorkerStatus.RUNNING
        self.next_seq = 1
        self.next_n = 1
        self.deaths = 0
        self.state: dict[str, Texts] = {}
        self.jobs: dict[int, Job] = {}  # open jobs; `drop_idle_jobs` drops those with messages on disk only
        self.jobs_limit = MOST_IDLE_JOBS
        self.routines = {rid: RoutineCell(self, compiled, window) for rid, compiled in flow.routines.items()}
        self.timed_count = 0  # parked with a due time: requeued without an operator
        self.held_count = 0  # parked until an operator acts: paused, unroutable
        self.suspects: dict[int, tuple[int, int]] = {}  # seq -> (deaths, not before)
        self.lock_tries: dict[int, int] = {}  # parked row -> how often another transaction's lock blocked it
        self.is_forgotten = False
        self.refreshed_at = 0
        self.idle_since: float | None = None

    def start_from(
        self, *, status: str, deaths: int, numbers: tuple[int, int], state: dict[str, Texts]
    ) -> None:
        """As its rows have it; `numbers`: the next seq and the next activation."""
        self.status = status
        self.deaths = deaths
        self.next_seq, self.next_n = numbers
        self.state = state

    def take_seq(self) -> int:
        """The next place in line."""
        seq = self.next_seq
        self.next_seq = seq + 1
        return seq

    def take_number(self) -> int:
        """The number of the next activation. One that was settled proves that its owner lives."""
        n = self.next_n
        self.next_n = n + 1
        self.deaths = 0
        return n

    def set_status(self, status: str) -> None:
        self.status = status

    def name(self) -> None:
        """Somebody started it by its name: it stays when its work is done."""
        self.is_named = True

    def recount(self, timed: int, held: int) -> None:
        """As the database counts what is parked."""
        self.timed_count, self.held_count = timed, held

    def park_timed(self) -> None:
        """One more batch is parked until a time."""
        self.timed_count += 1

    def unpark_timed(self) -> None:
        self.timed_count -= 1

    def clear_suspect(self, message: Message) -> None:
        message.deaths = None
        self.suspects.pop(message.seq, None)

    def refresh_at(self, now: int) -> None:
        """Its counters are written; 0: write them again soon."""
        self.refreshed_at = now

    def idle_for(self, now_s: float) -> float:
        """Seconds without work, as far as it was asked."""
        if self.has_work or self.idle_since is None:
            self.idle_since = now_s
        return now_s - self.idle_since

    def stop_runs(self) -> None:
        for routine in self.routines.values():
            routine.stop_runs()

    def forget(self) -> None:
        """Its memory is void: its runs stop, and outcomes that still come are dropped."""
        self.is_forgotten = True
        for routine in self.routines.values():
            for run in routine.runs:
                run.break_off()

    def purge_soon(self) -> None:
        """Call it when a job was paused or has ended: its messages leave the windows before the next pick."""
        for routine in self.routines.values():
            routine.purge_soon()

    def drop_idle_jobs(self) -> None:
        """Drop jobs without messages in memory; they are read again with their messages. Between commits."""
        held = {message.job.no for routine in self.routines.values() for message in routine.messages()}
        self.jobs = {number: job for number, job in self.jobs.items() if number in held}
        self.jobs_limit = len(self.jobs) + max(len(self.jobs), MOST_IDLE_JOBS)

    def slot(self, routine_id: str, slot_name: str) -> SlotQueue:
        return self.routines[routine_id].slots[slot_name]

    @property
    def waiting(self) -> int:
        return sum(queue.waiting for routine in self.routines.values() for queue in routine.slots.values())

    @property
    def rerun_count(self) -> int:
        return sum(len(routine.reruns) for routine in self.routines.values())

    @property
    def run_count(self) -> int:
        return sum(len(routine.runs) for routine in self.routines.values())

    @property
    def has_work(self) -> bool:
        return bool(
            self.run_count or self.timed_count or self.held_count or self.waiting or self._has_live_reruns
        )

    @property
    def _has_live_reruns(self) -> bool:
        """Batches of ended jobs do not count: they are removed when their turn comes."""
        routines = self.routines.values()
        held = (message for routine in routines for rerun in routine.reruns for message in rerun.messages)
        return any(not message.job.has_ended for message in held)
