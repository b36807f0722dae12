"""Activation policies in a runtime: when a routine runs, and with which messages."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from routilux.activation_policies import (
    all_slots_ready_policy,
    batch_size_policy,
    custom_policy,
    immediate_policy,
    time_interval_policy,
)
from routilux.testing import runtime
from tests.flows.flows import Step, chain, flow_of, post, running, taking
from tests.flows.two_routines import Gone, Mute, two_routines


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


@pytest.mark.old_bug(9)
def test_old_bug_09_gathering_policies_shared_a_clock_and_forgot_the_rest(sqlite_database: str) -> None:
    """Each routine has an interval of its own, which ends without a new message too; the last partial batch
    is delivered.
    """
    sizes: dict[str, list[int]] = {"long": [], "other": [], "short": [], "batch": []}
    policies = {
        "long": time_interval_policy(3600),
        "other": time_interval_policy(3600),
        "short": time_interval_policy(0.2),
        "batch": batch_size_policy(5),
    }
    registry = flow_of(
        **{
            name: taking(
                "in",
                logic=lambda slot_data, policy_message, worker_state, name=name: sizes[name].append(
                    len(slot_data["in"])
                ),
                policy=policy,
            )
            for name, policy in policies.items()
        }
    )
    with running(sqlite_database, registry) as runtime:
        for name in ("long", "other", "short", "short"):
            assert runtime.post("f", name, "in", {}, "w").job.wait(10), name
        runtime.post_many("f", "batch", "in", [{} for _ in range(7)], worker_id="w")
        assert runtime.wait_until_all_jobs_finished(10)
    assert sizes == {"long": [1], "other": [1], "short": [1, 1], "batch": [5, 2]}


# policies that misbehave


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, Gone, Mute])
def test_a_policy_that_raises_anything_costs_its_own_messages_only(sqlite_database: str, error: Any) -> None:
    def policy(slots: Any, worker_state: Any) -> bool:
        raise error

    with running(sqlite_database, flow_of(**two_routines(custom_policy(policy)).routines)) as rt:
        # more of them than there are threads
        failed = [rt.post("f", "a", "in", {}, "w").job for _ in range(6)]
        assert all(job.wait(10) for job in failed)
        assert {job.status for job in failed} == {"failed"}
        assert rt.post("f", "b", "in", {}, "w").job.wait(10)
        assert len(rt.dead_letters()) >= 1


def test_a_policy_that_takes_an_item_twice_has_taken_it_once() -> None:
    def policy(slots: Any, worker_state: Any) -> Any:
        for slot in slots.values():
            slot.consume_all_new()
            slot.consumed.extend(list(slot.consumed))
        return True, {}, None

    with runtime(two_routines(custom_policy(policy))) as rt:
        jobs = rt.post_many("f", "a", "in", [{"n": n} for n in range(3)])
        rt.run_until_idle()
        assert {job.status for job in jobs} == {"completed"}


def test_a_policy_that_takes_only_what_it_was_not_shown_is_told() -> None:
    def policy(slots: Any, worker_state: Any) -> Any:
        for slot in slots.values():
            slot.consumed.append(Strange())
        return True, {}, None

    with runtime(two_routines(custom_policy(policy))) as rt:
        job = rt.post("f", "a", "in", {}).job
        rt.run_until_idle()
        assert job.error == "PolicyError: the policy of routine 'a' consumed only what it was not shown"


class Strange:
    seq = 10**9
