"""The forms that logic may have, told apart once, by the names and the number of its parameters.

    logic(slot_data, policy_message, worker_state)                the form; slot_data is {slot: [item, …]}
    logic(first, second, …, policy_message, worker_state)         one list per slot, in the order they were added

The last two are told by their names (`job_state` is the old name of the last) and may be `**kwargs`; without such a
name they are the last two of at least three. Parameters with defaults are the function's own affair. What is left is
the data: as many as there are slots are lists; a single one is the mapping, but on a routine with one slot it is
that slot's list if it is named so (`input` or `input_data` for the slot `input`). `slot_data` is always the mapping.
Whatever can be read in two ways is an error that shows both. Any form may be a method or `async def`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from routilux.errors import LogicSignatureError

Logic = Callable[[dict[str, list[Any]], Any, Any], Any]
_CONTEXT = ("policy_message", "worker_state", "job_state")


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it gives something to await."""
    called = getattr(function, "__call__", None)  # noqa: B004  # of an object with async __call__
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)


def normalize(function: Callable[..., Any], slot_names: Sequence[str]) -> Logic:
    """Logic of any form as `call(slot_data, policy_message, worker_state)`. Raises `LogicSignatureError`."""
    signature = _signature(function, slot_names)
    try:
        parameters = _told_apart(signature, len(slot_names))
        is_mapping = _takes_mapping(parameters.data, slot_names)
    except _Misfit as misfit:
        raise LogicSignatureError(_name(function), str(signature), slot_names, str(misfit)) from None
    return _adapted(function, parameters, None if is_mapping else list(slot_names))


class _Misfit(Exception):
    """Why a signature is neither form; an error of its own once the function's name is known."""


@dataclass(frozen=True, slots=True)
class _Parameters:
    data: list[str]
    message: str | None  # keyword for it; None: by position
    state: str | None


def _signature(function: Callable[..., Any], slot_names: Sequence[str]) -> inspect.Signature:
    if not callable(function):
        raise LogicSignatureError(repr(function), "", slot_names, f"it is {type(function).__name__}, not a function")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        raise LogicSignatureError(_name(function), "", slot_names, "its parameters cannot be seen") from None
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        reason = "it contains yield, so calling it would not run it"
        raise LogicSignatureError(_name(function), str(signature), slot_names, reason)
    return signature


def _told_apart(signature: inspect.Signature, slot_count: int) -> _Parameters:
    """Which parameters are data, and how the policy message and the worker state are passed."""
    every = signature.parameters.values()
    if any(p.kind is p.VAR_POSITIONAL for p in every):
        raise _Misfit("*args does not say how it wants its data")
    needed = [p.name for p in every if p.default is p.empty and p.kind is not p.VAR_KEYWORD and p.name not in _CONTEXT]
    named = [p.name for p in every if p.name in _CONTEXT]
    if any(p.kind is p.KEYWORD_ONLY for p in every if p.name in needed):
        raise _Misfit("data is passed by position, not by keyword")
    if len(named) == 2 and named[0] != named[1] and "policy_message" in named:
        state = "worker_state" if "worker_state" in named else "job_state"
        by_position = list(signature.parameters)[: len(needed) + 2] == [*needed, "policy_message", state]
        return _Parameters(needed, None, None) if by_position and _positional(signature, state) else _Parameters(needed, "policy_message", state)
    if any(p.kind is p.VAR_KEYWORD for p in every) and not named:
        return _Parameters(needed, "policy_message", "worker_state")
    if named or len(needed) < 3:
        raise _Misfit("policy_message and worker_state must be its last two parameters")
    if len(needed) == slot_count:
        raise _Misfit("its last two parameters may be lists, or policy_message and worker_state")
    return _Parameters(needed[:-2], None, None)
