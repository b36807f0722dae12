"""What happens when logic raises: each error strategy, on both databases, with restarts between."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, create_engine, insert
from sqlalchemy.pool import NullPool

from routilux import (
    ErrorHandler,
    Flow,
    FlowRegistry,
    GiveUp,
    JobFailedError,
    RetryLater,
    Routine,
    get_current_job,
    immediate_policy,
)
from tests.flows.failing import ATTEMPTS, SOON, Calls, routine_status
from tests.flows.flows import Step, chain, flow_of, post, running, taking
from tests.flows.two_routines import Gone
from tests.support.looking import column, rows
from tests.support.waiting import eventually


def fan_out(step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
    for n in range(slot_data["input"][0]["times"]):
        step.emit("output", n=n)


def fail_on_the_first(step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
    if slot_data["input"][0]["n"] == 0:
        raise ValueError("no")


# STOP


def test_stop_fails_the_job_and_cancels_its_other_messages(database: str) -> None:
    registry = chain(Step(fan_out), Step(fail_on_the_first))
    with running(database, registry) as runtime:
        job = post(runtime, {"times": 4})
        assert job.wait(10)
        assert (job.status, job.error) == ("failed", "ValueError: no")
        assert job.completed_at is not None
        with pytest.raises(JobFailedError, match="ValueError: no"):
            job.result(5)
        assert routine_status(runtime, job.job_id) == {"s0": "completed", "s1": "failed"}
    messages = "SELECT status, count(*) FROM routilux_messages GROUP BY status ORDER BY status"
    assert rows(database, messages) == [("cancelled", 3), ("consumed", 1), ("dead", 1)]
    with running(database, registry) as runtime:  # kept, and nothing of it runs again
        assert runtime.wait_until_all_jobs_finished(10)
        assert runtime.get_job(job.job_id).status == "failed"
        assert [letter.payloads for letter in runtime.dead_letters()] == [[{"n": 0}]]
    assert rows(database, messages) == [("cancelled", 3), ("consumed", 1), ("dead", 1)]


def test_stop_leaves_the_other_jobs_of_the_worker_alone(database: str) -> None:
    with running(database, chain(Step(fan_out), Step(fail_on_the_first))) as runtime:
        runtime.pause_worker("w")
        jobs = [post(runtime, {"times": times}) for times in (0, 2, 0, 2)]
        runtime.resume_worker("w")
        assert runtime.wait_until_all_jobs_finished(10)
        assert [job.status for job in jobs] == ["completed", "failed", "completed", "failed"]
        assert runtime.exec("f", worker_id="w").status == "idle"


# CONTINUE and SKIP


@pytest.mark.parametrize(("strategy", "said"), [("continue", "error_continued"), ("skip", "skipped")])
def test_continue_and_skip_consume_the_message_and_the_job_goes_on(
    database: str, strategy: str, said: str
) -> None:
    calls = Calls(ValueError("no"), ValueError("no"))
    registry = chain(Step(calls, handler=ErrorHandler(strategy)))
    with running(database, registry) as runtime:
        job = post(runtime, {"n": 1}, delay=3600)  # so that the job has more to do after the error
        runtime.signal(job.job_id, "s0", "input", {"n": 2})
        eventually(lambda: calls.count == 1)
        assert runtime.wait_until_all_workers_idle(10)
        assert (job.status, job.error) == ("running", None)
    with running(database, registry) as runtime:
        runtime.signal(job.job_id, "s0", "input", {"n": 3})
        eventually(lambda: routine_status(runtime, job.job_id) == {"s0": "pending"} and calls.count == 2)
        other = post(runtime, {"n": 4})
        assert other.wait(10)
        assert other.status == "completed"
        assert runtime.dead_letters() == []
    assert [status for _, status in rows(database, ATTEMPTS)] == [said, said, "completed"]
    errors = "SELECT error_type, error FROM routilux_activations WHERE error IS NOT NULL"
    assert rows(database, errors) == [("ValueError", "no")] * 2
    assert Counter(column(database, "SELECT status FROM routilux_messages")) == {"consumed": 3, "parked": 1}


def test_a_job_whose_only_message_went_wrong_completes_and_its_routine_says_how(database: str) -> None:
    always = Calls(ValueError("no"), ValueError("no"))
    registry = flow_of(
        goes_on=Step(always, handler=ErrorHandler("continue")),
        skips=Step(always, handler=ErrorHandler("skip")),
    )
    with running(database, registry) as runtime:
        jobs = [runtime.post("f", name, "input", {}, "w").job for name in ("goes_on", "skips")]
        assert all(job.wait(10) for job in jobs)
    with running(database, registry) as runtime:
        assert [runtime.get_job(job.job_id).status for job in jobs] == ["completed"] * 2
        assert routine_status(runtime, jobs[0].job_id) == {"goes_on": "error_continued"}
        assert routine_status(runtime, jobs[1].job_id) == {"skips": "skipped"}


# all strategies


def failing(handler: ErrorHandler | None = None) -> Routine:
    def fail(slot_data: Any, policy_message: Any, worker_state: Any) -> None:
        raise ValueError("no")

    routine = taking("in", logic=fail, policy=immediate_policy())
    return routine if handler is None else routine.set_error_handler(handler)


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


@pytest.mark.old_bug(1)
def test_old_bug_01_error_strategies_did_nothing(sqlite_database: str) -> None:
    """RETRY runs the logic again, each job with retries of its own; STOP fails the job, what SKIP skipped
    says so, and a job that is done is completed by itself.
    """
    calls: Counter[str] = Counter()

    def flaky(slot_data: Any, policy_message: Any, worker_state: Any) -> None:
        name = slot_data["in"][0]["name"]
        calls[name] += 1
        if calls[name] < 3:
            raise ValueError("not yet")

    def fail(slot_data: Any, policy_message: Any, worker_state: Any) -> None:
        raise ValueError("no")

    handlers = {
        "retry": ErrorHandler("retry", max_retries=2, retry_delay=0.01),
        "stop": ErrorHandler("stop"),
        "skip": ErrorHandler("skip"),
    }
    registry = flow_of(
        **{
            name: taking(
                "in", logic=flaky if name == "retry" else fail, policy=immediate_policy()
            ).set_error_handler(handler)
            for name, handler in handlers.items()
        }
    )
    with running(sqlite_database, registry) as runtime:
        retried = [runtime.post("f", "retry", "in", {"name": name}, "w") for name in "abc"]
        stopped, skipped = (runtime.post("f", name, "in", {}, "w") for name in ("stop", "skip"))
        assert runtime.wait_until_all_jobs_finished(20)
        assert [job.status for job in retried] == ["completed"] * 3
        assert (stopped.status, skipped.status) == ("failed", "completed")
        assert [line["status"] for line in skipped.worker.get_execution_history("skip")] == ["skipped"]
    assert calls == {"a": 3, "b": 3, "c": 3}


# steering


STRATEGIES = ["stop", "continue", "skip", "retry"]


def test_retry_later_counts_no_attempt_whatever_the_strategy(database: str) -> None:
    calls = {name: Calls(RetryLater(0.05, "busy"), RetryLater(timedelta(seconds=0.3))) for name in STRATEGIES}
    registry = flow_of(
        **{name: Step(calls[name], handler=ErrorHandler(name, max_retries=0)) for name in STRATEGIES}
    )
    with running(database, registry) as runtime:
        jobs = [runtime.post("f", name, "input", {}, "w").job for name in STRATEGIES]
        eventually(lambda: all(calls[name].count >= 2 for name in STRATEGIES))
    with running(database, registry) as runtime:
        assert all(runtime.get_job(job.job_id).wait(10) for job in jobs)
        assert {runtime.get_job(job.job_id).status for job in jobs} == {"completed"}
    for name in STRATEGIES:
        history = "SELECT attempt, status, error FROM routilux_activations WHERE routine = :name ORDER BY n"
        assert rows(database, history, name=name) == [
            (1, "retrying", "busy"),
            (1, "retrying", "again in 0.3 s"),
            (1, "completed", None),
        ]


def test_give_up_is_a_dead_letter_at_once_whatever_the_strategy(database: str) -> None:
    calls = Calls(*[GiveUp("hopeless")] * 4)
    registry = flow_of(**{name: Step(calls, handler=ErrorHandler(name, **SOON)) for name in STRATEGIES})
    with running(database, registry) as runtime:
        jobs = [runtime.post("f", name, "input", {"n": 1}, "w").job for name in STRATEGIES]
        assert all(job.wait(10) for job in jobs)
        assert [(job.status, job.error) for job in jobs] == [("failed", "GiveUp: hopeless")] * 4
        letters = runtime.dead_letters()
        assert {letter.routine_id for letter in letters} == set(STRATEGIES)
        for letter in letters:
            assert (letter.error_type, letter.error, letter.payloads) == ("GiveUp", "hopeless", [{"n": 1}])
    assert rows(database, "SELECT DISTINCT attempt, status FROM routilux_activations") == [(1, "failed")]
    assert calls.count == 4


# what is thrown away, and what is kept


def test_a_failed_activation_leaves_nothing_but_its_traces(database: str) -> None:
    orders = Table("orders", MetaData(), Column("n", Integer))
    with create_engine(database, poolclass=NullPool).begin() as connection:
        orders.create(connection)
    flow = Flow("f")

    def spoil(step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
        job = get_current_job()
        assert job is not None
        worker_state.update_routine_state("mine", {"left": "behind"})
        worker_state.increment("mine", "n")
        job.set_data("left", "behind")
        job.increment("n")
        job.trace("r", "was here")
        step.emit("output", n=1)
        step.write(insert(orders).values(n=1))
        raise ValueError("no")

    handler = {"max_retries": 1, **SOON}
    for strategy in ("stop", "continue", "skip", "retry"):
        flow.add_routine(Step(spoil, handler=ErrorHandler(strategy, **handler)), strategy)
    flow.add_routine(Step(Calls()), "next")
    for strategy in ("stop", "continue", "skip", "retry"):
        flow.connect(strategy, "output", "next", "input")
    registry = FlowRegistry()
    registry.register_by_name("f", flow)
    with running(database, registry) as runtime:
        jobs = {
            name: runtime.post("f", name, "input", {}, "w").job for name in flow.routines if name != "next"
        }
        assert all(job.wait(10) for job in jobs.values())
        assert {name: job.status for name, job in jobs.items()} == {
            "stop": "failed",
            "continue": "completed",
            "skip": "completed",
            "retry": "failed",
        }
        assert [job.data for job in jobs.values()] == [{}] * 4
        assert [len(job.trace_log) for job in jobs.values()] == [1, 1, 1, 2]
        assert runtime.exec("f", worker_id="w").routine_states == {}
    assert rows(database, "SELECT n FROM orders") == []
    assert column(database, "SELECT DISTINCT routine FROM routilux_messages WHERE routine = 'next'") == []


def test_a_routines_handler_goes_before_the_flows_and_that_before_stop(database: str) -> None:
    flow = Flow("f")
    flow.set_error_handler(ErrorHandler("continue"))
    always = Calls(*[ValueError("no")] * 3)
    flow.add_routine(Step(always), "of_the_flow")
    flow.add_routine(Step(always, handler=ErrorHandler("skip")), "its_own")
    flow.add_routine(Step(always).set_as_optional("skip"), "optional")
    registry = FlowRegistry()
    registry.register_by_name("f", flow)
    with running(database, registry) as runtime:
        for name in flow.routines:
            assert runtime.post("f", name, "input", {}, "w").wait(10)
    statuses = "SELECT routine, status FROM routilux_activations ORDER BY n"
    assert rows(database, statuses) == [
        ("of_the_flow", "error_continued"),
        ("its_own", "skipped"),
        ("optional", "skipped"),
    ]


def test_a_critical_routine_retries_and_then_fails_the_job_an_optional_one_does_not(database: str) -> None:
    calls = Calls(*[ValueError("no")] * 4)
    critical, optional = Step(calls), Step(calls)
    critical.set_as_critical(max_retries=1, retry_delay=0.05)
    optional.set_as_optional()
    with running(database, flow_of(s0=critical, s1=optional)) as runtime:
        first = post(runtime, {})
        assert first.wait(10)
        second = runtime.post("f", "s1", "input", {}, "w").job
        assert second.wait(10)
        assert (first.status, second.status) == ("failed", "completed")
    assert rows(database, ATTEMPTS) == [(1, "retrying"), (2, "failed")]


def test_whatever_logic_raises_is_kept_as_text_and_the_runtime_goes_on(database: str) -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise ValueError("no text")

    errors = [ValueError("a\x00b\ud800c"), SystemExit(3), KeyboardInterrupt(), Broken()]
    with running(database, chain(Step(Calls(*errors)))) as runtime:
        jobs = [post(runtime, {}) for _ in errors]
        assert all(job.wait(10) for job in jobs)
        assert {job.status for job in jobs} == {"failed"}
        said = [str(job.error) for job in jobs]
        assert all("Traceback" in letter.traceback for letter in runtime.dead_letters())
        good = post(runtime, {})
        assert good.wait(10)
        assert good.status == "completed"
    starts = [
        "ValueError: a",
        "SystemExit: 3",
        "KeyboardInterrupt: ",
        "Broken: <Broken whose text cannot be made",
    ]
    assert [text.startswith(start) for text, start in zip(said, starts, strict=True)] == [True] * 4


def test_what_cannot_be_emitted_fails_the_activation_with_the_path(database: str) -> None:
    def bad(step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
        match slot_data["input"][0]["what"]:
            case "payload":
                step.emit("output", items=[1, print])
            case "event":
                step.emit("nowhere")
            case "size":
                step.emit("output", text="x" * 1_100_000)

    with running(database, chain(Step(bad), Step(Calls()))) as runtime:
        jobs = [post(runtime, {"what": what}) for what in ("payload", "event", "size")]
        assert all(job.wait(10) for job in jobs)
        errors = [str(job.error) for job in jobs]
    assert errors[0].startswith("PayloadError: emit('output').items[1]")
    assert errors[1].startswith("EventNotFoundError: Event 'nowhere'")
    assert errors[2].startswith("PayloadTooLargeError: emit('output')")


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, Gone, asyncio.CancelledError])
def test_logic_that_raises_anything_fails_its_own_job_only(
    sqlite_database: str, error: Any, is_async: bool
) -> None:
    def plain(slot_data: Any, policy_message: Any, worker_state: Any) -> None:
        if slot_data["in"][0]["bad"]:
            raise error

    async def later(slot_data: Any, policy_message: Any, worker_state: Any) -> None:
        plain(slot_data, policy_message, worker_state)

    logic: Callable[..., Any] = later if is_async else plain
    with running(sqlite_database, flow_of(r=taking("in", logic=logic, policy=immediate_policy()))) as rt:
        failed = [rt.post("f", "r", "in", {"bad": True}, "w").job for _ in range(6)]
        good = rt.post("f", "r", "in", {"bad": False}, "w").job
        assert good.wait(10)
        assert all(job.wait(10) for job in failed)
        assert {job.status for job in failed} == {"failed"}
        assert good.status == "completed"
