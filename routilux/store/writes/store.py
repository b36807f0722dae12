"""Everything the runtime asks of the database, by name. All SQL of the engine is here, in `changes` and `loading`.

A `Commit` is one group commit under way: fence first, then what must be known before the engine decides (own
statements, idempotency keys, inbox rows), then the rows, then the commit row that answers "did it go in?".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from routilux.store.backends import driver_sql
from routilux.store.backends.database import Database
from routilux.store.backends.database_url import check_named
from routilux.store.backends.postgres_connection import ANSWER, AS_USUAL, BY_KEY, LOCK_TIMEOUT_MS
from routilux.store.errors import AlreadyIn, Failure, Fenced, TransactionEnded, classify
from routilux.store.writes import single_roundtrip
from routilux.store.writes.commit_rows import Changes, CommitRow

Group = Sequence[tuple[Any, Any]]  # the own statements of one activation, with their parameters


@dataclass(frozen=True, slots=True)
class InboxRow:
    id: int
    kind: str
    flow: str
    worker_id: str | None
    job_id: str | None
    metadata: str | None
    body: str
    created_at: int


_FENCE = "SELECT 1 FROM routilux_runtimes WHERE key = {} AND state = 'alive'"
# KEY SHARE: a heartbeat does not wait for it, a take-over (FOR UPDATE) does
_FENCE_POSTGRES = f"{_FENCE} FOR KEY SHARE"
_COMMIT_ROW = text(
    "INSERT INTO routilux_commits (runtime, n, in_flight, committed_at) VALUES (:key, :n, :in_flight, :now)"
    " ON CONFLICT DO NOTHING"
)
_COMMIT_IS_IN = text("SELECT 1 FROM routilux_commits WHERE runtime = :key AND n = :n")
_INBOX_COLUMNS = "id, kind, flow, worker_id, job_id, metadata, body, created_at"
_TAKE_INBOX = {
    "sqlite": text(
        f"DELETE FROM routilux_inbox WHERE id IN (SELECT value FROM json_each(:ids)) RETURNING {_INBOX_COLUMNS}"
    ),
    "postgresql": text(
        "DELETE FROM routilux_inbox WHERE id IN (SELECT CAST(v AS bigint) FROM"
        f" jsonb_array_elements_text(CAST(:ids AS jsonb)) AS r(v)) RETURNING {_INBOX_COLUMNS}"
    ),
}
_CLAIM_KEYS = {
    "sqlite": text(
        "INSERT INTO routilux_job_keys (job_id, fingerprint, created_at) SELECT json_extract(value, '$[0]'),"
        " json_extract(value, '$[1]'), :now FROM json_each(:rows) WHERE true ON CONFLICT DO NOTHING RETURNING job_id"
    ),
    "postgresql": text(
        "INSERT INTO routilux_job_keys (job_id, fingerprint, created_at) SELECT v ->> 0, v ->> 1, :now FROM"
        " jsonb_array_elements(CAST(:rows AS jsonb)) AS r(v) ORDER BY 1 ON CONFLICT DO NOTHING RETURNING job_id"
    ),
}
_FREE_KEYS = {
    "sqlite": text("DELETE FROM routilux_job_keys WHERE job_id IN (SELECT value FROM json_each(:ids))"),
    "postgresql": text(
        "DELETE FROM routilux_job_keys WHERE job_id IN"
        " (SELECT v FROM jsonb_array_elements_text(CAST(:ids AS jsonb)) AS r(v))"
    ),
}
_JOB_WORKERS = {
    "sqlite": text(
        "SELECT j.job_id, w.worker_id FROM routilux_jobs AS j JOIN routilux_workers AS w ON w.key = j.worker"
        " WHERE j.job_id IN (SELECT value FROM json_each(:ids))"
    ),
    "postgresql": text(
        "SELECT j.job_id, w.worker_id FROM routilux_jobs AS j JOIN routilux_workers AS w ON w.key = j.worker"
        " WHERE j.job_id IN (SELECT v FROM jsonb_array_elements_text(CAST(:ids AS jsonb)) AS r(v))"
    ),
}
_KEYS_OF = {
    "sqlite": text(
        "SELECT job_id, fingerprint FROM routilux_job_keys WHERE job_id IN (SELECT value FROM json_each(:ids))"
    ),
    "postgresql": text(
        "SELECT job_id, fingerprint FROM routilux_job_keys WHERE job_id IN"
        " (SELECT v FROM jsonb_array_elements_text(CAST(:ids AS jsonb)) AS r(v))"
    ),
}
# What a job without a key row was posted as: its first message, still there while the job is.
_POSTED_AS = text(
    "SELECT j.flow, m.routine, m.slot, m.payload FROM routilux_jobs AS j JOIN routilux_messages AS m"
    " ON m.worker = j.worker AND m.job = j.job AND m.produced_by IS NULL WHERE j.job_id = :job_id ORDER BY m.seq LIMIT 1"
)


def as_json(values: Sequence[object]) -> str:
    """A list parameter for the statements above."""
    return orjson.dumps(values).decode()


class Commit:
    """One group commit under way."""

    def __init__(self, connection: Connection, runtime: int) -> None:
        self.connection = connection
        self._runtime = runtime
        self._dialect = connection.dialect.name

    def fence(self) -> None:
        """Lock my row, or learn that I am dead. Raises `Fenced`."""
        if self._dialect == "sqlite":
            is_alive = driver_sql.send(self.connection, _FENCE.format("?"), (self._runtime,)).fetchone()
        elif ANSWER in self.connection.info:
            is_alive = self.connection.info.pop(ANSWER)
        else:
            is_alive = self.connection.exec_driver_sql(_FENCE_POSTGRES.format(self._runtime)).first()
        if is_alive is None:
            raise Fenced

    def mark(self, runtime: int, n: int, in_flight: str, now: int) -> None:
        """Insert the row of a commit that is sent again. Raises `AlreadyIn` if an earlier try went in: the database
        waits for it first."""
        row = {"key": runtime, "n": n, "in_flight": in_flight, "now": now}
        if self.connection.execute(_COMMIT_ROW, row).rowcount != 1:
            raise AlreadyIn

    def went_in(self, runtime: int, n: int) -> bool:
        """Whether the commit of this number is in. Certain once the runtime is dead: its burial waits for commits."""
        return self.connection.execute(_COMMIT_IS_IN, {"key": runtime, "n": n}).first() is not None

    def take_inbox(self, ids: Sequence[int]) -> list[InboxRow]:
        """Delete these rows and return those that were still there, in the order they were written."""
        rows = self.connection.execute(_TAKE_INBOX[self._dialect], {"ids": as_json(ids)})
        return sorted((InboxRow(*row) for row in rows), key=lambda row: row.id)

    def claim_keys(self, keys: dict[str, str], now: int) -> set[str]:
        """Insert idempotency keys; returns those that were free. Waits for others who insert the same."""
        rows = as_json([[job_id, fingerprint] for job_id, fingerprint in keys.items()])
        claimed = self.connection.execute(_CLAIM_KEYS[self._dialect], {"rows": rows, "now": now})
        return {row.job_id for row in claimed}

    def free_keys(self, job_ids: Sequence[str]) -> None:
        """Delete keys that this transaction claimed for nothing."""
        self.connection.execute(_FREE_KEYS[self._dialect], {"ids": as_json(job_ids)})

    def known_keys(self, job_ids: Sequence[str]) -> dict[str, str]:
        """job id -> fingerprint, of those that have a key row."""
        found = self.connection.execute(_KEYS_OF[self._dialect], {"ids": as_json(job_ids)})
        return {row.job_id: row.fingerprint for row in found}

    def job_workers(self, job_ids: Sequence[str]) -> dict[str, str]:
        """job id -> worker id, of those that have a job row."""
        found = self.connection.execute(_JOB_WORKERS[self._dialect], {"ids": as_json(job_ids)})
        return {row.job_id: row.worker_id for row in found}

    def posted_as(self, job_id: str) -> tuple[str, str, str, str] | None:
        """flow, routine, slot and payload text that a job was posted with."""
        row = self.connection.execute(_POSTED_AS, {"job_id": job_id}).first()
        return None if row is None else (row.flow, row.routine, row.slot, row.payload)

    def own_together(self, groups: Sequence[Group]) -> bool:
        """Run the own statements of many activations in one savepoint. False: nothing of it is there.

        Raises `TransactionEnded` when a statement ended the transaction, the error itself when it passes, like a full
        disk: then it is nobody's fault, and the whole commit is tried again.
        """
        return self._in_savepoint(groups) is None

    def own_alone(self, group: Group) -> BaseException | None:
        """Run those of one activation in a savepoint of their own; the error that undid them, if any. Raises as above."""
        return self._in_savepoint([group])

    def _in_savepoint(self, groups: Sequence[Group]) -> BaseException | None:
        has_run = False
        try:
            with self.connection.begin_nested():
                for group in groups:
                    self._run(group)
                self._check_constraints()
                has_run = True
        except TransactionEnded:
            raise
        except Exception as error:
            if has_run or self._passes(error):  # RELEASE failed: SQLAlchemy has not rolled the savepoint back
                raise
            if not self.is_open:
                raise TransactionEnded from error
            return error
        return None

    def _passes(self, error: BaseException) -> bool:
        """Postgres: an own statement that waits for a stranger's lock is tried later, the rest of the commit goes on."""
        kind = classify(error)
        return kind in (Failure.LOST, Failure.FULL, Failure.READ_ONLY) or (
            kind is Failure.RETRY and self._dialect == "sqlite"
        )

    def limit_lock_wait(self, milliseconds: int | None) -> None:
        """Postgres: the next statements are the user's and may wait so long for a stranger's lock; None: they are ours."""
        if self._dialect == "postgresql":
            wait, plans = (LOCK_TIMEOUT_MS, BY_KEY) if milliseconds is None else (milliseconds, AS_USUAL)
            self.connection.exec_driver_sql(f"SET LOCAL lock_timeout = {wait}; {plans}")

    def _run(self, group: Group) -> None:
        for statement, parameters in group:
            self.connection.execute(statement, parameters)
            if not self.is_open:
                raise TransactionEnded

    def _check_constraints(self) -> None:
        """Deferred constraints are checked inside the savepoint, not by the COMMIT of everybody."""
        if self._dialect == "postgresql":
            self.connection.exec_driver_sql("SET CONSTRAINTS ALL IMMEDIATE")

    @property
    def is_open(self) -> bool:
        """Whether the database still has the transaction that we began."""
        driver: Any = self.connection.connection.driver_connection
        if self._dialect == "sqlite":
            return bool(driver.in_transaction)
        return int(driver.info.transaction_status) in (2, 3)  # INTRANS, INERROR (a savepoint will end that)


class Store:
    """Group commits and short reads of one runtime."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._writer = database.connect_writer()

    @contextmanager
    def commit(self, runtime: int) -> Iterator[Commit]:
        """One transaction of the engine of this runtime; `fence` first, COMMIT at the end of the block."""
        with self._writer.transaction(_FENCE_POSTGRES.format(runtime)) as connection:
            yield Commit(connection, runtime)

    def commit_whole(self, changes: Changes, commit_row: CommitRow) -> bool | None:
        """A small group commit in one go, on Postgres; see `single_roundtrip.send`."""
        return single_roundtrip.send(self._writer, changes, commit_row)

    @property
    def commits(self) -> int:
        """Transactions of the engine so far."""
        return self._writer.transactions

    def drop_connection(self) -> None:
        """Throw the engine's connection away; the next transaction has a new one."""
        self._writer.drop()

    @contextmanager
    def read(self, *, is_single: bool = False) -> Iterator[Connection]:
        """As `Database.read`. Raises `DatabaseUnavailableError` when it did not answer."""
        try:
            with self.database.read(is_single=is_single) as connection:
                yield connection
        except SQLAlchemyError as error:
            check_named(error, self.database.url, is_read=True)
            raise
