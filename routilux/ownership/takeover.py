"""Finding runtimes that are dead, and whom their death makes a suspect.

Dead is: the lease has expired by the database's clock; SQLite, the OS lock that a process holds is free; Postgres,
the backend of its lease connection is gone. An expired lease is proof only for a runtime that has itself renewed
for one whole lease: after an outage everybody's lease looks expired.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from routilux.ownership import handover
from routilux.store.types import Connection, Row
from routilux.store.writes import ownership, suspects
from routilux.store.writes.store import Commit

if TYPE_CHECKING:
    from routilux.engine.engine import Engine
    from routilux.ownership.lease import Lease

log = logging.getLogger("routilux")


def run_once(engine: Engine, lease: Lease) -> int:
    """Declare dead whoever is, and take what is free. Returns the number of workers taken."""
    for row in _suspected(engine, lease):
        if _declare_dead(engine, lease, row):
            log.warning(
                "runtime %s (pid %s on %s) is dead; its workers are taken over", row.key, row.pid, row.host
            )
    return handover.adopt(engine)


def _suspected(engine: Engine, lease: Lease) -> list[Row[Any]]:
    with engine.store.read() as connection:
        others = ownership.others_alive(connection, engine.runtime_key)
        if not others:
            return []
        gone = lease.gone_backends(connection, engine.runtime_key)
        now = lease.clock_us(connection)
    return [row for row in others if row.key in gone or lease.is_over(row, now)]


def _declare_dead(engine: Engine, lease: Lease, row: Row[Any]) -> bool:
    def work(commit: Commit) -> bool:
        connection = commit.connection
        locked = ownership.lock(connection, row.key)
        if locked is None:
            return False
        gone = lease.gone_backends(connection, engine.runtime_key)
        if row.key not in gone and not lease.is_over(locked, lease.clock_us(connection)):
            return False
        bury(connection, row.key, engine.clock.now_us())
        return True

    return handover.fenced(engine, work)


def bury(connection: Connection, key: int, now: int) -> None:
    """A runtime is dead from this commit on; what it had in flight is suspect."""
    suspects.mark_in_flight(connection, key, now)
    ownership.mark_runtime_dead(connection, key, now)
