"""What pruning deletes, what it must keep, and that each call is bounded."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Table, create_engine, event, func, pool, select

from routilux.store import tables
from routilux.store.writes.retention import COMMITS_KEPT_US, ROWS_PER_JOB, START, PruneCounts, prune
from tests.support import rows
from tests.support.rows import DAY, SECOND, T0

NOW = T0 + 100 * DAY
WHOLE = re.compile(
    r"Seq Scan on routilux_(messages|jobs|activations|traces|commits|job_keys)"
    r"|^SCAN routilux_(messages|jobs|activations|traces|commits|job_keys)$"
    r"|^SEARCH routilux_(messages|activations|traces) USING PRIMARY KEY \(worker=\?\)"
)


@pytest.fixture
def connection(database: str) -> Iterator[Connection]:
    with create_engine(database, poolclass=pool.NullPool).connect() as connection:
        yield connection


def once(
    connection: Connection, counts: PruneCounts | None = None, *, batch: int = 100, now: int = NOW
) -> PruneCounts:
    return prune(
        connection,
        now_us=now,
        completed_after_us=7 * DAY,
        failed_after_us=30 * DAY,
        keys_after_us=30 * DAY,
        batch=batch,
        position=START if counts is None else counts.position,
    )


def sweep(connection: Connection, *, batch: int = 100, now: int = NOW) -> list[PruneCounts]:
    calls = [once(connection, batch=batch, now=now)]
    while not calls[-1].is_done:
        assert len(calls) < 1000, "the sweep does not come to its end"
        calls.append(once(connection, calls[-1], batch=batch, now=now))
    return calls


def jobs_left(connection: Connection) -> set[str]:
    return set(connection.execute(select(tables.jobs.c.job_id)).scalars())


def count(connection: Connection, table: Table) -> int:
    return connection.execute(select(func.count()).select_from(table)).scalar_one()


def a_job(connection: Connection, worker: int, number: int, age_days: float, **columns: object) -> str:
    """An ended job with a message, an activation and two traces."""
    at = NOW - int(age_days * DAY)
    job_id = f"{worker}-{number}"
    rows.job(
        connection, worker, number, job_id=job_id, **{"created_at": at - SECOND, "ended_at": at} | columns
    )
    rows.message(connection, worker, number, number, status="consumed")
    rows.activation(connection, worker, number, number, [number])
    rows.trace(connection, worker, number, 0, number)
    rows.trace(connection, worker, number, 1, number)
    return job_id


def test_completed_jobs_go_after_theirs_failed_and_cancelled_after_theirs(connection: Connection) -> None:
    worker = rows.worker(connection)
    a_job(connection, worker, 1, 40, status="completed")
    a_job(connection, worker, 2, 40, status="failed")
    a_job(connection, worker, 3, 40, status="cancelled")
    kept = {
        a_job(connection, worker, 4, 29, status="failed"),
        a_job(connection, worker, 5, 29, status="cancelled"),
        a_job(connection, worker, 7, 6.9, status="completed"),
    }
    a_job(connection, worker, 6, 7, status="completed")
    [counts] = sweep(connection)
    assert jobs_left(connection) == kept
    assert (counts.jobs, counts.messages, counts.activations, counts.traces) == (4, 4, 4, 8)
    left = [count(connection, table) for table in (tables.messages, tables.activations, tables.traces)]
    assert left == [3, 3, 6]


def test_a_job_that_has_not_ended_stays_however_old(connection: Connection) -> None:
    worker = rows.worker(connection)
    kept = {
        a_job(connection, worker, n, 90, status=status, ended_at=None)
        for n, status in enumerate(("pending", "running", "paused"), start=1)
    }
    sweep(connection)
    assert jobs_left(connection) == kept


@pytest.mark.parametrize("status", ["dead", "parked", "waiting"])
def test_a_message_that_was_not_handled_keeps_its_job_and_all_its_history(
    connection: Connection, status: str
) -> None:
    worker = rows.worker(connection)
    kept = a_job(connection, worker, 1, 90, status="failed")
    rows.message(connection, worker, 10, 1, status=status)
    a_job(connection, worker, 2, 90)
    sweep(connection)
    assert jobs_left(connection) == {kept}
    assert [count(connection, table) for table in (tables.messages, tables.activations)] == [2, 1]


@pytest.mark.parametrize("batch", [1, 2, 3, 50])
def test_a_sweep_in_small_batches_comes_to_the_same_end(connection: Connection, batch: int) -> None:
    kept = set()
    for name in ("a", "b", "c"):
        worker = rows.worker(connection, name)
        for number in range(1, 6):
            is_kept = number == 3
            job = a_job(connection, worker, number, 60, status="running" if is_kept else "completed")
            if is_kept:
                kept.add(job)
        rows.job_key(connection, f"old-{name}")
    rows.job_key(connection, "young", created_at=NOW)
    calls = sweep(connection, batch=batch)
    assert jobs_left(connection) == kept
    assert count(connection, tables.job_keys) == 1
    assert all(call.jobs <= batch and call.keys <= batch for call in calls)
    assert sum(call.jobs for call in calls) == 12


def test_a_job_of_many_messages_goes_in_several_calls_and_its_row_last(connection: Connection) -> None:
    worker = rows.worker(connection)
    a_job(connection, worker, 1, 60)
    for seq in range(100, 100 + 3 * ROWS_PER_JOB):
        rows.message(connection, worker, seq, 1, status="consumed")
    first = once(connection, batch=1)
    assert (first.messages, first.jobs) == (ROWS_PER_JOB, 0)
    calls = sweep(connection, batch=1)
    assert sum(call.messages for call in calls) == 2 * ROWS_PER_JOB + 1
    assert jobs_left(connection) == set()


def test_the_walk_of_a_worker_ends_at_its_first_young_job(connection: Connection) -> None:
    worker = rows.worker(connection)
    a_job(connection, worker, 1, 60)
    for number in range(2, 50):
        a_job(connection, worker, number, 1)
    assert len(sweep(connection, batch=10)) == 1


def test_old_keys_go_and_do_not_wait_for_their_jobs(connection: Connection) -> None:
    rows.job_key(connection, "old", created_at=NOW - 30 * DAY)
    rows.job_key(connection, "young", created_at=NOW - 30 * DAY + 1)
    [counts] = sweep(connection)
    assert counts.keys == 1
    assert connection.execute(select(tables.job_keys.c.job_id)).scalars().all() == ["young"]


def commits_left(connection: Connection) -> list[tuple[int, int]]:
    query = select(tables.commits.c.runtime, tables.commits.c.n).order_by(*tables.commits.primary_key)
    return [(row.runtime, row.n) for row in connection.execute(query)]


def test_commit_rows_go_after_an_hour_but_not_the_last_one_of_a_runtime(connection: Connection) -> None:
    alive, dead = rows.runtime(connection, boot_id="a"), rows.runtime(connection, boot_id="d", state="dead")
    owing = rows.runtime(connection, boot_id="o", state="dead")
    rows.worker(connection, owner=owing)
    for runtime in (alive, dead, owing):
        for n in (1, 2, 3):
            rows.commit(connection, runtime, n, committed_at=NOW - COMMITS_KEPT_US - 10 + n)
    rows.commit(connection, alive, 4, committed_at=NOW - COMMITS_KEPT_US + 1)
    rows.commit(connection, alive, 5, committed_at=NOW)
    counts = once(connection)
    # the last row of a runtime says what ran when it died: it stays until its workers are taken over
    assert commits_left(connection) == [(alive, 4), (alive, 5), (owing, 3)]
    assert counts.commits == 3 + 3 + 2


def test_no_statement_reads_a_whole_table(connection: Connection) -> None:
    worker = rows.worker(connection)
    a_job(connection, worker, 1, 60)
    is_sqlite = connection.dialect.name == "sqlite"
    if not is_sqlite:
        connection.exec_driver_sql(
            "SET LOCAL enable_seqscan = off"
        )  # an empty table is always scanned otherwise
    seen: list[tuple[str, object]] = []
    event.listen(connection, "before_cursor_execute", lambda *call: seen.append((call[2], call[3])))
    sweep(connection)
    for statement, parameters in list(seen):
        explained = ("EXPLAIN QUERY PLAN " if is_sqlite else "EXPLAIN ") + statement
        plan = [str(row[-1]) for row in connection.exec_driver_sql(explained, parameters)]  # type: ignore[arg-type]  # as sent
        assert not [line for line in plan if WHOLE.search(line)], (statement, plan)
