"""The forms that logic may have, told apart once, by the names and the number of its parameters.

    logic(slot_data, policy_message, worker_state)          slot_data is {slot: [item, …]}: the form
    logic(first_slot, second_slot, …, policy_message, worker_state)   one list per slot, in the order they were added

Either may be `async def` or a method; the trailing two may be absent, `**kwargs`, or `job_state` for the last.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from routilux.errors import LogicSignatureError

Logic = Callable[[dict[str, list[Any]], Any, Any], Any]
_TRAILING = ("policy_message", "worker_state", "job_state")
_MAPPING_NAMES = ("slot_data", "data", "slots_data", "inputs")


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it gives something to await."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def normalize(function: Callable[..., Any], slot_names: Sequence[str]) -> Logic:
    """Logic of any form as `call(slot_data, policy_message, worker_state)`. Raises `LogicSignatureError`."""
    leading, trailing, takes_any = _parameters(function)
    if _is_the_form(leading, trailing, slot_names):
        if not takes_any and trailing == ["policy_message", "worker_state"] and len(leading) == 1:
            return function
        if not takes_any and not trailing and len(leading) == 3:
            return function
    return _adapted(function, leading, trailing, takes_any, list(slot_names))


def _parameters(function: Callable[..., Any]) -> tuple[list[str], list[str], bool]:
    """Names of data parameters, names of the trailing ones, and whether **kwargs takes the rest."""
    if not callable(function):
        raise LogicSignatureError(repr(function), "", (), f"it is {type(function).__name__}, not a function")
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return ["slot_data", "policy_message", "worker_state"], [], False
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        raise LogicSignatureError(
            _name(function), str(inspect.signature(function)), (), "*args does not say how it wants its data"
        )
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    named = [p for p in parameters if p.kind is not p.VAR_KEYWORD]
    trailing = [p.name for p in named if p.name in _TRAILING]
    leading = [p.name for p in named if p.name not in _TRAILING and p.default is p.empty]
    return leading, trailing, takes_any


def _is_the_form(leading: list[str], trailing: list[str], slot_names: Sequence[str]) -> bool:
    return len(leading) == 1 or (len(leading) == 3 and not trailing)


def _adapted(
    function: Callable[..., Any], leading: list[str], trailing: list[str], takes_any: bool, slot_names: list[str]
) -> Logic:
    named = {name for name in trailing}
    if takes_any:
        named |= {"policy_message", "worker_state"}
    if len(leading) == 1 and (leading[0] in _MAPPING_NAMES or leading[0] in ("_", "messages") or len(slot_names) != 1):
        return _with_mapping(function, named)
    if len(leading) == 1 and named == {"policy_message", "worker_state"} and not takes_any:
        return _with_mapping(function, named)
    if len(leading) == len(slot_names):
        return _with_lists(function, named, slot_names)
    if len(leading) == len(slot_names) + 2 and not trailing:
        return lambda data, message, state: function(*(data[name] for name in slot_names), message, state)
    if not leading:
        return _with_nothing(function, named)
    raise LogicSignatureError(
        _name(function), str(inspect.signature(function)), slot_names, f"it does not fit the slots {slot_names}"
    )


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", "logic")


def _given(named: set[str], message: Any, state: Any) -> dict[str, Any]:
    values = {"policy_message": message, "worker_state": state, "job_state": state}
    return {name: values[name] for name in named}


def _with_mapping(function: Callable[..., Any], named: set[str]) -> Logic:
    return lambda data, message, state: function(data, **_given(named, message, state))


def _with_lists(function: Callable[..., Any], named: set[str], slot_names: list[str]) -> Logic:
    return lambda data, message, state: function(
        *(data[name] for name in slot_names), **_given(named, message, state)
    )


def _with_nothing(function: Callable[..., Any], named: set[str]) -> Logic:
    return lambda data, message, state: function(**_given(named, message, state))
