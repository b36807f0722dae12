"""`Routine`: input slots, output events, and the logic between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from routilux.core import logic_signature as forms
from routilux.core.context import current_activation, required_activation
from routilux.core.error_handler import ErrorHandler, ErrorStrategy
from routilux.core.event import Event
from routilux.core.job_context import JobContext
from routilux.core.names import check_key, check_name
from routilux.core.policies import Policy, as_policy
from routilux.core.slot import Slot
from routilux.core.worker_state import WorkerState
from routilux.errors import ConfigReadOnlyError, DefinitionError, RemovedNameError


@dataclass(frozen=True, slots=True)
class ExecutionContext:
    """The flow, routine, worker and job for which logic runs."""

    flow_id: str
    routine_id: str
    worker_state: WorkerState
    job_context: JobContext


class Routine:
    """A building block of flows. Subclass it: add slots and events in `__init__`, set logic and a policy.

    Without an activation policy or without logic, a routine never runs. The constructor should take no
    parameters: otherwise another process cannot rebuild the routine. Use `set_config` instead.
    """

    def __init__(self) -> None:
        self.slots: dict[str, Slot] = {}
        self.events: dict[str, Event] = {}
        self._config: dict[str, Any] = {}
        self._logic: Callable[..., Any] | None = None
        self._call: forms.Logic | None = None
        self._policy: Policy | None = None
        self._error_handler: ErrorHandler | None = None
        self._concurrency = 1
        self._version = 0  # every change adds 1, so a flow knows when to compile again

    @property
    def _id(self) -> str:
        return hex(id(self))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} slots={list(self.slots)} events={list(self.events)}>"

    # definition

    def add_slot(
        self,
        name: str,
        max_queue_length: int | None = None,
        watermark: float = 0.8,
        *,
        model: type[BaseModel] | None = None,
        **removed: object,
    ) -> Slot:
        """Add an input. `Slot` explains the parameters.

        Raises `DefinitionError` if the name is taken or a limit is bad.
        """
        if removed:
            raise RemovedNameError(
                f"add_slot({', '.join(removed)}=…)",
                "set_logic() takes the function, set_activation_policy() sets when it runs",
            )
        check_name(name, "a slot's name")
        if name in self.slots:
            raise DefinitionError(f"Slot {name!r} already exists in {type(self).__name__}")
        self.slots[name] = Slot(name, self, max_queue_length, watermark, model=model)
        self._changed()
        return self.slots[name]

    def add_event(self, name: str, output_params: Sequence[str] | None = None) -> Event:
        """Add an output. `output_params` documents the names of the emitted values.

        Raises `DefinitionError` if the name is taken.
        """
        check_name(name, "an event's name")
        if name in self.events:
            raise DefinitionError(f"Event {name!r} already exists in {type(self).__name__}")
        for param in output_params or ():
            check_key(param, "a name in output_params")
        self.events[name] = Event(name, self, output_params)
        self._changed()
        return self.events[name]

    define_slot = add_slot
    define_event = add_event

    def get_slot(self, name: str) -> Slot | None:
        return self.slots.get(name)

    def get_event(self, name: str) -> Event | None:
        return self.events.get(name)

    def set_logic(self, logic: Callable[..., Any]) -> Routine:
        """Set the function to run. `routilux.core.logic_signature` explains its two forms.

        Raises `LogicSignatureError`.
        """
        forms.normalize(logic, list(self.slots))
        self._logic = logic
        self._changed()
        return self

    def set_activation_policy(self, policy: Callable[..., Any]) -> Routine:
        """Set when to run and with which items. See `routilux.activation_policies`, or pass a function."""
        self._policy = as_policy(policy)
        self._changed()
        return self

    def get_activation_policy_info(self) -> dict[str, Any]:
        """Return `{"type", "description", …}` of the policy. Without a policy the type is `none`."""
        if self._policy is None:
            return {"type": "none", "description": "no activation policy: the routine never runs"}
        return self._policy.describe()

    def set_error_handler(self, handler: ErrorHandler) -> Routine:
        """Set what to do when logic raises. It overrides the flow's handler."""
        if not isinstance(handler, ErrorHandler):
            raise TypeError(f"set_error_handler takes an ErrorHandler, not {type(handler).__name__}")
        self._error_handler = handler
        self._changed()
        return self

    def get_error_handler(self) -> ErrorHandler | None:
        return self._error_handler

    def set_as_critical(
        self, max_retries: int = 3, retry_delay: float = 1.0, retry_backoff: float = 2.0
    ) -> Routine:
        """The job needs this routine: after an error retry, then fail the job."""
        return self.set_error_handler(
            ErrorHandler(ErrorStrategy.RETRY, max_retries, retry_delay, retry_backoff, is_critical=True)
        )

    def set_as_optional(self, strategy: str | ErrorStrategy = ErrorStrategy.CONTINUE) -> Routine:
        """The job does not need this routine: after an error continue."""
        return self.set_error_handler(ErrorHandler(strategy))

    def set_concurrency(self, n: int) -> Routine:
        """Set how many activations of this routine one worker may run at once. The default 1 keeps order."""
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise DefinitionError(f"concurrency must be an integer, 1 or more, not {n!r}")
        self._concurrency = n
        self._changed()
        return self

    def _changed(self) -> None:
        self._version += 1
        self._call = None

    def _normalized(self) -> tuple[forms.Logic | None, bool]:
        """Return the logic in the form that the engine calls, and whether it is async."""
        function = self._logic if self._logic is not None else getattr(self, "logic", None)
        if function is None:
            return None, False
        if self._call is None:
            self._call = forms.normalize(function, list(self.slots))
        return self._call, forms.is_async(function)

    # configuration

    def set_config(self, **values: Any) -> Routine:
        """Change settings that logic can read. Raises `ConfigReadOnlyError` inside logic."""
        if current_activation() is not None:
            raise ConfigReadOnlyError
        self._config.update(values)
        return self

    def get_config(self, key: str, default: Any = None) -> Any:
        return self._config.get(key, default)

    def config(self) -> dict[str, Any]:
        """Return a copy of all settings."""
        return dict(self._config)

    get_all_config = config

    # inside logic

    def emit(self, event_name: str, runtime: object = None, worker_state: object = None, **data: Any) -> None:
        """Send `data`, as one dict, to every slot connected to the event, in the activation's commit.

        Raises `OutsideLogicError` outside logic, `EventNotFoundError`, and `PayloadError` with the path of a
        bad value. `runtime` and `worker_state` are ignored; old programs pass them.
        """
        required_activation("emit()").emit(event_name, data)

    def write(
        self, statement: object, parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None
    ) -> None:
        """Write your own rows exactly once: a Core `insert`, `update` or `delete` on the runtime's database.

        Statements run inside the activation's commit, in the order of the calls. If the activation is not
        committed, neither are they. Returns None. Raises `WriteError` for anything else, `OutsideLogicError`
        outside logic.
        """
        required_activation("write()").write(statement, parameters)

    def get_execution_context(self) -> ExecutionContext | None:
        """Return the flow, routine, worker and job for which logic runs, or None outside logic."""
        found = current_activation()
        if found is None:
            return None
        return ExecutionContext(found.flow_id, found.routine_id, found.worker_state, found.job)

    def get_state(self, worker_state: WorkerState, key: str | None = None, default: Any = None) -> Any:
        """Return this routine's own state, or one key of it. Inside logic only."""
        state = worker_state.get_routine_state(required_activation("get_state()").routine_id, {})
        return state if key is None else state.get(key, default)

    def set_state(self, worker_state: WorkerState, key: str, value: Any) -> None:
        """Set one key of this routine's own state. Inside logic only."""
        self.update_state(worker_state, {key: value})

    def update_state(self, worker_state: WorkerState, values: Mapping[str, Any]) -> None:
        """Set several keys of this routine's own state. Inside logic only."""
        routine_id = required_activation("update_state()").routine_id
        worker_state.update_routine_state(
            routine_id, {**worker_state.get_routine_state(routine_id, {}), **values}
        )
