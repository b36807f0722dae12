"""What older documents said in more than one way: limits, statuses, control, and names that are gone.

One test per row of docs/reference/settled.md, which is made from the names and docstrings here.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest

from routilux import Flow, Runtime, SlotQueueFullError, WorkerState, get_current_job
from routilux.activation_policies import immediate_policy
from tests.flows.flows import Step, chain, flow_of, post, running, taking
from tests.support.looking import column


def nothing(*_: Any) -> None:
    pass


@pytest.mark.settled_row(30)
def test_row_30_a_full_slot_refuses_posts_and_takes_what_is_emitted(sqlite_database: str) -> None:
    """A post to a slot at its limit raises `SlotQueueFullError` and stores nothing; `emit` never raises for
    it, and nothing is dropped; without `max_queue_length` there is no limit.
    """
    got: list[int] = []

    def spread(slot_data: Any, policy_message: Any, worker_state: Any) -> None:
        for n in range(5):
            source.emit("out", n=n)

    source, sink = (
        taking("in", logic=spread, policy=immediate_policy()),
        taking(policy=immediate_policy()),
    )
    source.add_event("out")
    sink.add_slot("in", max_queue_length=2)
    sink.set_logic(lambda slot_data, policy_message, worker_state: got.append(slot_data["in"][0]["n"]))
    registry = flow_of(source=source, sink=sink)
    registry.resolve("f").connect("source", "out", "sink", "in")
    with running(sqlite_database, registry) as runtime:
        runtime.pause_worker("w")
        for n in (10, 11):
            runtime.post("f", "sink", "in", {"n": n}, "w")
        with pytest.raises(SlotQueueFullError, match="max=2"):
            runtime.post("f", "sink", "in", {"n": 12}, "w")
        assert column(sqlite_database, "SELECT count(*) FROM routilux_jobs") == [2]
        runtime.post_many("f", "source", "in", [{} for _ in range(1200)], worker_id="w")
        runtime.resume_worker("w")
        assert runtime.wait_until_all_jobs_finished(30)
    assert Counter(got) == {10: 1, 11: 1} | dict.fromkeys(range(5), 1200)


@pytest.mark.settled_row(31)
def test_row_31_the_watermark_is_a_mark_on_the_limit(sqlite_database: str) -> None:
    """The watermark is a share of the limit, 0.8 by default, and tells how full a slot is; above it a slot
    still takes messages, and nothing is taken out of it.
    """
    got: list[int] = []
    sink = taking(logic=None, policy=immediate_policy())
    slot = sink.add_slot("in", max_queue_length=10)
    sink.set_logic(lambda slot_data, policy_message, worker_state: got.append(slot_data["in"][0]["n"]))
    assert (slot.watermark, slot.watermark_threshold) == (0.8, 8)
    view = slot.view([])
    levels = []
    for n in range(10):
        view.enqueue({"n": n})
        levels.append(view.get_queue_status()["pressure_level"])
    assert levels == ["low"] * 5 + ["medium"] * 2 + ["high"] * 2 + ["critical"]
    with running(sqlite_database, flow_of(sink=sink)) as runtime:
        runtime.pause_worker("w")
        for n in range(10):
            runtime.post("f", "sink", "in", {"n": n}, "w")
        runtime.resume_worker("w")
        assert runtime.wait_until_all_jobs_finished(10)
    assert got == list(range(10))


@pytest.mark.settled_row(32)
def test_row_32_a_runtime_has_ten_threads_unless_told_otherwise(sqlite_database: str) -> None:
    """`Runtime()` has ten threads; everything but their number is given by keyword, and `max_queue_size` and
    `enable_monitoring` are no parameters."""
    inside: list[int] = []
    most: list[int] = []
    together = threading.Barrier(10, timeout=20)

    def meet(slot_data: Any, policy_message: Any, worker_state: Any) -> None:
        inside.append(1)
        most.append(len(inside))
        together.wait()
        inside.pop()

    routine = taking("in", logic=meet, policy=immediate_policy()).set_concurrency(50)
    with Runtime(database=sqlite_database, registry=flow_of(r=routine)) as runtime:
        runtime.post_many("f", "r", "in", [{} for _ in range(40)])
        assert runtime.wait_until_all_jobs_finished(30)
    assert max(most) == 10
    for wrong in ({"max_queue_size": 1000}, {"enable_monitoring": False}):
        with pytest.raises(TypeError, match=next(iter(wrong))):
            Runtime(10, database=sqlite_database, **wrong)  # type: ignore[arg-type]  # that is the point
    with pytest.raises(TypeError, match="positional"):
        Runtime(10, sqlite_database)  # type: ignore[misc]  # that is the point


@pytest.mark.settled_row(33)
def test_row_33_a_worker_says_what_it_does(sqlite_database: str) -> None:
    """A worker is `pending` before it is started, then `idle` or `running`, `paused` and `cancelled` by its
    users; one without a name that is left with nothing to do is `completed`.
    """
    gate, begun = threading.Event(), threading.Event()

    def hold(step: Step, slot_data: Any, worker_state: WorkerState) -> None:
        begun.set()
        assert gate.wait(20)

    seen = [WorkerState("f").status]
    with running(sqlite_database, chain(Step(hold))) as runtime:
        worker = runtime.exec("f", worker_id="w")
        seen.append(worker.status)
        job = post(runtime, {})
        assert begun.wait(10)
        seen.append(worker.status)
        gate.set()
        assert job.wait(10)
        runtime.pause_worker("w")
        seen.append(worker.status)
        runtime.cancel_worker("w")
        seen.append(worker.status)
        left = runtime.exec("f").worker_id
    assert seen == ["pending", "idle", "running", "paused", "cancelled"]
    ended = "SELECT status FROM routilux_workers WHERE worker_id = :left"
    assert column(sqlite_database, ended, left=left) == ["completed"]


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


@pytest.mark.settled_row(35)
def test_row_35_workers_and_jobs_are_paused_resumed_and_cancelled(sqlite_database: str) -> None:
    """Pause, resume and cancel are calls of the runtime, for a worker or for one job; those of the flow are
    gone and name them.
    """
    gate, begun, cancelled = threading.Event(), threading.Event(), []

    def hold(step: Step, slot_data: Any, worker_state: Any) -> None:
        if slot_data["input"][0].get("hold"):
            begun.set()
            assert gate.wait(20)
            job = get_current_job()
            assert job is not None
            cancelled.append(job.is_cancelled())

    with running(sqlite_database, chain(Step(hold))) as runtime:
        runtime.pause_worker("w")
        first, second, third = post(runtime, {}), post(runtime, {}), post(runtime, {"hold": True})
        runtime.pause_job(first.job_id)
        runtime.cancel_job(second.job_id)
        runtime.resume_worker("w")
        assert begun.wait(10)
        runtime.cancel_job(third.job_id)
        gate.set()
        assert runtime.wait_until_all_workers_idle(10)
        assert [job.status for job in (first, second, third)] == ["paused", "cancelled", "cancelled"]
        runtime.resume_job(first.job_id)
        assert first.wait(10)
        assert first.status == "completed"
    assert cancelled == [True]
    for name in ("pause", "resume", "cancel"):
        with pytest.raises(AttributeError, match=rf"flow\.{name} is gone: use runtime\.{name}_worker"):
            getattr(Flow("f"), name)


@pytest.mark.settled_row(36)
def test_row_36_a_paused_worker_stays_paused(sqlite_database: str) -> None:
    """A paused worker stays paused, takes posts and runs none of them, across a restart too, until it is
    resumed.
    """
    registry = chain(Step(nothing))
    with running(sqlite_database, registry) as runtime:
        worker = runtime.exec("f", worker_id="w")
        runtime.pause_worker("w")
        job = post(runtime, {})
        assert runtime.wait_until_all_workers_idle(10)
        assert (worker.status, job.status) == ("paused", "pending")
    with running(sqlite_database, registry) as runtime:
        found, again = runtime.get_job(job.job_id), runtime.exec("f", worker_id="w")
        assert found is not None
        assert (again.status, found.status) == ("paused", "pending")
        runtime.resume_worker("w")
        assert found.wait(10)
        assert found.status == "completed"


@pytest.mark.settled_row(41)
def test_row_41_names_that_are_gone_say_what_to_use() -> None:
    """`handler=` and `merge_strategy=` of a slot and `param_mapping=` of a connection are a `TypeError` that
    says what to use instead.
    """
    flow, source, sink = Flow("f"), Step(nothing), Step(nothing)
    flow.add_routine(source, "source")
    flow.add_routine(sink, "sink")
    for old in ("handler", "merge_strategy"):
        with pytest.raises(TypeError, match=rf"{old}.* is gone: set_logic\(\)"):
            sink.add_slot("more", **{old: "append"})
    with pytest.raises(TypeError, match=r"param_mapping.* is gone: rename fields in the logic"):
        flow.connect("source", "output", "sink", "input", param_mapping={"a": "b"})
    assert flow.connections == []
