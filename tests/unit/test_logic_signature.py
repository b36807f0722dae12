"""The signature of a function decides its form, once. A function that fits two forms is refused."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

import pytest

from routilux.core.logic_signature import is_async, normalize
from routilux.errors import LogicSignatureError

DATA: dict[str, list[Any]] = {"input": [1, 2], "control": [3]}

ONE: dict[str, list[Any]] = {"input": [1, 2]}


def ask(function: Callable[..., Any], data: dict[str, list[Any]] = ONE) -> Any:
    return normalize(function, list(data))(data, "message", "state")


def the_form(slot_data: Any, policy_message: Any, worker_state: Any) -> Any:
    return slot_data, policy_message, worker_state


def with_job_state(slot_data: Any, policy_message: Any, job_state: Any) -> Any:
    return slot_data, policy_message, job_state


def other_data_name(items: Any, policy_message: Any, worker_state: Any) -> Any:
    return items, policy_message, worker_state


def other_names(a: Any, b: Any, c: Any) -> Any:
    return a, b, c


def by_position_only(slot_data: Any, policy_message: Any, worker_state: Any, /) -> Any:
    return slot_data, policy_message, worker_state


def last_two_by_keyword(slot_data: Any, *, worker_state: Any, policy_message: Any) -> Any:
    return slot_data, policy_message, worker_state


def with_defaults(slot_data: Any, policy_message: Any = None, worker_state: Any = None, sink: Any = 5) -> Any:
    assert sink == 5
    return slot_data, policy_message, worker_state


def with_the_rest(slot_data: Any, **rest: Any) -> Any:
    return slot_data, rest.pop("policy_message"), rest.pop("worker_state")


def with_one_of_the_rest(slot_data: Any, job_state: Any, **rest: Any) -> Any:
    return slot_data, rest.pop("policy_message"), job_state


class Holder:
    def method(self, slot_data: Any, policy_message: Any, worker_state: Any) -> Any:
        return slot_data, policy_message, worker_state

    def __call__(self, slot_data: Any, policy_message: Any, worker_state: Any) -> Any:
        return slot_data, policy_message, worker_state


MAPPING_FORMS = [
    the_form,
    with_job_state,
    other_data_name,
    other_names,
    by_position_only,
    last_two_by_keyword,
    with_defaults,
    with_the_rest,
    with_one_of_the_rest,
    Holder().method,
    Holder(),
    functools.partial(the_form),
]


@pytest.mark.parametrize("function", MAPPING_FORMS, ids=lambda f: getattr(f, "__name__", type(f).__name__))
@pytest.mark.parametrize("data", [ONE, DATA], ids=["one slot", "two slots"])
def test_a_single_data_parameter_takes_the_mapping(function: Callable[..., Any], data: Any) -> None:
    assert ask(function, data) == (data, "message", "state")


def slot_named(input: Any, policy_message: Any, worker_state: Any) -> Any:
    return input, policy_message, worker_state


def slot_named_data(input_data: Any, policy_message: Any, job_state: Any) -> Any:
    return input_data, policy_message, job_state


def slot_named_and_the_rest(input_data: Any, **rest: Any) -> Any:
    return input_data, rest["policy_message"], rest["worker_state"]


def slot_named_first(input_data: Any, b: Any, c: Any) -> Any:
    return input_data, b, c


@pytest.mark.parametrize("function", [slot_named, slot_named_data, slot_named_and_the_rest, slot_named_first])
def test_a_parameter_named_like_the_only_slot_takes_its_list(function: Callable[..., Any]) -> None:
    assert ask(function) == ([1, 2], "message", "state")


def two_lists(first: Any, second: Any, policy_message: Any, worker_state: Any) -> Any:
    return first, second, policy_message, worker_state


def two_named_lists(input_data: Any, control: Any, policy_message: Any, job_state: Any) -> Any:
    return input_data, control, policy_message, job_state


def two_lists_and_the_rest(first: Any, second: Any, **rest: Any) -> Any:
    return first, second, rest["policy_message"], rest["worker_state"]


@pytest.mark.parametrize(
    "function", [two_lists, two_named_lists, two_lists_and_the_rest, lambda a, b, c, d: (a, b, c, d)]
)
def test_one_parameter_per_slot_takes_the_lists_in_the_order_of_the_slots(
    function: Callable[..., Any],
) -> None:
    assert ask(function, DATA) == ([1, 2], [3], "message", "state")


@pytest.mark.parametrize("slot", ["slot", "slot_data"])
def test_slot_data_is_the_mapping_whatever_the_slot_is_called(slot: str) -> None:
    assert ask(the_form, {slot: [1]})[0] == {slot: [1]}


def test_an_async_function_is_told_by_what_it_is_and_keeps_its_form() -> None:
    async def logic(input_data: Any, policy_message: Any, worker_state: Any) -> Any:
        return input_data, policy_message, worker_state

    class Awaitable:
        async def __call__(self, slot_data: Any, policy_message: Any, worker_state: Any) -> None: ...

    assert is_async(logic)
    assert is_async(Awaitable())
    assert not is_async(the_form)
    assert asyncio.run(ask(logic)) == ([1, 2], "message", "state")


def generator(slot_data: Any, policy_message: Any, worker_state: Any) -> Any:
    yield slot_data


async def async_generator(slot_data: Any, policy_message: Any, worker_state: Any) -> Any:
    yield slot_data


def swapped(control: Any, input: Any, policy_message: Any, worker_state: Any) -> None: ...


def data_slot(data: Any, policy_message: Any, worker_state: Any) -> None: ...


class Unseen:
    __signature__ = "none"

    def __call__(self) -> None: ...


def by_keyword(*, slot_data: Any, policy_message: Any, worker_state: Any) -> None: ...


def no_context(slot_data: Any) -> None: ...


def half_a_context(slot_data: Any, worker_state: Any) -> None: ...


def two_states(slot_data: Any, worker_state: Any, job_state: Any) -> None: ...


@pytest.mark.parametrize(
    ("function", "slots", "reason"),
    [
        (5, ["a"], "not int"),
        (generator, ["a"], "contains yield"),
        (async_generator, ["a"], "contains yield"),
        (lambda *args: None, ["a"], r"\*args does not say"),
        (lambda *args, **kwargs: None, ["a"], r"\*args does not say"),
        (Unseen(), ["a"], "Python cannot read its parameters"),
        (by_keyword, ["a"], "by position, but a parameter is keyword-only"),
        (no_context, ["a"], "last two parameters must be policy_message and worker_state"),
        (half_a_context, ["a"], "last two parameters must be"),
        (two_states, ["a"], "last two parameters must be"),
        (lambda: None, ["a"], "last two parameters must be"),
        (lambda **rest: None, ["a"], "data for 0 slots, but the routine has"),
        (two_lists, ["a"], "data for 2 slots"),
        (two_lists, ["a", "b", "c"], "data for 2 slots"),
        (two_lists, [], "none yet"),
        (slot_named, ["input", "control"], "data for 1 slots"),
        (lambda a, b, c: None, ["x", "y", "z"], "could be lists, or policy_message"),
        (data_slot, ["data"], "could be the mapping, or the list of the slot 'data'"),
        (swapped, ["input", "control"], "in another order"),
    ],
)
def test_what_fits_no_form_or_two_is_refused_with_the_reason(
    function: Any, slots: list[str], reason: str
) -> None:
    with pytest.raises(LogicSignatureError, match=reason):
        normalize(function, slots)


def test_the_refusal_shows_both_forms_for_these_slots() -> None:
    with pytest.raises(LogicSignatureError) as refused:
        normalize(no_context, ["left", "right"])
    assert "no_context(slot_data" in str(refused.value)
    assert "def no_context(slot_data, policy_message, worker_state)" in str(refused.value)
    assert "def no_context(left, right, policy_message, worker_state)" in str(refused.value)
