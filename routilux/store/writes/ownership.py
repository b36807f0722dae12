"""Which runtimes are alive, and which workers they own: runtimes, leases, take-over and release of workers.

A runtime's row is the fence of its commits (`FOR KEY SHARE` in `store`). Declaring a runtime dead locks the
row FOR UPDATE, which waits for an open commit. A dead runtime stays dead: its process registers again under a
new identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, bindparam, insert, select, text, update

from routilux.store.backends import postgres_connection
from routilux.store.backends.postgres_connection import NOW
from routilux.store.storable import is_storable
from routilux.store.tables import flows, inbox, runtimes, worker_state, workers


@dataclass(frozen=True, slots=True)
class Identity:
    """What the row of a runtime says about its process."""

    boot_id: str
    host: str
    host_boot: str
    pid: int
    version: str
    lease_us: int


def register(connection: Connection, me: Identity, lease_until: int, now: int) -> int:
    """Insert a runtime. Returns its key, also if an earlier try has inserted it."""
    row = {
        "boot_id": me.boot_id,
        "state": "alive",
        "lease_until": lease_until,
        "host_boot": me.host_boot,
        "lease_us": me.lease_us,
        "started_at": now,
        "heartbeat_at": now,
        "host": me.host,
        "pid": me.pid,
        "version": me.version,
    }
    known = connection.execute(select(runtimes.c.key).where(runtimes.c.boot_id == me.boot_id)).scalar()
    if known is not None:  # an earlier try whose answer was lost
        return int(known)
    return int(connection.execute(insert(runtimes).values(row).returning(runtimes.c.key)).scalar_one())


def renew(connection: Connection, key: int, lease_until: int, now: int) -> bool:
    """Extend the lease of this runtime. Returns False if it is dead."""
    done = connection.execute(
        update(runtimes)
        .where(runtimes.c.key == key, runtimes.c.state == "alive")
        .values(lease_until=lease_until, heartbeat_at=now)
    )
    return done.rowcount == 1


_RENEW_BY_SERVER = text(
    f"UPDATE routilux_runtimes SET lease_until = {NOW} + :lease_us, heartbeat_at = :now,"
    " (backend_pid, backend_start) = (SELECT pid, CAST(extract(epoch FROM backend_start) * 1000000 AS bigint)"
    " FROM pg_stat_activity WHERE pid = pg_backend_pid() AND pid = :backend)"
    f" WHERE key = :key AND state = 'alive' RETURNING {NOW}"
)


def renew_by_server(connection: Connection, key: int, lease_us: int, now: int) -> int | None:
    """Postgres: the same by the server's clock. Returns that clock, or None if the runtime is dead.

    The clock is in µs since 1970 UTC.
    It also stores the backend of this connection: when that backend is gone, the runtime is dead. Behind a
    pooler it stores none.
    """
    backend = postgres_connection.backend_of(connection)
    values = {"key": key, "lease_us": lease_us, "now": now, "backend": backend}
    return connection.execute(_RENEW_BY_SERVER, values).scalar()


def retire(connection: Connection, key: int, now: int) -> None:
    """A clean stop: the runtime is dead at once, and its workers have no owner."""
    connection.execute(update(workers).where(workers.c.owner == key).values(owner=None))
    connection.execute(update(runtimes).where(runtimes.c.key == key).values(state="dead", stopped_at=now))


def others_alive(connection: Connection, key: int) -> list[Row[Any]]:
    """The other runtimes that count as alive."""
    return list(
        connection.execute(select(runtimes).where(runtimes.c.state == "alive", runtimes.c.key != key))
    )


_GONE_BACKENDS = text(
    "SELECT r.key, r.backend_pid, r.backend_start FROM routilux_runtimes AS r"
    " WHERE r.state = 'alive' AND r.key <> :key AND r.backend_pid IS NOT NULL"
    " AND NOT EXISTS (SELECT 1 FROM pg_stat_activity AS a WHERE a.pid = r.backend_pid"
    " AND (a.backend_start IS NULL"
    " OR CAST(extract(epoch FROM a.backend_start) * 1000000 AS bigint) = r.backend_start))"
)


def gone_backends(connection: Connection, key: int) -> dict[tuple[int, int], int]:
    """Postgres: backend (pid, start) -> runtime, for leases whose backend is gone.

    The start of a backend of another role may be hidden from this role. Then a backend with the same pid
    counts as the same backend.
    """
    gone = connection.execute(_GONE_BACKENDS, {"key": key})
    return {(row.backend_pid, row.backend_start): row.key for row in gone}


def lock(connection: Connection, key: int) -> Row[Any] | None:
    """The row of a runtime, locked against its commits. Returns None if the runtime is not alive."""
    query = select(runtimes).where(runtimes.c.key == key, runtimes.c.state == "alive").with_for_update()
    return connection.execute(query).first()


def mark_runtime_dead(connection: Connection, key: int, now: int) -> None:
    """Declare a runtime dead. This is final."""
    connection.execute(update(runtimes).where(runtimes.c.key == key).values(state="dead", stopped_at=now))


_FREE = (
    select(workers.c.key)
    .outerjoin(runtimes, runtimes.c.key == workers.c.owner)
    .where(
        workers.c.flow.in_(bindparam("flows", expanding=True)),
        workers.c.status.not_in(("completed", "failed", "cancelled")),
        (runtimes.c.state == "dead")
        | (workers.c.owner.is_(None) & workers.c.status.in_(("pending", "running", "paused"))),
        (workers.c.takeover_at.is_(None)) | (workers.c.takeover_at <= bindparam("now")),
    )
)
_SOME_FREE = _FREE.order_by(workers.c.key).limit(bindparam("most"))


_GLANCE = select(
    select(inbox.c.id).exists(),
    select(runtimes.c.key).where(runtimes.c.state == "alive", runtimes.c.key != bindparam("me")).exists(),
    _FREE.exists(),
)


def glance(connection: Connection, me: int, flow_names: Sequence[str], now: int) -> tuple[bool, bool, bool]:
    """Is there an inbox row, another runtime that counts as alive, a worker of these flows that nobody runs?

    One statement, because an idle runtime sends it every second.
    """
    row = connection.execute(_GLANCE, {"me": me, "flows": list(flow_names), "now": now}).one()
    return bool(row[0]), bool(row[1]), bool(row[2])


def ownerless(connection: Connection, flow_names: Sequence[str], now: int, most: int) -> list[int]:
    """Keys of workers of these flows that have no live owner and may have work."""
    if not flow_names:
        return []
    found = connection.execute(_SOME_FREE, {"flows": list(flow_names), "now": now, "most": most})
    return [row.key for row in found]


_TAKE = text(
    "UPDATE routilux_workers SET owner = :me WHERE key = :worker"
    " AND (owner IS NULL OR owner = :me OR owner IN (SELECT key FROM routilux_runtimes WHERE state = 'dead'))"
)


def take(connection: Connection, worker: int, me: int) -> bool:
    """Become the owner of a worker. Returns False if another runtime was first."""
    return connection.execute(_TAKE, {"me": me, "worker": worker}).rowcount == 1


def release(connection: Connection, worker: int, me: int, status: str, now: int, *, has_ended: bool) -> None:
    """Give up the ownership of a worker, and set its status."""
    values: dict[str, Any] = {"owner": None, "status": status}
    if has_ended:
        values["ended_at"] = now
    connection.execute(update(workers).where(workers.c.key == worker, workers.c.owner == me).values(values))


# two processes may race for one worker id, or for the first use of a definition: neither must fail
_CREATE_WORKER = text(
    "INSERT INTO routilux_workers"
    " (worker_id, flow, definition, status, owner, is_named, next_seq, next_n, deaths, created_at)"
    " VALUES (:worker_id, :flow, :definition, 'running', :me, :is_named, 1, 1, 0, :now)"
    " ON CONFLICT DO NOTHING"
)
_SAVE_FLOW = text(
    "INSERT INTO routilux_flows (name, hash, definition, registered_at)"
    " VALUES (:name, :hash, :definition, :now)"
    " ON CONFLICT (name, hash) DO UPDATE SET registered_at = excluded.registered_at"
)


def create_worker(
    connection: Connection, worker_id: str, flow: str, definition: str, me: int, now: int, *, is_named: bool
) -> None:
    """Insert a worker owned by this runtime, unless an earlier try or another process has inserted it."""
    row = {
        "worker_id": worker_id,
        "flow": flow,
        "definition": definition,
        "me": me,
        "is_named": int(is_named),
        "now": now,
    }
    connection.execute(_CREATE_WORKER, row)


def name_worker(connection: Connection, key: int) -> None:
    """Mark a worker as started by its id: it stays when its work is done."""
    connection.execute(update(workers).where(workers.c.key == key).values(is_named=1))


def reopen_worker(connection: Connection, key: int, definition: str) -> None:
    """Run a worker again that has completed or was released."""
    connection.execute(
        update(workers)
        .where(workers.c.key == key, workers.c.status.in_(("completed", "idle", "pending", "running")))
        .values(status="running", ended_at=None, definition=definition)
    )


def save_state(connection: Connection, worker: int, rows: Sequence[tuple[str, str, str]]) -> None:
    """Insert the first state of a new worker. A row is (routine, key, JSON text)."""
    if rows:
        connection.execute(
            insert(worker_state),
            [
                {"worker": worker, "routine": routine, "key": key, "value": value}
                for routine, key, value in rows
            ],
        )


def save_flow(connection: Connection, name: str, digest: str, definition: str, now: int) -> None:
    """Store a flow definition. Clients check posts against the newest one."""
    connection.execute(_SAVE_FLOW, {"name": name, "hash": digest, "definition": definition, "now": now})


def newest_definition(connection: Connection, name: str) -> str | None:
    if not is_storable(name):
        return None
    query = (
        select(flows.c.definition).where(flows.c.name == name).order_by(flows.c.registered_at.desc()).limit(1)
    )
    return connection.execute(query).scalar()


def prune_commits(connection: Connection, key: int, below: int) -> None:
    connection.execute(
        text("DELETE FROM routilux_commits WHERE runtime = :key AND n < :below"), {"key": key, "below": below}
    )
