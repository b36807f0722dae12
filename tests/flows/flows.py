"""What the flow tests share: small flows, logic that notes what it gets, and a runtime on a database."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from routilux import ErrorHandler, Flow, FlowRegistry, Routine, Runtime, WorkerState, sqlite_engine
from routilux.activation_policies import immediate_policy

GOOD = ("f", "s0", "input")


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


def count(step: Step, slot_data: dict[str, list[Any]], worker_state: WorkerState) -> None:
    """Logic that counts its calls."""
    worker_state.increment("seen", "count")


def ignore(slot_data: Any, policy_message: Any, worker_state: Any) -> None:
    """Logic that does nothing."""


class Seen:
    """Logic that notes what it is given, and counts."""

    def __init__(self) -> None:
        self.items: list[Any] = []

    def __call__(self, step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
        self.items.append(slot_data["input"][0])
        worker_state.increment("s0", "seen")


class SeenNumbers:
    """Logic that notes the numbers `n` that it is given, and counts."""

    def __init__(self) -> None:
        self.items: list[Any] = []

    def __call__(self, step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
        self.items += [item.get("n") for item in slot_data["input"]]
        worker_state.increment("s0", "done")


class Gate:
    """Logic that says when it has begun and goes on when it is let; what else it does is given."""

    def __init__(self, then: Any = None) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()
        self.seen: list[Any] = []
        self.then = then

    def __call__(self, step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
        self.seen.append([item.get("n") for item in slot_data["input"]])
        self.begun.set()
        assert self.go.wait(30)
        worker_state.increment("s0", "done")
        if self.then is not None:
            self.then(step)


def engine_of(database: str) -> Any:
    return (
        sqlite_engine(database)
        if database.startswith("sqlite")
        else create_engine(database, poolclass=NullPool)
    )


def known_flow(database: str, registry: FlowRegistry) -> None:
    """The flow is registered in the database, and its worker `w` is there; nothing runs."""
    with running(database, registry):
        pass


def with_slot(**settings: Any) -> FlowRegistry:
    """The flow `f` of one routine whose slot has these settings."""
    step = Step(count)
    step.slots.clear()
    step.add_slot("input", **settings)
    return chain(step)


def seeing(seen: list[Any]) -> Any:
    return lambda step, slot_data, worker_state: seen.extend(slot_data["input"])


def post_one(rt: Runtime, n: int, **more: Any) -> Any:
    return rt.post("f", "s0", "input", {"n": n}, **more).job
