"""`Flow(execution_timeout=…)`: per job, from its first activation, without the time in which it could not
run.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from routilux import ErrorHandler, Flow, FlowRegistry, RetryLater, Runtime, get_current_job, testing
from tests.flows.flows import Step, chain, count, post, running
from tests.support.looking import column, rows
from tests.support.waiting import eventually


def timed(seconds: float, *steps: Step) -> FlowRegistry:
    registry = chain(*steps)
    registry.resolve("f").execution_timeout = seconds
    return registry


class Slow:
    """Logic that holds on until it is let go, or its job has ended."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.saw_the_end: list[bool] = []

    def __call__(self, step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
        job = get_current_job()
        assert job is not None
        while not self.go.wait(0.01) and not job.is_cancelled() and job.status == "running":
            pass
        self.saw_the_end.append(not self.go.is_set())
        step.emit("output", n=1)


def test_a_job_that_takes_too_long_fails_in_its_first_activation(database: str) -> None:
    slow = Slow()
    with running(database, timed(0.3, Step(slow), Step(lambda *_: None))) as runtime:
        job = post(runtime, {})
        assert job.wait(20)
        assert (job.status, job.error) == (
            "failed",
            "TimeoutError: at work longer than the execution_timeout of 0.3 s",
        )
        eventually(lambda: column(database, "SELECT status FROM routilux_activations") == ["discarded"])
        assert slow.saw_the_end == [True]
        slow.go.set()
        assert post(runtime, {}).wait(10)  # the next job has time of its own
    assert rows(database, "SELECT status, count(*) FROM routilux_jobs GROUP BY 1 ORDER BY 1") == [
        ("completed", 1),
        ("failed", 1),
    ]


def test_the_time_of_all_its_activations_counts_and_idle_workers_are_not_failed(database: str) -> None:
    def a_while(step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
        job = get_current_job()
        assert job is not None
        began = time.monotonic()
        while time.monotonic() - began < 0.5 and job.status == "running":
            threading.Event().wait(0.01)
        step.emit("output", n=1)

    with running(database, timed(1.2, *(Step(a_while) for _ in range(4)))) as runtime:
        job = post(runtime, {})
        assert job.wait(20)
        assert job.status == "failed"
        (done,) = column(database, "SELECT count(*) FROM routilux_activations WHERE status = 'completed'")
        assert 1 <= done < 4
        assert runtime.exec("f", worker_id="w").status in ("idle", "running")


def test_time_in_which_it_is_paused_or_waits_for_a_retry_does_not_count(database: str) -> None:
    tries: list[int] = []

    def later(step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
        tries.append(1)
        if len(tries) < 3:
            raise RetryLater(0.6)
        step.emit("output", n=1)

    registry = timed(0.5, Step(later, handler=ErrorHandler("retry")), Step(lambda *_: None))
    with running(database, registry) as runtime:
        retried = post(runtime, {})
        waiting = post(runtime, {}, delay=1.0)
        paused = post(runtime, {}, delay=1.0)
        runtime.pause_job(paused.job_id)
        assert retried.wait(20)
        assert waiting.wait(20)
        assert (retried.status, waiting.status, paused.status) == ("completed", "completed", "paused")
        runtime.resume_job(paused.job_id)
        assert paused.wait(20)
        assert paused.status == "completed"


def test_the_time_is_kept_over_a_restart_and_stands_still_while_nobody_can_run_it(database: str) -> None:
    begun = threading.Event()

    def some(step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
        begun.set()
        threading.Event().wait(0.5)
        step.emit("output", n=1)

    slow = Slow()
    registry = timed(0.9, Step(some), Step(slow))
    with running(database, registry) as runtime:
        job = post(runtime, {})
        assert begun.wait(10)
        runtime.pause_worker("w")  # what runs finishes
        eventually(lambda: "s1" in column(database, "SELECT routine FROM routilux_messages"))
        assert not job.wait(0.8)
    (kept,) = column(database, "SELECT active_us FROM routilux_jobs")
    assert 0.3e6 < kept < 0.9e6
    with Runtime(1, database=database, registry=registry) as runtime:
        runtime.exec("f", worker_id="w")
        again = runtime.get_job(job.job_id)
        assert again is not None
        assert not again.wait(0.8)
        runtime.resume_worker("w")
        assert again.wait(20)
        assert again.status == "failed"
        eventually(lambda: slow.saw_the_end == [True])


def test_a_retry_that_is_in_line_at_a_restart_is_at_work_as_it_was_before(tmp_path: Path) -> None:
    """It counted as parked: its time stood still while it waited."""
    database, tried = f"sqlite:///{tmp_path / 'a.db'}", []

    def slow(step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
        tried.append(slot_data["input"][0]["n"])
        if tried == ["first"]:
            raise ValueError("not yet")
        rt.clock.advance(40)

    registry = timed(30, Step(slow, handler=ErrorHandler("retry", retry_delay=5)))
    with testing.runtime(registry=registry, database=database) as rt:
        rt.exec("f", worker_id="w")
        first = post(rt, {"n": "first"})
        rt.run_until_idle()
        rt.pause_worker("w")
        post(rt, {"n": "before it in line"})
        rt.clock.advance(5)
        rt.run_until_idle()
    with testing.runtime(registry=registry, database=database, start=rt.clock.now()) as rt:
        rt.exec("f", worker_id="w")
        rt.resume_worker("w")
        rt.run_until_idle(skip_time=True)
        again = rt.get_job(first.job_id)
        assert again is not None
        assert (again.status, tried) == ("failed", ["first", "before it in line"])
        assert "execution_timeout" in str(again.error)


def test_a_job_that_is_opened_again_has_its_time_anew() -> None:
    fails = [True]

    def slowly(step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
        runtime.clock.advance(1)
        if fails:
            fails.clear()
            raise ValueError("wrong")

    with testing.runtime(registry=timed(1.5, Step(slowly))) as runtime:
        job = runtime.post("f", "s0", "input", {}).job
        runtime.run_until_idle()
        assert job.status == "failed"
        (letter,) = runtime.dead_letters()
        letter.retry()
        runtime.run_until_idle()
        assert (job.status, job.error) == ("completed", None)


@pytest.mark.settled_row(34)
def test_row_34_a_time_limit_is_one_of_jobs(sqlite_database: str) -> None:
    """`execution_timeout` is None unless given and limits each job: one that takes longer fails, and its
    worker, by then older than that, takes and finishes the next.
    """
    gate = threading.Event()

    def hold(step: Step, slot_data: Any, worker_state: Any) -> None:
        if slot_data["input"][0].get("hold"):
            assert gate.wait(20)

    assert Flow("f").execution_timeout is None
    registry = chain(Step(hold))
    registry.resolve("f").execution_timeout = 1.0
    with running(sqlite_database, registry) as runtime:
        long = post(runtime, {"hold": True})
        assert long.wait(20)
        assert long.status == "failed"
        assert "TimeoutError" in str(long.error)
        gate.set()
        worker, short = runtime.post("f", "s0", "input", {}, "w")
        assert short.wait(10)
        assert (short.status, worker.status) == ("completed", "idle")


@pytest.mark.old_bug(7)
def test_old_bug_07_a_worker_failed_when_its_flow_s_time_was_over(sqlite_database: str) -> None:
    """The time limit of a flow is not one of its workers: one that has lived longer, idle or restarted, runs
    the next job.
    """
    registry = chain(Step(count))
    registry.resolve("f").execution_timeout = 1.0
    with running(sqlite_database, registry) as runtime:
        assert post(runtime, {}).wait(10)
        assert post(runtime, {}, delay=1.1).wait(10)
    with running(sqlite_database, registry) as runtime:
        worker, job = runtime.post("f", "s0", "input", {}, "w")
        assert job.wait(10)
        assert (job.status, worker.status) == ("completed", "idle")
        assert worker.get_routine_state("seen") == {"count": 3}
