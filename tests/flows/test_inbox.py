"""The inbox: rows of other processes that cannot be applied do not stop any other work."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from routilux import Client
from routilux.errors import SlotModelError
from tests.flows.two_routines import owner, still_serves
from tests.support.looking import column


@pytest.mark.parametrize(
    "body",
    [
        '{"reason": {"a": 1}}',
        '{"reason": [1]}',
        '{"reason": "\\u0000"}',
        '{"key": "k", "by": "x"}',
        '{"key": ["k"], "text": 5}',
        '{"routine": "r", "key": "k", "by": null}',
        '{"status": "no such", "error": 5}',
        "[]",
        "null",
        "not JSON",
    ],
)
def test_a_row_of_the_inbox_that_cannot_be_applied_stops_nobody(database: str, body: str) -> None:
    kinds = [
        "cancel_job",
        "change_data",
        "increment_state",
        "complete_job",
        "pause_worker",
        "no such verb",
        "post",
    ]
    with owner(database) as rt:
        job_id = rt.post("f", "a", "in", {}, "w", delay=60).job.job_id
        insert_rows(database, [(kind, f"other-{kind}" if kind == "post" else job_id, body) for kind in kinds])
        with Client(database) as client:
            good = client.post("f", "a", "in", {}, worker_id="w").job
            rt.run_until_idle()
            rt.resume_worker("w")
            rt.run_until_idle()
            assert good.status == "completed"
        still_serves(rt)
    assert column(database, "SELECT count(*) FROM routilux_inbox") == [0]


def insert_rows(database: str, rows: list[tuple[str, str, str]]) -> None:
    statement = text(
        "INSERT INTO routilux_inbox (kind, flow, worker_id, job_id, body, created_at)"
        " VALUES (:kind, 'f', 'w', :job_id, :body, 0)"
    )
    with create_engine(database, poolclass=NullPool).begin() as connection:
        for kind, job_id, body in rows:
            connection.execute(statement, {"kind": kind, "job_id": job_id, "body": body})


def test_what_arrives_for_a_worker_after_its_end_stays_in_nobodys_way(database: str) -> None:
    """A post whose transaction was open while its worker was cancelled; and what a client asks of one that
    has ended.
    """
    body = '{"routine":"a","slot":"in","payload":"{}"}'
    with owner(database) as rt, Client(database) as client:
        rt.exec("f", worker_id="other")
        rt.cancel_worker("w")
        rt.run_until_idle()
        client.pause_worker("w")
        insert_rows(database, [("post", "late", body)])
        rt.run_until_idle()
        late = rt.get_job("late")
        assert late is not None
        assert (late.status, "cancelled" in str(late.error)) == ("failed", True)
        assert [letter.job_id for letter in rt.dead_letters()] == ["late"]
    assert column(database, "SELECT count(*) FROM routilux_inbox") == [0]
    assert column(database, "SELECT status FROM routilux_workers WHERE worker_id = 'w'") == ["cancelled"]
    assert column(database, "SELECT owner FROM routilux_workers WHERE worker_id = 'w'") == [None]


def test_a_post_that_a_validator_chokes_on_is_kept_as_a_failed_job(database: str) -> None:
    with owner(database) as rt, Client(database) as client:
        job = client.post("f", "a", "mood", {"mood": "bad"}, worker_id="w").job
        rt.run_until_idle()
        assert job.status == "failed"
        (letter,) = rt.dead_letters()
        assert letter.payloads == [{"mood": "bad"}]
        waiting = rt.post("f", "a", "in", {}, "w", delay=60).job
        client.signal(waiting.job_id, "a", "mood", {"mood": "bad"})
        with pytest.raises(SlotModelError, match="Moody of slot 'mood' raised RuntimeError"):
            rt.post("f", "a", "mood", {"mood": "bad"}, "w")
        still_serves(rt)


def test_adding_to_what_is_no_number_stops_nobody(database: str) -> None:
    with owner(database) as rt, Client(database) as client:
        job = client.get_job(rt.post("f", "a", "in", {}, "w", delay=60).job.job_id)
        assert job is not None
        job.set_data("k", "text")
        job.increment("k")
        rt.run_until_idle()
        assert job.data == {"k": "text"}
        still_serves(rt)
