"""Mark what a dead runtime had in flight: any of these messages may have killed its process.

The runtime that declares another one dead calls this in the same transaction, after it has locked the row of
the other one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import Connection, Row, select, update

from routilux.store.tables import commits, messages, parked


def mark_in_flight(connection: Connection, runtime: int, now: int) -> None:
    """Park each message in flight as a suspect. If it is parked already, count the death where it counts."""
    for entry in last_in_flight(connection, runtime):
        _mark(connection, entry, now)


def last_in_flight(connection: Connection, runtime: int) -> list[list[Any]]:
    """What ran when the runtime made its last commit."""
    query = (
        select(commits.c.in_flight).where(commits.c.runtime == runtime).order_by(commits.c.n.desc()).limit(1)
    )
    found = connection.execute(query).scalar()
    return [] if found is None else list(orjson.loads(found))


def _mark(connection: Connection, entry: list[Any], now: int) -> None:
    """Mark one entry. Being a suspect costs nothing. A death while it ran alone counts."""
    worker, routine, first, last, alone, rerun = entry
    if rerun is not None:
        deaths = _deaths_of(connection, worker, [rerun]).get(rerun)
        if deaths is not None:
            _set_deaths(connection, worker, rerun, deaths + (1 if alone or deaths == 0 else 0))
        return
    rows = messages_in_flight(connection, worker, routine, first, last)
    known = _deaths_of(connection, worker, [row.seq for row in rows])
    for row in rows:
        if row.seq in known:
            if alone:
                _set_deaths(connection, worker, row.seq, known[row.seq] + 1)
        else:
            connection.execute(parked.insert().values(_suspect_row(worker, routine, row, now)))


def messages_in_flight(
    connection: Connection, worker: int, routine: str, first: int, last: int
) -> list[Row[Any]]:
    query = (
        select(messages.c.seq, messages.c.job)
        .where(
            messages.c.worker == worker,
            messages.c.seq.between(first, last),
            messages.c.routine == routine,
            messages.c.status == "waiting",
        )
        .limit(2000)
    )
    return list(connection.execute(query))


def _deaths_of(connection: Connection, worker: int, seqs: Sequence[int]) -> dict[int, int]:
    """seq -> deaths, for messages with a parked row (suspects, retries)."""
    query = select(parked.c.seq, parked.c.deaths).where(parked.c.worker == worker, parked.c.seq.in_(seqs))
    return {row.seq: row.deaths for row in connection.execute(query)}


def _set_deaths(connection: Connection, worker: int, seq: int, deaths: int) -> None:
    connection.execute(
        update(parked).where(parked.c.worker == worker, parked.c.seq == seq).values(deaths=deaths)
    )


def _suspect_row(worker: int, routine: str, row: Row[Any], now: int) -> dict[str, Any]:
    return {
        "worker": worker,
        "seq": row.seq,
        "job": row.job,
        "routine": routine,
        "reason": "suspect",
        "seqs": f"[{row.seq}]",
        "attempt": 0,
        "deaths": 0,
        "parked_at": now,
    }
