"""Small chores of a living runtime, each bounded: old commit rows, old history, the WAL of SQLite."""

from __future__ import annotations

from typing import TYPE_CHECKING

from routilux.runtime import adopting
from routilux.store import ownership, retention

if TYPE_CHECKING:
    from routilux.runtime.engine import Engine

KEEP_COMMITS = 100
PRUNE_COMMITS_EVERY = 1000
PRUNE_EVERY_S = 60.0


class Retention:
    """How far the walk through old history has come, and when the next one begins."""

    def __init__(self) -> None:
        self.position = retention.START
        self.next_at = 0.0


def run_once(engine: Engine) -> None:
    """One bounded batch of each chore."""
    _prune_commits(engine)
    _prune_history(engine)


def _prune_history(engine: Engine) -> None:
    """Walk on through what is older than its retention; dead letters stay."""
    walk, settings = engine.retention, engine.settings
    if engine.clock.monotonic() < walk.next_at:
        return
    counts = adopting.fenced(
        engine,
        lambda commit: retention.prune(
            commit.connection,
            now_us=engine.clock.now_us(),
            completed_after_us=round(settings.keep_completed_s * 1e6),
            failed_after_us=round(settings.keep_failed_s * 1e6),
            keys_after_us=round(settings.keep_keys_s * 1e6),
            batch=settings.prune_batch,
            position=walk.position,
        ),
    )
    walk.position = counts.position
    if counts.is_done:
        walk.position = retention.START
        walk.next_at = engine.clock.monotonic() + PRUNE_EVERY_S


def _prune_commits(engine: Engine) -> None:
    """My own commit rows; the last ones answer lost answers and name what is in flight."""
    if engine.commit_n - engine.pruned_n >= PRUNE_COMMITS_EVERY:
        below = engine.commit_n - KEEP_COMMITS
        adopting.fenced(
            engine, lambda commit: ownership.prune_commits(commit.connection, engine.runtime_key, below)
        )
        engine.pruned_n = engine.commit_n
