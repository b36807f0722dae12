"""The engine: one thread, one turn after another.

    inputs → one group commit (decide, rows, COMMIT) → answers, and runs to the executors → …

The engine commits a message first. Only then is the caller answered, and only then does logic see it. While
a commit waits for the disk more inputs gather, so groups grow with the load by themselves. `turn` makes one
commit, `failed_turn` repairs memory if it failed, and each part owns its state: see `Parts`. `look` and
`step` can be driven by hand, without the thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Protocol, TypeVar

from routilux.engine.commit_window import CommitWindow
from routilux.engine.duty import Duty
from routilux.engine.failed_turn import FailedTurn, Identity
from routilux.engine.group_commit import Refused
from routilux.engine.inputs import Input, Receipt, Task
from routilux.engine.parts import Parts
from routilux.engine.turn import Turn
from routilux.errors import LeaseLostError, RuntimeShutDownError
from routilux.store.errors import Fenced

T = TypeVar("T")
Watcher = tuple[Callable[[], bool], threading.Event]

MOST_INPUTS = 4096
QUIET_POLL_S, QUIET_POLL_POSTGRES_S = 0.25, 1.0


class Handover(Identity, Protocol):
    """Takes workers and gives them back."""

    def serve_flows(self, flows: set[str]) -> None:
        """Start a worker of each flow that has none here."""

    def serve_workers(self, worker_ids: set[str]) -> None:
        """Take these workers, if no runtime owns them."""

    def close_finished(self) -> None:
        """Give workers back that have nothing more to do here."""


class Engine:
    """The loop. Everything here is touched by the engine's thread only, except `stop` and `watch`."""

    def __init__(self, parts: Parts, handover: Handover, duty: Duty) -> None:
        self.parts = parts
        self.failed_turn = FailedTurn(parts, handover)
        self._handover = handover
        self._duty = duty
        quiet_s = QUIET_POLL_POSTGRES_S if parts.transactions.is_postgres else QUIET_POLL_S
        self._window = CommitWindow(parts.inputs, parts.clock, parts.settings.poll_s, quiet_s)
        self._watchers: list[Watcher] = []
        self._in_hand: list[Input] = []  # what the turn under way works on
        self._stop = threading.Event()

    # the loop

    def run(self) -> None:
        """Take turns until `stop`: the body of the engine's thread."""
        failures = 0
        while not self._stop.is_set():
            self._rest()
            try:
                self.look()
                self._window.linger()
                self.step(self.parts.inputs.take(MOST_INPUTS))
                failures = 0
            except (RuntimeShutDownError, LeaseLostError) as error:
                self.parts.facts.report("engine.stopped", error=error)
                return
            except Fenced:
                self.failed_turn.fenced()
            except Exception as error:
                failures += 1
                self.recover(error, failures)

    def stop(self) -> None:
        """End the loop after this turn. Called by other threads."""
        self._stop.set()
        self.parts.inputs.wake()

    def _rest(self) -> None:
        """Sleep until there may be something to do.

        Asking a quiet SQLite file for changes is cheaper than a look.
        """
        database = self.parts.transactions.store.database
        while (pause := self.pause_s()) > 0:
            came = self.parts.inputs.wait(pause)
            if came or pause < self._window.quiet_poll_s or database.may_have_been_written():
                return

    def pause_s(self) -> float:
        """Seconds until the next work that is known."""
        parts = self.parts
        if parts.inputs.items or parts.workers.low_windows or parts.scheduler.can_start:
            return 0.0
        pause = self._window.poll_s(is_running=bool(parts.scheduler.runs))
        now = parts.clock.now_us()
        if parts.scheduler.timers:
            pause = min(pause, max(0.0, (parts.scheduler.timers[0][0] - now) / 1e6))
        if (due_in_s := parts.redelivery.in_s(now)) is not None:
            pause = min(pause, due_in_s)
        if parts.inbox.again_at is not None:
            pause = min(pause, max(0.0, parts.inbox.again_at - parts.clock.monotonic()))
        if self._duty.is_walking:
            pause = min(pause, self._duty.next_in_s())
        return pause

    # one turn: look, then step

    def look(self) -> None:
        """Read the database between two commits, when memory and the database agree."""
        parts = self.parts
        self._pass_on_loaded()
        parts.timeouts.poll(parts.scheduler.runs)  # drops jobs from memory, so before others are read
        if parts.workers.low_windows:
            parts.workers.refill()
            self._pass_on_loaded()
        parts.redelivery.poll()
        self._run_duty()
        self._handover.close_finished()
        self._poll_inbox()
        if parts.inbox.wants_workers:
            self._handover.serve_flows(parts.inbox.take_wanted_flows())
            self._handover.serve_workers(parts.inbox.take_wanted_workers())
            self._pass_on_loaded()
            parts.inbox.look_soon()
            self._poll_inbox()
        parts.scheduler.poll(parts.workers)

    def _pass_on_loaded(self) -> None:
        if self.parts.workers.loaded is not None:
            self.parts.pass_on_loaded()

    def _poll_inbox(self) -> None:
        inputs = self.parts.inputs
        was_told = inputs.is_told and inputs.take_told()
        self.parts.inbox.poll(was_told=was_told, callers_wait=bool(inputs.items))

    def _run_duty(self) -> None:
        glance = self._duty.glance_if_due()
        if glance is not None:
            if glance.is_thorough:
                self.parts.redelivery.expect_soon()
            if glance.has_inbox:
                self.parts.inbox.look_soon()
            if glance.is_dead:
                self.failed_turn.lose_identity()
            self._duty.run(glance, self.can_run)
            self.parts.recovery.rejections.prune(self.parts.clock.monotonic())
            self._pass_on_loaded()
        elif self._duty.is_walking:
            self._duty.go_on(self.can_run)

    def step(self, inputs: list[Input]) -> None:
        """Run the tasks and answer them, commit all other inputs together, then tell the watchers."""
        tasks = [entry for entry in inputs if type(entry) is Task]
        for task in tasks:
            self._answer(task.receipt, task.run)
        if tasks:
            inputs = [entry for entry in inputs if type(entry) is not Task]
        if self.parts.recovery.waiting_posts:
            inputs += self.parts.recovery.take_waiting_posts()
        self._in_hand = inputs
        self._commit(inputs)
        self._in_hand = []
        self._window.after(inputs)
        self.parts.counters.recount()
        self._pass_on_loaded()
        for watcher in [each for each in self._watchers if each[0]()]:
            self._end_watch(watcher)
            watcher[1].set()

    def _commit(self, inputs: list[Input]) -> None:
        """Use one commit. After a refusal, use several to find the input that the database refuses."""
        inbox, recovery = self.parts.inbox, self.parts.recovery
        if inbox.isolate_next and inbox.ids:
            inbox.isolate_one()
            self._commit_group([], is_for_inbox=True)
        while recovery.isolate_next and inputs:
            first, *inputs = inputs
            recovery.isolated(first)
            self._commit_group([first])
        self._commit_group(inputs)

    def _commit_group(self, inputs: list[Input], *, is_for_inbox: bool = False) -> None:
        self._pass_on_loaded()
        turn = Turn(self.parts, inputs, is_for_inbox=is_for_inbox)
        try:
            turn.commit()
        except Fenced as fenced:
            self.failed_turn.fenced(turn.batch, inputs, was_in=fenced.was_in)
        except Refused as error:
            self.failed_turn.refused(turn.batch, inputs, error.cause)
        except RuntimeShutDownError:
            self.parts.inputs.put_back(inputs)
            raise

    def _answer(self, receipt: Receipt, call: Callable[[], object]) -> None:
        receipt.is_taken = True
        try:
            receipt.resolve(self.again_if_fenced(call))
        except Exception as error:  # told to the caller, who waits on the receipt
            receipt.fail(error)

    # recovery

    def recover(self, error: BaseException, failures: int) -> None:
        """After something unexpected: wait a moment, then load all workers again."""
        inputs, self._in_hand = self._in_hand, []
        self.failed_turn.interrupted(inputs, error, failures)
        self.pause(min(1.0, 0.05 * 2.0 ** min(failures, 6)))
        if inputs:
            self.failed_turn.reload_all()
        self._pass_on_loaded()

    def pause(self, seconds: float) -> None:
        """Wait, unless the engine is told to stop."""
        self._stop.wait(seconds)

    def again_if_fenced(self, call: Callable[[], T]) -> T:
        """Repeat a call; if another runtime declared this one dead, register under a new key first."""
        while True:
            try:
                return call()
            except Fenced:
                self.failed_turn.fenced()

    # what others wait for

    def watch(self, condition: Callable[[], bool], event: threading.Event) -> Callable[[], None]:
        """Set the event when, between two commits, the condition holds. Returns what ends the watch."""
        watcher = (condition, event)
        self._watchers.append(watcher)  # not by the engine's thread, which may be waiting for the database
        self.parts.inputs.wake()

        return partial(self._end_watch, watcher)

    def _end_watch(self, watcher: Watcher) -> None:
        with suppress(ValueError):  # the engine and the caller may end it at the same time
            self._watchers.remove(watcher)

    def has_work(self) -> bool:
        """Something of the workers waits, is parked with a due time, or runs."""
        parts = self.parts
        return bool(
            parts.scheduler.runs
            or parts.inputs.items
            or parts.recovery.waiting_posts
            or any(worker.has_work for worker in parts.workers)
        )

    def can_run(self) -> bool:
        """Something of the workers runs, or could run now."""
        parts = self.parts
        return bool(
            parts.scheduler.runs
            or parts.scheduler.ready
            or parts.workers.low_windows
            or parts.inputs.items
            or parts.recovery.waiting_posts
        )


__all__ = ["MOST_INPUTS", "Engine", "Handover"]
