"""Small chores of a living runtime, each bounded: old commit rows, old history, the WAL of SQLite."""

from __future__ import annotations

from typing import TYPE_CHECKING

from routilux.runtime import adopting
from routilux.store import ownership

if TYPE_CHECKING:
    from routilux.runtime.engine import Engine

KEEP_COMMITS = 100
PRUNE_COMMITS_EVERY = 1000


def run_once(engine: Engine) -> None:
    """Prune my own commit rows now and then; the last ones answer lost answers and name what is in flight."""
    if engine.commit_n - engine.pruned_n >= PRUNE_COMMITS_EVERY:
        below = engine.commit_n - KEEP_COMMITS
        adopting.fenced(
            engine, lambda commit: ownership.prune_commits(commit.connection, engine.runtime_key, below)
        )
        engine.pruned_n = engine.commit_n
