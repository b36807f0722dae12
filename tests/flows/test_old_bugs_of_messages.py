"""What the first Routilux got wrong about messages and errors, each seen by running it, and what holds here.

One test per line of the last section of docs/reference/settled.md, which is made from the names and
docstrings here.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from routilux import (
    ErrorHandler,
    Runtime,
    SlotQueueFullError,
    WorkerState,
    get_current_job,
    get_current_job_id,
    get_current_worker_state,
)
from routilux.activation_policies import immediate_policy
from tests.flows.flows import Step, chain, flow_of, post, running, taking
from tests.support.looking import stored


def count(step: Step, slot_data: Any, worker_state: WorkerState) -> None:
    worker_state.increment("seen", "count")


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
    registry = flow_of(**{
        name: taking(
            "in", logic=flaky if name == "retry" else fail, policy=immediate_policy()
        ).set_error_handler(handler)
        for name, handler in handlers.items()
    })  # fmt: skip
    with running(sqlite_database, registry) as runtime:
        retried = [runtime.post("f", "retry", "in", {"name": name}, "w") for name in "abc"]
        stopped, skipped = (runtime.post("f", name, "in", {}, "w") for name in ("stop", "skip"))
        assert runtime.wait_until_all_jobs_finished(20)
        assert [job.status for job in retried] == ["completed"] * 3
        assert (stopped.status, skipped.status) == ("failed", "completed")
        assert [line["status"] for line in skipped.worker.get_execution_history("skip")] == ["skipped"]
    assert calls == {"a": 3, "b": 3, "c": 3}


@pytest.mark.old_bug(2)
def test_old_bug_02_workers_shared_the_queues_of_their_flow(sqlite_database: str) -> None:
    """A message carries its job and waits in a slot of its worker: under load every item runs with its own
    job and changes the state of its own worker.
    """
    wrong: list[Any] = []

    def check(step: Step, slot_data: Any, worker_state: WorkerState) -> None:
        item = slot_data["input"][0]
        if (get_current_job_id(), worker_state.worker_id) != (item["job"], item["worker"]):
            wrong.append(item)
        worker_state.increment("seen", "count")
        step.emit("output", **item)

    first, second = Step(check), Step(check)
    second.set_concurrency(4)
    with running(sqlite_database, chain(first, second)) as runtime:
        workers = {name: runtime.exec("f", worker_id=name) for name in ("v", "w")}
        for n in range(100):
            for worker in workers:
                data = {"job": f"{worker}{n}", "worker": worker}
                runtime.post("f", "s0", "input", data, worker, job_id=data["job"])
        assert runtime.wait_until_all_jobs_finished(30)
        assert [worker.get_routine_state("seen") for worker in workers.values()] == [{"count": 200}] * 2
    assert wrong == []


@pytest.mark.old_bug(3)
def test_old_bug_03_messages_to_a_full_slot_were_dropped(sqlite_database: str) -> None:
    """What was accepted is kept: a post that finds the slot full is refused, what is emitted into it goes in,
    and every job ends.
    """
    got: list[int] = []

    def spread(step: Step, slot_data: Any, worker_state: Any) -> None:
        for n in range(4):
            step.emit("output", n=n)

    source, sink = Step(spread), Step(lambda step, slot_data, worker_state: got.append(1))
    sink.slots.clear()
    sink.add_slot("input", max_queue_length=1)
    with running(sqlite_database, chain(source, sink)) as runtime:
        runtime.pause_worker("w")
        jobs = [post(runtime, {}) for _ in range(3)]
        jobs.append(runtime.post("f", "s1", "input", {}, "w").job)
        before = stored(sqlite_database)
        with pytest.raises(SlotQueueFullError):
            runtime.post("f", "s1", "input", {}, "w")
        assert stored(sqlite_database) == before
        runtime.resume_worker("w")
        assert runtime.wait_until_all_jobs_finished(20)
        assert {job.status for job in jobs} == {"completed"}
    assert len(got) == 3 * 4 + 1


@pytest.mark.old_bug(4)
def test_old_bug_04_emit_worked_in_the_first_routine_alone(sqlite_database: str) -> None:
    """`emit`, `get_current_job` and the state of the worker work in every routine of a chain."""
    seen: list[Any] = []

    def stage(step: Step, slot_data: Any, worker_state: WorkerState) -> None:
        job, state = get_current_job(), get_current_worker_state()
        assert job is not None
        assert state is not None
        job.increment("stages")
        state.increment("seen", "count")
        seen.append((slot_data["input"][0]["n"], job.job_id))
        step.emit("output", n=slot_data["input"][0]["n"] + 1)

    with running(sqlite_database, chain(Step(stage), Step(stage), Step(stage))) as runtime:
        worker, job = runtime.post("f", "s0", "input", {"n": 0}, "w", job_id="mine")
        assert job.wait(10)
        assert job.data == {"stages": 3}
        assert worker.get_routine_state("seen") == {"count": 3}
    assert seen == [(0, "mine"), (1, "mine"), (2, "mine")]


@pytest.mark.old_bug(5)
def test_old_bug_05_a_refused_post_left_a_worker_and_a_job(sqlite_database: str) -> None:
    """A post that is refused leaves nothing behind; its data is a mapping, anything else is refused."""
    refused: list[tuple[Any, ...]] = [("f", "s9", "input", {}), ("f", "s0", "no slot", {})]
    refused += [("f", "s0", "input", data) for data in (None, 5, [1], "s")]
    with Runtime(2, database=sqlite_database, registry=chain(Step(count))) as runtime:
        for arguments in refused:
            with pytest.raises(ValueError, match=r"not found|data"):
                runtime.post(*arguments)
        assert runtime.list_jobs() == []
    assert set(stored(sqlite_database).values()) == {0}


@contextmanager
def counting_calls() -> Iterator[list[int]]:
    """Counts the calls of functions in this thread and in every thread that starts meanwhile."""
    calls = [0]

    def profile(frame: Any, event: str, argument: Any) -> None:
        if event in ("call", "c_call"):
            calls[0] += 1

    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        yield calls
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]  # as it was


@pytest.mark.old_bug(6)
def test_old_bug_06_a_burst_cost_the_square_of_its_size(sqlite_database: str) -> None:
    """The work for a burst grows with its size, not with the square of it, and a pool of one thread runs one
    logic at a time.
    """
    inside: list[int] = []
    most: list[int] = []

    def note(slot_data: Any, policy_message: Any, worker_state: Any) -> None:
        inside.append(1)
        most.append(len(inside))
        inside.pop()

    registry = flow_of(r=taking("in", logic=note, policy=immediate_policy()).set_concurrency(20))

    def calls_for(burst: int) -> int:
        with counting_calls() as calls, Runtime(1, database=sqlite_database, registry=registry) as runtime:
            runtime.exec("f", worker_id="w")
            runtime.pause_worker("w")
            for _ in range(burst):
                runtime.post("f", "r", "in", {}, "w")
            runtime.resume_worker("w")
            assert runtime.wait_until_all_jobs_finished(60)
        return calls[0]

    calls_for(10)  # what is done once is done
    assert calls_for(400) < 8 * calls_for(100)
    assert (len(most), max(most)) == (510, 1)
