"""What other processes want of my workers: rows of the inbox, emptied inside the commit that accepts them.

`look` finds rows (it reads only); the next group commit deletes and applies them. A row that cannot be applied is
logged and, when it is a post, kept as a failed job: nothing is dropped silently. When the database refuses a commit
with rows in it, they go one by one and by themselves, until it is known which of them is to blame: that one is refused.
One that cannot even be refused, as the database takes no dead letter for it either, stays where it is and is tried again
later: its post was acknowledged. One that nobody can read is deleted.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from routilux.engine import acceptance, commands
from routilux.engine.batch import Batch
from routilux.engine.ids import new_id
from routilux.engine.inputs import Post, PostIn, Receipt
from routilux.errors import RoutiluxError
from routilux.ownership import handover
from routilux.store.reads import inbox as inbox_rows
from routilux.store.reads.inbox import FoundRow
from routilux.store.types import Connection, SQLAlchemyError
from routilux.store.writes.store import Commit, InboxRow

if TYPE_CHECKING:
    from routilux.engine.engine import Engine

log = logging.getLogger("routilux")
MOST = 1000
LOOK_S = 0.02  # not before each commit
LOOK_WHILE_CALLED_S = 0.1  # nor before one that somebody here waits for
HOT_S, LOOK_WHILE_HOT_S = 5.0, 0.05  # Postgres: who has just posted may post again
PAUSES_S = (1.0, 300.0)  # the first and the longest, before a row that could not be refused is tried again
RETRY_S = 0.5  # after one of them was refused once more, for the others to come
AGAIN_S = 0.3  # more than `listening.TELL_EVERY_S` and the time a commit takes


class Again(NamedTuple):
    """When a row that could not be refused is tried again: until when it rests, the pause that this is, the job of the row."""

    until: float
    pause: float
    job_id: str | None


class Seen:
    """Rows that were found and are to be taken with the next commit."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.workers: dict[int, tuple[str, str | None]] = {}  # id -> flow and worker id
        self.must_look = True
        self.was_called = False  # by another thread: somebody has told of a new row
        self.again_at: float | None = None  # look once more: who has just told does not tell of each row
        self.token: object = None
        self.looked_at = 0.0
        self.hot_until = 0.0
        self.suspects = 0  # so many rows go alone
        self.jobs: dict[int, str | None] = {}  # id -> job id
        # id -> why the commit of this row alone was refused, and its job: SQLite may give the id to another row
        self.condemned: dict[int, tuple[BaseException, str | None]] = {}
        self.postponed: dict[int, Again] = {}
        self.retry_at = 0.0  # not before is one of them tried: others have come meanwhile

    def forget(self) -> None:
        """Look again before anything is taken."""
        self.ids = []
        self.must_look = True

    def acquit(self, row_id: int) -> None:
        """The row is gone, or tried again."""
        self.condemned.pop(row_id, None)


def look(engine: Engine) -> None:
    """Find rows, if there is a sign of any: SQLite, another process has written; Postgres, it is time.

    On Postgres it is when somebody has told of a row, and 20 times a second for a while after something was found; who
    cannot be told asks once a second.
    """
    seen = engine.inbox
    now = engine.clock.monotonic()
    pause = LOOK_WHILE_CALLED_S if len(engine.inputs) else LOOK_S
    if engine.store.database.is_sqlite and now - seen.looked_at >= pause:
        seen.looked_at = now
        seen.token, changed = engine.store.database.changed_since(seen.token)
        seen.must_look = seen.must_look or changed
    elif now < seen.hot_until and now - seen.looked_at >= LOOK_WHILE_HOT_S:
        seen.must_look = True
    if seen.was_called:
        seen.was_called, seen.again_at = False, now + AGAIN_S
        seen.must_look = True
    elif seen.again_at is not None and now >= seen.again_at:
        seen.again_at = None
        seen.must_look = True
    if seen.must_look and not seen.ids:
        seen.looked_at = now
        with engine.store.read() as connection:
            _find(engine, connection)
        seen.must_look = len(seen.ids) == MOST
        if seen.ids:
            seen.hot_until = now + HOT_S


def _find(engine: Engine, connection: Connection) -> None:
    """Rows for my workers; or one that was postponed, by itself."""
    found: dict[int, tuple[str, str | None]] = {}
    due: dict[int, tuple[str, str | None]] = {}
    jobs: dict[int, str | None] = {}
    seen, now = engine.inbox, engine.clock.monotonic()
    for row in inbox_rows.find(connection, MOST + len(seen.postponed)):
        jobs[row.id] = row.job_id
        again = seen.postponed.get(row.id)
        if again is None or again.job_id != row.job_id:  # SQLite may have given the id to another
            seen.postponed.pop(row.id, None)
            _note(engine, row, found)
        elif again.until <= now >= seen.retry_at:
            _note(engine, row, due)
    if due:
        found = dict([next(iter(due.items()))])
        seen.suspects = 1
    seen.ids, seen.workers, seen.jobs = list(found), found, jobs
    seen.postponed = {id: again for id, again in seen.postponed.items() if id in jobs}
    seen.condemned = {id: verdict for id, verdict in seen.condemned.items() if id in jobs}


def _note(engine: Engine, row: FoundRow, found: dict[int, tuple[str, str | None]]) -> None:
    """One more row, if it is for a worker of mine; a worker that nobody runs is asked for."""
    if row.worker_id is None:
        if not engine.flows.has(row.flow):
            return
        if engine.newest_worker(row.flow) is None:
            engine.wanted_flows.add(row.flow)
            return
        found[row.id] = (row.flow, None)
    elif row.worker_id in engine.by_id:
        found[row.id] = (row.flow, row.worker_id)
    elif (
        engine.flows.has(row.flow)
        and row.key is not None
        and (row.owner is None or row.owner_state == "dead")
    ):
        engine.wanted_workers.add(row.worker_id)


def suspect(engine: Engine, ids: tuple[int, ...], inputs: int, cause: BaseException) -> None:
    """A commit that took these rows was refused."""
    seen = engine.inbox
    if len(ids) > 1 or inputs:
        seen.suspects = len(ids)
    elif ids[0] not in seen.condemned:
        seen.condemned[ids[0]] = cause, seen.jobs.get(ids[0])
    elif not isinstance(cause, SQLAlchemyError):
        log.error("inbox row %d is none that can be understood (%s); it is deleted", ids[0], cause)
        handover.fenced(engine, lambda commit: commit.take_inbox(ids))
        seen.acquit(ids[0])
    else:
        known, now = seen.postponed.get(ids[0]), engine.clock.monotonic()
        pause = PAUSES_S[0] if known is None else min(PAUSES_S[1], 2 * known.pause)
        seen.postponed[ids[0]] = Again(now + pause, pause, seen.jobs.get(ids[0]))
        seen.retry_at = now + RETRY_S
        log.error(
            "inbox row %d can neither be taken nor be refused (%s); it stays, the next try is in %g s",
            ids[0], cause, pause,
        )  # fmt: skip
        seen.acquit(ids[0])
    seen.forget()


def take(engine: Engine, commit: Commit, batch: Batch) -> list[InboxRow]:
    """Delete what was found and is still there. A commit that is sent again takes the same rows.

    A row whose worker was given back since it was found is left to whoever runs the worker next.
    """
    if batch.inbox_ids is None:
        mine = tuple(id for id in engine.inbox.ids if _is_mine(engine, *engine.inbox.workers[id]))
        batch.inbox_ids = (mine[:1] if batch.is_for_inbox else ()) if engine.inbox.suspects else mine
    return commit.take_inbox(batch.inbox_ids) if batch.inbox_ids else []


def _is_mine(engine: Engine, flow: str, worker_id: str | None) -> bool:
    return engine.newest_worker(flow) is not None if worker_id is None else worker_id in engine.by_id


def posts(rows: Sequence[InboxRow], engine: Engine) -> list[PostIn]:
    """The posts among the rows, as the engine takes them."""
    return [_post(row, engine) for row in rows if row.kind == "post"]


def _post(row: InboxRow, engine: Engine) -> PostIn:
    body = orjson.loads(row.body)
    worker_id = row.worker_id
    if worker_id is None:
        newest = engine.newest_worker(row.flow)
        worker_id = "" if newest is None else newest.worker_id
    assert row.job_id is not None
    post = Post(row.job_id, body["payload"], row.metadata, body.get("due_at"), body.get("fingerprint"))
    return PostIn(row.flow, worker_id, body["routine"], body["slot"], [post], Receipt(), inbox_id=row.id)


def apply(
    engine: Engine, batch: Batch, rows: Sequence[InboxRow], taken: dict[str, tuple[str | None, str]]
) -> None:
    """Rows that this commit has deleted take effect in it."""
    if engine.inbox.ids:
        engine.inbox.forget()
    for row in rows:
        before = len(batch.refusals)
        try:
            _apply_one(engine, batch, row, taken)
        except (
            RoutiluxError,
            KeyError,
            TypeError,
        ) as error:  # increment() of what is no number is a TypeError
            log.warning("inbox row %d (%s) of job %s was refused: %s", row.id, row.kind, row.job_id, error)
        for _, cause in batch.refusals[before:]:
            log.warning("inbox post %d of job %s was refused: %s", row.id, row.job_id, cause)
            _keep_refused(engine, batch, row, cause, taken)


def _apply_one(engine: Engine, batch: Batch, row: InboxRow, taken: dict[str, Any]) -> None:
    cause, job_id = engine.inbox.condemned.get(row.id, (None, None))
    if cause is not None and job_id == row.job_id:
        batch.after.append(lambda: engine.inbox.acquit(row.id))
        _refuse_condemned(batch, row, cause)
    elif row.kind == "post":
        _accept(engine, batch, row, taken)
    else:
        commands.apply(engine, batch, row.kind, row.worker_id, row.job_id, orjson.loads(row.body))


def _refuse_condemned(batch: Batch, row: InboxRow, cause: BaseException) -> None:
    if row.kind == "post":
        batch.refusals.append((Receipt(), cause))
    else:
        log.warning("inbox row %d (%s) of job %s was refused: %s", row.id, row.kind, row.job_id, cause)


def _accept(engine: Engine, batch: Batch, row: InboxRow, taken: dict[str, Any]) -> None:
    acceptance.accept(engine, batch, _post(row, engine), taken)


def _keep_refused(
    engine: Engine,
    batch: Batch,
    row: InboxRow,
    error: BaseException,
    taken: dict[str, tuple[str | None, str]],
) -> None:
    """A post that its owner cannot take becomes a failed job with a dead letter: it can be read and sent again.

    Under its own id, unless a job has that already.
    """
    cell = engine.by_id.get(row.worker_id or "") or engine.newest_worker(row.flow)
    if cell is not None and row.job_id is not None:
        body = orjson.loads(row.body)
        job_id = new_id() if row.job_id in taken else row.job_id
        acceptance.keep_refused(batch, cell, job_id, row.metadata, body, error)
        taken.setdefault(row.job_id, (cell.worker_id, body.get("fingerprint", "")))
