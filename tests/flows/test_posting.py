"""The ways to enqueue: `post`, `post_many`, `signal`, and ids that make a post idempotent."""

from __future__ import annotations

from typing import Any

import pytest

from routilux import (
    Client,
    IdempotencyConflictError,
    JobEndedError,
    Post,
    Runtime,
    WorkerState,
    get_current_job_id,
)
from tests.flows.flows import GOOD, Seen, Step, chain, count, known_flow, post, running
from tests.support.looking import rows, stored
from tests.support.waiting import eventually

# post and post_many


def test_a_post_returns_a_worker_and_a_job_and_answers_for_the_job(database: str) -> None:
    seen = Seen()
    with running(database, chain(Step(seen))) as runtime:
        posted = runtime.post(*GOOD, {"n": 1}, metadata={"user": "ada"})
        worker, job = posted
        assert isinstance(worker, WorkerState)
        assert (worker.worker_id, worker.flow_id, posted.worker, posted.job) == ("w", "f", worker, job)
        assert (posted.job_id, posted.worker_id, posted.flow_id) == (job.job_id, "w", "f")
        assert posted.metadata == {"user": "ada"}
        assert posted.wait(10)
        assert posted.status == "completed"
        again = runtime.get_job(job.job_id)
        assert (again.metadata, again.error, again.data) == ({"user": "ada"}, None, {})
        assert job.created_at <= job.started_at <= job.completed_at
        assert job.to_dict()["status"] == "completed"
    assert seen.items == [{"n": 1}]


def test_a_post_goes_to_the_newest_live_worker_or_to_the_one_it_names(database: str) -> None:
    with running(database, chain(Step(Seen()))) as runtime:
        second = runtime.exec("f")
        third = runtime.exec("f")
        workers = [runtime.post(*GOOD, {}).worker_id, runtime.post(*GOOD, {}, "w").worker_id]
        runtime.cancel_worker(third.worker_id)
        workers.append(runtime.post(*GOOD, {}).worker_id)
        assert workers == [third.worker_id, "w", second.worker_id]
        assert runtime.wait_until_all_jobs_finished(10)
        assert second.get_routine_state("s0") == {"seen": 1}


def test_without_a_worker_a_post_starts_one(database: str) -> None:
    with Runtime(1, database=database, registry=chain(Step(Seen()))) as runtime:
        first, second = runtime.post(*GOOD, {}), runtime.post(*GOOD, {})
        assert first.worker_id == second.worker_id is not None
        assert first.wait(10)


def test_thousands_of_posts_go_in_together_and_are_handled_in_their_order(database: str) -> None:
    seen = Seen()
    with running(database, chain(Step(seen))) as runtime:
        jobs = runtime.post_many(*GOOD, ({"n": n} for n in range(5000)), metadata={"source": "file"})
        assert len({job.job_id for job in jobs}) == 5000
        assert runtime.wait_until_all_jobs_finished(60)
        assert {job.status for job in jobs[::500]} == {"completed"}
        assert jobs[-1].metadata == {"source": "file"}
    assert [item["n"] for item in seen.items] == list(range(5000))
    counts = "SELECT status, count(*) FROM routilux_jobs GROUP BY status"
    assert rows(database, counts) == [("completed", 5000)]


def test_items_may_have_settings_of_their_own(database: str) -> None:
    with running(database, chain(Step(Seen()))) as runtime:
        runtime.pause_worker("w")
        one, two, three, four = runtime.post_many(
            *GOOD,
            [
                {"n": 1},
                Post({"n": 2}, job_id="mine"),
                Post({"n": 3}, metadata={"k": 3}),
                Post({}, delay=3600),
            ],
            metadata={"k": 0},
        )
        assert two.job_id == "mine"
        assert [job.metadata for job in (one, two, three, four)] == [{"k": 0}, {}, {"k": 3}, {}]
        runtime.resume_worker("w")
        assert all(job.wait(10) for job in (one, two, three))
        assert four.status == "pending"


@pytest.mark.settled_row(8)
def test_row_08_post_returns_a_worker_and_a_job(sqlite_database: str) -> None:
    """`post` returns the tuple `(worker_state, job)`, which also answers for the job itself."""
    with running(sqlite_database, chain(Step(count))) as runtime:
        posted = runtime.post("f", "s0", "input", {}, "w", metadata={"user": "ada"})
        worker, job = posted
        assert isinstance(worker, WorkerState)
        assert (worker.worker_id, job.worker_id) == ("w", "w")
        assert job.wait(10)
        assert (posted.job_id, posted.status, posted.error) == (job.job_id, "completed", None)
        assert posted.metadata == {"user": "ada"}


@pytest.mark.settled_row(9)
def test_row_09_a_post_goes_to_the_newest_worker_of_the_flow(sqlite_database: str) -> None:
    """Each `exec` is a worker of its own, and a post without `worker_id` goes to the newest one that lives:
    five posts count to five.
    """
    with running(sqlite_database, chain(Step(count))) as runtime:
        older, newer = runtime.exec("f"), runtime.exec("f")
        assert older.worker_id != newer.worker_id
        jobs = [runtime.post("f", "s0", "input", {}).job for _ in range(5)]
        assert runtime.wait_until_all_jobs_finished(10)
        assert {job.worker_id for job in jobs} == {newer.worker_id}
        assert newer.get_routine_state("seen") == {"count": 5}
        assert older.get_routine_state("seen") is None


@pytest.mark.settled_row(10)
def test_row_10_a_post_needs_no_exec_before_it(sqlite_database: str) -> None:
    """A post to a flow without a worker starts one, and the next post goes to the same."""
    with Runtime(2, database=sqlite_database, registry=chain(Step(count))) as runtime:
        workers = {runtime.post("f", "s0", "input", {}).worker_id for _ in range(2)}
        assert runtime.wait_until_all_jobs_finished(10)
    assert len(workers) == 1
    assert stored(sqlite_database)["workers"] == 1


# ids that make a post idempotent


def test_an_id_makes_one_job_before_during_and_after_it(database: str) -> None:
    seen = Seen()
    registry = chain(Step(seen), Step(Seen()))
    with running(database, registry) as runtime:
        runtime.pause_worker("w")
        first = post(runtime, {"n": 1}, job_id="mine", metadata={"try": 1})
        again = post(runtime, {"n": 1}, job_id="mine", metadata={"try": 2})
        assert (again.job_id, again.status, again.metadata) == ("mine", "pending", {"try": 1})
        before = stored(database)
        for names, data in ((GOOD, {"n": 2}), (("f", "s1", "input"), {"n": 1})):
            with pytest.raises(IdempotencyConflictError, match="'mine' was used for a different post"):
                runtime.post(*names, data, "w", job_id="mine")
        with pytest.raises(IdempotencyConflictError):
            runtime.post_many(*GOOD, [{"n": 5}, Post({"n": 2}, job_id="mine")], worker_id="w")
        assert stored(database) == before
        runtime.resume_worker("w")
        assert first.wait(10)
        assert post(runtime, {"n": 1}, job_id="mine").status == "completed"
    with running(database, registry) as runtime:
        assert post(runtime, {"n": 1}, job_id="mine").status == "completed"
        with pytest.raises(IdempotencyConflictError):
            post(runtime, {"n": 2}, job_id="mine")
    assert seen.items == [{"n": 1}]


def test_an_id_twice_in_one_call_is_one_job(database: str) -> None:
    seen = Seen()
    registry = chain(Step(seen))
    items = [Post({"n": 1}, job_id="a"), Post({"n": 2}, job_id="b"), Post({"n": 1}, job_id="a")]
    with running(database, registry) as runtime:
        jobs = runtime.post_many(*GOOD, items, worker_id="w")
        assert [job.job_id for job in jobs] == ["a", "b", "a"]
        assert all(job.wait(10) for job in jobs)
        with pytest.raises(IdempotencyConflictError):
            runtime.post_many(*GOOD, [Post({"n": 1}, job_id="c"), Post({"n": 2}, job_id="c")])
        assert runtime.get_job("c") is None
    with Client(database) as client:
        with pytest.raises(IdempotencyConflictError):
            client.post_many(*GOOD, [Post({"n": 1}, job_id="d"), Post({"n": 2}, job_id="d")])
        assert client.get_job("d") is None
        client.post_many(*GOOD, [Post({"n": 3}, job_id="d"), Post({"n": 3}, job_id="d")])
        with running(database, registry):
            assert client.get_job("d").wait(10)
    assert seen.items == [{"n": 1}, {"n": 2}, {"n": 3}]


def test_an_id_is_known_to_other_processes_before_and_after_it_is_accepted(database: str) -> None:
    seen = Seen()
    registry = chain(Step(seen))
    known_flow(database, registry)
    with Client(database) as one, Client(database) as two:
        first = one.post(*GOOD, {"n": 1}, job_id="mine")
        assert two.post(*GOOD, {"n": 1}, job_id="mine").status == "pending"
        with pytest.raises(IdempotencyConflictError):
            two.post(*GOOD, {"n": 2}, job_id="mine")
        assert stored(database)["inbox"] == 1
        with running(database, registry) as runtime:
            assert first.job.wait(10)
            for door in (one, two, runtime):
                assert door.post(*GOOD, {"n": 1}, job_id="mine").status == "completed"
                with pytest.raises(IdempotencyConflictError):
                    door.post(*GOOD, {"n": 2}, job_id="mine")
            theirs = post(runtime, {"n": 3}, job_id="theirs")
            assert theirs.wait(10)
            assert one.post(*GOOD, {"n": 3}, job_id="theirs").status == "completed"
            with pytest.raises(IdempotencyConflictError):
                one.post(*GOOD, {"n": 4}, job_id="theirs")
    assert seen.items == [{"n": 1}, {"n": 3}]


# signals


def test_signals_are_messages_of_a_running_job_until_it_ends(database: str) -> None:
    seen: list[Any] = []

    def approve(step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
        seen.append((slot_data["input"][0]["n"], get_current_job_id()))

    registry = chain(Step(approve))
    with running(database, registry) as runtime:
        job = post(runtime, {"n": 0}, delay=3600)
        runtime.signal(job.job_id, "s0", "input", {"n": 1})
        eventually(lambda: len(seen) == 1)
        runtime.pause_worker("w")
        runtime.signal(job.job_id, "s0", "input", {"n": 2})
        with Client(database) as client:
            client.signal(job.job_id, "s0", "input", {"n": 3})
    with running(database, registry) as runtime:  # durable on return
        runtime.resume_worker("w")
        eventually(lambda: len(seen) == 3)
        job = runtime.get_job(job.job_id)
        assert job.status == "running"
        job.complete(result={"ok": True})
        assert job.result(10) == {"ok": True}
        with pytest.raises(JobEndedError, match=r"has ended \(completed\)"):
            runtime.signal(job.job_id, "s0", "input", {"n": 4})
    assert seen == [(n, job.job_id) for n in (1, 2, 3)]
