"""How Alembic runs the revisions: on the connection of `store.schema`, or on a URL that a developer gives.

A change of a live Postgres table waits for every reader of the table, and all others wait behind the change.
So it waits only `LOCK_TIMEOUT_MS` for a lock, rolls back, and is tried again. One transaction holds all
revisions.
"""

from __future__ import annotations

import logging
import os
import time

from alembic import context
from sqlalchemy import Connection, create_engine, pool
from sqlalchemy.exc import OperationalError
from sqlalchemy.schema import SchemaItem

from routilux.store.tables import PREFIX, metadata

log = logging.getLogger("routilux.migrations")

VERSION_TABLE = f"{PREFIX}alembic_version"
LOCK_TIMEOUT_MS = 2_000
TRIES = 15
LOCK_NOT_AVAILABLE = "55P03"


def _is_ours(
    item: SchemaItem, name: str | None, kind: str, reflected: bool, other: SchemaItem | None
) -> bool:
    """The tables may be in the user's own database. Alembic must not look at tables that are not ours."""
    return kind != "table" or (name or "").startswith(PREFIX)


def _url() -> str:
    url = context.get_x_argument(as_dictionary=True).get("url") or context.config.get_main_option(
        "sqlalchemy.url"
    )
    url = url or os.environ.get("ROUTILUX_DATABASE_URL")
    if not url:
        raise SystemExit("give the database: `alembic -x url=URL …` or ROUTILUX_DATABASE_URL")
    return url


def _migrate(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        include_object=_is_ours,
        version_table=VERSION_TABLE,
        # SQLite changes a table by copying it: op.batch_alter_table does that
        render_as_batch=connection.dialect.name == "sqlite",
    )
    with context.begin_transaction():
        context.run_migrations()


def _migrate_with_patience(connection: Connection) -> None:
    if connection.dialect.name != "postgresql":
        _migrate(connection)
        return
    for attempt in range(1, TRIES + 1):
        try:
            with connection.begin():
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")
                # two upgrades at once: the second one waits here, then finds nothing to do
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtext('routilux schema'))")
                _migrate(connection)
            return
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) != LOCK_NOT_AVAILABLE or attempt == TRIES:
                raise
            log.warning(
                "a table is locked by other transactions; starting try %d of %d after a pause",
                attempt + 1,
                TRIES,
            )
            time.sleep(min(attempt, 5))


def run() -> None:
    given = context.config.attributes.get("connection")
    if given is not None:
        _migrate_with_patience(given)
        return
    engine = create_engine(_url(), poolclass=pool.NullPool)
    with engine.connect() as connection:
        _migrate_with_patience(connection)
        connection.commit()


def run_offline() -> None:
    """For `alembic upgrade head --sql`: print the statements, for an operator to read."""
    context.configure(
        url=_url(),
        target_metadata=metadata,
        include_object=_is_ours,
        version_table=VERSION_TABLE,
        literal_binds=True,
    )
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    run_offline()
else:
    run()
