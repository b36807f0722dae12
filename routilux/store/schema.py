"""The schema: which revision a database has, and how it gets the revision that this code needs.

A runtime calls `ensure` at start. If the schema is current, that is one query; Alembic is imported only for
an upgrade. SQLite is upgraded automatically. Postgres is upgraded by an operator (`routilux db upgrade`), who
decides when. The revisions are in the package `routilux_migrations`. This module knows their names, not their
content.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, inspect, make_url, pool, text
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from routilux.errors import SchemaForeignError, SchemaMissingError, SchemaTooNewError, SchemaTooOldError
from routilux.store.backends import postgres_connection
from routilux.store.backends.database_url import check_named
from routilux.store.tables import PREFIX, metadata

REVISIONS = (
    "0001",
    "0002",
)  # a test compares them with the scripts; reading the scripts needs Alembic
HEAD = REVISIONS[-1]
VERSION_TABLE = f"{PREFIX}alembic_version"
VIEWS = tuple(
    PREFIX + name for name in ("job_history", "activation_history", "queue_depth", "dead_letters", "lineage")
)
BUSY_S = 30.0
WAL_RESET_FIXED = (3, 51, 3)

_VERSION = text(f"SELECT version_num FROM {VERSION_TABLE}")
_upgrading = threading.Lock()  # Alembic keeps the running environment in module globals


@dataclass(frozen=True, slots=True)
class SchemaReport:
    """What `check` found."""

    dialect: str
    server_version: str
    current: str | None
    head: str
    state: str  # ok missing old new foreign
    notes: tuple[str, ...] = ()

    @property
    def is_ok(self) -> bool:
        return self.state == "ok"


def ensure(bind: Connection | Engine, url: str, *, is_exclusive: Callable[[], bool] = lambda: True) -> None:
    """Make sure that this code can serve the database. Raises the `SchemaError` that says what to do if not.

    `is_exclusive` is called before an existing SQLite schema is changed. It tells whether no other process is
    alive on the file.
    """
    if isinstance(bind, Engine):
        with bind.connect() as connection:
            ensure(connection, url, is_exclusive=is_exclusive)
        return
    current, state = _find(bind)
    redacted = _redacted(url)
    match state:
        case "ok":
            return
        case "new":
            raise SchemaTooNewError(redacted, current, HEAD)
        case "foreign":
            raise SchemaForeignError(redacted)
        case "missing" | "old" if bind.dialect.name == "sqlite":
            # nobody can use a missing schema yet: two processes may start on a new file at once
            if state == "old" and not is_exclusive():
                raise SchemaTooOldError(redacted, current, HEAD)
            _upgrade_sqlite(bind, url)
        case "missing":
            raise SchemaMissingError(redacted)
        case _:
            raise SchemaTooOldError(redacted, current, HEAD)


def upgrade(url: str) -> None:
    """Upgrade the database to the revision of this code. Durable when it returns; concurrent calls are safe.

    Raises `SchemaTooNewError` or `SchemaForeignError` for a database that this code must not change.
    """
    with _connect(make_url(url)) as connection:
        if connection.dialect.name == "sqlite":
            _prepare_file(connection)
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            if _is_upgradable(connection, url):
                _run_revisions(connection)
            connection.commit()
        elif _is_upgradable(connection, url):
            _run_revisions(connection)


def check(url: str) -> SchemaReport:
    """Report the state of a database. Changes nothing: it does not even create a file."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and not _file_exists(parsed):
        notes = (f"the file {parsed.database} does not exist; the first runtime creates it", *_sqlite_notes())
        return SchemaReport("sqlite", sqlite3.sqlite_version, None, HEAD, "missing", notes)
    with _connect(parsed) as connection:
        current, state = _find(connection)
        missing = _missing_names(connection) if state == "ok" else []
        notes = tuple(f"{name} is missing; it belongs to revision {current}" for name in missing)
        is_sqlite = connection.dialect.name == "sqlite"
        return SchemaReport(
            dialect=connection.dialect.name,
            server_version=sqlite3.sqlite_version if is_sqlite else _setting(connection, "server_version"),
            current=current,
            head=HEAD,
            state="foreign" if missing else state,
            notes=notes + (_sqlite_notes() if is_sqlite else _postgres_notes(connection)),
        )


# the present state


def _find(connection: Connection) -> tuple[str | None, str]:
    """The revision of the database, and its state (see `SchemaReport.state`)."""
    current = _revision(connection)
    state = _state(connection, current)
    if current is None and state == "foreign":
        # tables but no revision: another process may have upgraded between the two reads
        if connection.dialect.name != "sqlite":
            connection.rollback()
        current = _revision(connection)
        state = "foreign" if current is None else _state(connection, current)
    return current, state


def _revision(connection: Connection) -> str | None:
    """The stored revision. Returns None if the version table is missing or empty."""
    was_idle = not connection.in_transaction()
    try:
        return connection.execute(_VERSION).scalar()
    except DBAPIError as error:
        if not _says_no_table(error):
            raise
        return None
    finally:
        if was_idle:
            # Postgres: the error ended the transaction. SQLite: an open read would block the upgrade.
            connection.rollback()


def _says_no_table(error: DBAPIError) -> bool:
    return getattr(error.orig, "sqlstate", None) == "42P01" or "no such table" in str(error.orig)


def _state(connection: Connection, current: str | None) -> str:
    if current == HEAD:
        return "ok"
    if current in REVISIONS:
        return "old"
    if current is not None:
        return "new" if current.isdigit() and current > HEAD else "foreign"
    names = {name for name in inspect(connection).get_table_names() if name.startswith(PREFIX)}
    return "foreign" if names - {VERSION_TABLE} else "missing"


def _missing_names(connection: Connection) -> list[str]:
    inspector = inspect(connection)
    present = {*inspector.get_table_names(), *inspector.get_view_names()}
    return [name for name in (*metadata.tables, *VIEWS) if name not in present]


def _is_upgradable(connection: Connection, url: str) -> bool:
    """Whether an upgrade is needed. Raises if this code must not change the database."""
    current, state = _find(connection)
    match state:
        case "ok":
            return False
        case "new":
            raise SchemaTooNewError(_redacted(url), current, HEAD)
        case "foreign":
            raise SchemaForeignError(_redacted(url))
    if connection.dialect.name != "sqlite":
        connection.rollback()
    return True


# the upgrade


def _run_revisions(connection: Connection) -> None:
    from alembic import command  # imported late: most starts need no upgrade
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "routilux_migrations:.")
    config.attributes["connection"] = connection
    with _upgrading:
        command.upgrade(config, "head")


def _upgrade_sqlite(connection: Connection, url: str) -> None:
    if _is_memory(make_url(url)):
        _run_revisions(connection)  # no other connection can reach a database in memory
        connection.commit()
    else:
        connection.rollback()  # an open read would prevent the change of the journal mode
        upgrade(url)


def _prepare_file(connection: Connection) -> None:
    """Set the modes that are stored in the file.

    auto_vacuum comes first: it has an effect only before the first page is written.
    """
    connection.exec_driver_sql("PRAGMA auto_vacuum = INCREMENTAL")
    until = time.monotonic() + BUSY_S
    while True:
        try:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            return
        except OperationalError as error:
            # unlike other statements, the change of the mode does not wait for a busy file
            if "locked" not in str(error.orig) or time.monotonic() > until:
                raise
            time.sleep(0.05)


@contextmanager
def _connect(url: URL) -> Iterator[Connection]:
    """A connection of its own. SQLite: without the driver's implicit BEGIN, which comes too late for DDL.

    Raises `DatabaseUnavailableError` for a Postgres database that is not in UTF8.
    """
    is_sqlite = url.get_backend_name() == "sqlite"
    arguments = (
        {"isolation_level": None, "timeout": BUSY_S} if is_sqlite else postgres_connection.connect_args(url)
    )
    engine = create_engine(url, poolclass=pool.NullPool, connect_args=arguments)
    try:
        with engine.connect() as connection:
            if not is_sqlite:
                postgres_connection.check_encoding(connection, url.render_as_string(hide_password=True))
                connection.rollback()
            yield connection
    except SQLAlchemyError as error:
        check_named(error, url)
        raise
    finally:
        engine.dispose()


# notes of the report


def _sqlite_notes() -> tuple[str, ...]:
    if sqlite3.sqlite_version_info >= WAL_RESET_FIXED:
        return ()
    return (
        f"SQLite {sqlite3.sqlite_version} has the WAL-reset bug (fixed in 3.51.3). Routilux is safe from it:"
        " its processes write one at a time. Other programs that write here should use"
        " routilux.sqlite_engine()",
    )


def _postgres_notes(connection: Connection) -> tuple[str, ...]:
    notes = []
    if _setting(connection, "fsync") == "off":
        notes.append(
            "fsync is off: a power loss may destroy the whole database, and no promise of Routilux holds"
        )
    if _setting(connection, "full_page_writes") == "off":
        notes.append("full_page_writes is off: a power loss may leave half-written pages")
    return tuple(notes)


def _setting(connection: Connection, name: str) -> str:
    return str(connection.exec_driver_sql(f"SHOW {name}").scalar())


def _redacted(url: str) -> str:
    return make_url(url).render_as_string(hide_password=True)


def _is_memory(url: URL) -> bool:
    name = url.database or ""
    return name in ("", ":memory:") or "mode=memory" in name or url.query.get("mode") == "memory"


def _file_exists(url: URL) -> bool:
    return not _is_memory(url) and Path((url.database or "").removeprefix("file:")).exists()
