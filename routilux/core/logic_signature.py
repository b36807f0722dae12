"""The two forms of logic. They are told apart once, by the names and the number of the parameters.

    logic(slot_data, policy_message, worker_state)          standard form; slot_data is {slot: [item, …]}
    logic(first, second, …, policy_message, worker_state)   one list per slot, in the order they were added

The last two parameters may be `**kwargs`, and the last one may be `job_state`. If they have other names, they
are the last two of at least three. Parameters with defaults keep their defaults. All other parameters are the
data: one for each slot, which gets a list, or a single one, which gets the mapping. A routine with one slot
is a special case: its data parameter gets the list only if it has the slot's name: `input` or `input_data`
for the slot `input`. `slot_data` always gets the mapping. An ambiguous signature raises an error that shows
both forms. Logic may be a function or a method, and `async def`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from routilux.errors import LogicSignatureError

Logic = Callable[[dict[str, list[Any]], Any, Any], Any]
_CONTEXT = ("policy_message", "worker_state", "job_state")


class _Misfit(Exception):
    """Why a signature matches neither form."""


def is_async(function: Callable[..., Any]) -> bool:
    """Return whether a call returns an awaitable."""
    called = getattr(function, "__call__", None)  # noqa: B004  # for callable objects
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)


def normalize(function: Callable[..., Any], slot_names: Sequence[str]) -> Logic:
    """Return logic of any form as `call(slot_data, policy_message, worker_state)`.

    Raises `LogicSignatureError`.
    """
    name, shown = getattr(function, "__name__", "logic"), ""
    try:
        signature = _signature(function)
        shown = str(signature)
        data, context = _split_parameters(signature, len(slot_names))
        is_mapping = _is_mapping(data, slot_names)
    except _Misfit as misfit:
        raise LogicSignatureError(name, shown, slot_names, str(misfit)) from None
    if is_mapping and _is_standard(signature, [*data, *context]):
        return function
    return _adapt(function, None if is_mapping else list(slot_names), context)


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    if not callable(function):
        raise _Misfit(f"logic must be a function, not {type(function).__name__}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise _Misfit("it contains yield, so a call would not run it")
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        raise _Misfit("Python cannot read its parameters") from None


def _split_parameters(signature: inspect.Signature, slot_count: int) -> tuple[list[str], list[str]]:
    """Return the data parameters, and the keywords of the last two (empty: they go by position)."""
    every = list(signature.parameters.values())
    if any(p.kind is p.VAR_POSITIONAL for p in every):
        raise _Misfit("*args does not say which form it expects")
    has_kwargs = any(p.kind is p.VAR_KEYWORD for p in every)
    named = [p.name for p in every if p.name in _CONTEXT and p.kind is not p.POSITIONAL_ONLY]
    needed = [
        p for p in every if p.default is p.empty and p.kind is not p.VAR_KEYWORD and p.name not in named
    ]
    data = [p.name for p in needed]
    if any(p.kind is p.KEYWORD_ONLY for p in needed):
        raise _Misfit("data must be passed by position, but a parameter is keyword-only")
    if has_kwargs or (len(named) == 2 and "policy_message" in named):
        states = [name for name in named if name != "policy_message"] or ["worker_state"]
        return data, ["policy_message", *states]
    if named or len(data) < 3:
        raise _Misfit("its last two parameters must be policy_message and worker_state")
    if len(data) == slot_count:
        raise _Misfit("its last two parameters could be lists, or policy_message and worker_state")
    return data[:-2], []


def _is_mapping(data: list[str], slot_names: Sequence[str]) -> bool:
    if data == ["slot_data"]:
        return True
    named_slots = [_slot_named(name, slot_names) for name in data]
    if data == ["data"] and named_slots == list(slot_names):
        raise _Misfit("'data' could be the mapping, or the list of the slot 'data'")
    if len(data) == 1 and named_slots == [None]:
        return True
    if len(data) != len(slot_names):
        raise _Misfit(
            f"it takes data for {len(data)} slots, but the routine has {list(slot_names) or 'none yet'}"
        )
    if any(slot not in (None, expected) for slot, expected in zip(named_slots, slot_names, strict=True)):
        raise _Misfit("its parameters have the names of slots, but the slots were added in another order")
    return False


def _is_standard(signature: inspect.Signature, names: list[str]) -> bool:
    """Return whether it takes data, message and state by position, in this order."""
    first = list(signature.parameters.values())[:3]
    return [p.name for p in first][: len(names)] == names and all(
        p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in first
    )


def _slot_named(name: str, slot_names: Sequence[str]) -> str | None:
    return next((slot for slot in (name, name.removesuffix("_data")) if slot in slot_names), None)


def _adapt(function: Callable[..., Any], slots: list[str] | None, context: list[str]) -> Logic:
    def call(slot_data: dict[str, list[Any]], message: Any, state: Any) -> Any:
        data = [slot_data] if slots is None else [slot_data[name] for name in slots]
        if not context:
            return function(*data, message, state)
        return function(*data, **{name: message if name == "policy_message" else state for name in context})

    return call
