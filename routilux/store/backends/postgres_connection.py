"""How one process connects to Postgres.

Nothing is set for a session: behind a pooler in transaction mode, the next transaction may run on another
backend. All settings are sent with BEGIN, in one round trip. The driver is in autocommit mode. Otherwise it
would send its own BEGIN in one more round trip. COMMIT and ROLLBACK are the driver's, as usual.

Only a connection that is kept for writing prepares statements, and each execution is planned again
(`BY_KEY`). It prepares only without a pooler: a pooler in transaction mode may not find the prepared
statements again.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from routilux.errors import DatabaseUnavailableError
from routilux.store.backends import driver_sql
from routilux.store.backends.driver_sql import BEGIN

LOCK_TIMEOUT_MS = 5_000
IDLE_MS = 6_000  # this and the TCP limits stay below the default lease of 9 s
PREPARE_AFTER = 5  # prepare after so many executions of a statement; psycopg's own default
ASK = "routilux_ask"  # in `Connection.info`: a SELECT that is sent with BEGIN
ANSWER = "routilux_answer"  # in `Connection.info`: the row that it found, or None; absent if it was not sent
_LIMITS = (
    f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}; SET LOCAL idle_in_transaction_session_timeout = {IDLE_MS}"
)
# Find rows by their keys. If a table has grown since it was analysed, the planner would hash all of it for
# each commit. A cached plan from when the table was empty would use any index that begins with the worker. A
# user statement is planned with the server's defaults (`AS_USUAL`).
_PLANS = {"enable_hashjoin": "off", "enable_mergejoin": "off", "plan_cache_mode": "force_custom_plan"}
BY_KEY = "; ".join(f"SET LOCAL {name} = {value}" for name, value in _PLANS.items())
AS_USUAL = "; ".join(f"SET LOCAL {name} = DEFAULT" for name in _PLANS)
# For reads of the engine. A million waiting messages are a large part of a table. So the planner would read
# the whole table, including history, with parallel workers.
ALONG_KEYS = (
    f"{BY_KEY}; SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off;"
    " SET LOCAL max_parallel_workers_per_gather = 0; SET LOCAL jit = off"
)
_WRITE = (
    f"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; {_LIMITS}; {BY_KEY}; SET LOCAL synchronous_commit ="
)
WRITE = {"power_loss": f"{_WRITE} on", "process_crash": f"{_WRITE} off"}
# For a transaction that leaves the planner no choice and never waits for the client in the middle.
_WRITE_ROWS = (
    f"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS};"
    " SET LOCAL synchronous_commit ="
)
WRITE_ROWS = {"power_loss": f"{_WRITE_ROWS} on", "process_crash": f"{_WRITE_ROWS} off"}
READ = "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY"
# libpq ignores settings that the platform does not have
_CONNECT = {
    # overrides the setting of the role or the database: another encoding would refuse some texts
    "client_encoding": "UTF8",
    "connect_timeout": 5,
    "keepalives_idle": 3,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 6_000,
}
NOW = "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)"
NOW_US = text(f"SELECT {NOW}")


def with_psycopg(url: URL) -> URL:
    """The URL of the same database with the driver psycopg."""
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        raise DatabaseUnavailableError("Postgres needs psycopg: pip install 'routilux[postgres]'") from error
    return url.set(drivername="postgresql+psycopg")


def pooled_engine(url: URL, application_name: str) -> Engine:
    """A pooled engine. It begins a transaction with the execution option `BEGIN`, by default with `READ`."""
    name = {} if "application_name" in url.query else {"application_name": application_name}
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=5,
        max_overflow=20,
        pool_pre_ping=True,
        connect_args={"prepare_threshold": None, **connect_args(url), **name},
    )
    event.listen(engine, "connect", _autocommit)
    event.listen(engine, "begin", _begin)
    return engine


def connect_args(url: URL) -> dict[str, Any]:
    """Connect arguments of every connection, except those that the URL sets itself."""
    return {
        name: value for name, value in _CONNECT.items() if name not in url.query or name == "client_encoding"
    }


def check(engine: Engine, url: URL, *, must_fsync: bool) -> None:
    """Raises `DatabaseUnavailableError` if the database does not answer, refuses the login, or may lose"
    " commits."""
    shown = url.render_as_string(hide_password=True)
    try:
        with engine.connect() as connection:
            fsync = connection.exec_driver_sql("SHOW fsync").scalar()
            check_encoding(connection, shown)
    except DBAPIError as error:
        raise DatabaseUnavailableError(f"{shown}: {_reason(error)}; {_advice(error)}") from error
    if fsync == "off" and must_fsync:
        raise DatabaseUnavailableError(
            f"{shown}: the server runs with fsync=off and may lose everything on power loss; set fsync=on,"
            ' or accept it with durability="process_crash"'
        )


def check_encoding(connection: Connection, shown: str) -> None:
    """Raises `DatabaseUnavailableError` if the database cannot store every text."""
    encoding = connection.exec_driver_sql("SHOW server_encoding").scalar()
    if encoding != "UTF8":
        raise DatabaseUnavailableError(
            f"{shown}: the encoding of the database is {encoding}, which cannot store every text;"
            " create one in UTF8: createdb --encoding=UTF8 --template=template0"
        )


def _autocommit(driver: Any, record: object) -> None:
    driver.autocommit = True


def prepare_if_direct(driver: Any) -> None:
    """Let the driver prepare repeated statements, unless a pooler is in between."""
    (pid,) = driver.execute("SELECT pg_backend_pid()").fetchone()
    if pid == driver.info.backend_pid:  # a pooler gives its clients an invented pid
        driver.prepare_threshold = PREPARE_AFTER


def is_direct(connection: Connection) -> bool:
    """Whether no pooler is in between, as `prepare_if_direct` found out."""
    driver: Any = connection.connection.driver_connection
    return driver.prepare_threshold is not None


def backend_of(connection: Connection) -> int | None:
    """The pid of the backend of this connection. Returns None behind a pooler, which changes the backend."""
    driver: Any = connection.connection.driver_connection
    return int(driver.info.backend_pid) if is_direct(connection) else None


def _begin(connection: Connection) -> None:
    begin = connection.get_execution_options().get(BEGIN, READ)
    info = connection.info
    info.pop(ANSWER, None)
    if ASK in info and not driver_sql.is_watched(connection):
        info[ANSWER] = driver_sql.send_many(connection, f"{begin}; {info[ASK]}")
    elif begin:
        connection.exec_driver_sql(begin)


def _reason(error: DBAPIError) -> str:
    return " ".join(str(error.orig).split())


def _advice(error: DBAPIError) -> str:
    said = str(error.orig)
    # no SQLSTATE: libpq reports a refused login as a failed connection, with the server's text
    if "does not exist" in said and "database" in said:
        return "create the database first: createdb"
    if "authentication failed" in said or "no password supplied" in said:
        return "check user and password"
    return "check that the server runs, and host and port"
