"""The engine's group commits, on a connection that it keeps.

On SQLite that is the one write connection of the process, shared with all other writers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from sqlalchemy import Connection

from routilux.store.backends import driver_sql, notify, postgres_connection
from routilux.store.backends.prepared_statements import Prepared


class WritableDatabase(Protocol):
    """The database of a writer, as far as the writer uses it. `Database` is one."""

    is_postgres: bool

    @property
    def begin_write(self) -> str: ...
    @property
    def begin_rows(self) -> str: ...
    def write(self) -> contextlib.AbstractContextManager[Connection]: ...
    def connect_kept(self) -> Connection: ...
    def drop_writer(self) -> None: ...


class Writer:
    """The engine's own connection. For one thread at a time.

    `before_commit(connection)` and `after_commit()` are called around COMMIT if set. Tests make them raise.
    """

    def __init__(self, database: WritableDatabase) -> None:
        self._database = database
        self._connection: Connection | None = None
        self.before_commit: Callable[[Connection], None] | None = None
        self.after_commit: Callable[[], None] | None = None
        self.transactions = 0

    @contextlib.contextmanager
    def transaction(self, ask: str = "") -> Iterator[Connection]:
        """One write transaction, as `Database.write`. After an error: `classify` it; if it is LOST, `drop`.

        `ask`: Postgres: a SELECT of one row that may be sent with BEGIN; see `postgres_connection.ANSWER`.
        """
        with self._transaction(ask) as connection:
            self.transactions += 1
            yield connection
            if self.before_commit is not None:
                self.before_commit(connection)
        if self.after_commit is not None:
            self.after_commit()

    def send_whole(self, parts: Sequence[driver_sql.Literal]) -> None:
        """Postgres: one write transaction in one round trip. Errors as in `transaction`."""
        connection = self._kept()
        self.transactions += 1
        if self.before_commit is not None:
            self.before_commit(connection)
        with Prepared.of(connection).text(parts) as statements:
            begin = (
                self._database.begin_rows
                if all(part.is_plain for part in parts)
                else self._database.begin_write
            )
            values = [value for part in parts for value in part.values]
            driver_sql.send_whole(connection, f"{begin}; {statements}; COMMIT", values)
        if self.after_commit is not None:
            self.after_commit()

    @property
    def can_send_whole(self) -> bool:
        """Whether it is Postgres and no listener is registered for statements."""
        return self._database.is_postgres and not driver_sql.is_watched(self._kept())

    @property
    def ear(self) -> Connection | None:
        """The connection if it listens (`notify.listen`), otherwise None."""
        connection = self._connection
        return connection if connection is not None and notify.listens(connection) else None

    def drop(self) -> None:
        """Close the connection. The next transaction opens a new one."""
        self._database.drop_writer()
        self.close()

    def close(self) -> None:
        """Close its own connection (Postgres), not the shared one (SQLite)."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.invalidate()
            with contextlib.suppress(Exception):
                connection.close()

    @contextlib.contextmanager
    def _transaction(self, ask: str) -> Iterator[Connection]:
        if not self._database.is_postgres:
            with self._database.write() as connection:
                yield connection
            return
        connection = self._kept()
        if ask:
            connection.info[postgres_connection.ASK] = ask
        with connection.begin():
            yield connection

    def _kept(self) -> Connection:
        """Postgres: the connection. Opens a new one if there is none or it is closed."""
        if self._connection is None or self._connection.closed or self._connection.invalidated:
            self.drop()
            self._connection = self._database.connect_kept()
        return self._connection
