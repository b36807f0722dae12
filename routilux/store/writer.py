"""The engine's group commits on a connection that it keeps. On SQLite that is the one which all writing of the process shares."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from routilux.store import listening, postgres_server

if TYPE_CHECKING:
    from routilux.store.database import Database


class Writer:
    """The engine's own connection. For one thread at a time.

    `before_commit(connection)` and `after_commit()` are called around COMMIT if set: tests let them raise.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: Connection | None = None
        self.before_commit: Callable[[Connection], None] | None = None
        self.after_commit: Callable[[], None] | None = None
        self.transactions = 0

    @contextlib.contextmanager
    def transaction(self, ask: str = "") -> Iterator[Connection]:
        """One write transaction, as `Database.write`. After an error `classify` it; if LOST, `drop`.

        `ask`: on Postgres a SELECT of one row that may travel with BEGIN; see `postgres_server.ANSWER`.
        """
        with self._begun(ask) as connection:
            self.transactions += 1
            yield connection
            if self.before_commit is not None:
                self.before_commit(connection)
        if self.after_commit is not None:
            self.after_commit()

    @property
    def ear(self) -> Connection | None:
        """The connection, if it listens (`listening.listen`)."""
        connection = self._connection
        return connection if connection is not None and listening.listens(connection) else None

    def drop(self) -> None:
        """Throw the connection away; the next transaction has a new one."""
        self._database.drop_writer()
        self.close()

    def close(self) -> None:
        """Let go of its own connection, not of the one that it shares."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.invalidate()
            with contextlib.suppress(Exception):
                connection.close()

    @contextlib.contextmanager
    def _begun(self, ask: str) -> Iterator[Connection]:
        if self._database.is_sqlite:
            with self._database.write() as connection:
                yield connection
            return
        if self._connection is None or self._connection.closed or self._connection.invalidated:
            self.drop()
            self._connection = self._database.connect_kept()
        if ask:
            self._connection.info[postgres_server.ASK] = ask
        with self._connection.begin():
            yield self._connection
