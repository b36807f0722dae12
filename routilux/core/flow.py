"""`Flow`: routines with ids, and the connections from events to slots. A definition; a `Runtime` runs it."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Any, NoReturn

import orjson

from routilux.core import error_handler as handlers
from routilux.core.compiled import CompiledFlow, CompiledRoutine, Target
from routilux.core.connection import Connection
from routilux.core.error_handler import ErrorHandler
from routilux.core.event import Event
from routilux.core.names import check_name
from routilux.core.policies import BatchSizePolicy
from routilux.core.routine import Routine
from routilux.errors import (
    LONGEST_DELAY_S,
    DefinitionError,
    LogicSignatureError,
    RemovedAttributeError,
    RemovedNameError,
)

_REMOVED = {
    "execute": "register the flow and use runtime.exec() and runtime.post()",
    "pause": "use runtime.pause_worker()",
    "resume": "use runtime.resume_worker()",
    "cancel": "use runtime.cancel_worker()",
    "shutdown": "use runtime.shutdown()",
    "set_execution_strategy": "use Runtime(thread_pool_size=…) and routine.set_concurrency(n)",
    "wait_for_completion": "use runtime.wait_until_all_jobs_finished()",
    "post_job": "use runtime.post()",
}

Wire = tuple[str, str, str, str]  # source routine, event, target routine, slot


class Flow:
    """Routines and the connections between them.

    `flow_id`: default the name under which the flow is registered. `execution_timeout`: seconds that a job
    may be at work, from its first activation on. Time in which it is paused or parked does not count. None
    (default): no limit.
    """

    def __init__(
        self, flow_id: str | None = None, execution_timeout: float | None = None, **removed: object
    ) -> None:
        if removed:
            raise RemovedNameError(
                f"Flow({', '.join(removed)}=…)",
                "Runtime(thread_pool_size=…) limits how many activations run at once,"
                " Routine.set_concurrency() how many of one routine",
            )
        if flow_id is not None:
            check_name(flow_id, "flow_id")
        if execution_timeout is not None:
            if isinstance(execution_timeout, bool) or not isinstance(execution_timeout, (int, float)):
                raise TypeError(f"execution_timeout must be a number of seconds, not {execution_timeout!r}")
            if not 0 < execution_timeout <= LONGEST_DELAY_S:
                raise DefinitionError(
                    f"execution_timeout must be above 0 and at most a century, not {execution_timeout!r}"
                )
        self.flow_id = flow_id
        self.execution_timeout = execution_timeout
        self.routines: dict[str, Routine] = {}
        self._error_handler: ErrorHandler | None = None
        self._wires: dict[Wire, Connection] = {}
        self._compiled: tuple[tuple[object, ...], CompiledFlow] | None = None

    def __repr__(self) -> str:
        return f"<Flow {self.flow_id!r} routines={list(self.routines)}>"

    def __getattr__(self, name: str) -> NoReturn:
        if name in _REMOVED:
            raise RemovedAttributeError(f"flow.{name}", _REMOVED[name])
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def add_routine(self, routine: Routine, routine_id: str | None = None) -> str:
        """Add a routine and return its id.

        The default id is the class name in snake case, with `_2`, `_3`, … if it is taken.
        Raises `DefinitionError` if the id is taken, `TypeError` if `routine` is not a `Routine`.
        """
        if not isinstance(routine, Routine):
            raise TypeError(f"add_routine takes a Routine, not {type(routine).__name__}")
        if routine_id is None:
            routine_id = self._free_id(_snake_case(type(routine).__name__))
        check_name(routine_id, "routine_id")
        if routine_id in self.routines:
            raise DefinitionError(f"Routine ID {routine_id!r} already exists in flow")
        self.routines[routine_id] = routine
        return routine_id

    def _free_id(self, stem: str) -> str:
        number = 2
        routine_id = stem
        while routine_id in self.routines:
            routine_id = f"{stem}_{number}"
            number += 1
        return routine_id

    def connect(
        self,
        source_routine_id: str,
        source_event: str,
        target_routine_id: str,
        target_slot: str,
        **removed: object,
    ) -> Connection:
        """Connect an event to a slot. A repeated call returns the same connection.

        Raises `DefinitionError` with the name of the routine, event or slot that does not exist.
        """
        if removed:
            raise RemovedNameError(
                f"connect({', '.join(removed)}=…)", "rename fields in the logic of the emitting routine"
            )
        source = self.routines.get(source_routine_id)
        if source is None:
            raise DefinitionError(f"Source routine {source_routine_id!r} not found in flow")
        if source_event not in source.events:
            raise DefinitionError(f"Event {source_event!r} not found in routine {source_routine_id!r}")
        target = self.routines.get(target_routine_id)
        if target is None:
            raise DefinitionError(f"Target routine {target_routine_id!r} not found in flow")
        if target_slot not in target.slots:
            raise DefinitionError(f"Slot {target_slot!r} not found in routine {target_routine_id!r}")
        wire = (source_routine_id, source_event, target_routine_id, target_slot)
        if wire not in self._wires:
            self._wires[wire] = Connection(
                source.events[source_event], target.slots[target_slot], self._forget
            )
            self._compiled = None
        return self._wires[wire]

    def _forget(self, connection: Connection) -> None:
        self._wires = {wire: known for wire, known in self._wires.items() if known is not connection}
        self._compiled = None

    @property
    def connections(self) -> list[Connection]:
        """All connections, in the order they were made."""
        return list(self._wires.values())

    def get_connections_for_event(self, event: Event) -> list[Connection]:
        return [connection for connection in self.connections if connection.source_event is event]

    def find_routines_by_type(self, kind: type[Routine]) -> list[tuple[str, Routine]]:
        return [
            (routine_id, routine)
            for routine_id, routine in self.routines.items()
            if isinstance(routine, kind)
        ]

    @property
    def error_handler(self) -> ErrorHandler | None:
        return self._error_handler

    @error_handler.setter
    def error_handler(self, handler: ErrorHandler | None) -> None:
        if handler is not None and not isinstance(handler, ErrorHandler):
            raise TypeError(f"a flow's error handler is an ErrorHandler, not {type(handler).__name__}")
        self._error_handler = handler
        self._compiled = None

    def set_error_handler(self, handler: ErrorHandler) -> Flow:
        """Set the handler for routines without a handler of their own. The default is STOP."""
        self.error_handler = handler
        return self

    def get_error_handler(self) -> ErrorHandler | None:
        return self._error_handler

    # checking and describing

    def validate(self) -> list[str]:
        """Return what looks wrong ("Warning: …") and what cannot work ("Error: …")."""
        findings: list[str] = []
        feeding = {(source, event) for source, event, _, _ in self._wires}
        fed = {(target, slot) for _, _, target, slot in self._wires}
        for routine_id, routine in self.routines.items():
            findings += _findings(routine_id, routine)
            findings += [
                f"Warning: slot '{name}' of routine '{routine_id}' is not connected: only post() reaches it"
                for name in routine.slots
                if (routine_id, name) not in fed
            ]
            findings += [
                f"Warning: event '{name}' of routine '{routine_id}' is not connected:"
                " its data is not delivered"
                for name in routine.events
                if (routine_id, name) not in feeding
            ]
        return findings

    def serialize(self) -> dict[str, Any]:
        """Return the structure as JSON: connections, and routines with class, slots, events, policy."""
        return {
            "flow_id": self.flow_id,
            "execution_timeout": self.execution_timeout,
            "routines": {routine_id: _described(routine) for routine_id, routine in self.routines.items()},
            "connections": [
                {"from": f"{source}.{event}", "to": f"{target}.{slot}"}
                for source, event, target, slot in self._wires
            ],
        }

    def definition_hash(self) -> str:
        """Return the sha256 of the canonical structure. Equal structures have equal hashes in any process."""
        return sha256(orjson.dumps(self.serialize(), option=orjson.OPT_SORT_KEYS)).hexdigest()

    # for the engine

    def compiled(self) -> CompiledFlow:
        """Return the flow with all lookups done. A change of the flow or of a routine rebuilds it."""
        stamp = (
            id(self._error_handler),
            self.execution_timeout,
            *((rid, id(r), r._version) for rid, r in self.routines.items()),
        )
        if self._compiled is None or self._compiled[0] != stamp:
            routines = {
                routine_id: self._compile(routine_id, routine)
                for routine_id, routine in self.routines.items()
            }
            self._compiled = (stamp, CompiledFlow(self.flow_id, routines, self.execution_timeout))
        return self._compiled[1]

    def _compile(self, routine_id: str, routine: Routine) -> CompiledRoutine:
        call, is_async = routine._normalized()
        targets: dict[str, tuple[Target, ...]] = {
            event: tuple(
                (target, slot, self.routines[target].slots[slot])
                for source, its_event, target, slot in self._wires
                if (source, its_event) == (routine_id, event)
            )
            for event in routine.events
        }
        handler = routine.get_error_handler() or self._error_handler or handlers.DEFAULT
        return CompiledRoutine(
            routine_id,
            routine,
            call,
            is_async,
            routine._policy,
            dict(routine.slots),
            targets,
            handler,
            routine._concurrency,
        )


def _snake_case(name: str) -> str:
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return spaced.lower()


def _findings(routine_id: str, routine: Routine) -> list[str]:
    findings = []
    if routine._policy is None:
        findings.append(f"Warning: routine '{routine_id}' has no activation policy and will never run")
    try:
        has_logic = routine._normalized()[0] is not None
    except LogicSignatureError as error:
        return [f"Error: routine '{routine_id}': {error}"]
    if not has_logic:
        findings.append(f"Warning: routine '{routine_id}' has no logic and will never run")
    size = routine._policy.size if isinstance(routine._policy, BatchSizePolicy) else None
    for name, slot in routine.slots.items():
        if isinstance(size, int) and slot.max_queue_length is not None and size > slot.max_queue_length:
            findings.append(
                f"Error: routine '{routine_id}' waits for {size} messages, but slot '{name}' holds at most"
                f" {slot.max_queue_length}: raise max_queue_length or take a smaller batch"
            )
    return findings


def _described(routine: Routine) -> dict[str, Any]:
    return {
        "class": f"{type(routine).__module__}:{type(routine).__qualname__}",
        "slots": {
            name: {
                "max_queue_length": slot.max_queue_length,
                "watermark": slot.watermark,
                "model": _model(slot.model),
            }
            for name, slot in routine.slots.items()
        },
        "events": {name: event.output_params for name, event in routine.events.items()},
        "policy": routine.get_activation_policy_info(),
        "concurrency": routine._concurrency,
    }


def _model(model: type | None) -> str | None:
    return None if model is None else f"{model.__module__}:{model.__qualname__}"
