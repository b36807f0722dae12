"""Reads for people, over rows made by hand."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, delete, event, pool

from routilux.errors import JobNotFoundError
from routilux.store import tables
from routilux.store.reads import dead_letter_rows, history, queue_depth, routine_progress
from routilux.store.records import JobRecord
from tests.support import rows
from tests.support.rows import T0

AT_T0 = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


@pytest.fixture
def connection(database: str) -> Iterator[Connection]:
    with create_engine(database, poolclass=pool.NullPool).connect() as connection:
        yield connection


def ids(found: list[JobRecord]) -> list[str]:
    return [job.job_id for job in found]


def test_a_job_is_found_by_its_id(connection: Connection) -> None:
    rows.job(connection, rows.worker(connection), 1, job_id="j", data='{"a":1}', result="2", started_at=None)
    job = history.job(connection, "j")
    assert job is not None
    assert (job.worker_id, job.flow_id, job.status, job.data, job.result) == (
        "w",
        "f",
        "completed",
        '{"a":1}',
        "2",
    )
    assert job.created_at == AT_T0 + timedelta(microseconds=1)
    assert job.started_at is None


def test_a_post_in_the_inbox_is_a_pending_job(connection: Connection) -> None:
    rows.inbox_post(connection, "j", metadata="{}")
    rows.inbox_post(connection, "k", kind="cancel_job")
    job = history.job(connection, "j")
    assert job is not None
    assert (job.status, job.worker_id, job.metadata) == ("pending", None, "{}")
    assert history.job(connection, "k") is None


@contextmanager
def accepted_after_read(connection: Connection, number: int) -> Iterator[None]:
    """The owner of post `j` accepts it right after the n-th read of this connection."""
    reads = itertools.count(1)

    def accept(*_args: Any) -> None:
        if next(reads) == number:
            with connection.engine.begin() as owner:
                owner.execute(delete(tables.inbox))
                rows.job(owner, rows.worker(owner), 1, job_id="j", status="pending")

    event.listen(connection, "after_cursor_execute", accept)
    try:
        yield
    finally:
        event.remove(connection, "after_cursor_execute", accept)


def test_a_post_that_is_accepted_between_two_reads_is_found(connection: Connection) -> None:
    rows.inbox_post(connection, "j")
    connection.commit()
    with accepted_after_read(connection, 1):
        job = history.job(connection, "j")
    assert job is not None
    assert (job.status, job.worker_id) == ("pending", "w")


def test_a_post_that_is_accepted_between_two_reads_is_listed_once(connection: Connection) -> None:
    rows.inbox_post(connection, "j")
    connection.commit()
    with accepted_after_read(connection, 1):
        assert ids(history.jobs(connection)) == ["j"]


def two_workers(connection: Connection) -> None:
    """w: a-1 a-2 a-3 (failed), of flow f; v: b-1 b-2 of flow g; p-1 p-2 in the inbox, of flow f."""
    w, v = rows.worker(connection, "w"), rows.worker(connection, "v", flow="g")
    for number in (1, 2, 3):
        rows.job(connection, w, number, job_id=f"a-{number}", status="failed" if number == 3 else "completed")
    for number in (1, 2):
        rows.job(connection, v, number, job_id=f"b-{number}", flow="g")
    for number in (1, 2):
        rows.inbox_post(connection, f"p-{number}")


def test_jobs_come_newest_first_what_is_not_yet_accepted_before_all(connection: Connection) -> None:
    two_workers(connection)
    assert ids(history.jobs(connection)) == ["p-2", "p-1", "b-2", "b-1", "a-3", "a-2", "a-1"]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 9])
@pytest.mark.parametrize("flow", [None, "f"])
def test_pages_of_any_size_show_every_job_once(connection: Connection, size: int, flow: str | None) -> None:
    two_workers(connection)
    everything = ids(history.jobs(connection, flow=flow))
    seen: list[str] = []
    while page := ids(history.jobs(connection, flow=flow, limit=size, before=seen[-1] if seen else None)):
        assert len(page) <= size
        seen += page
    assert seen == everything


def test_jobs_are_chosen_by_status_flow_and_worker(connection: Connection) -> None:
    two_workers(connection)
    assert ids(history.jobs(connection, status="failed")) == ["a-3"]
    assert ids(history.jobs(connection, status="pending")) == ["p-2", "p-1"]
    assert ids(history.jobs(connection, flow="g")) == ["b-2", "b-1"]
    assert ids(history.jobs(connection, worker_id="w", limit=2)) == ["a-3", "a-2"]
    assert ids(history.jobs(connection, worker_id="w", flow="g")) == []
    assert ids(history.jobs(connection, worker_id="nobody")) == []


def test_a_page_after_a_job_that_is_gone_is_an_error(connection: Connection) -> None:
    with pytest.raises(JobNotFoundError):
        history.jobs(connection, before="gone")


def test_open_jobs_are_those_that_have_not_ended_or_wait_in_the_inbox(connection: Connection) -> None:
    worker = rows.worker(connection)
    for number, status in enumerate(
        ("pending", "running", "paused", "completed", "failed", "cancelled"), start=1
    ):
        rows.job(connection, worker, number, job_id=status, status=status)
    rows.inbox_post(connection, "posted")
    asked = ["pending", "running", "paused", "completed", "failed", "cancelled", "posted", "unknown"]
    assert history.open_job_ids_among(connection, asked) == {"pending", "running", "paused", "posted"}
    assert history.open_job_ids_among(connection, ["completed"]) == set()
    assert history.open_job_ids_among(connection, []) == set()


def test_workers_come_newest_first_and_by_flow_and_status(connection: Connection) -> None:
    rows.worker(connection, "a")
    rows.worker(connection, "b", flow="g", status="idle", is_named=0, reason="why", owner=7)
    assert [worker.worker_id for worker in history.workers(connection)] == ["b", "a"]
    assert [worker.worker_id for worker in history.workers(connection, flow="f")] == ["a"]
    assert [worker.worker_id for worker in history.workers(connection, status="idle")] == ["b"]
    found = history.worker(connection, "b")
    assert found is not None
    assert (found.flow_id, found.owner, found.is_named, found.reason) == ("g", 7, False, "why")
    assert history.worker(connection, "nobody") is None


def test_activations_of_a_worker_come_newest_first(connection: Connection) -> None:
    worker = rows.worker(connection)
    rows.job(connection, worker, 1, job_id="j")
    for n, routine in enumerate(("a", "b", "a"), start=1):
        rows.activation(connection, worker, n, 1, [n, n + 10], routine=routine)
    assert [activation.n for activation in history.activations(connection, "w")] == [3, 2, 1]
    assert [activation.n for activation in history.activations(connection, "w", routine="a", limit=1)] == [3]
    newest = history.activations(connection, "w")[0]
    assert (newest.job_id, newest.seqs, newest.started_at) == ("j", (3, 13), AT_T0)
    assert history.activations(connection, "nobody") == []


def test_traces_of_a_job_come_in_the_order_in_which_they_went_in(connection: Connection) -> None:
    worker = rows.worker(connection)
    rows.job(connection, worker, 1, job_id="j")
    rows.job(connection, worker, 2, job_id="k")
    rows.trace(connection, worker, 2, 0, 1, action="third")
    rows.trace(connection, worker, 1, 1, 1, action="second", details='{"a":1}')
    rows.trace(connection, worker, 1, 0, 1, action="first", kind="output")
    rows.trace(connection, worker, 3, 0, 2, action="of another job")
    found = history.traces(connection, "j")
    assert [trace.action for trace in found] == ["first", "second", "third"]
    assert (found[0].kind, found[1].details, found[0].at) == ("output", '{"a":1}', AT_T0)


@pytest.mark.parametrize(
    ("messages", "recorded", "status"),
    [
        (["consumed"], None, "completed"),
        (["consumed", "waiting"], None, "pending"),
        (["parked"], None, "pending"),
        (["parked"], "retrying", "retrying"),
        (["consumed"], "skipped", "skipped"),
        (["consumed"], "error_continued", "error_continued"),
        (["dead"], "failed", "failed"),
        (["consumed", "dead"], None, "failed"),
        (["cancelled"], None, None),
        ([], "failed", "failed"),
    ],
)
def test_the_status_of_a_routine_follows_from_its_messages_and_from_what_is_on_record(
    connection: Connection, messages: list[str], recorded: str | None, status: str | None
) -> None:
    worker = rows.worker(connection)
    statuses = None if recorded is None else f'{{"r":"{recorded}"}}'
    rows.job(connection, worker, 1, job_id="j", status="running", routine_status=statuses)
    for seq, message in enumerate(messages, start=1):
        rows.message(connection, worker, seq, 1, status=message)
    assert routine_progress.routine_status(connection, "j").get("r") == status


def test_a_routine_runs_while_the_last_commit_says_so(connection: Connection) -> None:
    runtime = rows.runtime(connection)
    worker = rows.worker(connection, owner=runtime)
    rows.job(connection, worker, 1, job_id="j", status="running")
    rows.job(connection, worker, 2, job_id="k", status="running")
    rows.message(connection, worker, 1, 1)
    rows.message(connection, worker, 2, 2)
    rows.message(connection, worker, 3, 1, routine="other")
    rows.commit(connection, runtime, 1, in_flight=f'[[{worker},"other",1,3,false]]')
    rows.commit(
        connection, runtime, 2, in_flight=f'[[{worker},"r",1,1,false],[{worker + 1},"other",1,9,false]]'
    )
    assert routine_progress.routine_status(connection, "j") == {"r": "running", "other": "pending"}
    assert routine_progress.routine_status(connection, "k") == {"r": "pending"}
    assert routine_progress.routine_status(connection, "unknown") == {}


def test_dead_letters_are_listed_by_flow_and_page(connection: Connection) -> None:
    w, v = rows.worker(connection, "w"), rows.worker(connection, "v", flow="g")
    for worker, seq in ((w, 1), (w, 2), (v, 1)):
        rows.message(connection, worker, seq, seq, status="dead")
        rows.parked(connection, worker, [seq], seq, reason="dead")
    rows.parked(connection, w, [9], 9, reason="retry")
    keys = [letter.key for letter in dead_letter_rows.dead_letters(connection)]
    assert keys == [(v, 1), (w, 2), (w, 1)]
    assert [letter.key for letter in dead_letter_rows.dead_letters(connection, flow="f", limit=1)] == [(w, 2)]
    assert [letter.key for letter in dead_letter_rows.dead_letters(connection, before=(w, 2))] == [(w, 1)]


def test_a_dead_letter_carries_its_messages_and_its_error(connection: Connection) -> None:
    worker = rows.worker(connection)
    rows.job(connection, worker, 1, job_id="j")
    rows.message(connection, worker, 1, 1, status="dead", slot="left")
    rows.message(connection, worker, 2, 1, status="dead", slot="right")
    rows.activation(connection, worker, 5, 1, [1, 2], status="failed", traceback="tb")
    rows.parked(
        connection,
        worker,
        [1, 2],
        1,
        reason="dead",
        attempt=4,
        activation=5,
        error_type="ValueError",
        error="no",
    )
    letter = dead_letter_rows.dead_letter(connection, worker, 1)
    assert letter is not None
    assert [(m.seq, m.slot, m.payload, m.job_id) for m in letter.messages] == [
        (1, "left", '{"n":1}', "j"),
        (2, "right", '{"n":2}', "j"),
    ]
    assert (letter.job_id, letter.attempt, letter.error_type, letter.error, letter.traceback) == (
        "j",
        4,
        "ValueError",
        "no",
        "tb",
    )
    assert letter.dead_since == AT_T0
    assert dead_letter_rows.dead_letter(connection, worker, 2) is None


def test_queue_depth_of_one_worker_or_of_all(connection: Connection) -> None:
    w, v = rows.worker(connection, "w"), rows.worker(connection, "v")
    rows.message(connection, w, 1, 1, created_at=T0)
    rows.message(connection, w, 2, 1)
    rows.slot(connection, v)
    assert [(d.worker_id, d.waiting) for d in queue_depth.queue_depth(connection)] == [("v", 0), ("w", 2)]
    [depth] = queue_depth.queue_depth(connection, "w")
    assert (depth.flow_id, depth.routine_id, depth.slot, depth.parked) == ("f", "r", "in", 0)
    assert depth.oldest_waiting_at == AT_T0
