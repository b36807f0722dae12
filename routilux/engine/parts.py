"""The parts of one engine, each the owner of its state.

All parts use two of them: transactions and the table of workers. Otherwise a part does not call another
one; only the inbox hands its rows to the command handlers. The work of one part can have effects on
another. A batch or the table of workers keeps these effects, and `Parts` passes them on.
"""

from __future__ import annotations

from dataclasses import dataclass

from routilux.engine.batch import FollowUps
from routilux.engine.clock import Clock
from routilux.engine.command_handlers import CommandHandlers
from routilux.engine.counters import Counters
from routilux.engine.facts import Facts
from routilux.engine.inbox import Inbox
from routilux.engine.inputs import InputQueue
from routilux.engine.job_timeouts import JobTimeouts
from routilux.engine.recovery import Recovery
from routilux.engine.redelivery import Redelivery
from routilux.engine.scheduler import Scheduler
from routilux.engine.settings import Settings
from routilux.engine.transactions import Transactions
from routilux.engine.worker_table import WorkerTable


@dataclass(frozen=True, slots=True)
class Parts:
    """The objects that a turn and the engine use."""

    clock: Clock
    settings: Settings
    facts: Facts
    inputs: InputQueue
    transactions: Transactions
    workers: WorkerTable
    scheduler: Scheduler
    handlers: CommandHandlers
    inbox: Inbox
    redelivery: Redelivery
    counters: Counters
    timeouts: JobTimeouts
    recovery: Recovery

    def pass_on_loaded(self) -> None:
        """Tell the scheduler, the counters and redelivery which workers were loaded, and what was read on."""
        loaded = self.workers.take_loaded()
        if loaded.has_loaded:
            self.redelivery.expect_soon()
        self.scheduler.mark_ready(loaded.ready)
        self.counters.write_later(loaded.uncounted)

    def pass_on(self, follow: FollowUps) -> None:
        """Tell the parts the effects of a batch, even if its commit fails."""
        if follow.ready:
            self.scheduler.take_marked(follow.ready)
        if follow.uncounted:
            self.counters.write_later(follow.uncounted)
        if follow.waiting_posts:
            self.recovery.wait_for_room(follow.waiting_posts)
        if follow.low_windows:
            self.workers.read_on_later(follow.low_windows)
        for due_at in follow.due_at:
            self.redelivery.expect(due_at)
        follow.clear()
