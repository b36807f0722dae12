"""RETRY: which errors are retried, how often, when, and whose attempts are counted."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from routilux import ErrorHandler, Routine, immediate_policy
from routilux.activation_policies import batch_size_policy
from tests.flows.failing import ATTEMPTS, LATER, SOON, Calls, routine_status
from tests.flows.flows import Step, chain, flow_of, post, running, taking
from tests.support.looking import column, rows
from tests.support.waiting import eventually


def test_a_retry_runs_the_same_message_again_over_restarts_until_it_succeeds(database: str) -> None:
    calls = Calls(ValueError("one"), ValueError("two"))
    registry = chain(Step(calls, handler=ErrorHandler("retry", max_retries=3, **LATER)))
    with running(database, registry) as runtime:
        job = post(runtime, {"n": 1})
        eventually(lambda: rows(database, ATTEMPTS))
    with running(database, registry) as runtime:
        eventually(lambda: calls.count == 2)
    with running(database, registry) as runtime:
        assert runtime.get_job(job.job_id).wait(10)
        assert runtime.get_job(job.job_id).status == "completed"
        assert routine_status(runtime, job.job_id) == {"s0": "completed"}
    assert calls.seen == [[{"n": 1}]] * 3
    assert rows(database, ATTEMPTS) == [(1, "retrying"), (2, "retrying"), (3, "completed")]
    assert rows(database, "SELECT value FROM routilux_worker_state") == [("1",)]
    assert rows(database, "SELECT count(*) FROM routilux_parked") == [(0,)]


def test_a_job_that_waits_for_a_retry_is_running_and_its_routine_retrying(database: str) -> None:
    calls = Calls(ValueError("no"))
    registry = chain(Step(calls, handler=ErrorHandler("retry", retry_delay=timedelta(hours=1))))
    with running(database, registry) as runtime:
        job_id = post(runtime, {}).job_id
        eventually(lambda: rows(database, ATTEMPTS))
        assert runtime.wait_until_all_workers_idle(10)
        assert not runtime.wait_until_all_jobs_finished(0.1)
    for _ in range(2):
        with running(database, registry) as runtime:
            job = runtime.get_job(job_id)
            assert (job.status, job.error, job.completed_at) == ("running", None, None)
            assert routine_status(runtime, job_id) == {"s0": "retrying"}
            assert not job.wait(0.1)
    assert calls.count == 1


def test_exhausted_retries_fail_the_job_though_the_runtime_was_restarted_between_them(database: str) -> None:
    calls = Calls(*[ValueError(f"attempt {n}") for n in range(1, 9)])
    registry = chain(Step(calls, handler=ErrorHandler("retry", max_retries=2, **LATER)))
    with running(database, registry) as runtime:
        job_id = post(runtime, {}).job_id
        eventually(lambda: rows(database, ATTEMPTS))
    with running(database, registry) as runtime:
        eventually(lambda: calls.count == 2)
    with running(database, registry) as runtime:
        job = runtime.get_job(job_id)
        assert job.wait(10)
        assert (job.status, job.error) == ("failed", "ValueError: attempt 3")
        assert routine_status(runtime, job_id) == {"s0": "failed"}
        (letter,) = runtime.dead_letters()
        assert (letter.attempt, letter.error) == (3, "attempt 3")
    assert rows(database, ATTEMPTS) == [(1, "retrying"), (2, "retrying"), (3, "failed")]
    assert calls.count == 3


def test_each_message_has_its_own_count_of_attempts(database: str) -> None:
    attempts: Counter[int] = Counter()

    def twice(step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
        attempts[slot_data["input"][0]["n"]] += 1
        if attempts[slot_data["input"][0]["n"]] < 3:
            raise ValueError("again")

    handler = ErrorHandler("retry", max_retries=2, **SOON)
    with running(database, chain(Step(twice, handler=handler))) as runtime:
        jobs = [post(runtime, {"n": n}) for n in range(3)]
        assert all(job.wait(20) for job in jobs)
        assert [job.status for job in jobs] == ["completed"] * 3
    assert attempts == {0: 3, 1: 3, 2: 3}


def test_what_is_not_retryable_fails_at_once(database: str) -> None:
    calls = Calls(KeyError("k"), ValueError("v"))
    handler = ErrorHandler("retry", max_retries=3, retryable_exceptions=ValueError, **SOON)
    with running(database, chain(Step(calls, handler=handler))) as runtime:
        bad = post(runtime, {"n": "not retryable"})
        assert bad.wait(10)
        assert (bad.status, bad.error) == ("failed", "KeyError: 'k'")
        good = post(runtime, {"n": "retryable"})
        assert good.wait(10)
        assert good.status == "completed"
        assert len(runtime.dead_letters()) == 1
    assert rows(database, ATTEMPTS) == [(1, "failed"), (1, "retrying"), (2, "completed")]


def test_no_retry_is_early_and_the_pauses_grow_by_the_backoff_up_to_the_longest(database: str) -> None:
    calls = Calls(*[ValueError(str(n)) for n in range(4)])
    handler = ErrorHandler(
        "retry", max_retries=4, retry_delay=0.05, retry_backoff=2.0, max_retry_delay=timedelta(seconds=0.15)
    )
    with running(database, chain(Step(calls, handler=handler))) as runtime:
        job = post(runtime, {})
        assert job.wait(20)
        assert job.status == "completed"
    times = rows(database, "SELECT started_at, ended_at FROM routilux_activations ORDER BY n")
    pauses = [begun - ended for (begun, _), (_, ended) in zip(times[1:], times, strict=False)]
    asked = [50_000, 100_000, 150_000, 150_000]
    assert [pause >= least for pause, least in zip(pauses, asked, strict=True)] == [True] * 4


def test_a_batch_is_tried_again_as_the_same_batch_though_more_has_come(database: str) -> None:
    calls = Calls(ValueError("no"))
    registry = chain(
        Step(calls, policy=batch_size_policy(3), handler=ErrorHandler("retry", max_retries=1, **LATER))
    )
    with running(database, registry) as runtime:
        first = runtime.post_many("f", "s0", "input", [{"n": n} for n in range(3)], worker_id="w")
        eventually(lambda: rows(database, ATTEMPTS))
    with running(database, registry) as runtime:
        second = runtime.post_many("f", "s0", "input", [{"n": n} for n in range(3, 6)], worker_id="w")
        assert all(runtime.get_job(job.job_id).wait(10) for job in [*first, *second])
        assert {runtime.get_job(job.job_id).status for job in [*first, *second]} == {"completed"}
    assert calls.seen[0] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert sorted(calls.seen[1:], key=str) == [calls.seen[0], [{"n": 3}, {"n": 4}, {"n": 5}]]
    messages = "SELECT policy_message FROM routilux_activations ORDER BY n"
    assert len(set(column(database, messages))) == 1


def test_a_batch_that_fails_fails_each_of_its_jobs(database: str) -> None:
    registry = chain(Step(Calls(ValueError("no")), policy=batch_size_policy(3)))
    with running(database, registry) as runtime:
        jobs = runtime.post_many("f", "s0", "input", [{"n": n} for n in range(3)], worker_id="w")
        assert all(job.wait(10) for job in jobs)
        assert [(job.status, job.error) for job in jobs] == [("failed", "ValueError: no")] * 3
        (letter,) = runtime.dead_letters()
        assert letter.payloads == [{"n": 0}, {"n": 1}, {"n": 2}]
        assert {message.job_id for message in letter.messages} == {job.job_id for job in jobs}


def test_async_logic_is_retried_like_any_other(database: str) -> None:
    calls: list[Any] = []

    class Fetch(Routine):
        def __init__(self) -> None:
            super().__init__()
            self.add_slot("input")
            self.set_activation_policy(immediate_policy())
            self.set_error_handler(ErrorHandler("retry", max_retries=2, **SOON))

        async def logic(self, slot_data: Any, policy_message: Any, worker_state: Any) -> None:
            calls.append(slot_data["input"])
            if len(calls) < 3:
                raise OSError("down")

    with running(database, flow_of(s0=Fetch())) as runtime:
        job = post(runtime, {"n": 1})
        assert job.wait(10)
        assert job.status == "completed"
    assert calls == [[{"n": 1}]] * 3


@pytest.mark.settled_row(26)
def test_row_26_attempts_are_counted_per_message(sqlite_database: str) -> None:
    """Each message has its own attempts: jobs that share a routine do not use up each other's retries."""
    calls: Counter[str] = Counter()

    def bad(step: Step, slot_data: Any, worker_state: Any) -> None:
        calls[slot_data["input"][0]["name"]] += 1
        raise ValueError("never")

    handler = ErrorHandler("retry", max_retries=2, retry_delay=0.01)
    with running(sqlite_database, chain(Step(bad, handler=handler))) as runtime:
        for name in "abc":
            post(runtime, {"name": name})
        assert runtime.wait_until_all_jobs_finished(20)
    assert calls == {"a": 3, "b": 3, "c": 3}


@pytest.mark.settled_row(28)
def test_row_28_every_exception_is_retried_unless_some_are_named(sqlite_database: str) -> None:
    """RETRY runs again after any exception, unless `retryable_exceptions` names some."""
    calls: Counter[str] = Counter()
    errors: dict[str, type[Exception]] = {kind.__name__: kind for kind in (KeyError, OSError, AssertionError)}

    def bad(step: Step, slot_data: Any, worker_state: Any) -> None:
        name = slot_data["input"][0]["name"]
        calls[name] += 1
        if calls[name] == 1:
            raise errors[name]

    with running(
        sqlite_database, chain(Step(bad, handler=ErrorHandler("retry", retry_delay=0.01)))
    ) as runtime:
        jobs = [post(runtime, {"name": name}) for name in errors]
        assert runtime.wait_until_all_jobs_finished(20)
        assert {job.status for job in jobs} == {"completed"}
    assert set(calls.values()) == {2}


@pytest.mark.settled_row(29)
def test_row_29_retries_come_after_the_first_attempt(sqlite_database: str) -> None:
    """`max_retries` counts the runs after the first, 3 by default; before the k-th passes
    `retry_delay * retry_backoff ** (k - 1)`; an exception that is not retryable fails the job at once."""
    calls: Counter[str] = Counter()

    def fail(slot_data: Any, policy_message: Any, worker_state: Any) -> None:
        (item,) = slot_data["in"]
        calls[item["as"]] += 1
        raise (TypeError if calls[item["as"]] == item.get("fatal") else ValueError)("no")

    def routine(**numbers: Any) -> Routine:
        handler = ErrorHandler("retry", retryable_exceptions=ValueError, **numbers)
        return taking("in", logic=fail, policy=immediate_policy()).set_error_handler(handler)

    default = ErrorHandler()
    assert (default.max_retries, default.retry_delay, default.retry_backoff) == (3, 1.0, 2.0)
    quick = routine(retry_delay=0.001, retry_backoff=1.0)
    slow = routine(retry_delay=0.01, retry_backoff=100_000.0)
    with running(sqlite_database, flow_of(quick=quick, slow=slow)) as runtime:
        jobs = [
            runtime.post("f", "quick", "in", item, "w").job
            for item in ({"as": "all"}, {"as": "two", "fatal": 2})
        ]
        assert runtime.wait_until_all_jobs_finished(20)
        assert {job.status for job in jobs} == {"failed"}
        assert calls == {"all": 4, "two": 2}
        runtime.post("f", "slow", "in", {"as": "slow"}, "w")
        delay_us = (
            "SELECT p.due_at - a.ended_at FROM routilux_parked p JOIN routilux_activations a ON a.n ="
            " p.activation"
        )
        (waits_us,) = eventually(
            lambda: column(sqlite_database, f"{delay_us} WHERE p.attempt = 2 AND p.due_at > 0")
        )
        runtime.cancel_all_jobs()
    assert waits_us == pytest.approx(1_000 * 1_000_000, rel=0.01)
