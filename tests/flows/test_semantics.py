"""What a user does, through the public API, on both databases: the semantics line by line."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, create_engine, insert, select
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from routilux import Client, ErrorHandler, GiveUp, Post, RetryLater, get_current_job
from routilux.activation_policies import batch_size_policy, time_interval_policy
from routilux.errors import (
    DeadLetterGoneError,
    FlowNotFoundError,
    IdempotencyConflictError,
    JobEndedError,
    NaiveDatetimeError,
    PayloadError,
    RoutineNotFoundError,
    SlotNotFoundError,
    SlotQueueFullError,
    WorkerNotFoundError,
)
from tests.flows.flows import Step, chain, count, engine_of, post, running


def fail(*_: Any) -> None:
    raise ValueError("no")


def forward(step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
    step.emit("output", **slot_data["input"][0])


def rows(url: str, query: str) -> list[Any]:
    with create_engine(url, poolclass=NullPool).connect() as connection:
        return list(connection.exec_driver_sql(query).all())


# error strategies


def test_stop_fails_the_job_and_keeps_a_dead_letter(database: str) -> None:
    with running(database, chain(Step(fail))) as runtime:
        job = post(runtime, {"n": 1})
        assert job.wait(10)
        assert job.status == "failed"
        assert "ValueError: no" in str(job.error)
        (letter,) = runtime.dead_letters()
        assert letter.payloads == [{"n": 1}]
        assert letter.error_type == "ValueError"
        assert runtime.wait_until_all_jobs_finished(5)


@pytest.mark.parametrize("strategy", ["continue", "skip"])
def test_continue_and_skip_let_the_job_complete(database: str, strategy: str) -> None:
    with running(database, chain(Step(fail, handler=ErrorHandler(strategy)))) as runtime:
        job = post(runtime, {})
        assert job.wait(10)
        assert job.status == "completed"
    expected = {"continue": "error_continued", "skip": "skipped"}[strategy]
    assert rows(database, "SELECT status FROM routilux_activations") == [(expected,)]


def test_a_retry_runs_again_until_it_succeeds_and_leaves_no_trace_of_failures_in_state(database: str) -> None:
    calls: list[int] = []

    def flaky(step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
        worker_state.increment("seen", "count")
        calls.append(1)
        if len(calls) < 3:
            raise ValueError("not yet")

    handler = ErrorHandler("retry", max_retries=3, retry_delay=0.05, retry_backoff=1.0)
    with running(database, chain(Step(flaky, handler=handler))) as runtime:
        job = post(runtime, {})
        assert job.wait(10)
        assert job.status == "completed"
    assert len(calls) == 3
    assert rows(database, "SELECT value FROM routilux_worker_state") == [("1",)]


def test_exhausted_retries_are_a_dead_letter_after_one_and_max_retries_calls(database: str) -> None:
    calls: list[int] = []

    def bad(*_: Any) -> None:
        calls.append(1)
        raise ValueError("never")

    handler = ErrorHandler("retry", max_retries=2, retry_delay=0.02, retry_backoff=1.0)
    with running(database, chain(Step(bad, handler=handler))) as runtime:
        job = post(runtime, {})
        assert job.wait(10)
        assert job.status == "failed"
        assert len(calls) == 3
        assert len(runtime.dead_letters()) == 1


def test_give_up_ends_at_once_and_retry_later_counts_no_attempt(database: str) -> None:
    calls: list[str] = []

    def steer(step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
        calls.append(slot_data["input"][0]["how"])
        if calls[-1] == "give up":
            raise GiveUp("hopeless")
        if len(calls) < 6:
            raise RetryLater(0.02)

    with running(database, chain(Step(steer, handler=ErrorHandler("retry", max_retries=1)))) as runtime:
        given_up = post(runtime, {"how": "give up"})
        assert given_up.wait(10)
        assert given_up.status == "failed"
        later = post(runtime, {"how": "later"})
        assert later.wait(10)
        assert later.status == "completed"


def test_a_retry_fires_after_a_restart_and_never_early(database: str) -> None:
    begun: list[float] = []

    def once(step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
        begun.append(time.time())
        if len(begun) == 1:
            raise ValueError("later")

    registry = chain(Step(once, handler=ErrorHandler("retry", retry_delay=1.0)))
    with running(database, registry) as runtime:
        job_id = post(runtime, {}).job_id
        while not begun:
            runtime.wait_until_all_workers_idle(0.05)
    with running(database, registry) as runtime:
        job = runtime.get_job(job_id)
        assert job is not None
        assert job.wait(15)
        assert job.status == "completed"
    assert len(begun) == 2
    assert begun[1] - begun[0] >= 1.0


# dead letters


def test_a_dead_letter_is_sent_again_with_another_payload_and_reopens_its_job(database: str) -> None:
    def picky(step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
        if slot_data["input"][0].get("bad"):
            raise ValueError("bad")

    registry = chain(Step(picky))
    with running(database, registry) as runtime:
        job_id = post(runtime, {"bad": True}).job_id
        assert runtime.get_job(job_id).wait(10)
    with running(database, registry) as runtime:
        (letter,) = runtime.dead_letters()
        (other,) = runtime.dead_letters()
        letter.retry({"bad": False})
        with pytest.raises(DeadLetterGoneError):
            other.drop("too late")
        job = runtime.get_job(job_id)
        assert job.wait(10)
        assert job.status == "completed"
        assert runtime.dead_letters() == []


def test_a_dropped_dead_letter_is_gone_and_its_history_stays(database: str) -> None:
    with running(database, chain(Step(fail))) as runtime:
        assert post(runtime, {}).wait(10)
        (letter,) = runtime.dead_letters()
        letter.drop("not worth it")
        assert runtime.dead_letters() == []
    assert rows(database, "SELECT status FROM routilux_messages") == [("cancelled",)]
    assert rows(database, "SELECT count(*) FROM routilux_activations") == [(1,)]


# posting


def test_an_id_posted_twice_makes_one_job_and_another_payload_is_a_conflict(database: str) -> None:
    with running(database, chain(Step(count))) as runtime:
        for _ in range(2):
            assert post(runtime, {"n": 1}, job_id="mine").wait(10)
        with pytest.raises(IdempotencyConflictError):
            post(runtime, {"n": 2}, job_id="mine")
    with running(database, chain(Step(count))) as runtime:
        assert post(runtime, {"n": 1}, job_id="mine").status == "completed"
    assert rows(database, "SELECT value FROM routilux_worker_state") == [("1",)]


def test_many_posts_go_in_together_and_all_complete(database: str) -> None:
    with running(database, chain(Step(forward), Step(count))) as runtime:
        jobs = runtime.post_many("f", "s0", "input", [{"n": n} for n in range(2500)], worker_id="w")
        assert runtime.wait_until_all_jobs_finished(60)
        assert {job.status for job in jobs[::500]} == {"completed"}
        assert runtime.list_jobs(limit=1)[0].flow_id == "f"
    assert rows(database, "SELECT value FROM routilux_worker_state") == [("2500",)]


def test_a_delayed_post_waits_and_is_pending(database: str) -> None:
    with running(database, chain(Step(count))) as runtime:
        job = post(runtime, {}, delay=1.0)
        assert job.status == "pending"
        late = post(runtime, {}, at=datetime.now(UTC) + timedelta(hours=1))
        past = post(runtime, {}, at=datetime.now(UTC) - timedelta(hours=1))
        assert job.wait(10)
        assert past.wait(10)
        assert late.status == "pending"


@pytest.mark.parametrize("how", ["core", "orm"])
def test_a_post_in_the_callers_transaction_goes_in_with_it_or_not_at_all(database: str, how: str) -> None:
    with running(database, chain(Step(count))) as runtime:
        pass
    engine = engine_of(database)
    with Client(database) as client:
        open_one = engine.connect if how == "core" else lambda: Session(engine)
        with open_one() as mine:
            kept = client.post("f", "s0", "input", {"n": 1}, "w", transaction=mine).job
            mine.commit()
            lost = client.post("f", "s0", "input", {"n": 2}, "w", transaction=mine).job
            mine.rollback()
        assert client.get_job(lost.job_id) is None
        assert kept.status == "pending"
        with running(database, chain(Step(count))) as runtime:
            assert kept.wait(10)
            assert kept.status == "completed"
            assert runtime.get_job(lost.job_id) is None
    engine.dispose()


def test_a_signal_joins_a_running_job_and_is_refused_after_its_end(database: str) -> None:
    with running(database, chain(Step(count))) as runtime:
        job = post(runtime, {}, delay=3600)
        runtime.signal(job.job_id, "s0", "input", {"n": 1})
        runtime.wait_until_all_workers_idle(10)
        runtime.cancel_job(job.job_id, "enough")
        assert job.wait(10)
        assert job.is_cancelled()
        with pytest.raises(JobEndedError):
            runtime.signal(job.job_id, "s0", "input", {"n": 1})


def test_own_rows_go_in_once_and_a_failing_statement_costs_only_its_activation(database: str) -> None:
    orders = Table("orders", MetaData(), Column("n", Integer, primary_key=True))
    with create_engine(database, poolclass=NullPool).begin() as connection:
        orders.create(connection)

    def store(step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
        step.write(insert(orders).values(n=slot_data["input"][0]["n"]))
        worker_state.increment("seen", "count")

    with running(database, chain(Step(store))) as runtime:
        jobs = runtime.post_many("f", "s0", "input", [{"n": n} for n in [1, 2, 2, 3, 4]], worker_id="w")
        assert all(job.wait(20) for job in jobs)
        assert [job.status for job in jobs] == ["completed", "completed", "failed", "completed", "completed"]
    with create_engine(database, poolclass=NullPool).connect() as connection:
        assert sorted(connection.execute(select(orders.c.n)).scalars()) == [1, 2, 3, 4]
    assert rows(database, "SELECT value FROM routilux_worker_state") == [("4",)]


# bad input: the named error, and nothing stored


def test_what_is_wrong_is_refused_at_the_door_and_nothing_is_stored(database: str) -> None:
    with running(database, chain(Step(count))) as runtime:
        good = ("f", "s0", "input")
        with pytest.raises(FlowNotFoundError, match="'g' not found"):
            runtime.post("g", "s0", "input", {})
        with pytest.raises(RoutineNotFoundError):
            runtime.post("f", "s9", "input", {})
        with pytest.raises(SlotNotFoundError):
            runtime.post("f", "s0", "in", {})
        with pytest.raises(WorkerNotFoundError):
            runtime.post(*good, {}, "nobody")
        with pytest.raises(PayloadError, match=r"data\.a\[1\]"):
            runtime.post(*good, {"a": [1, print]})
        for data in (None, 5, [1], "s"):
            with pytest.raises(PayloadError):
                runtime.post(*good, data)  # type: ignore[arg-type]  # that is the point
        with pytest.raises(PayloadError, match="limit"):
            runtime.post(*good, {"a": "x" * 1_100_000})
        with pytest.raises(NaiveDatetimeError):
            runtime.post(*good, {}, at=datetime(2030, 1, 1))  # noqa: DTZ001
        with pytest.raises(PayloadError):
            runtime.post_many(*good, [{"a": 1}, {"a": print}])
        assert runtime.get_job("nobody") is None
    assert rows(database, "SELECT count(*) FROM routilux_messages") == [(0,)]
    assert rows(database, "SELECT count(*) FROM routilux_jobs") == [(0,)]


def test_a_full_slot_refuses_and_a_post_with_time_waits_for_room(database: str) -> None:
    step = Step(count)
    step.slots.clear()
    step.add_slot("input", max_queue_length=2)
    with running(database, chain(step)) as runtime:
        runtime.pause_worker("w")
        for _ in range(2):
            post(runtime, {})
        with pytest.raises(SlotQueueFullError, match="max=2"):
            post(runtime, {})
        with pytest.raises(SlotQueueFullError):
            post(runtime, {}, timeout=0.1)
        runtime.resume_worker("w")
        assert post(runtime, {}, timeout=10).wait(10)


# control and waiting


def test_a_paused_worker_takes_posts_and_runs_nothing_until_it_is_resumed(database: str) -> None:
    with running(database, chain(Step(count))) as runtime:
        runtime.pause_worker("w", "lunch")
        job = post(runtime, {})
        assert not job.wait(0.2)
    with running(database, chain(Step(count))) as runtime:
        assert not runtime.get_job(job.job_id).wait(0.2)
        runtime.resume_worker("w")
        assert runtime.get_job(job.job_id).wait(10)


def test_a_paused_job_lets_others_pass_and_goes_on_when_resumed(database: str) -> None:
    with running(database, chain(Step(count))) as runtime:
        runtime.pause_worker("w")
        first, second = post(runtime, {"n": 1}), post(runtime, {"n": 2})
        runtime.pause_job(first.job_id)
        runtime.resume_worker("w")
        assert second.wait(10)
        assert first.is_paused()
        runtime.resume_job(first.job_id)
        assert first.wait(10)
        assert first.status == "completed"


def test_a_cancelled_worker_takes_its_jobs_along(database: str) -> None:
    with running(database, chain(Step(count))) as runtime:
        runtime.pause_worker("w")
        job = post(runtime, {})
        runtime.cancel_worker("w", "done with it")
        assert job.wait(10)
        assert job.status == "cancelled"


def test_batches_of_five_five_and_the_rest_when_somebody_waits(database: str) -> None:
    sizes: list[int] = []

    def gather(step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
        sizes.append(len(slot_data["input"]))

    with running(database, chain(Step(gather, policy=batch_size_policy(5)))) as runtime:
        jobs = runtime.post_many("f", "s0", "input", [{"n": n} for n in range(12)], worker_id="w")
        assert runtime.wait_until_all_jobs_finished(20)
        assert {job.status for job in jobs} == {"completed"}
    assert sizes == [5, 5, 2]


def test_an_interval_fires_when_it_ends_though_nothing_new_came(database: str) -> None:
    sizes: list[int] = []

    def gather(step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
        sizes.append(len(slot_data["input"]))

    with running(database, chain(Step(gather, policy=time_interval_policy(0.3)))) as runtime:
        assert post(runtime, {}).wait(10)
        jobs = [post(runtime, {}) for _ in range(3)]
        assert all(job.wait(10) for job in jobs)
    assert sizes[0] == 1
    assert sum(sizes) == 4


def test_job_data_metadata_traces_and_result_are_kept(database: str) -> None:
    def first(step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
        job = get_current_job()
        assert job is not None
        job.set_data("who", job.metadata["user"])
        job.trace("s0", "seen", {"n": 1})
        step.emit("output")

    def last(step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
        job = get_current_job()
        assert job is not None
        job.complete(result={"hello": job.get_data("who")})

    with running(database, chain(Step(first), Step(last))) as runtime:
        job = post(runtime, {}, metadata={"user": "ada"})
        assert job.result(timeout=10) == {"hello": "ada"}
        assert job.data == {"who": "ada"}
        assert [line["action"] for line in job.trace_log] == ["seen"]


def test_post_items_carry_settings_of_their_own(database: str) -> None:
    with running(database, chain(Step(count))) as runtime:
        items = [Post({"n": 1}, job_id="a"), Post({"n": 2}, metadata={"k": 1}), Post({"n": 3}, delay=3600)]
        first, second, third = runtime.post_many("f", "s0", "input", items, worker_id="w")
        assert first.wait(10)
        assert second.wait(10)
        assert first.job_id == "a"
        assert second.metadata == {"k": 1}
        assert third.status == "pending"


def test_async_logic_runs_and_sees_what_threads_see(database: str) -> None:
    step = Step(count)

    async def logic(slot_data: dict[str, list[Any]], policy_message: Any, worker_state: Any) -> None:
        worker_state.increment("seen", "count")
        assert get_current_job() is not None

    step.set_logic(logic)
    with running(database, chain(step)) as runtime:
        jobs = runtime.post_many("f", "s0", "input", [{"n": n} for n in range(20)], worker_id="w")
        assert runtime.wait_until_all_jobs_finished(20)
        assert {job.status for job in jobs} == {"completed"}
    assert rows(database, "SELECT value FROM routilux_worker_state") == [("20",)]


def test_concurrency_runs_several_at_once_and_increments_stay_exact(database: str) -> None:
    import threading

    together = threading.Barrier(3, timeout=20)

    def meet(step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
        together.wait()
        worker_state.increment("seen", "count")

    step = Step(meet)
    step.set_concurrency(3)
    with running(database, chain(step)) as runtime:
        runtime.post_many("f", "s0", "input", [{"n": n} for n in range(6)], worker_id="w")
        assert runtime.wait_until_all_jobs_finished(30)
    assert rows(database, "SELECT value FROM routilux_worker_state") == [("6",)]


def test_a_join_by_job_finds_partners_far_behind_in_line(sqlite_database: str) -> None:
    from routilux import Flow, FlowRegistry, Routine
    from routilux.activation_policies import all_slots_ready_policy

    joined: list[int] = []
    join = Routine()
    join.add_slot("left")
    join.add_slot("right")
    join.set_logic(lambda slot_data, policy_message, worker_state: joined.append(slot_data["left"][0]["n"]))
    join.set_activation_policy(all_slots_ready_policy(by_job=True))
    flow = Flow("f")
    flow.add_routine(join, "join")
    registry = FlowRegistry()
    registry.register_by_name("f", flow)
    with running(sqlite_database, registry) as runtime:
        jobs = runtime.post_many("f", "join", "left", [{"n": n} for n in range(5000)], worker_id="w")
        runtime.signal(jobs[-1].job_id, "join", "right", {"n": -1})
        assert jobs[-1].wait(30)
    assert joined == [4999]
