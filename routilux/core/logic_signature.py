"""The forms that logic may have, told apart once, by the names and the number of its parameters.

    logic(slot_data, policy_message, worker_state)            the form; slot_data is {slot: [item, …]}
    logic(first, second, …, policy_message, worker_state)     one list per slot, in the order they were added

The last two may be `**kwargs`, or `job_state` for the last; under other names they are the last two of at
least three. Parameters with defaults are the function's own affair. What is left is the data: as many as there
are slots are lists, a single one is the mapping. On a routine with one slot, where one list would look the
same, it is the list only if it is named like the slot: `input` or `input_data` for the slot `input`.
`slot_data` is the mapping whatever the slots are called. What can be read in two ways is an error that shows
both forms. Any of them may be a method or `async def`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from routilux.errors import LogicSignatureError

Logic = Callable[[dict[str, list[Any]], Any, Any], Any]
_CONTEXT = ("policy_message", "worker_state", "job_state")


class _Misfit(Exception):
    """Why a signature is neither form."""


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it gives something to await."""
    called = getattr(function, "__call__", None)  # noqa: B004  # of an object that is callable
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)


def normalize(function: Callable[..., Any], slot_names: Sequence[str]) -> Logic:
    """Logic of any form as `call(slot_data, policy_message, worker_state)`. Raises `LogicSignatureError`."""
    name, shown = getattr(function, "__name__", "logic"), ""
    try:
        signature = _signature(function)
        shown = str(signature)
        data, context = _told_apart(signature, len(slot_names))
        is_mapping = _is_mapping(data, slot_names)
    except _Misfit as misfit:
        raise LogicSignatureError(name, shown, slot_names, str(misfit)) from None
    if is_mapping and _is_the_form(signature, [*data, *context]):
        return function
    return _called_with(function, None if is_mapping else list(slot_names), context)


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    if not callable(function):
        raise _Misfit(f"logic is a function, not {type(function).__name__}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise _Misfit("it contains yield, so that calling it would not run it")
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        raise _Misfit("Python does not know its parameters") from None


def _told_apart(signature: inspect.Signature, slot_count: int) -> tuple[list[str], list[str]]:
    """The names of the data parameters, and the keywords for the last two; none: by position."""
    every = list(signature.parameters.values())
    if any(p.kind is p.VAR_POSITIONAL for p in every):
        raise _Misfit("*args does not say how it wants its data")
    takes_any = any(p.kind is p.VAR_KEYWORD for p in every)
    named = [p.name for p in every if p.name in _CONTEXT and p.kind is not p.POSITIONAL_ONLY]
    needed = [
        p for p in every if p.default is p.empty and p.kind is not p.VAR_KEYWORD and p.name not in named
    ]
    data = [p.name for p in needed]
    if any(p.kind is p.KEYWORD_ONLY for p in needed):
        raise _Misfit("data is passed by position, not by keyword")
    if takes_any or (len(named) == 2 and "policy_message" in named):
        states = [name for name in named if name != "policy_message"] or ["worker_state"]
        return data, ["policy_message", *states]
    if named or len(data) < 3:
        raise _Misfit("its last two parameters must be policy_message and worker_state")
    if len(data) == slot_count:
        raise _Misfit("its last two parameters may be lists, or policy_message and worker_state")
    return data[:-2], []


def _is_mapping(data: list[str], slot_names: Sequence[str]) -> bool:
    if data == ["slot_data"]:
        return True
    meant = [_slot_meant(name, slot_names) for name in data]
    if data == ["data"] and meant == list(slot_names):
        raise _Misfit("'data' may be the mapping, or the list of the slot 'data'")
    if len(data) == 1 and meant == [None]:
        return True
    if len(data) != len(slot_names):
        raise _Misfit(
            f"it takes data for {len(data)} slots, the routine has {list(slot_names) or 'none yet'}"
        )
    if any(slot not in (None, its_own) for slot, its_own in zip(meant, slot_names, strict=True)):
        raise _Misfit("its parameters are named like slots, but in another order than the slots were added")
    return False


def _is_the_form(signature: inspect.Signature, names: list[str]) -> bool:
    """Whether it can be called as it is: data, message, state, in this order and by position."""
    first = list(signature.parameters.values())[:3]
    return [p.name for p in first][: len(names)] == names and all(
        p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in first
    )


def _slot_meant(name: str, slot_names: Sequence[str]) -> str | None:
    return next((slot for slot in (name, name.removesuffix("_data")) if slot in slot_names), None)


def _called_with(function: Callable[..., Any], slots: list[str] | None, context: list[str]) -> Logic:
    def call(slot_data: dict[str, list[Any]], message: Any, state: Any) -> Any:
        data = [slot_data] if slots is None else [slot_data[name] for name in slots]
        if not context:
            return function(*data, message, state)
        return function(*data, **{name: message if name == "policy_message" else state for name in context})

    return call
