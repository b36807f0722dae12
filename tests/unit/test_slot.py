"""Slots: their limits, the model they may name, and the view that policies take from."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from routilux.core.event import Event
from routilux.core.slot import Slot, SlotDataPoint
from routilux.errors import DefinitionError, SlotModelError, SlotQueueFullError


class Order(BaseModel):
    number: int
    lines: list[int] = []
    buyer: str = Field(default="", max_length=3)


def filled(*items: Any, limit: int | None = None) -> Slot:
    return Slot("input", max_queue_length=limit).view(
        SlotDataPoint(item, enqueued_at=float(n), seq=n) for n, item in enumerate(items, 1)
    )


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"max_queue_length": 0}, "max_queue_length"),
        ({"max_queue_length": -1}, "max_queue_length"),
        ({"max_queue_length": True}, "max_queue_length"),
        ({"max_queue_length": 1.5}, "max_queue_length"),
        ({"max_queue_length": "5"}, "max_queue_length"),
        ({"watermark": -0.1}, "watermark"),
        ({"watermark": 1.1}, "watermark"),
        ({"watermark": "high"}, "watermark"),
        ({"model": dict}, "model"),
        ({"model": Order(number=1)}, "model"),
    ],
)
def test_bad_limits_are_refused_by_name(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(DefinitionError, match=f"{named} of slot 'input'"):
        Slot("input", **arguments)


def test_a_slot_has_no_limit_unless_it_is_given_one() -> None:
    assert (Slot("a").max_queue_length, Slot("a").watermark_threshold) == (None, None)
    assert Slot("a", max_queue_length=50, watermark=0.5).watermark_threshold == 25


def test_data_without_a_model_is_taken_as_it_is_as_a_copy() -> None:
    data = {"a": 1}
    checked = Slot("a").check(data)
    assert checked == data
    assert checked is not data


def test_a_model_fills_in_and_converts() -> None:
    assert Slot("a", model=Order).check({"number": "7"}) == {"number": 7, "lines": [], "buyer": ""}


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({}, "data.number"),
        ({"number": "x"}, "data.number"),
        ({"number": 1, "lines": [1, "y"]}, "data.lines.1"),
        ({"number": 1, "buyer": "long"}, "data.buyer"),
    ],
)
def test_data_that_does_not_fit_the_model_is_refused_by_field(data: dict[str, Any], path: str) -> None:
    with pytest.raises(SlotModelError) as refused:
        Slot("input", model=Order).check(data)
    assert refused.value.path == path
    assert str(refused.value).startswith(f"{path}: ")
    assert "slot 'input' takes Order" in str(refused.value)


def test_the_refusal_does_not_show_the_data() -> None:
    with pytest.raises(SlotModelError) as refused:
        Slot("input", model=Order).check({"number": "secret"})
    assert "secret" not in str(refused.value)


def test_items_are_taken_in_order_and_remembered_as_consumed() -> None:
    slot = filled("a", "b", "c")
    assert (slot.consume_one_new(), slot.peek_all_new()) == ("a", ["b", "c"])
    assert slot.consume_all_new() == ["b", "c"]
    assert [point.seq for point in slot.consumed] == [1, 2, 3]
    assert (slot.consume_one_new(), slot.consume_all_new()) == (None, [])


def test_peeking_takes_nothing() -> None:
    slot = filled("a", "b")
    assert (slot.peek_one_new(), slot.peek_latest(), slot.peek_all_new()) == ("a", "b", ["a", "b"])
    assert slot.get_unconsumed_count() == 2
    empty = filled()
    assert (empty.peek_one_new(), empty.peek_latest(), empty.peek_all_new()) == (None, None, [])


def test_the_latest_is_returned_and_the_rest_is_taken_with_it() -> None:
    slot = filled("a", "b")
    assert slot.consume_latest_and_mark_all_consumed() == "b"
    assert (slot.get_unconsumed_count(), slot.get_consumed_count()) == (0, 2)
    assert slot.consume_latest_and_mark_all_consumed() is None


def test_consume_all_gives_those_taken_before_too() -> None:
    slot = filled("a", "b")
    slot.consume_one_new()
    assert slot.consume_all() == ["a", "b"]
    assert slot.consume_all() == ["a", "b"]


@given(st.lists(st.sampled_from(["one", "all", "put"]), max_size=20))
def test_nothing_is_lost_or_taken_twice(steps: list[str]) -> None:
    slot = filled()
    put: list[int] = []
    taken: list[int] = []
    for n, step in enumerate(steps):
        if step == "put":
            slot.enqueue(n)
            put.append(n)
        elif step == "one":
            taken += [item for item in [slot.consume_one_new()] if item is not None]
        else:
            taken += slot.consume_all_new()
        assert taken + slot.peek_all_new() == put
        assert slot.get_consumed_count() == len(taken)
        assert slot.get_total_count() == len(put)


def test_a_view_has_the_limits_of_its_slot_and_none_of_its_items() -> None:
    slot = Slot("input", max_queue_length=2, watermark=0.5, model=Order)
    view = slot.view([SlotDataPoint("a")])
    assert (view.name, view.max_queue_length, view.watermark, view.model) == ("input", 2, 0.5, Order)
    view.consume_all_new()
    assert (slot.get_total_count(), view.get_total_count()) == (0, 1)


def test_a_full_view_refuses_and_keeps_what_it_has() -> None:
    slot = filled("a", limit=2)
    slot.enqueue("b")
    with pytest.raises(SlotQueueFullError, match=r"Slot 'input' queue is full \(max=2\)"):
        slot.enqueue("c")
    assert slot.peek_all_new() == ["a", "b"]


def test_consumed_items_do_not_fill_a_slot() -> None:
    slot = filled("a", limit=1)
    slot.consume_one_new()
    slot.enqueue("b")
    assert slot.peek_all_new() == ["b"]


def test_the_state_counts_what_waits_and_what_is_consumed() -> None:
    slot = filled("a", "b", "c", limit=10)
    slot.consume_one_new()
    assert slot.get_queue_state() == {
        "total_count": 3,
        "unconsumed_count": 2,
        "consumed_count": 1,
        "max_length": 10,
        "watermark_threshold": 8,
        "oldest_unconsumed": 2.0,
    }
    assert filled().get_queue_state()["oldest_unconsumed"] is None


@pytest.mark.parametrize(
    ("waiting", "level", "is_near_full", "is_full"),
    [
        (0, "low", False, False),
        (5, "low", False, False),
        (6, "medium", False, False),
        (7, "medium", False, False),
        (8, "high", True, False),
        (9, "high", True, False),
        (10, "critical", True, True),
    ],
)
def test_the_pressure_rises_with_what_waits(
    waiting: int, level: str, is_near_full: bool, is_full: bool
) -> None:
    status = filled(*range(waiting), limit=10).get_queue_status()
    assert (status["pressure_level"], status["is_near_full"], status["is_full"]) == (
        level,
        is_near_full,
        is_full,
    )
    assert status["usage_percentage"] == waiting / 10


def test_without_a_limit_there_is_no_pressure() -> None:
    slot = Slot("a", watermark=0.0).view([SlotDataPoint(n) for n in range(1000)])
    status = slot.get_queue_status()
    assert (status["pressure_level"], status["is_near_full"], status["is_full"]) == ("low", False, False)


def test_a_wire_is_known_at_both_ends_once() -> None:
    event, slot = Event("out"), Slot("input")
    event.connect(slot)
    event.connect(slot)
    assert (event.connected_slots, slot.connected_events) == ([slot], [event])
    event.disconnect(slot)
    event.disconnect(slot)
    assert (event.connected_slots, slot.connected_events) == ([], [])
