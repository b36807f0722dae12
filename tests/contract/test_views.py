"""The public query surface: same rows and same meaning on both databases."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, pool, text

from routilux.store.reads import lineage
from tests.support import rows
from tests.support.rows import SECOND, T0

AT_T0 = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


@pytest.fixture
def connection(database: str) -> Iterator[Connection]:
    with create_engine(database, poolclass=pool.NullPool).connect() as connection:
        yield connection


def view(connection: Connection, name: str, where: str = "", **parameters: Any) -> list[dict[str, Any]]:
    query = text(f"SELECT * FROM routilux_{name} {where}")
    return [dict(row._mapping) for row in connection.execute(query, parameters)]


def instant(value: datetime | str) -> datetime:
    """A timestamp of a view as an aware datetime; SQLite's text must be of the one documented form."""
    if isinstance(value, str):
        return datetime.strptime(value, "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=UTC)
    return value


def test_job_history_shows_a_job_with_its_times(connection: Connection) -> None:
    worker = rows.worker(connection)
    rows.job(
        connection,
        worker,
        1,
        job_id="j",
        created_at=T0,
        started_at=T0,
        ended_at=T0 + 2_500_000,
        metadata='{"a":1}',
        data='{"total":3}',
        result="7",
        error=None,
    )
    [job] = view(connection, "job_history")
    assert instant(job.pop("created_at")) == instant(job.pop("started_at")) == AT_T0
    assert instant(job.pop("completed_at")) == datetime(2023, 11, 14, 22, 13, 22, 500_000, tzinfo=UTC)
    assert job == {
        "job_id": "j",
        "worker_id": "w",
        "flow_id": "f",
        "status": "completed",
        "duration_s": 2.5,
        "open_messages": 0,
        "error": None,
        "metadata": '{"a":1}',
        "data": '{"total":3}',
        "result": "7",
    }


def test_a_running_job_has_no_end_and_no_duration(connection: Connection) -> None:
    rows.job(connection, rows.worker(connection), 1, status="running", ended_at=None, open_count=2)
    [job] = view(connection, "job_history")
    assert (job["completed_at"], job["duration_s"], job["open_messages"]) == (None, None, 2)


def test_posts_in_the_inbox_are_pending_jobs_once(connection: Connection) -> None:
    worker = rows.worker(connection)
    rows.job(connection, worker, 1, job_id="accepted")
    rows.inbox_post(connection, "accepted")
    rows.inbox_post(connection, "new", worker_id=None, metadata="{}")
    rows.inbox_post(connection, "new")
    rows.inbox_post(connection, "new", kind="cancel_job")
    found = {job["job_id"]: job for job in view(connection, "job_history")}
    assert len(view(connection, "job_history")) == 2
    assert found["accepted"]["status"] == "completed"
    assert (found["new"]["status"], found["new"]["worker_id"], found["new"]["metadata"]) == (
        "pending",
        None,
        "{}",
    )
    assert instant(found["new"]["created_at"]) == AT_T0


def test_timestamps_are_exact_to_the_microsecond(connection: Connection) -> None:
    worker = rows.worker(connection)
    instants = [random.Random(7).randrange(0, 4_102_444_800_000_000) for _ in range(200)] + [
        0,
        1,
        999_999,
        T0 - 1,
    ]
    for number, at in enumerate(instants, start=1):
        rows.job(connection, worker, number, job_id=str(at) + f"-{number}", created_at=at)
    for job in view(connection, "job_history"):
        shown = instant(job["created_at"]) - datetime(1970, 1, 1, tzinfo=UTC)
        assert shown.days * 86_400 * SECOND + shown.seconds * SECOND + shown.microseconds == int(
            job["job_id"].split("-")[0]
        )


def test_activation_history_names_the_job_and_lists_its_messages_as_json(connection: Connection) -> None:
    worker = rows.worker(connection)
    rows.job(connection, worker, 1, job_id="j")
    rows.activation(
        connection,
        worker,
        5,
        1,
        [1, 2],
        status="failed",
        attempt=2,
        policy_message='{"reason":"x"}',
        error_type="ValueError",
        error="no",
        traceback="tb",
    )
    [activation] = view(connection, "activation_history")
    assert instant(activation.pop("started_at")) == AT_T0
    assert instant(activation.pop("ended_at")) == AT_T0.replace(microsecond=500_000)
    assert activation == {
        "worker_id": "w",
        "activation": 5,
        "job_id": "j",
        "flow_id": "f",
        "routine_id": "r",
        "attempt": 2,
        "status": "failed",
        "duration_s": 0.5,
        "policy_message": '{"reason":"x"}',
        "error_type": "ValueError",
        "error": "no",
        "traceback": "tb",
        "messages": "[1,2]",
    }


def depths(connection: Connection) -> dict[tuple[str, str], tuple[int, int]]:
    return {
        (depth["worker_id"], depth["slot"]): (depth["waiting"], depth["parked"])
        for depth in view(connection, "queue_depth")
    }


def test_queue_depth_counts_what_waits_and_what_is_parked(connection: Connection) -> None:
    worker = rows.worker(connection)
    rows.slot(connection, worker, slot="in", low_seq=3)
    rows.slot(connection, worker, slot="idle", low_seq=9)
    for seq, status in enumerate(
        ("consumed", "consumed", "waiting", "waiting", "parked", "parked", "dead"), start=1
    ):
        rows.message(connection, worker, seq, 1, status=status)
    rows.parked(connection, worker, [5, 6], 1)
    rows.parked(connection, worker, [7], 1, reason="dead")
    rows.parked(connection, worker, [4], 1, reason="suspect")  # still in line
    assert depths(connection) == {("w", "in"): (2, 2), ("w", "idle"): (0, 0)}
    [depth] = view(connection, "queue_depth", "WHERE slot = 'in'")
    assert instant(depth["oldest_waiting_at"]) == AT_T0.replace(microsecond=3)
    assert (depth["flow_id"], depth["routine_id"]) == ("f", "r")


def test_queue_depth_of_a_worker_without_counters_starts_at_its_first_message(connection: Connection) -> None:
    rows.message(connection, rows.worker(connection), 1, 1)
    assert depths(connection) == {("w", "in"): (1, 0)}


def test_queue_depth_leaves_out_workers_that_have_ended(connection: Connection) -> None:
    worker = rows.worker(connection, status="cancelled")
    rows.slot(connection, worker)
    rows.message(connection, worker, 1, 1)
    assert depths(connection) == {}


def test_a_dead_letter_is_one_row_per_batch_with_all_payloads(connection: Connection) -> None:
    worker = rows.worker(connection)
    rows.job(connection, worker, 1, job_id="j", status="failed")
    rows.message(connection, worker, 1, 1, status="dead", slot="left", payload='{"x":"a,b"}')
    rows.message(connection, worker, 2, 1, status="dead", slot="right", payload='{"y":2}')
    rows.message(connection, worker, 3, 1, status="parked")
    rows.parked(
        connection, worker, [2, 1], 1, reason="dead", attempt=4, deaths=3, error_type="E", error="why"
    )
    rows.parked(connection, worker, [3], 1, reason="retry")
    [letter] = view(connection, "dead_letters")
    assert instant(letter.pop("dead_since")) == AT_T0
    assert letter == {
        "worker_id": "w",
        "flow_id": "f",
        "job_id": "j",
        "message": 2,
        "routine_id": "r",
        "slot": "left,right",
        "payload": '[{"y":2},{"x":"a,b"}]',
        "attempts": 4,
        "deaths": 3,
        "error_type": "E",
        "error": "why",
    }


def test_a_dead_batch_of_several_jobs_has_no_one_job(connection: Connection) -> None:
    worker = rows.worker(connection)
    rows.message(connection, worker, 1, 1, status="dead")
    rows.parked(connection, worker, [1], 0, reason="dead")
    [letter] = view(connection, "dead_letters")
    assert letter["job_id"] is None


def a_small_history(connection: Connection) -> None:
    """1 → a → 3, 4; 3 with 2 (of another job) → join → 5; 4 waits. A stranger has the same numbers."""
    worker, stranger = rows.worker(connection), rows.worker(connection, "stranger")
    rows.job(connection, worker, 1, job_id="one")
    rows.job(connection, worker, 2, job_id="two")
    rows.job(connection, stranger, 1, job_id="other")
    done = {"status": "consumed"}
    rows.message(connection, worker, 1, 1, routine="a", consumed_by=1, **done)
    rows.message(connection, worker, 2, 2, routine="join", consumed_by=2, **done)
    rows.message(connection, worker, 3, 1, routine="join", produced_by=1, consumed_by=2, **done)
    rows.message(connection, worker, 4, 1, routine="b", produced_by=1)
    rows.message(connection, worker, 5, 2, routine="end", produced_by=2)
    rows.activation(connection, worker, 1, 1, [1], routine="a")
    rows.activation(connection, worker, 2, 2, [2, 3], routine="join")
    rows.message(connection, stranger, 3, 1, produced_by=1, consumed_by=2, **done)
    rows.message(connection, stranger, 5, 1, produced_by=2)
    rows.activation(connection, stranger, 2, 1, [3])


def test_lineage_names_who_produced_and_who_consumed_a_message(connection: Connection) -> None:
    a_small_history(connection)
    [row] = view(connection, "lineage", "WHERE worker_id = 'w' AND message = 3")
    assert instant(row.pop("created_at")) == AT_T0.replace(microsecond=3)
    assert row == {
        "worker_id": "w",
        "flow_id": "f",
        "job_id": "one",
        "message": 3,
        "routine_id": "join",
        "slot": "in",
        "status": "consumed",
        "produced_by": 1,
        "produced_by_routine": "a",
        "consumed_by": 2,
        "consumed_by_routine": "join",
        "payload": '{"n":3}',
    }


def test_what_caused_this_message(connection: Connection) -> None:
    a_small_history(connection)
    assert [row.message for row in lineage.causes(connection, "w", 5)] == [1, 2, 3, 5]
    assert [row.message for row in lineage.causes(connection, "w", 1)] == [1]


def test_what_did_this_message_cause(connection: Connection) -> None:
    a_small_history(connection)
    assert [row.message for row in lineage.effects(connection, "w", 1)] == [1, 3, 4, 5]
    assert [row.message for row in lineage.effects(connection, "w", 2)] == [2, 5]
    assert [row.message for row in lineage.effects(connection, "w", 4)] == [4]


def plan(connection: Connection, query: str, **parameters: Any) -> str:
    explain = "EXPLAIN QUERY PLAN " if connection.dialect.name == "sqlite" else "EXPLAIN "
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(
            "SET LOCAL enable_seqscan = off"
        )  # an empty table is always scanned otherwise
        connection.exec_driver_sql("SET LOCAL enable_bitmapscan = off")
    used = {name: value for name, value in parameters.items() if f":{name}" in query}
    found = connection.execute(text(explain + query), used)
    return "\n".join(str(row[-1]) for row in found)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM routilux_job_history WHERE job_id = 'x'",
        "SELECT * FROM routilux_job_history WHERE worker_id = 'x'",
        "SELECT * FROM routilux_activation_history WHERE job_id = 'x'",
        "SELECT * FROM routilux_activation_history WHERE worker_id = 'x' AND activation = 7",
        "SELECT * FROM routilux_queue_depth",
        "SELECT * FROM routilux_queue_depth WHERE worker_id = 'x'",
        "SELECT * FROM routilux_dead_letters",
        "SELECT * FROM routilux_lineage WHERE worker_id = 'x' AND message = 7",
        "SELECT * FROM routilux_lineage WHERE job_id = 'x'",
        "causes",
        "effects",
    ],
)
def test_no_question_reads_the_whole_history(connection: Connection, query: str) -> None:
    asked = {
        "causes": lineage.CAUSES[connection.dialect.name],
        "effects": lineage.EFFECTS[connection.dialect.name],
    }.get(query, query)
    lines = plan(connection, asked, worker_id="x", message=7).splitlines()
    scans = [
        re.search(r"^SCAN (\w+)|^SEARCH (m) .*\(worker=\?\)|Seq Scan on \w+ (\w+)", line) for line in lines
    ]
    scanned = {name for scan in scans if scan for name in scan.groups() if name}
    assert not scanned & {"j", "m", "a", "p", "c"}, "\n".join(lines)
