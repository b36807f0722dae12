"""The current activation, which `emit`, `write` and the `get_current_…` functions look up."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from routilux.errors import OutsideLogicError

if TYPE_CHECKING:
    from routilux.core.job_context import JobContext
    from routilux.core.worker_state import WorkerState


class ActivationPort(Protocol):
    """Serves the calls that logic makes."""

    routine_id: str
    flow_id: str
    job: JobContext
    worker_state: WorkerState

    def emit(self, event_name: str, data: dict[str, Any]) -> None: ...
    def write(self, statement: object, parameters: object | None) -> None: ...


current: ContextVar[Any] = ContextVar("routilux_activation", default=None)


def current_activation() -> ActivationPort | None:
    """Return the activation whose logic runs in this context, or None."""
    found: ActivationPort | None = current.get()
    return found


def required_activation(call: str) -> ActivationPort:
    """Return the current activation. Raises `OutsideLogicError` with the name of the call outside logic."""
    found = current_activation()
    if found is None:
        raise OutsideLogicError(call)
    return found


def get_current_job() -> JobContext | None:
    """Return the current job, or None outside logic."""
    found = current_activation()
    return None if found is None else found.job


def get_current_job_id() -> str | None:
    """Return the id of the current job, or None outside logic."""
    found = current_activation()
    return None if found is None else found.job.job_id


def get_current_worker_state() -> WorkerState | None:
    """Return the worker's state as this activation sees it, or None outside logic."""
    found = current_activation()
    return None if found is None else found.worker_state
