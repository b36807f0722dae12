"""What happens when logic raises: each line of the table of strategies, on both databases, with restarts
between.
"""

from __future__ import annotations

from collections import Counter
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
    Runtime,
    get_current_job,
    immediate_policy,
)
from routilux.activation_policies import batch_size_policy
from routilux.store.reads import routine_progress
from tests.flows.flows import Step, chain, flow_of, post, running
from tests.support.inside_runtime import store
from tests.support.looking import column, rows
from tests.support.waiting import eventually

ATTEMPTS = "SELECT attempt, status FROM routilux_activations WHERE routine = 's0' ORDER BY n"
SOON = {"retry_delay": 0.1, "retry_backoff": 1.0}
LATER = {"retry_delay": 0.4, "retry_backoff": 1.0}


class Calls:
    """Logic that raises what the list says, one after another, then succeeds; counts its calls."""

    def __init__(self, *errors: BaseException | None) -> None:
        self.errors = list(errors)
        self.seen: list[list[Any]] = []

    def __call__(self, step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
        self.seen.append(slot_data["input"])
        worker_state.increment("s0", "calls")
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error

    @property
    def count(self) -> int:
        return len(self.seen)


def routine_status(runtime: Runtime, job_id: str) -> dict[str, str]:
    with store(runtime).read() as connection:
        return routine_progress.routine_status(connection, job_id)


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


# RETRY


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
            (1, "retrying", "busy"), (1, "retrying", "again in 0.3 s"), (1, "completed", None),
        ]  # fmt: skip


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
            "stop": "failed", "continue": "completed", "skip": "completed", "retry": "failed",
        }  # fmt: skip
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
        ("of_the_flow", "error_continued"), ("its_own", "skipped"), ("optional", "skipped"),
    ]  # fmt: skip


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
