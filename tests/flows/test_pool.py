"""How many activations run at the same time: of one routine, and in the pool of threads."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from routilux import FlowRegistry, Runtime
from routilux.activation_policies import immediate_policy
from routilux.store.schema import upgrade
from tests.flows.flows import flow_of, ignore, running, taking
from tests.support.waiting import eventually


@pytest.mark.settled_row(17)
def test_row_17_one_routine_of_one_worker_runs_once_at_a_time(sqlite_database: str) -> None:
    """A routine of one worker runs one activation at a time, in order; other routines and other workers run
    beside it, and `set_concurrency(n)` allows n.
    """
    order: list[int] = []
    second, together = threading.Event(), threading.Barrier(3, timeout=20)

    def alone(slot_data: Any, policy_message: Any, worker_state: Any) -> None:
        n = slot_data["in"][0]["n"]
        if n == 0:
            assert not second.wait(0.2)
        second.set()
        order.append(n)

    def meet(slot_data: Any, policy_message: Any, worker_state: Any) -> None:
        together.wait()

    routines = {name: taking("in", logic=meet, policy=immediate_policy()) for name in ("here", "twice")}
    routines["twice"].set_concurrency(2)
    registry = flow_of(alone=taking("in", logic=alone, policy=immediate_policy()), **routines)
    with running(sqlite_database, registry) as runtime:
        runtime.post_many("f", "alone", "in", [{"n": n} for n in range(20)], worker_id="w")
        assert runtime.wait_until_all_jobs_finished(20)
        other = runtime.exec("f").worker_id
        jobs = [
            runtime.post("f", routine, "in", {}, worker).job
            for routine, worker in [
                ("here", "w"),
                ("here", other),
                ("twice", "w"),
                ("twice", "w"),
                ("twice", "w"),
                ("here", "w"),
            ]
        ]
        assert runtime.wait_until_all_jobs_finished(30)
        assert {job.status for job in jobs} == {"completed"}
    assert order == list(range(20))


@pytest.mark.settled_row(18)
def test_row_18_the_pool_is_as_large_as_it_was_asked_to_be(sqlite_database: str, tmp_path: Path) -> None:
    """`thread_pool_size=n` runs n activations at once and never more; 0 is a pool of 100 that all such
    runtimes of the process share.
    """
    inside: list[int] = []
    most: list[int] = []
    together, full, gate = (
        threading.Barrier(3, timeout=20),
        threading.Barrier(101, timeout=20),
        threading.Event(),
    )

    def meet(slot_data: Any, policy_message: Any, worker_state: Any) -> None:
        inside.append(1)
        most.append(len(inside))
        together.wait()
        inside.pop()

    def hold(slot_data: Any, policy_message: Any, worker_state: Any) -> None:
        full.wait()
        assert gate.wait(20)

    def registry(logic: Any) -> FlowRegistry:
        routine = taking("in", logic=logic, policy=immediate_policy())
        return flow_of(r=routine.set_concurrency(200))

    with Runtime(3, database=sqlite_database, registry=registry(meet)) as runtime:
        jobs = runtime.post_many("f", "r", "in", [{} for _ in range(30)])
        assert runtime.wait_until_all_jobs_finished(30)
        assert {job.status for job in jobs} == {"completed"}
    assert max(most) == 3

    other_database = f"sqlite:///{tmp_path}/other.db"
    upgrade(other_database)
    with (
        Runtime(0, database=sqlite_database, registry=registry(hold)) as one,
        Runtime(0, database=other_database, registry=registry(lambda slot_data, **_: None)) as other,
    ):
        one.post_many("f", "r", "in", [{} for _ in range(100)])
        full.wait()
        job = other.post("f", "r", "in", {}).job
        assert not job.wait(0.2)
        gate.set()
        assert job.wait(10)
    with pytest.raises(ValueError, match="thread_pool_size"):
        Runtime(-1, database=sqlite_database)


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


def test_a_thread_of_the_pool_outlives_a_run_that_breaks_off(
    sqlite_database: str, caplog: pytest.LogCaptureFixture
) -> None:
    with running(sqlite_database, flow_of(r=taking("in", logic=ignore, policy=immediate_policy()))) as rt:
        performer = rt._host.running.pool._threads._perform.__self__  # type: ignore[attr-defined]
        readers, breaks = performer._readers, threading.Event()

        def broken(run: Any) -> Any:
            if not breaks.is_set():
                breaks.set()
                raise SystemExit("broken")
            return readers(run)

        performer._readers = broken
        assert rt.post("f", "r", "in", {}, "w").job.wait(10)
        eventually(lambda: "unexpected error while running routine 'r'" in caplog.text)
