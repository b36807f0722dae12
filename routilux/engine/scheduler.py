"""Decides which routine runs next. A planned run starts only after its commit.

A message that was in flight when an owner died is a suspect. It runs with nothing beside it in this
process: running work is asked to stop between two activations, and nothing else starts until the suspect is
through.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable
from typing import Protocol

from routilux.core.mailbox import RoutineCell, WorkerCell
from routilux.core.policies import TimeIntervalPolicy
from routilux.core.run import Run
from routilux.core.selection import Pick, pick
from routilux.engine import failures
from routilux.engine.batch import Batch
from routilux.engine.clock import Clock
from routilux.engine.counter_rows import write_slots
from routilux.engine.eligibility import is_held_back, may_run, park_paused, unpick, wants_wider
from routilux.engine.settings import Settings
from routilux.errors import ProcessDiedError

RUN_AHEAD = 512


class Executor(Protocol):
    """Where runs go. Room is reserved when a run is planned and released when it has ended."""

    def has_room(self, cell: RoutineCell) -> bool: ...
    @property
    def is_full(self) -> bool: ...
    def reserve(self, run: Run) -> None: ...
    def release(self, run: Run) -> None: ...
    def submit(self, run: Run) -> None: ...


class Permission(Protocol):
    """Says whether logic may start: the lease of this runtime holds."""

    @property
    def is_good(self) -> bool: ...


class Rejections(Protocol):
    """Activations that the database refused though each was alone in its commit."""

    def __bool__(self) -> bool: ...
    def pop(self, worker: int, seq: int) -> BaseException | None: ...


class Scheduler:
    """Owns what is ready, what runs, the timers of policies and the executor."""

    def __init__(self, clock: Clock, settings: Settings, executor: Executor, permission: Permission) -> None:
        self._clock = clock
        self._settings = settings
        self.executor = executor
        self._permission = permission
        self.ready: deque[RoutineCell] = deque()
        # a dict for its order: a seed of the simulation must make the same world again
        self.runs: dict[Run, None] = {}
        self.timers: list[tuple[int, int, RoutineCell]] = []  # when, and which was set first
        self._timer_n = 0
        self._exclusive_run: Run | None = None
        self._exclusive_cell: RoutineCell | None = None  # it waits for the others to stop
        self.flush_waiters = 0  # callers who wait for the end: policies that gather deliver what they have
        self.is_stopping = False

    # what may run

    def mark_ready(self, cells: Iterable[RoutineCell]) -> None:
        """These routines may have something to run."""
        self.ready.extend(cell for cell in cells if cell.mark_ready())

    def take_marked(self, cells: Iterable[RoutineCell]) -> None:
        """Routines that a batch has marked."""
        self.ready.extend(cells)

    def may_start(self) -> bool:
        return not self.is_stopping and self._permission.is_good

    @property
    def can_start(self) -> bool:
        """Something is ready, nothing runs, and it may start."""
        return bool(self.ready and not self.runs and self.may_start())

    def poll(self, workers: Iterable[WorkerCell]) -> None:
        """Mark what can run though nothing came in: a timer went off, or somebody waits for the end."""
        now = self._clock.now_us()
        while self.timers and self.timers[0][0] <= now:
            self.mark_ready([heapq.heappop(self.timers)[2]])
        if self.flush_waiters and not self.runs and not self.ready:
            for worker in workers:
                if self._is_flushing(worker):
                    self.mark_ready(cell for cell in worker.routines.values() if cell.has_backlog)

    def _is_flushing(self, worker: WorkerCell) -> bool:
        return self.flush_waiters > 0 and not worker.run_count and not worker.timed_count and not self.runs

    def begin_flush(self) -> None:
        """A caller waits for the end of all jobs. Called by its thread."""
        self.flush_waiters += 1

    def end_flush(self) -> None:
        self.flush_waiters -= 1

    # planning

    def plan(self, batch: Batch, rejections: Rejections) -> None:
        """Fill free executors from the ready routines, first come first served."""
        if self._exclusive_cell is not None and self._exclusive_cell.worker.is_forgotten:
            self._exclusive_cell = None
        if self._exclusive_run is not None or not self.may_start():
            return
        if self._exclusive_cell is not None:
            if self.runs:
                return
            cell, self._exclusive_cell = self._exclusive_cell, None
            cell.mark_ready()
            self.ready.appendleft(cell)
        held: list[RoutineCell] = []
        while self.ready and self._exclusive_run is None and self._exclusive_cell is None:
            cell = self.ready.popleft()
            cell.leave_ready()
            if not self.executor.has_room(cell):
                held.append(cell)
                if self.executor.is_full:
                    break
            elif may_run(cell):
                if is_held_back(cell) and self.ready:
                    held.append(cell)
                else:
                    self._plan_cell(batch, cell, rejections)
        self.mark_ready(held)
        if not self.runs and not batch.planned and self._exclusive_run is None:
            self._plan_fullest(batch, held, rejections)

    def _plan_fullest(self, batch: Batch, held: list[RoutineCell], rejections: Rejections) -> None:
        """All that is ready is held back.

        Run the routine with the fullest slot, or all would wait without end.
        """
        candidates = [cell for cell in held if may_run(cell) and self.executor.has_room(cell)]
        if candidates:
            fullest = max(
                candidates,
                key=lambda cell: max((queue.waiting for queue in cell.slots.values()), default=0),
            )
            self._plan_cell(batch, fullest, rejections)

    def _plan_cell(self, batch: Batch, cell: RoutineCell, rejections: Rejections) -> None:
        limit = RUN_AHEAD if cell.compiled.concurrency == 1 and not rejections else 1
        chosen = pick(cell, batch.now, limit, is_flushing=self._is_flushing(cell.worker))
        if chosen.paused or chosen.paused_reruns:
            park_paused(batch, cell, chosen)
        if cell.wake_at is not None:
            self._timer_n += 1
            heapq.heappush(self.timers, (cell.wake_at, self._timer_n, cell))
        for queue in cell.slots.values():
            if not chosen.activations and wants_wider(cell, queue):
                queue.widen(self._settings.window)
            if queue.wants_more:
                batch.follow.low_windows[cell, queue] = None
        if self._fail_if_rejected(batch, cell, chosen, rejections):
            self.mark_ready([cell])
        elif chosen.is_alone and (self.runs or batch.planned):
            self._wait_for_others(cell, chosen)
        elif chosen.activations or chosen.is_ask:
            self._plan_run(batch, cell, chosen)

    def _fail_if_rejected(
        self, batch: Batch, cell: RoutineCell, chosen: Pick, rejections: Rejections
    ) -> bool:
        """Fail it without running it.

        It has killed its process too often, or the database refuses its commit.
        """
        if not chosen.activations or not (chosen.is_alone or rejections):
            return False
        first = chosen.activations[0]
        error = rejections.pop(cell.worker.key, first.seqs[0])
        if error is not None:
            failures.fail_unrun(batch, cell, first, error)
            return True
        deaths = first.rerun.deaths if first.rerun is not None else max(m.deaths or 0 for m in first.messages)
        if deaths >= self._settings.deaths:
            failures.dead_letter_unrun(batch, cell, first, ProcessDiedError(deaths))
            return True
        return False

    def _plan_run(self, batch: Batch, cell: RoutineCell, chosen: Pick) -> None:
        run = Run(cell, chosen.activations, is_alone=chosen.is_alone, is_in_line=chosen.is_in_line)
        if chosen.is_ask:
            cell.asked(run)
        cell.runs.append(run)
        batch.planned.append(run)
        if isinstance(cell.compiled.policy, TimeIntervalPolicy):
            write_slots(batch, cell.worker)  # its clock is durable
        self.executor.reserve(run)
        if chosen.is_alone:
            self._exclusive_run = run
        if cell.has_backlog and not chosen.is_ask:
            self.mark_ready([cell])

    def _wait_for_others(self, cell: RoutineCell, chosen: Pick) -> None:
        unpick(cell, chosen.activations)
        self._exclusive_cell = cell
        self.stop_runs()

    # runs

    def start(self, planned: Iterable[Run]) -> None:
        """Start these runs: their commit succeeded."""
        for run in planned:
            self.runs[run] = None
            self.executor.submit(run)

    def cancel(self, planned: Iterable[Run]) -> None:
        """Drop these runs: their commit failed."""
        for run in planned:
            self.executor.release(run)
            if self._exclusive_run is run:
                self._exclusive_run = None

    def release(self, run: Run) -> None:
        """A run has ended.

        A commit may have decided this once before it was refused, so it may be asked twice.
        """
        if run in self.runs:
            del self.runs[run]
            self.executor.release(run)
        if self._exclusive_run is run:
            self._exclusive_run = None

    def run_ended(self, batch: Batch, run: Run) -> None:
        """The executor returned a run. Its unfinished activations go back to the line."""
        self.release(run)
        cell = run.cell
        if run in cell.runs:
            cell.runs.remove(run)
        if cell.worker.is_forgotten:
            return
        if run.settled < len(run.activations):
            unpick(cell, run.unsettled)
            batch.follow.uncounted[cell.worker] = None
        if run.is_ask and run.should_stop and run.running is None:  # its policy was not asked
            cell.ask_again()
        if cell.has_backlog:
            batch.mark_ready(cell)

    def stop_runs(self) -> None:
        """Ask all runs to end after the activation that runs now."""
        for run in self.runs:
            run.stop()

    def drain(self) -> None:
        """Start nothing more; what runs ends soon."""
        self.is_stopping = True
        self.stop_runs()

    def lose_identity(self) -> None:
        """This runtime owns no worker now: stop all runs."""
        self.stop_runs()
        self._exclusive_run = self._exclusive_cell = None
