"""The database file of a simulated world, and the accidents of its transactions.

All worlds use one file. It is emptied between two worlds. Its connections stay open: opening them takes
longer than most worlds. Each write of the real store passes `_transaction` and `_before_statement`, each read
`_read` and `_before_read`. Accidents happen there.
"""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, MetaData, create_engine, event
from sqlalchemy.exc import IntegrityError, OperationalError

from routilux.store import schema
from routilux.store.backends.database import Database
from routilux.store.writes.commit_rows import Changes, CommitRow
from routilux.store.writes.store import Store
from routilux.testing.simulation.delayed_commits import Statement, Text, Unread, Who


class Crash(BaseException):
    """The process dies at this statement. No handler of the engine may catch it."""


class _Sent(Exception):
    """All statements of a commit are recorded."""


class Arena:
    """A migrated SQLite file with a `Database` for each simulated process."""

    def __init__(self, tables: MetaData | None, processes: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="routilux-simulation-")
        self.path = Path(self._folder.name) / "world.db"
        url = f"sqlite:///{self.path}"
        schema.upgrade(url)
        if tables is not None:
            engine = create_engine(url)
            tables.create_all(engine)
            engine.dispose()
        self.databases = [Database.open(url, durability="process_crash") for _ in range(processes)]
        self.stores = [Store(database) for database in self.databases]
        # the model's own: it shares nothing with the engine
        self.reader = sqlite3.connect(self.path, isolation_level=None)
        self._lander = sqlite3.connect(self.path, isolation_level=None)
        self._tables = _tables_of(self.reader)
        shared = self.databases[0]._shared
        assert shared is not None
        self._shared, self._begin = shared, shared.transaction
        shared.transaction = self._transaction  # type: ignore[method-assign]
        event.listen(shared._engine, "before_cursor_execute", self._before_statement)
        for database in self.databases:
            database.read = partial(self._read, database.read)  # type: ignore[method-assign]
            event.listen(database._engine, "before_cursor_execute", self._before_read)
        self.reset(lambda: (None, 0), lambda who: None, lambda: None, lambda statement, rows: None)

    def reset(
        self,
        who: Callable[[], Who],
        committed: Callable[[Who], None],
        meanwhile: Callable[[], None],
        told: Callable[[str, int], None],
    ) -> None:
        """Start with an empty world.

        `committed` is called after each commit, with the answer that `who` gave when it was sent; `meanwhile`
        before each statement of a write transaction, COMMIT included; `told` before each statement, with its
        text and its number of rows.
        """
        self.fails_in: int | None = None  # statements until `failure` happens
        self.failure: BaseException = Crash()
        self.read_fails_in: int | None = None  # statements of reads until one fails
        self.read_end_fails_in: int | None = None  # reads until one fails at its end
        # the fate of the next group commit: "not in", "in", "late" or "late, and its process is gone"
        self.lost_answer: str | None = None
        # for the next whole commit: `Text.left`, and whether its process dies
        self.unread: tuple[int, bool] | None = None
        # a table, and how many statements that write it are refused
        self.refuses: tuple[str, int] | None = None
        self.refused_count = 0
        self.commits = 0
        self._is_sending = False
        self._pending: tuple[Who, list[Statement]] | None = None
        self._sent: list[Statement] = []
        self._committed: Callable[[Who], None] = lambda who: None
        self._told: Callable[[str, int], None] = lambda statement, rows: None
        self._who = who
        self._meanwhile: Callable[[], None] = lambda: None
        for store in self.stores:
            store._writer.before_commit = self._before_commit
            store._writer.after_commit = self._after_commit
            store.sends_whole = True
            store.commit_whole = partial(self._commit_whole, store)  # type: ignore[method-assign]
            store.drop_connection()
        self._lander.execute("BEGIN IMMEDIATE")
        for name in self._tables:
            self._lander.execute(f'DELETE FROM "{name}"')
        self._lander.execute("COMMIT")
        self._committed, self._told = committed, told
        self._meanwhile = meanwhile
        self._unread = Unread(self._lander, committed, told)

    def close(self) -> None:
        event.remove(self._shared._engine, "before_cursor_execute", self._before_statement)
        self._shared.transaction = self._begin  # type: ignore[method-assign]
        self.reader.close()
        self._lander.close()
        for database in self.databases:
            database.close()
        self._folder.cleanup()

    def calm(self) -> None:
        """No more accidents."""
        self.fails_in = self.lost_answer = self.read_fails_in = self.read_end_fails_in = None
        self.unread = self.refuses = None
        self._unread.read_on(reads_all=True)

    # accidents of reads

    @contextlib.contextmanager
    def _read(
        self, begin: Callable[..., AbstractContextManager[Connection]], *, is_single: bool = False
    ) -> Iterator[Connection]:
        with begin(is_single=is_single) as connection:
            yield connection
        left, self.read_end_fails_in = self.read_end_fails_in, _less(self.read_end_fails_in)
        _fail_at_last(left)

    def _before_read(self, connection: Connection, cursor: Any, statement: str, *rest: Any) -> None:
        self._told(statement, 1)
        left, self.read_fails_in = self.read_fails_in, _less(self.read_fails_in)
        _fail_at_last(left)

    # accidents of write transactions

    @contextlib.contextmanager
    def _transaction(self, synchronous: str, timeout_s: float) -> Iterator[Connection]:
        self.land()
        self._unread.read_on()
        self._sent = []
        with self._begin(synchronous, timeout_s) as connection:
            yield connection
        self.commits += 1
        self._committed(self._who())

    def land(self) -> None:
        """A commit whose answer was lost goes in now, before the next write, as it could on a server."""
        if self._pending is not None:
            (who, statements), self._pending = self._pending, None
            self._lander.execute("BEGIN IMMEDIATE")
            for statement, parameters in statements:
                self._told(statement, 1)
                # a user statement, which failed the first time too
                with contextlib.suppress(sqlite3.IntegrityError):
                    self._lander.execute(statement, parameters)
            self._lander.execute("COMMIT")
            self._committed(who)

    def _before_statement(
        self, connection: Connection, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
    ) -> None:
        self._told(statement, len(parameters) if many else 1)
        if not self._is_sending:
            self._meanwhile()
            self._count_down()
            self._refuse(statement)
        if not statement.startswith(("BEGIN", "SELECT", "PRAGMA")):
            self._sent.extend((statement, row) for row in (parameters if many else [parameters]))

    def _refuse(self, statement: str) -> None:
        """Refuse a statement. Not with inbox rows in the commit: their posts would become dead letters."""
        if self.refuses is None or any(
            sent.startswith("DELETE FROM routilux_inbox") for sent, _ in self._sent
        ):
            return
        table, left = self.refuses
        if statement.startswith(f"INSERT INTO {table} "):
            self.refuses = (table, left - 1) if left > 1 else None
            self.refused_count += 1
            error = sqlite3.IntegrityError("the database refuses it")
            error.sqlite_errorcode = sqlite3.SQLITE_CONSTRAINT
            raise IntegrityError(statement, {}, error)

    def _commit_whole(self, store: Store, changes: Changes, row: CommitRow) -> bool | None:
        """Keep an unread commit as one text, as Postgres gets it. Otherwise send nothing, as on SQLite."""
        if self.unread is None or changes.whole(row) is None:
            return None
        (left, is_gone), self.unread = self.unread, None
        self._is_sending = True
        try:
            with contextlib.suppress(_Sent), store._writer.transaction() as connection:
                changes.write(connection, row)
                raise _Sent
        finally:
            self._is_sending = False
        runtime, n, *_ = row
        self._unread.keep(Text(self._who(), runtime, n, self._sent, left))
        raise Crash if is_gone else database_error(sqlite3.SQLITE_CANTOPEN, "the connection is lost")

    def _count_down(self) -> None:
        if self.fails_in is not None:
            self.fails_in -= 1
            if self.fails_in <= 0:
                self.fails_in = None
                raise self.failure

    def _before_commit(self, connection: Connection) -> None:
        self._meanwhile()
        self._count_down()  # COMMIT is a statement as well
        if self.lost_answer is not None and self.lost_answer != "in":
            fate, self.lost_answer = self.lost_answer, None
            if fate != "not in":
                self._pending = (self._who(), self._sent)
            if fate not in ("not in", "late"):
                raise Crash
            raise database_error(sqlite3.SQLITE_CANTOPEN, "the answer is lost")

    def _after_commit(self) -> None:
        if self.lost_answer == "in":
            self.lost_answer = None
            raise database_error(sqlite3.SQLITE_CANTOPEN, "the answer is lost")


def _less(left: int | None) -> int | None:
    return left - 1 if left is not None and left > 1 else None


def _fail_at_last(left: int | None) -> None:
    if left == 1:
        raise database_error(sqlite3.SQLITE_CANTOPEN, "the connection is lost")


def database_error(code: int, text: str) -> OperationalError:
    """What SQLAlchemy raises for an error of the driver."""
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    return OperationalError("a statement", {}, error)


def _tables_of(connection: sqlite3.Connection) -> list[str]:
    """The tables that a world fills: all but the version of the schema."""
    found = connection.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table'"
        " AND (name NOT LIKE 'sqlite_%' OR name = 'sqlite_sequence')"
    )
    return [name for (name,) in found if "version" not in name]
