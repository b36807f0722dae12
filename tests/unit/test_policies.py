"""Activation policies, asked directly: when they say yes, and what they take."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routilux.activation_policies import (
    all_slots_ready_policy,
    batch_size_policy,
    custom_policy,
    immediate_policy,
    time_interval_policy,
)
from routilux.core.policies import Answer, CustomPolicy, Policy, as_policy, evaluate
from routilux.core.slot import Slot, SlotDataPoint
from routilux.core.worker_state import WorkerState
from routilux.errors import PolicyError

NO: Answer = (False, {}, None)
COUNTS = st.fixed_dictionaries({"a": st.integers(0, 6), "b": st.integers(0, 6)})


def slots_of(**items: list[Any]) -> dict[str, Slot]:
    seqs = iter(range(1, 1000))
    return {
        name: Slot(name).view([SlotDataPoint(item, seq=next(seqs)) for item in waiting])
        for name, waiting in items.items()
    }


def left(slots: Mapping[str, Slot]) -> dict[str, list[Any]]:
    return {name: slot.peek_all_new() for name, slot in slots.items()}


def numbered(counts: dict[str, int]) -> dict[str, Slot]:
    return slots_of(**{name: list(range(count)) for name, count in counts.items()})


def test_immediate_takes_one_message_at_a_time_in_order() -> None:
    slots, policy = slots_of(a=[1, 2], b=[3]), immediate_policy()
    taken = [policy(slots) for _ in range(4)]
    assert [answer[1] for answer in taken] == [
        {"a": [1], "b": []},
        {"a": [2], "b": []},
        {"a": [], "b": [3]},
        {},
    ]
    assert taken[0][2] == {"reason": "immediate"}
    assert taken[3] == NO


def test_immediate_takes_up_to_max_items_of_one_slot() -> None:
    slots, policy = slots_of(a=[1, 2, 3], b=[4]), immediate_policy(max_items=2)
    assert policy(slots)[1] == {"a": [1, 2], "b": []}
    assert policy(slots)[1] == {"a": [3], "b": []}


def test_all_slots_ready_takes_one_of_each_as_long_as_there_are_sets() -> None:
    slots, policy = slots_of(a=[1, 2], b=[3, 4, 5]), all_slots_ready_policy()
    assert policy(slots) == (True, {"a": [1], "b": [3]}, {"reason": "all_slots_ready"})
    assert policy(slots)[1] == {"a": [2], "b": [4]}
    assert policy(slots) == NO
    assert left(slots) == {"a": [], "b": [5]}


def test_all_of_no_slots_is_never_ready() -> None:
    assert all_slots_ready_policy()({}) == NO


def test_a_batch_is_ready_when_any_slot_has_enough_and_takes_up_to_so_many_of_each() -> None:
    slots, policy = slots_of(a=[1, 2], b=[3, 4, 5, 6]), batch_size_policy(3)
    assert policy(slots) == (True, {"a": [1, 2], "b": [3, 4, 5]}, {"reason": "batch_ready", "batch_size": 3})
    assert policy(slots) == NO
    assert left(slots) == {"a": [], "b": [6]}


def test_the_size_of_a_batch_may_be_asked_for_each_time() -> None:
    asked = []

    def size(slots: Mapping[str, Slot], worker_state: WorkerState) -> int:
        asked.append(worker_state)
        return 2

    state = WorkerState("f")
    assert batch_size_policy(size)(slots_of(a=[1, 2, 3]), state)[1] == {"a": [1, 2]}
    assert asked == [state]


@pytest.mark.parametrize("size", [0, -1, True, 1.5, "2", None])
def test_the_size_that_a_function_gives_is_checked(size: Any) -> None:
    with pytest.raises(PolicyError, match="the size must be an integer, 1 or more"):
        batch_size_policy(lambda slots, worker_state: size)(slots_of(a=[1]))


def test_an_interval_takes_everything_that_waits() -> None:
    slots, policy = slots_of(a=[1, 2], b=[]), time_interval_policy(timedelta(minutes=1))
    activate, taken, message = policy(slots)
    assert (activate, taken) == (True, {"a": [1, 2], "b": []})
    assert message["interval"] == 60.0
    assert policy(slots) == NO


def test_a_custom_yes_takes_everything_and_a_no_nothing() -> None:
    slots = slots_of(a=[1, 2], b=[3])
    assert custom_policy(lambda slots, state: False)(slots) == NO
    assert left(slots) == {"a": [1, 2], "b": [3]}
    answer = custom_policy(lambda slots, state: True)(slots)
    assert answer == (True, {"a": [1, 2], "b": [3]}, {"reason": "custom_policy_met"})


def test_a_custom_answer_in_full_names_every_slot() -> None:
    def take_one(slots: Mapping[str, Slot], worker_state: WorkerState | None) -> Any:
        return True, {"a": [slots["a"].consume_one_new()]}, "why"

    assert custom_policy(take_one)(slots_of(a=[1, 2], b=[3])) == (True, {"a": [1], "b": []}, "why")


@pytest.mark.parametrize("answer", [None, 1, (True, {}), (True, [], None), "yes"])
def test_a_custom_answer_of_another_shape_is_refused(answer: Any) -> None:
    with pytest.raises(PolicyError, match="a policy must return a bool or"):
        custom_policy(lambda slots, state: answer)(slots_of(a=[1]))


@given(COUNTS, st.integers(1, 4), st.sampled_from(["immediate", "all", "batch", "interval", "custom"]))
def test_what_a_policy_takes_is_what_waited_first_and_no_more(
    counts: dict[str, int], n: int, kind: str
) -> None:
    policies: dict[str, Policy] = {
        "immediate": immediate_policy(max_items=n),
        "all": all_slots_ready_policy(),
        "batch": batch_size_policy(n),
        "interval": time_interval_policy(n),
        "custom": custom_policy(lambda slots, state: True),
    }
    slots = numbered(counts)
    activate, taken, _ = policies[kind](slots)
    if not activate:
        assert left(slots) == {name: list(range(count)) for name, count in counts.items()}
        return
    assert {name: taken[name] + rest for name, rest in left(slots).items()} == {
        name: list(range(count)) for name, count in counts.items()
    }


# what the engine asks


def test_the_engine_learns_which_messages_were_consumed() -> None:
    assert evaluate(custom_policy(lambda slots, state: True), slots_of(a=[1, 2], b=[3]), WorkerState()) == (
        [1, 2, 3],
        {"reason": "custom_policy_met"},
    )
    assert evaluate(custom_policy(lambda slots, state: False), slots_of(a=[1]), WorkerState()) is None


def test_a_yes_that_consumes_nothing_is_refused() -> None:
    policy = custom_policy(lambda slots, state: (True, {"a": slots["a"].peek_all_new()}, None))
    with pytest.raises(PolicyError, match="says yes but consumed nothing"):
        evaluate(policy, slots_of(a=[1]), WorkerState())


def test_what_the_user_raises_comes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        evaluate(custom_policy(lambda slots, state: 1 // 0), slots_of(a=[1]), WorkerState())


def test_a_function_is_a_policy_and_a_policy_stays_what_it_is() -> None:
    policy = batch_size_policy(3)
    assert as_policy(policy) is policy
    assert isinstance(as_policy(lambda slots, state: True), CustomPolicy)


# the factories


@pytest.mark.parametrize("count", [0, -1, True, 1.5, "2"])
def test_a_count_is_a_number_from_one_up(count: Any) -> None:
    with pytest.raises(PolicyError, match="max_items"):
        immediate_policy(max_items=count)
    with pytest.raises(PolicyError, match="min_batch_size"):
        batch_size_policy(count)


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan"), 1e12, True, "5", timedelta(0)])
def test_a_duration_is_a_positive_number_of_seconds(seconds: Any) -> None:
    with pytest.raises(PolicyError, match="min_interval_seconds"):
        time_interval_policy(seconds)
    with pytest.raises(PolicyError, match="max_wait"):
        batch_size_policy(2, max_wait=seconds)


def test_a_batch_of_changing_size_cannot_wait_for_a_time() -> None:
    with pytest.raises(PolicyError, match="max_wait needs a fixed min_batch_size"):
        batch_size_policy(lambda slots, state: 2, max_wait=1)


def test_a_custom_policy_is_a_function() -> None:
    with pytest.raises(PolicyError, match="not bool"):
        custom_policy(True)  # type: ignore[arg-type]


def my_own(slots: Mapping[str, Slot], worker_state: WorkerState) -> bool:
    return False


@pytest.mark.parametrize(
    ("policy", "described"),
    [
        (immediate_policy(max_items=2), {"type": "immediate", "max_items": 2}),
        (all_slots_ready_policy(by_job=True), {"type": "all_slots_ready", "by_job": True}),
        (batch_size_policy(5, max_wait=2), {"type": "batch_size", "min_batch_size": 5, "max_wait": 2.0}),
        (batch_size_policy(lambda slots, state: 1), {"type": "batch_size", "min_batch_size": "dynamic"}),
        (time_interval_policy(2), {"type": "time_interval", "min_interval_seconds": 2.0}),
        (custom_policy(my_own), {"type": "custom", "description": "my_own"}),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)
def test_a_policy_describes_itself(policy: Any, described: dict[str, Any]) -> None:
    assert described.items() <= policy.describe().items()
