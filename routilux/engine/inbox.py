"""The inbox: what other processes ask of the workers that this runtime owns.

`poll` finds rows; it reads only. The next group commit deletes them and carries them out. A row that cannot
be carried out is logged; a post is kept as a failed job, so nothing is dropped silently. When the database
refuses a commit with rows in it, they go one by one and alone, until it is known which of them is to blame:
that one is refused. A row that cannot even be refused, as the database takes no dead letter for it either,
stays and is tried again later: its post was acknowledged. A row that cannot be decoded is deleted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import orjson

from routilux.engine import acceptance
from routilux.engine.batch import Batch
from routilux.engine.clock import Clock
from routilux.engine.command_handlers import CommandHandlers
from routilux.engine.commands import command_of
from routilux.engine.facts import Facts
from routilux.engine.ids import new_id
from routilux.engine.inputs import Post, PostIn, Receipt
from routilux.engine.transactions import Transactions
from routilux.engine.worker_table import WorkerTable
from routilux.errors import RoutiluxError
from routilux.store.reads import inbox as inbox_rows
from routilux.store.reads.inbox import FoundRow
from routilux.store.types import Connection, SQLAlchemyError
from routilux.store.writes.store import Commit, InboxRow

MOST = 1000
LOOK_S = 0.02  # not before each commit
LOOK_WHILE_CALLED_S = 0.1  # nor before one that somebody here waits for
HOT_S, LOOK_WHILE_HOT_S = 5.0, 0.05  # Postgres: a process that has just posted may post again
PAUSES_S = (1.0, 300.0)  # the first and the longest, before a row that could not be refused is tried again
RETRY_S = 0.5  # after one of them was refused again: the others come in between
AGAIN_S = 0.3  # more than `notify.TELL_EVERY_S` and the time a commit takes
Taken = dict[str, tuple[str | None, str]]  # job id -> worker id and fingerprint, of ids that are taken


class Postponed(NamedTuple):
    """A row that could not be refused: when it is tried again, the pause until then, and its job."""

    until: float
    pause: float
    job_id: str | None


class Rejected(NamedTuple):
    """Why the commit of a row alone was refused, and its job: SQLite may give its id to another row."""

    cause: BaseException
    job_id: str | None


class Inbox:
    """Owns what was found in the inbox, and which workers its rows want."""

    def __init__(
        self,
        transactions: Transactions,
        workers: WorkerTable,
        handlers: CommandHandlers,
        clock: Clock,
        facts: Facts,
    ) -> None:
        self._transactions = transactions
        self._workers = workers
        self._handlers = handlers
        self._clock = clock
        self._facts = facts
        self.ids: list[int] = []  # rows to take with the next commit
        self.found: dict[int, FoundRow] = {}
        self.must_look = True
        self.again_at: float | None = None  # look once more: a process does not tell of each row
        self._token: object = None
        self._looked_at = 0.0
        self._hot_until = 0.0
        self.isolate_next = 0  # so many rows go alone
        self._jobs: dict[int, str | None] = {}  # id -> job id, of all rows that were seen
        self._rejected: dict[int, Rejected] = {}
        self.postponed: dict[int, Postponed] = {}
        self._retry_at = 0.0  # not before this is a postponed row tried
        self._wanted_flows: set[str] = set()
        self._wanted_workers: set[str] = set()

    # when to look

    def look_soon(self) -> None:
        """Look at the next poll."""
        self.must_look = True

    def forget(self) -> None:
        """Look again before anything is taken."""
        self.ids = []
        self.must_look = True

    def poll(self, *, was_told: bool, callers_wait: bool) -> None:
        """Find rows, if there is a sign of any. Call it between two commits.

        SQLite: another process has written to the file. Postgres: a process has told of a row, or something
        was found lately: then 20 times a second. Without a notification the reconciler looks once a second.
        `was_told`: a process has told of a row. `callers_wait`: inputs of this process wait for the next
        commit.
        """
        now = self._clock.monotonic()
        database = self._transactions.store.database
        pause = LOOK_WHILE_CALLED_S if callers_wait else LOOK_S
        if database.is_sqlite and now - self._looked_at >= pause:
            self._looked_at = now
            self._token, has_changed = database.changed_since(self._token)
            self.must_look = self.must_look or has_changed
        elif now < self._hot_until and now - self._looked_at >= LOOK_WHILE_HOT_S:
            self.must_look = True
        if was_told:
            self.again_at = now + AGAIN_S
            self.must_look = True
        elif self.again_at is not None and now >= self.again_at:
            self.again_at = None
            self.must_look = True
        if self.must_look and not self.ids:
            self._looked_at = now
            self._transactions.read_once(self._find)
            self.must_look = len(self.ids) == MOST
            if self.ids:
                self._hot_until = now + HOT_S

    # finding

    def _find(self, connection: Connection) -> None:
        """Find rows for owned workers; or one that was postponed, alone."""
        found: dict[int, FoundRow] = {}
        due: dict[int, FoundRow] = {}
        jobs: dict[int, str | None] = {}
        now = self._clock.monotonic()
        for row in inbox_rows.find(connection, MOST + len(self.postponed)):
            jobs[row.id] = row.job_id
            known = self.postponed.get(row.id)
            if known is None or known.job_id != row.job_id:  # SQLite may have given the id to another row
                self.postponed.pop(row.id, None)
                if self._is_for_me(row):
                    found[row.id] = row
            elif known.until <= now >= self._retry_at and self._is_for_me(row):
                due[row.id] = row
        if due:
            found = dict([next(iter(due.items()))])
            self.isolate_next = 1
        self.ids, self.found, self._jobs = list(found), found, jobs
        self.postponed = {id: known for id, known in self.postponed.items() if id in jobs}
        self._rejected = {id: known for id, known in self._rejected.items() if id in jobs}

    def _is_for_me(self, row: FoundRow) -> bool:
        """Whether this runtime owns the worker of a row. A worker that no runtime owns is asked for."""
        flows = self._workers.flows
        if row.worker_id is None:
            if not flows.has(row.flow):
                return False
            if self._workers.newest_of(row.flow) is None:
                self._wanted_flows.add(row.flow)
                return False
            return True
        if self._workers.get(row.worker_id) is not None:
            return True
        if flows.has(row.flow) and row.key is not None and (row.owner is None or row.owner_state == "dead"):
            self._wanted_workers.add(row.worker_id)
        return False

    @property
    def wants_workers(self) -> bool:
        return bool(self._wanted_flows or self._wanted_workers)

    def take_wanted_flows(self) -> set[str]:
        """Flows that a row wants a worker of."""
        flows, self._wanted_flows = self._wanted_flows, set()
        return flows

    def take_wanted_workers(self) -> set[str]:
        """Workers that a row wants and that no runtime owns."""
        worker_ids, self._wanted_workers = self._wanted_workers, set()
        return worker_ids

    # taking, in a commit

    def isolate_one(self) -> None:
        """The next row goes alone, in a commit of its own."""
        self.isolate_next -= 1

    def take(self, commit: Commit, batch: Batch) -> list[InboxRow]:
        """Delete what was found and is still there. A commit that is sent again takes the same rows.

        A row whose worker was given back since it was found is left to the next owner.
        """
        if batch.inbox_ids is None:
            owned = tuple(id for id in self.ids if self._is_owned(self.found[id]))
            batch.inbox_ids = (owned[:1] if batch.is_for_inbox else ()) if self.isolate_next else owned
        return commit.take_inbox(batch.inbox_ids) if batch.inbox_ids else []

    def _is_owned(self, row: FoundRow) -> bool:
        if row.worker_id is None:
            return self._workers.newest_of(row.flow) is not None
        return self._workers.get(row.worker_id) is not None

    def posts(self, rows: Sequence[InboxRow]) -> list[PostIn]:
        """The posts among the rows, as the engine takes them."""
        return [self._post(row) for row in rows if row.kind == "post"]

    def _post(self, row: InboxRow) -> PostIn:
        body = orjson.loads(row.body)
        worker_id = row.worker_id
        if worker_id is None:
            newest = self._workers.newest_of(row.flow)
            worker_id = "" if newest is None else newest.worker_id
        assert row.job_id is not None
        post = Post(row.job_id, body["payload"], row.metadata, body.get("due_at"), body.get("fingerprint"))
        return PostIn(row.flow, worker_id, body["routine"], body["slot"], [post], Receipt(), inbox_id=row.id)

    def apply(self, batch: Batch, rows: Sequence[InboxRow], taken: Taken) -> None:
        """Carry out the rows that this commit has deleted."""
        if self.ids:
            self.forget()
        for row in rows:
            before = len(batch.refusals)
            try:
                self._apply_one(batch, row, taken)
            except (RoutiluxError, KeyError, TypeError) as error:  # increment() of a text is a TypeError
                self._refused(row, error)
            for _, cause in batch.refusals[before:]:
                self._refused(row, cause)
                self._keep_refused(batch, row, cause, taken)

    def _apply_one(self, batch: Batch, row: InboxRow, taken: Taken) -> None:
        rejected = self._rejected.get(row.id)
        if rejected is not None and rejected.job_id == row.job_id:
            batch.after_commit.append(lambda: self._clear(row.id))
            if row.kind == "post":
                batch.refusals.append((Receipt(), rejected.cause))
            else:
                self._refused(row, rejected.cause)
        elif row.kind == "post":
            post = self._post(row)
            cell = self._workers.get(post.worker_id)
            acceptance.accept(batch, cell, post, taken, self._clock)
        else:
            command = command_of(row.kind, row.worker_id, row.job_id, orjson.loads(row.body))
            self._handlers.carry_out(batch, command)

    def _refused(self, row: InboxRow, cause: BaseException) -> None:
        self._facts.report("inbox.refused", row_id=row.id, kind=row.kind, job_id=row.job_id, error=cause)

    def _keep_refused(self, batch: Batch, row: InboxRow, error: BaseException, taken: Taken) -> None:
        """Keep a post that cannot be accepted as a failed job with a dead letter; it can be sent again.

        It keeps its job id, unless another job has that already.
        """
        cell = self._workers.get(row.worker_id or "") or self._workers.newest_of(row.flow)
        if cell is not None and row.job_id is not None:
            body = orjson.loads(row.body)
            job_id = new_id() if row.job_id in taken else row.job_id
            acceptance.keep_refused(batch, cell, job_id, row.metadata, body, error)
            taken.setdefault(row.job_id, (cell.worker_id, body.get("fingerprint", "")))

    # when the database refuses a commit with rows in it

    def commit_refused(self, ids: tuple[int, ...], inputs: int, cause: BaseException) -> None:
        """A commit that took these rows, and so many other inputs, was refused."""
        if len(ids) > 1 or inputs:
            self.isolate_next = len(ids)
        elif ids[0] not in self._rejected:
            self._rejected[ids[0]] = Rejected(cause, self._jobs.get(ids[0]))
        elif not isinstance(cause, SQLAlchemyError):
            self._facts.report("inbox.undecodable", row_id=ids[0], error=cause)
            self._transactions.fenced(lambda commit: commit.take_inbox(ids))
            self._clear(ids[0])
        else:
            self._postpone(ids[0], cause)
        self.forget()

    def _postpone(self, row_id: int, cause: BaseException) -> None:
        known, now = self.postponed.get(row_id), self._clock.monotonic()
        pause = PAUSES_S[0] if known is None else min(PAUSES_S[1], 2 * known.pause)
        self.postponed[row_id] = Postponed(now + pause, pause, self._jobs.get(row_id))
        self._retry_at = now + RETRY_S
        self._facts.report("inbox.postponed", row_id=row_id, error=cause, pause_s=pause)
        self._clear(row_id)

    def _clear(self, row_id: int) -> None:
        """The row is gone, or will be tried again."""
        self._rejected.pop(row_id, None)
