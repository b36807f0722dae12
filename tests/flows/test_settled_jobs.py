"""What older documents said in more than one way: how jobs end, and what errors do.

One test per row of docs/reference/settled.md, which is made from the names and docstrings here.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from routilux import ErrorHandler, Routine
from routilux.activation_policies import all_slots_ready_policy, immediate_policy
from tests.flows.flows import Step, chain, flow_of, post, running, taking
from tests.support.looking import column
from tests.support.waiting import eventually


def failing(handler: ErrorHandler | None = None) -> Routine:
    def fail(slot_data: Any, policy_message: Any, worker_state: Any) -> None:
        raise ValueError("no")

    routine = taking("in", logic=fail, policy=immediate_policy())
    return routine if handler is None else routine.set_error_handler(handler)


@pytest.mark.settled_row(24)
def test_row_24_a_job_completes_by_itself(sqlite_database: str) -> None:
    """A job completes by itself when nothing of it is left; while a message of it waits for a partner that
    does not come it stays `running`, until `complete` ends it.
    """
    join = taking("left", "right", logic=lambda left, right, **_: None, policy=all_slots_ready_policy())
    registry = chain(Step(lambda step, slot_data, worker_state: step.emit("output", n=1)))
    flow = registry.resolve("f")
    flow.add_routine(join, "join")
    flow.connect("s0", "output", "join", "left")
    flow.add_routine(taking("in", logic=lambda slot_data, **_: None, policy=immediate_policy()), "plain")
    with running(sqlite_database, registry) as runtime:
        half = post(runtime, {})
        whole = runtime.post("f", "plain", "in", {}, "w").job
        assert runtime.wait_until_all_workers_idle(10)
        assert (half.status, whole.status) == ("running", "completed")
        half.complete("failed", error="nobody came")
        assert (half.status, half.error) == ("failed", "nobody came")


@pytest.mark.settled_row(25)
def test_row_25_the_strategy_decides_how_the_job_ends(sqlite_database: str) -> None:
    """STOP fails the job with the text of the error; CONTINUE and SKIP let it complete; RETRY runs the logic
    again until it succeeds; a critical routine fails its job after its retries, an optional one lets it
    complete.
    """
    attempts: list[str] = []

    def third_time(slot_data: Any, policy_message: Any, worker_state: Any) -> None:
        attempts.append(f"Attempt {len(attempts) + 1}")
        if len(attempts) < 3:
            raise ValueError("not yet")

    retry = taking("in", logic=third_time, policy=immediate_policy())
    routines = {
        "stop": failing(),
        "continue": failing(ErrorHandler("continue")),
        "skip": failing(ErrorHandler("skip")),
        "retry": retry.set_error_handler(ErrorHandler("retry", retry_delay=0.01)),
        "critical": failing().set_as_critical(max_retries=1, retry_delay=0.01),
        "optional": failing().set_as_optional(),
    }
    with running(sqlite_database, flow_of(**routines)) as runtime:
        jobs = {name: runtime.post("f", name, "in", {}, "w") for name in routines}
        assert runtime.wait_until_all_jobs_finished(20)
        assert {name: job.status for name, job in jobs.items()} == {
            "stop": "failed",
            "continue": "completed",
            "skip": "completed",
            "retry": "completed",
            "critical": "failed",
            "optional": "completed",
        }
        assert "ValueError: no" in jobs["stop"].error
        worker = jobs["stop"].worker
        assert [line["status"] for line in worker.get_execution_history("skip")] == ["skipped"]
        assert [line["status"] for line in worker.get_execution_history("continue")] == ["error_continued"]
    assert attempts == ["Attempt 1", "Attempt 2", "Attempt 3"]


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


@pytest.mark.settled_row(27)
def test_row_27_every_routine_has_its_strategy(sqlite_database: str) -> None:
    """A strategy holds for any routine, not for the first alone;
    a routine without one has that of the flow.
    """

    def forward(step: Step, slot_data: Any, worker_state: Any) -> None:
        step.emit("output")

    def fail(*_: Any) -> None:
        raise ValueError("no")

    registry = chain(Step(forward), Step(fail, handler=ErrorHandler("skip")))
    flow = registry.resolve("f")
    flow.add_routine(Step(fail), "flows")
    flow.connect("s0", "output", "flows", "input")
    flow.set_error_handler(ErrorHandler("continue"))
    with running(sqlite_database, registry) as runtime:
        posted = runtime.post("f", "s0", "input", {}, "w")
        assert posted.job.wait(10)
        assert posted.status == "completed"
        found = {line["routine_id"]: line["status"] for line in posted.worker.get_execution_history()}
    assert found == {"s0": "completed", "s1": "skipped", "flows": "error_continued"}


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
