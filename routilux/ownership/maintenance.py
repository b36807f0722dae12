"""Small chores of a living runtime, each bounded: old commit rows, old history, verdicts that nobody came for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from routilux.ownership import handover
from routilux.store.writes import ownership, retention

if TYPE_CHECKING:
    from routilux.engine.engine import Engine

KEEP_COMMITS = 100
PRUNE_COMMITS_EVERY = 1000
PRUNE_EVERY_S = 60.0
VERDICT_S = 60.0  # messages that have not come up again by then may never do so: their job has ended
REST_WHILE_BUSY = 2.0  # after a batch of the walk, in times of its length


class Retention:
    """How far the walk through old history has come, and when the next one begins."""

    def __init__(self) -> None:
        self.position = retention.START
        self.next_at = 0.0
        self.is_walking = False


def run_once(engine: Engine) -> None:
    """One bounded batch of each chore."""
    _prune_commits(engine)
    _prune_history(engine)
    since = engine.clock.monotonic() - VERDICT_S
    engine.verdicts = {key: verdict for key, verdict in engine.verdicts.items() if verdict[1] >= since}


def go_on(engine: Engine) -> None:
    """The next batch of a walk that is not through: it must keep up with what ends, whatever the reconcile period."""
    if engine.retention.is_walking:
        _prune_history(engine)


def _prune_history(engine: Engine) -> None:
    """Walk on through what is older than its retention; dead letters stay."""
    walk, settings = engine.retention, engine.settings
    begun = engine.clock.monotonic()
    if begun < walk.next_at:
        return
    counts = handover.fenced(
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
    walk.position, walk.is_walking = counts.position, not counts.is_done
    now = engine.clock.monotonic()
    if counts.is_done:
        walk.position = retention.START
        walk.next_at = now + PRUNE_EVERY_S
    else:
        walk.next_at = now + (now - begun) * (REST_WHILE_BUSY if engine.can_run() else 0)


def _prune_commits(engine: Engine) -> None:
    """My own commit rows; the last ones answer lost answers and name what is in flight."""
    if engine.commit_n - engine.pruned_n >= PRUNE_COMMITS_EVERY:
        below = engine.commit_n - KEEP_COMMITS
        handover.fenced(
            engine, lambda commit: ownership.prune_commits(commit.connection, engine.runtime_key, below)
        )
        engine.pruned_n = engine.commit_n
