"""Deletes old commit rows and old history in bounded batches while the runtime runs."""

from __future__ import annotations

import math
from collections.abc import Callable

from routilux.engine.clock import Clock
from routilux.engine.settings import Settings
from routilux.engine.transactions import Transactions
from routilux.store.writes import ownership, retention
from routilux.store.writes.retention import PruneCounts
from routilux.store.writes.store import Commit

KEEP_COMMITS = 100
PRUNE_COMMITS_EVERY = 1000
PRUNE_EVERY_S = 60.0
REST_WHILE_BUSY = 2.0  # pause after a batch, as a multiple of its duration


class Maintenance:
    """Owns how far the walk through old history has come, and when the next one begins."""

    def __init__(
        self, transactions: Transactions, clock: Clock, settings: Settings, *, prunes_history: bool = True
    ) -> None:
        self._transactions = transactions
        self._clock = clock
        self._settings = settings
        self._pruned_n = 0
        self._position = retention.START
        self._next_at = 0.0 if prunes_history else math.inf
        self._is_walking = False

    def run_once(self, is_busy: Callable[[], bool]) -> bool:
        """One bounded batch of each chore. Returns whether the walk through history is under way."""
        self._prune_commits()
        return self.go_on(is_busy)

    def next_in_s(self) -> float:
        """Seconds until the walk goes on."""
        return max(0.0, self._next_at - self._clock.monotonic())

    def go_on(self, is_busy: Callable[[], bool]) -> bool:
        """Walk on through what is older than its retention.

        Dead letters stay. Returns whether there is more.
        """
        begun = self._clock.monotonic()
        if begun < self._next_at:
            return self._is_walking
        counts = self._transactions.fenced(self._prune)
        self._position, self._is_walking = counts.position, not counts.is_done
        now = self._clock.monotonic()
        if counts.is_done:
            self._position = retention.START
            self._next_at = now + PRUNE_EVERY_S
        else:
            self._next_at = now + (now - begun) * (REST_WHILE_BUSY if is_busy() else 0)
        return self._is_walking

    def _prune(self, commit: Commit) -> PruneCounts:
        settings = self._settings
        return retention.prune(
            commit.connection,
            now_us=self._clock.now_us(),
            completed_after_us=round(settings.keep_completed_s * 1e6),
            failed_after_us=round(settings.keep_failed_s * 1e6),
            keys_after_us=round(settings.keep_keys_s * 1e6),
            batch=settings.prune_batch,
            position=self._position,
        )

    def _prune_commits(self) -> None:
        """Its own commit rows. The last ones answer lost answers and name what is in flight."""
        transactions = self._transactions
        n, key = transactions.commit_n, transactions.runtime_key
        if n - self._pruned_n >= PRUNE_COMMITS_EVERY:
            below = n - KEEP_COMMITS
            transactions.fenced(lambda commit: ownership.prune_commits(commit.connection, key, below))
            self._pruned_n = n
