"""Small flows for the tests: a routine whose logic is given, a flow of one, a runtime on a database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from routilux import ErrorHandler, Flow, FlowRegistry, Routine, Runtime
from routilux.activation_policies import immediate_policy


class Step(Routine):
    """One slot `input`, one event `output`, logic from outside."""

    def __init__(
        self, logic: Callable[..., Any], *, policy: Any = None, handler: ErrorHandler | None = None
    ) -> None:
        super().__init__()
        self.add_slot("input")
        self.add_event("output")
        self.set_logic(lambda slot_data, policy_message, worker_state: logic(self, slot_data, worker_state))
        self.set_activation_policy(policy or immediate_policy())
        if handler is not None:
            self.set_error_handler(handler)


def taking(*slots: str, logic: Callable[..., Any] | None = None, policy: Any = None) -> Routine:
    """A plain routine with these slots; without a policy if none is given."""
    routine = Routine()
    for slot in slots:
        routine.add_slot(slot)
    if logic is not None:
        routine.set_logic(logic)
    if policy is not None:
        routine.set_activation_policy(policy)
    return routine


def flow_of(**routines: Routine) -> FlowRegistry:
    """A registry with the flow `f`: these routines under these ids, not connected."""
    flow = Flow("f")
    for routine_id, routine in routines.items():
        flow.add_routine(routine, routine_id)
    registry = FlowRegistry()
    registry.register_by_name("f", flow)
    return registry


def chain(*steps: Step) -> FlowRegistry:
    """A registry with the flow `f`: the steps `s0`, `s1`, … one after another."""
    flow = Flow("f")
    for number, step in enumerate(steps):
        flow.add_routine(step, f"s{number}")
        if number:
            flow.connect(f"s{number - 1}", "output", f"s{number}", "input")
    registry = FlowRegistry()
    registry.register_by_name("f", flow)
    return registry


@contextmanager
def running(database: str, registry: FlowRegistry, **settings: Any) -> Iterator[Runtime]:
    """A runtime with the worker `w`; stopped without waiting for jobs."""
    runtime = Runtime(4, database=database, registry=registry, **settings)
    try:
        runtime.exec("f", worker_id="w")
        yield runtime
    finally:
        runtime.shutdown(wait=False)


def post(runtime: Runtime, data: dict[str, Any], **more: Any) -> Any:
    return runtime.post("f", "s0", "input", data, "w", **more).job
