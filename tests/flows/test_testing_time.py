"""`routilux.testing`: waits and due times follow a clock that the test moves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from routilux import ErrorHandler, Flow, RetryLater, Routine, StateError, get_current_job
from routilux.activation_policies import all_slots_ready_policy, batch_size_policy, time_interval_policy
from routilux.errors import NaiveDatetimeError
from routilux.testing import TestClock, runtime
from tests.flows.flows import Step, chain, flow_of, post_one, seeing, taking

# waiting


def test_a_wait_runs_what_it_waits_for() -> None:
    def answer(step: Step, slot_data: Any, worker_state: Any) -> None:
        job = get_current_job()
        assert job is not None
        job.complete(result=slot_data["input"][0]["n"] * 2)

    with runtime(registry=chain(Step(answer))) as rt:
        assert post_one(rt, 21).result(timeout=1) == 42
        other = post_one(rt, 4)
        assert other.wait()
        assert other.result() == 8
        third = post_one(rt, 5)
        assert rt.wait_until_all_workers_idle()
        assert third.status == "completed"


def test_a_wait_lets_time_pass_up_to_its_timeout_and_no_longer() -> None:
    with runtime(registry=chain(Step(lambda *_: None))) as rt:
        began = rt.clock.now()
        job = post_one(rt, 1, delay=60)
        assert not job.wait(timeout=10)
        assert rt.clock.now() - began == timedelta(seconds=10)
        assert job.wait(timeout=3600)
        assert rt.clock.now() - began == timedelta(seconds=60)
        post_one(rt, 2, delay=30)
        assert not rt.wait_until_all_jobs_finished(timeout=29)
        assert rt.wait_until_all_jobs_finished()
        assert rt.clock.now() - began == timedelta(seconds=90)
        with pytest.raises(TimeoutError):
            post_one(rt, 3, delay=5).result(timeout=4)


def test_a_wait_for_ever_says_so_at_once() -> None:
    with runtime(registry=flow_of(j=joining([]))) as rt:
        worker, job = rt.post("f", "j", "a", {"n": 1}, job_id="half")
        with pytest.raises(StateError, match="wait without end"):
            job.wait()
        assert not job.wait(timeout=5)
        rt.signal("half", "j", "b", {"n": 2})
        assert job.wait()
        rt.pause_worker(worker.worker_id)
        rt.post("f", "j", "a", {"n": 1})
        with pytest.raises(StateError, match="wait without end"):
            rt.wait_until_all_jobs_finished()


def joining(seen: list[Any]) -> Routine:
    return taking(
        "a",
        "b",
        logic=lambda slot_data, policy_message, worker_state: seen.append(slot_data),
        policy=all_slots_ready_policy(),
    )


def test_waiting_for_all_jobs_delivers_the_last_partial_batch() -> None:
    seen: list[int] = []
    batch = Step(
        lambda step, slot_data, worker_state: seen.append(len(slot_data["input"])),
        policy=batch_size_policy(5),
    )
    with runtime(registry=chain(batch)) as rt:
        rt.post_many("f", "s0", "input", [{"n": n} for n in range(12)])
        rt.run_until_idle()
        assert seen == [5, 5]
        assert rt.wait_until_all_jobs_finished()
        assert seen == [5, 5, 2]


# time


def test_delays_and_instants_come_due_by_the_clock() -> None:
    seen: list[Any] = []
    with runtime(registry=chain(Step(seeing(seen))), start=datetime(2030, 5, 1, tzinfo=UTC)) as rt:
        assert rt.clock.now() == datetime(2030, 5, 1, tzinfo=UTC)
        post_one(rt, 1, delay=timedelta(minutes=10))
        post_one(rt, 2, at=datetime(2030, 5, 1, 0, 5, tzinfo=UTC))
        assert rt.run_until_idle() == 0
        rt.clock.advance(299)
        assert rt.run_until_idle() == 0
        rt.clock.advance(1)
        assert (rt.run_until_idle(), seen) == (1, [{"n": 2}])
        rt.clock.advance(timedelta(minutes=5))
        assert (rt.run_until_idle(), seen) == (1, [{"n": 2}, {"n": 1}])


def test_retries_come_due_by_the_clock_and_survive_in_the_history() -> None:
    tries: list[datetime] = []

    def fail(step: Step, slot_data: Any, worker_state: Any) -> None:
        tries.append(rt.clock.now())
        if len(tries) < 3:
            raise ValueError("not yet")

    handler = ErrorHandler("retry", max_retries=5, retry_delay=10, retry_backoff=2)
    with runtime(registry=chain(Step(fail, handler=handler))) as rt:
        job = post_one(rt, 1)
        rt.run_until_idle()
        assert (len(tries), job.status) == (1, "running")
        assert rt.run_until_idle(skip_time=True) == 2
        assert [(at - tries[0]).total_seconds() for at in tries] == [0, 10, 30]
        assert job.status == "completed"
        (worker,) = [rt.exec("f", worker_id=job.worker_id)]
        assert [row["attempt"] for row in worker.get_execution_history()] == [1, 2, 3]
        assert job.completed_at == tries[-1]


def test_skipping_time_ends_when_nothing_is_due() -> None:
    seen: list[Any] = []
    batch = Step(seeing(seen), policy=batch_size_policy(3, max_wait=60))
    with runtime(registry=chain(batch)) as rt:
        began = rt.clock.now()
        rt.post_many("f", "s0", "input", [{"n": 1}, {"n": 2}, {"n": 3}])
        assert rt.run_until_idle(skip_time=True) == 1
        assert rt.clock.now() == began
        post_one(rt, 4)
        rt.clock.advance(20)
        post_one(rt, 5)
        assert rt.run_until_idle() == 0
        assert rt.run_until_idle(skip_time=True) == 1
        assert rt.clock.now() - began == timedelta(seconds=60)
        assert [item["n"] for item in seen] == [1, 2, 3, 4, 5]


def test_an_interval_fires_by_the_clock() -> None:
    sizes: list[int] = []
    step = Step(
        lambda step, slot_data, worker_state: sizes.append(len(slot_data["input"])),
        policy=time_interval_policy(5),
    )
    with runtime(registry=chain(step)) as rt:
        for n in range(3):
            post_one(rt, n)
            rt.run_until_idle()
        assert sizes == [1]
        rt.clock.advance(5)
        rt.run_until_idle()
        assert sizes == [1, 2]


def test_a_flow_that_never_rests_is_stopped_by_its_number_of_activations() -> None:
    def again(step: Step, slot_data: Any, worker_state: Any) -> None:
        step.emit("output", n=1)

    def later(step: Step, slot_data: Any, worker_state: Any) -> None:
        raise RetryLater(60)

    for logic in (again, later):
        flow = Flow("f")
        flow.add_routine(Step(logic), "s0")
        flow.connect("s0", "output", "s0", "input")
        with runtime(flow) as rt:
            post_one(rt, 1)
            with pytest.raises(StateError, match="does something feed itself"):
                rt.run_until_idle(skip_time=True, most=50)


def test_the_time_limit_of_a_flow_runs_by_the_clock() -> None:
    def slow(step: Step, slot_data: Any, worker_state: Any) -> None:
        rt.clock.advance(slot_data["input"][0]["n"])

    flow = Flow("f", execution_timeout=30)
    flow.add_routine(Step(slow), "s0")
    flow.add_routine(joining([]), "j")
    with runtime(flow) as rt:
        quick, late = post_one(rt, 10), post_one(rt, 31)
        rt.run_until_idle()
        assert (quick.status, late.status) == ("completed", "failed")
        assert "execution_timeout" in str(late.error)
        assert not rt.post("f", "j", "a", {}).job.wait(
            timeout=100
        )  # it has not begun, so its time does not run


def test_the_clock_moves_forward_only() -> None:
    clock = TestClock()
    assert clock.now() == datetime(2024, 1, 1, tzinfo=UTC)
    assert clock.now().strftime("%A") == "Monday"
    clock.advance(1.5)
    clock.advance(timedelta(days=1))
    assert clock.now() == datetime(2024, 1, 2, 0, 0, 1, 500_000, tzinfo=UTC)
    for wrong in (-1, float("nan"), float("inf"), "1", None, True, timedelta(seconds=-1)):
        with pytest.raises(ValueError, match="by must"):
            clock.advance(wrong)  # type: ignore[arg-type]
    with pytest.raises(NaiveDatetimeError):
        TestClock(datetime(2024, 1, 1))  # noqa: DTZ001
    assert repr(clock) == "<TestClock 2024-01-02T00:00:01.500000+00:00>"
