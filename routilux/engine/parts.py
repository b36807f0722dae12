"""The parts of one engine, each the owner of its state.

No part calls another one. Two lie beneath the others: transactions and the table of workers. What one part's
work means for another is kept until it is passed on here: by a batch, or by the table of workers.
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
    """What a turn and the engine work with."""

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
        """Workers were loaded or read on: tell the scheduler, the counters and redelivery."""
        loaded = self.workers.take_loaded()
        if loaded.has_loaded:
            self.redelivery.expect_soon()
        self.scheduler.mark_ready(loaded.ready)
        self.counters.write_later(loaded.uncounted)

    def pass_on(self, follow: FollowUps) -> None:
        """Tell the parts what the decisions of a batch mean for them, whether its commit goes in or not."""
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
