"""The reconciler: what a runtime looks at periodically, whatever it has been told.

One question tells whether there is anything to see: inbox rows, other runtimes, workers without an owner.
Every 30th time everything is looked at without asking. Recovery is not a special mode: it is this, running
all the time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from routilux.engine.clock import Clock
from routilux.engine.duty import Glance
from routilux.engine.settings import Settings
from routilux.engine.transactions import Transactions
from routilux.engine.worker_table import Flows
from routilux.ownership.handover import Handover
from routilux.ownership.maintenance import Maintenance
from routilux.ownership.takeover import Takeover
from routilux.store.writes import ownership

THOROUGH_EVERY = 30  # every 30th run is thorough
TOLD_GLANCE_S = 2.5  # how long an empty result holds while notifications arrive


class LeaseState(Protocol):
    """What the lease of this runtime says."""

    is_dead: bool

    @property
    def listens(self) -> bool:
        """Whether other processes are heard."""


class Alarm(Protocol):
    """The alarm clock, which must be kept alive."""

    def ensure_alive(self) -> None: ...


@dataclass(slots=True)
class _Last:
    """What the last question found, and what tells that it still holds."""

    found: tuple[bool, bool, bool] = (True, True, True)  # as `ownership.glance`
    at: float = 0.0
    asked: object = None
    token: object = None


class Reconciler:
    """The duty of the engine. Owns when it ran last. `recovers`: take over workers of other runtimes."""

    def __init__(
        self,
        transactions: Transactions,
        flows: Flows,
        clock: Clock,
        settings: Settings,
        lease: LeaseState,
        alarm: Alarm,
        handover: Handover,
        takeover: Takeover,
        maintenance: Maintenance,
        *,
        recovers: bool,
    ) -> None:
        self._transactions = transactions
        self._flows = flows
        self._clock = clock
        self._settings = settings
        self._lease = lease
        self._alarm = alarm
        self._handover = handover
        self._takeover = takeover
        self._maintenance = maintenance
        self._recovers = recovers
        self._must_run = False
        self._ran_at = clock.monotonic()
        self.runs = 0  # how often it ran
        self._last = _Last()
        self.is_walking = False  # maintenance has more to prune

    def call(self) -> None:
        """Run at the next turn of the engine. Called by the alarm clock."""
        self._must_run = True

    def glance_if_due(self) -> Glance | None:
        """Look, if the alarm rang. If it did not ring for long, look all the same and mend the alarm."""
        now = self._clock.monotonic()
        if not self._must_run and now - self._ran_at <= 2 * self._settings.reconcile_s:
            return None
        self._must_run = False
        self._ran_at = now
        self._alarm.ensure_alive()
        is_thorough = self.runs % THOROUGH_EVERY == 0
        self.runs += 1
        has_inbox, has_others, has_ownerless = self._ask(is_thorough=is_thorough)
        return Glance(is_thorough, has_inbox or is_thorough, has_others, has_ownerless, self._lease.is_dead)

    def _ask(self, *, is_thorough: bool) -> tuple[bool, bool, bool]:
        """As `ownership.glance`.

        That there is nothing to see holds until another flow is known; on SQLite until another process
        writes; on Postgres for a few seconds, if other processes can tell this one.
        """
        last, now = self._last, self._clock.monotonic()
        store, me, names = self._transactions.store, self._transactions.runtime_key, self._flows.names()
        token, has_changed = store.database.changed_since(last.token)
        if self._lease.listens and now - last.at < TOLD_GLANCE_S:
            has_changed = False
        asked = (me, store.commits, names)
        if is_thorough or has_changed or any(last.found) or asked != last.asked:
            with store.read(is_single=True) as connection:
                last.found = ownership.glance(connection, me, names, self._clock.now_us())
            last.asked, last.at = asked, now
        last.token = token
        return last.found

    def run(self, glance: Glance, is_busy: Callable[[], bool]) -> None:
        """Publish definitions, take over what is free, one batch of maintenance."""
        if not glance.is_dead:
            self._handover.publish()
            if self._recovers and (glance.has_others or glance.has_ownerless):
                self._takeover.run_once()
        self.is_walking = self._maintenance.run_once(is_busy)

    def go_on(self, is_busy: Callable[[], bool]) -> None:
        """The next batch of maintenance."""
        self.is_walking = self._maintenance.go_on(is_busy)

    def next_in_s(self) -> float:
        """Seconds until maintenance goes on, if it has more to do."""
        return self._maintenance.next_in_s()
