"""Routilux: a durable, event-driven workflow engine and persistent job queue on SQLite or Postgres.

This module lists every public name once. Names that need SQLAlchemy are imported on first use, so a flow
definition does not load an engine.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from routilux.activation_policies import (
    all_slots_ready_policy,
    batch_size_policy,
    custom_policy,
    immediate_policy,
    time_interval_policy,
)
from routilux.core.connection import Connection
from routilux.core.context import get_current_job, get_current_job_id, get_current_worker_state
from routilux.core.error_handler import ErrorHandler, ErrorStrategy
from routilux.core.event import Event
from routilux.core.flow import Flow
from routilux.core.flow_builder import FlowBuilder
from routilux.core.job_context import JobContext
from routilux.core.registry import FlowRegistry, get_flow_registry
from routilux.core.routine import ExecutionContext, Routine
from routilux.core.slot import Slot
from routilux.core.worker_state import WorkerState
from routilux.errors import (
    CalledInLogicError,
    ConfigReadOnlyError,
    ControlError,
    DatabaseFullError,
    DatabaseReadOnlyError,
    DatabaseUnavailableError,
    DeadLetterGoneError,
    DefinitionError,
    EventNotFoundError,
    FlowNotFoundError,
    ForkedRuntimeError,
    GiveUp,
    IdempotencyConflictError,
    JobEndedError,
    JobFailedError,
    JobNotFoundError,
    LeaseLostError,
    LogicSignatureError,
    NaiveDatetimeError,
    OutsideLogicError,
    PayloadError,
    PayloadTooLargeError,
    PolicyError,
    PostInDoubt,
    PostManyIncomplete,
    ProcessDiedError,
    RemovedAttributeError,
    RemovedImportError,
    RemovedNameError,
    RetryLater,
    RoutiluxError,
    RoutineNotFoundError,
    RuntimeShutDownError,
    SchemaError,
    SchemaForeignError,
    SchemaMissingError,
    SchemaTooNewError,
    SchemaTooOldError,
    SlotModelError,
    SlotNotFoundError,
    SlotQueueFullError,
    StateError,
    Steering,
    WorkerEndedError,
    WorkerNotFoundError,
    WriteError,
)
from routilux.output import (
    RoutedStdout,
    clear_job_output,
    get_job_output,
    get_routed_stdout,
    install_routed_stdout,
    uninstall_routed_stdout,
)

if TYPE_CHECKING:
    from routilux.runtime import Client, DeadLetter, Post, Posted, Runtime, get_runtime_instance
    from routilux.store.backends.sqlite_writer import sqlite_engine
    from routilux.testing.routine_tester import RoutineTester

    __version__: str

_LAZY = {
    "Client": "routilux.runtime",
    "DeadLetter": "routilux.runtime",
    "Post": "routilux.runtime",
    "Posted": "routilux.runtime",
    "RoutineTester": "routilux.testing.routine_tester",
    "Runtime": "routilux.runtime",
    "get_runtime_instance": "routilux.runtime",
    "sqlite_engine": "routilux.store.backends.sqlite_writer",
}
_REMOVED = {
    "JobState": "WorkerState is the state of a worker, JobContext is one job; runtime.post() returns both",
    "JobExecutor": "use Runtime",
    "WorkerExecutor": "use Runtime",
    "WorkerManager": "use Runtime",
    "get_worker_manager": "use Runtime",
    "QueueOutputHandler": "use install_routed_stdout() and get_job_output()",
    "CallbackOutputHandler": "use install_routed_stdout() and get_job_output()",
    "NullOutputHandler": "use install_routed_stdout(keep_default=False)",
}

__all__ = [
    "CalledInLogicError",
    "Client",
    "ConfigReadOnlyError",
    "Connection",
    "ControlError",
    "DatabaseFullError",
    "DatabaseReadOnlyError",
    "DatabaseUnavailableError",
    "DeadLetter",
    "DeadLetterGoneError",
    "DefinitionError",
    "ErrorHandler",
    "ErrorStrategy",
    "Event",
    "EventNotFoundError",
    "ExecutionContext",
    "Flow",
    "FlowBuilder",
    "FlowNotFoundError",
    "FlowRegistry",
    "ForkedRuntimeError",
    "GiveUp",
    "IdempotencyConflictError",
    "JobContext",
    "JobEndedError",
    "JobFailedError",
    "JobNotFoundError",
    "LeaseLostError",
    "LogicSignatureError",
    "NaiveDatetimeError",
    "OutsideLogicError",
    "PayloadError",
    "PayloadTooLargeError",
    "PolicyError",
    "Post",
    "PostInDoubt",
    "PostManyIncomplete",
    "Posted",
    "ProcessDiedError",
    "RemovedAttributeError",
    "RemovedImportError",
    "RemovedNameError",
    "RetryLater",
    "RoutedStdout",
    "RoutiluxError",
    "Routine",
    "RoutineNotFoundError",
    "RoutineTester",
    "Runtime",
    "RuntimeShutDownError",
    "SchemaError",
    "SchemaForeignError",
    "SchemaMissingError",
    "SchemaTooNewError",
    "SchemaTooOldError",
    "Slot",
    "SlotModelError",
    "SlotNotFoundError",
    "SlotQueueFullError",
    "StateError",
    "Steering",
    "WorkerEndedError",
    "WorkerNotFoundError",
    "WorkerState",
    "WriteError",
    "__version__",
    "all_slots_ready_policy",
    "batch_size_policy",
    "clear_job_output",
    "custom_policy",
    "get_current_job",
    "get_current_job_id",
    "get_current_worker_state",
    "get_flow_registry",
    "get_job_output",
    "get_routed_stdout",
    "get_runtime_instance",
    "immediate_policy",
    "install_routed_stdout",
    "sqlite_engine",
    "time_interval_policy",
    "uninstall_routed_stdout",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = _version()
    elif name in _LAZY:
        value = getattr(import_module(_LAZY[name]), name)
    elif name in _REMOVED:
        raise RemovedImportError(f"routilux.{name}", _REMOVED[name])
    else:
        raise AttributeError(f"module 'routilux' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("routilux")
    except PackageNotFoundError:  # a source tree that is not installed
        return "0+source"
