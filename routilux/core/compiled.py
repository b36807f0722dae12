"""A flow as the engine runs it, with all lookups done once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from routilux.core.error_handler import ErrorHandler
from routilux.core.policies import Policy
from routilux.core.slot import Slot

Target = tuple[str, str, Slot]  # routine id, slot name, its definition


@dataclass(frozen=True, slots=True, eq=False)
class CompiledRoutine:
    """One routine of a flow. If `call` or `policy` is None, the routine never runs."""

    routine_id: str
    routine: Any
    call: Callable[..., Any] | None
    is_async: bool
    policy: Policy | None
    slots: dict[str, Slot]
    targets: dict[str, tuple[Target, ...]]
    error_handler: ErrorHandler
    concurrency: int


@dataclass(frozen=True, slots=True, eq=False)
class CompiledFlow:
    """The routines of a flow by id, in the order they were added."""

    flow_id: str | None
    routines: dict[str, CompiledRoutine]
    execution_timeout: float | None = None  # seconds that a job may be at work
