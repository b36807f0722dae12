"""The flows that the benchmarks run, as a user would write them, with the settings that a user has by
default.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from routilux import Flow, FlowRegistry, Routine
from routilux.activation_policies import immediate_policy

Item = dict[str, Any]
Values = Mapping[str, float]  # metric -> value of one run


def payload(number: int, size: int = 130) -> Item:
    """A message of about `size` + 70 bytes as JSON."""
    return {"id": number, "kind": "order.created", "ts": time.monotonic_ns(), "body": "x" * size}


def payloads(count: int, size: int = 130) -> list[Item]:
    return [payload(number, size) for number in range(count)]


class Stage(Routine):
    """Counts in worker state, does `work`, and hands on.

    `last` is called with each item at the last stage.
    """

    def __init__(self, name: str, work: Callable[[Routine, Item], None] | None = None) -> None:
        super().__init__()
        self.add_slot("input")
        self.add_event("output")
        self.set_activation_policy(immediate_policy())
        self._name = name
        self._work = work

    def logic(self, slot_data: dict[str, list[Item]], policy_message: Any, worker_state: Any) -> None:
        item = slot_data["input"][0]
        state = worker_state.get_routine_state(self._name) or {"count": 0}
        state["count"] += 1
        worker_state.update_routine_state(self._name, state)
        if self._work is not None:
            self._work(self, item)
        self.emit("output", **item)


class Sink(Routine):
    """The end of a job: calls `seen` with the item and nothing else."""

    def __init__(self, seen: Callable[[Item], None] = lambda item: None) -> None:
        super().__init__()
        self.add_slot("input")
        self.set_activation_policy(immediate_policy())
        self._seen = seen

    def logic(self, slot_data: dict[str, list[Item]], policy_message: Any, worker_state: Any) -> None:
        self._seen(slot_data["input"][0])


class Arrivals:
    """Counts what reaches a sink, from any thread, and can be waited for."""

    def __init__(self, awaited: int) -> None:
        self._left = awaited
        self._lock = threading.Lock()
        self.all_seen = threading.Event()

    def __call__(self, item: Item) -> None:
        with self._lock:
            self._left -= 1
            if self._left == 0:
                self.all_seen.set()


def registry(flow: Flow) -> FlowRegistry:
    known = FlowRegistry()
    known.register_by_name(str(flow.flow_id), flow)
    return known


def three_stages(work: Callable[[Routine, Item], None] | None = None) -> Flow:
    """first → second → third."""
    flow = Flow("three_stages")
    names = ("first", "second", "third")
    for name in names:
        flow.add_routine(Stage(name, work), name)
    flow.connect("first", "output", "second", "input")
    flow.connect("second", "output", "third", "input")
    return flow


def one_stage(routine: Routine | None = None) -> Flow:
    flow = Flow("one_stage")
    flow.add_routine(routine or Sink(), "only")
    return flow


def check(holds: object, what: str) -> None:
    """A figure of work that was not done is none."""
    if not holds:
        raise RuntimeError(what)
