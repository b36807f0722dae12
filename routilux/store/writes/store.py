"""The database as the engine sees it: group commits and short reads.

More of the engine's SQL is in `commit_rows`, `ownership` and `reads/`.

A `Commit` is one open group commit. The order: the fence; what must be known before the engine decides (user
statements, idempotency keys, inbox rows); the rows; the commit row, which later answers "was it committed?".
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

Group = Sequence[tuple[Any, Any]]  # the user statements of one activation, with their parameters


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
# KEY SHARE: a heartbeat does not wait for it; a take-over (FOR UPDATE) does
_FENCE_POSTGRES = f"{_FENCE} FOR KEY SHARE"
_COMMIT_ROW = text(
    "INSERT INTO routilux_commits (runtime, n, in_flight, committed_at) VALUES (:key, :n, :in_flight, :now)"
    " ON CONFLICT DO NOTHING"
)
_COMMIT_IS_IN = text("SELECT 1 FROM routilux_commits WHERE runtime = :key AND n = :n")
_INBOX_COLUMNS = "id, kind, flow, worker_id, job_id, metadata, body, created_at"
_TAKE_INBOX = {
    "sqlite": text(
        "DELETE FROM routilux_inbox WHERE id IN (SELECT value FROM json_each(:ids))"
        f" RETURNING {_INBOX_COLUMNS}"
    ),
    "postgresql": text(
        "DELETE FROM routilux_inbox WHERE id IN (SELECT CAST(v AS bigint) FROM"
        f" jsonb_array_elements_text(CAST(:ids AS jsonb)) AS r(v)) RETURNING {_INBOX_COLUMNS}"
    ),
}
_CLAIM_KEYS = {
    "sqlite": text(
        "INSERT INTO routilux_job_keys (job_id, fingerprint, created_at) SELECT json_extract(value, '$[0]'),"
        " json_extract(value, '$[1]'), :now FROM json_each(:rows) WHERE true"
        " ON CONFLICT DO NOTHING RETURNING job_id"
    ),
    "postgresql": text(
        "INSERT INTO routilux_job_keys (job_id, fingerprint, created_at) SELECT v ->> 0, v ->> 1, :now FROM"
        " jsonb_array_elements(CAST(:rows AS jsonb)) AS r(v) ORDER BY 1"
        " ON CONFLICT DO NOTHING RETURNING job_id"
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
        "SELECT job_id, fingerprint FROM routilux_job_keys WHERE job_id IN"
        " (SELECT value FROM json_each(:ids))"
    ),
    "postgresql": text(
        "SELECT job_id, fingerprint FROM routilux_job_keys WHERE job_id IN"
        " (SELECT v FROM jsonb_array_elements_text(CAST(:ids AS jsonb)) AS r(v))"
    ),
}
# How a job without a key row was posted: its first message, which exists as long as the job does.
_POSTED_AS = text(
    "SELECT j.flow, m.routine, m.slot, m.payload FROM routilux_jobs AS j JOIN routilux_messages AS m"
    " ON m.worker = j.worker AND m.job = j.job AND m.produced_by IS NULL WHERE j.job_id = :job_id"
    " ORDER BY m.seq LIMIT 1"
)


def as_json(values: Sequence[object]) -> str:
    """A list as the JSON parameter of the statements above."""
    return orjson.dumps(values).decode()


class Commit:
    """One open group commit."""

    def __init__(self, connection: Connection, runtime: int) -> None:
        self.connection = connection
        self._runtime = runtime
        self._dialect = connection.dialect.name

    def fence(self) -> None:
        """Lock the row of this runtime. Raises `Fenced` if the runtime is dead."""
        if self._dialect == "sqlite":
            is_alive = driver_sql.send(self.connection, _FENCE.format("?"), (self._runtime,)).fetchone()
        elif ANSWER in self.connection.info:
            is_alive = self.connection.info.pop(ANSWER)
        else:
            is_alive = self.connection.exec_driver_sql(_FENCE_POSTGRES.format(self._runtime)).first()
        if is_alive is None:
            raise Fenced

    def mark(self, runtime: int, n: int, in_flight: str, now: int) -> None:
        """Insert the row of a commit that is sent again. Raises `AlreadyIn` if an earlier try was committed.

        The insert waits for an earlier try that is still open.
        """
        row = {"key": runtime, "n": n, "in_flight": in_flight, "now": now}
        if self.connection.execute(_COMMIT_ROW, row).rowcount != 1:
            raise AlreadyIn

    def went_in(self, runtime: int, n: int) -> bool:
        """Whether this commit is stored.

        Certain once the runtime is dead: declaring it dead waits for its commits.
        """
        return self.connection.execute(_COMMIT_IS_IN, {"key": runtime, "n": n}).first() is not None

    def take_inbox(self, ids: Sequence[int]) -> list[InboxRow]:
        """Delete these rows. Returns those that still existed, in the order in which they were written."""
        rows = self.connection.execute(_TAKE_INBOX[self._dialect], {"ids": as_json(ids)})
        return sorted((InboxRow(*row) for row in rows), key=lambda row: row.id)

    def claim_keys(self, keys: dict[str, str], now: int) -> set[str]:
        """Insert idempotency keys.

        Returns those that were free. Waits for other transactions that insert the same.
        """
        rows = as_json([[job_id, fingerprint] for job_id, fingerprint in keys.items()])
        claimed = self.connection.execute(_CLAIM_KEYS[self._dialect], {"rows": rows, "now": now})
        return {row.job_id for row in claimed}

    def free_keys(self, job_ids: Sequence[str]) -> None:
        """Delete keys that this transaction claimed but does not need."""
        self.connection.execute(_FREE_KEYS[self._dialect], {"ids": as_json(job_ids)})

    def known_keys(self, job_ids: Sequence[str]) -> dict[str, str]:
        """job id -> fingerprint, for those that have a key row."""
        found = self.connection.execute(_KEYS_OF[self._dialect], {"ids": as_json(job_ids)})
        return {row.job_id: row.fingerprint for row in found}

    def job_workers(self, job_ids: Sequence[str]) -> dict[str, str]:
        """job id -> worker id, for those that have a job row."""
        found = self.connection.execute(_JOB_WORKERS[self._dialect], {"ids": as_json(job_ids)})
        return {row.job_id: row.worker_id for row in found}

    def posted_as(self, job_id: str) -> tuple[str, str, str, str] | None:
        """The flow, routine, slot and payload text of the post of a job.

        Returns None if there is no such job.
        """
        row = self.connection.execute(_POSTED_AS, {"job_id": job_id}).first()
        return None if row is None else (row.flow, row.routine, row.slot, row.payload)

    def own_together(self, groups: Sequence[Group]) -> bool:
        """Run the user statements of many activations in one savepoint. Returns False if it was rolled back.

        Raises `TransactionEnded` if a statement ended the transaction. Raises the error itself if it is
        transient, like a full disk: no statement is to blame, and the whole commit is tried again.
        """
        return self._in_savepoint(groups) is None

    def own_alone(self, group: Group) -> BaseException | None:
        """Run the user statements of one activation in their own savepoint.

        Returns the error that rolled them back, or None. Raises as `own_together`.
        """
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
            # has_run: RELEASE failed, and SQLAlchemy has not rolled the savepoint back
            if has_run or self._concerns_whole_commit(error):
                raise
            if not self.is_open:
                raise TransactionEnded from error
            return error
        return None

    def _concerns_whole_commit(self, error: BaseException) -> bool:
        """Whether the whole commit must be tried again.

        Not for RETRY on Postgres: a user statement that waits for the lock of another program is tried later,
        and the rest of the commit continues.
        """
        kind = classify(error)
        return kind in (Failure.LOST, Failure.FULL, Failure.READ_ONLY) or (
            kind is Failure.RETRY and self._dialect == "sqlite"
        )

    def limit_lock_wait(self, milliseconds: int | None) -> None:
        """Postgres: limit how long the user statements that follow wait for a lock.

        None: back to the engine's own.
        """
        if self._dialect == "postgresql":
            wait, plans = (LOCK_TIMEOUT_MS, BY_KEY) if milliseconds is None else (milliseconds, AS_USUAL)
            self.connection.exec_driver_sql(f"SET LOCAL lock_timeout = {wait}; {plans}")

    def _run(self, group: Group) -> None:
        for statement, parameters in group:
            self.connection.execute(statement, parameters)
            if not self.is_open:
                raise TransactionEnded

    def _check_constraints(self) -> None:
        """Check deferred constraints inside the savepoint, not at the shared COMMIT."""
        if self._dialect == "postgresql":
            self.connection.exec_driver_sql("SET CONSTRAINTS ALL IMMEDIATE")

    @property
    def is_open(self) -> bool:
        """Whether the transaction that this code began is still open in the database."""
        driver: Any = self.connection.connection.driver_connection
        if self._dialect == "sqlite":
            return bool(driver.in_transaction)
        # INTRANS, INERROR (rolling back the savepoint ends INERROR)
        return int(driver.info.transaction_status) in (2, 3)


class Store:
    """Group commits and short reads of one runtime."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._writer = database.connect_writer()
        self.sends_whole = database.is_postgres  # whether `commit_whole` can do anything

    @contextmanager
    def commit(self, runtime: int) -> Iterator[Commit]:
        """One transaction of the engine of this runtime.

        Call `fence` first. COMMIT is at the end of the block.
        """
        with self._writer.transaction(_FENCE_POSTGRES.format(runtime)) as connection:
            yield Commit(connection, runtime)

    def commit_whole(self, changes: Changes, commit_row: CommitRow) -> bool | None:
        """Postgres: a small group commit in one round trip; see `single_roundtrip.send`."""
        return single_roundtrip.send(self._writer, changes, commit_row)

    @property
    def commits(self) -> int:
        """The number of engine transactions so far."""
        return self._writer.transactions

    def drop_connection(self) -> None:
        """Close the engine's connection. The next transaction opens a new one."""
        self._writer.drop()

    @contextmanager
    def read(self, *, is_single: bool = False) -> Iterator[Connection]:
        """As `Database.read`. Raises `DatabaseUnavailableError` if the database did not answer."""
        try:
            with self.database.read(is_single=is_single) as connection:
                yield connection
        except SQLAlchemyError as error:
            check_named(error, self.database.url, is_read=True)
            raise
