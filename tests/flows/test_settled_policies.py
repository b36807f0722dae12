"""What older documents said in more than one way: when a routine runs, over what, and how many at once.

One test per row of docs/reference/settled.md, which is made from the names and docstrings here.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from routilux import FlowRegistry, Runtime
from routilux.activation_policies import (
    all_slots_ready_policy,
    batch_size_policy,
    custom_policy,
    immediate_policy,
)
from routilux.store.schema import upgrade
from tests.flows.flows import Step, chain, flow_of, post, running, taking


def numbers(items: list[dict[str, Any]]) -> list[int]:
    return [item["n"] for item in items]


@pytest.mark.settled_row(12)
def test_row_12_a_policy_of_ones_own_answers_in_either_form(sqlite_database: str) -> None:
    """A policy of one's own answers with a bool, and True takes everything that waits, or with the tuple
    `(bool, {slot: items}, message)`, which takes what it took from the slots."""
    seen: list[Any] = []

    def note(slot_data: Any, policy_message: Any, worker_state: Any) -> None:
        seen.append((numbers(slot_data["in"]), policy_message))

    def three(slots: Any, worker_state: Any) -> bool:
        return bool(slots["in"].get_unconsumed_count() >= 3)

    def pair(slots: Any, worker_state: Any) -> Any:
        slot = slots["in"]
        if slot.get_unconsumed_count() < 2:
            return False, {}, None
        return True, {"in": [slot.consume_one_new(), slot.consume_one_new()]}, "a pair"

    registry = flow_of(
        bool=taking("in", logic=note, policy=custom_policy(three)),
        tuple=taking("in", logic=note, policy=pair),
    )
    with running(sqlite_database, registry) as runtime:
        for routine in ("bool", "tuple"):
            runtime.post_many("f", routine, "in", [{"n": n} for n in range(3)], worker_id="w")
            assert runtime.wait_until_all_workers_idle(10)
    assert seen == [([0, 1, 2], {"reason": "custom_policy_met"}), ([0, 1], "a pair")]


@pytest.mark.settled_row(13)
def test_row_13_any_full_slot_makes_a_batch_and_the_rest_is_delivered(sqlite_database: str) -> None:
    """A batch is due when any slot has that many messages and takes up to that many of each slot; the last,
    partial one is delivered when somebody waits for the jobs and nothing else can run.
    """
    sizes: list[tuple[int, int]] = []
    gather = taking(
        "left",
        "right",
        logic=lambda left, right, **_: sizes.append((len(left), len(right))),
        policy=batch_size_policy(5),
    )
    with running(sqlite_database, flow_of(gather=gather)) as runtime:
        runtime.pause_worker("w")
        runtime.post("f", "gather", "right", {}, "w")
        jobs = runtime.post_many("f", "gather", "left", [{} for _ in range(12)], worker_id="w")
        runtime.resume_worker("w")
        assert runtime.wait_until_all_workers_idle(10)
        assert sizes == [(5, 1), (5, 0)]
        assert runtime.wait_until_all_jobs_finished(10)
        assert {job.status for job in jobs} == {"completed"}
    assert sizes == [(5, 1), (5, 0), (2, 0)]


@pytest.mark.settled_row(14)
def test_row_14_all_slots_ready_takes_one_of_each_again_and_again(sqlite_database: str) -> None:
    """`all_slots_ready_policy` gives logic one message of each slot, by their order, and again while every
    slot has one; what has no partner stays.
    """
    pairs: list[Any] = []
    join = taking(
        "left",
        "right",
        logic=lambda left, right, **_: pairs.append((numbers(left), numbers(right))),
        policy=all_slots_ready_policy(),
    )
    with running(sqlite_database, flow_of(join=join)) as runtime:
        runtime.post_many("f", "join", "left", [{"n": n} for n in range(6)], worker_id="w")
        others = runtime.post_many("f", "join", "right", [{"n": 10 * n} for n in range(5)], worker_id="w")
        assert runtime.wait_until_all_workers_idle(10)
        assert {job.status for job in others} == {"completed"}
        assert [job.status for job in runtime.list_jobs(status="running")] == []
        assert len(runtime.list_jobs(status="pending")) == 1
    assert pairs == [([n], [10 * n]) for n in range(5)]


@pytest.mark.settled_row(15)
def test_row_15_immediate_gives_one_message_at_a_time(sqlite_database: str) -> None:
    """`immediate_policy` gives logic one message per activation, in order; `max_items=n` up to n of them, of
    one job only.
    """
    seen: dict[str, list[list[int]]] = {"one": [], "two": []}

    def spread(step: Step, slot_data: Any, worker_state: Any) -> None:
        for n in range(3):
            step.emit("output", n=slot_data["input"][0]["n"] + n)

    def sink(name: str, **options: int) -> Step:
        return Step(
            lambda step, slot_data, worker_state: seen[name].append(numbers(slot_data["input"])),
            policy=immediate_policy(**options),
        )

    registry = chain(Step(spread), sink("one"))
    flow = registry.resolve("f")
    flow.add_routine(sink("two", max_items=2), "two")
    flow.connect("s0", "output", "two", "input")
    with running(sqlite_database, registry) as runtime:
        for n in (0, 10):
            post(runtime, {"n": n})
        assert runtime.wait_until_all_jobs_finished(10)
    assert seen == {"one": [[0], [1], [2], [10], [11], [12]], "two": [[0, 1], [2], [10, 11], [12]]}


@pytest.mark.settled_row(16)
def test_row_16_without_a_policy_a_routine_never_runs(
    sqlite_database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A routine without an activation policy never runs: `get_activation_policy_info` says `none`, `validate`
    reports it, `exec` warns, and nothing raises.
    """
    ran: list[int] = []
    silent = taking("in", logic=lambda slot_data, policy_message, worker_state: ran.append(1))
    assert silent.get_activation_policy_info()["type"] == "none"
    registry = flow_of(silent=silent)
    assert any("'silent' has no activation policy" in line for line in registry.resolve("f").validate())
    with caplog.at_level(logging.WARNING, "routilux"), running(sqlite_database, registry) as runtime:
        job = runtime.post("f", "silent", "in", {}, "w").job
        assert runtime.wait_until_all_workers_idle(10)
        assert not job.is_completed()
    assert ran == []
    assert [record for record in caplog.messages if "'silent' has no activation policy" in record] != []


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
                ("here", "w"), ("here", other), ("twice", "w"),
                ("twice", "w"), ("twice", "w"), ("here", "w"),
            ]
        ]  # fmt: skip
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
