"""The flows that the benchmarks run; imported by the measuring process and by the processes it starts."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

from routilux import Flow, FlowRegistry, Routine, Runtime
from routilux.activation_policies import immediate_policy


class Stage(Routine):
    """Counts in worker state and hands on."""

    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input")
        self.add_event("output")
        self.set_logic(self.work)
        self.set_activation_policy(immediate_policy())

    def work(self, slot_data: dict[str, list[Any]], policy_message: Any, worker_state: Any) -> None:
        item = slot_data["input"][0]
        name = self.get_config("name")
        state = worker_state.get_routine_state(name) or {"count": 0}
        state["count"] += 1
        worker_state.update_routine_state(name, state)
        self.emit("output", **item)


class Note(Routine):
    """Notes when its logic starts."""

    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input")
        self.started = threading.Event()
        self.at = 0.0
        self.set_logic(self.work)
        self.set_activation_policy(immediate_policy())

    def work(self, slot_data: dict[str, list[Any]], policy_message: Any, worker_state: Any) -> None:
        self.at = time.perf_counter()
        self.started.set()


class Slow(Routine):
    """Prints when it starts and takes its time: the owner is killed in it."""

    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input")
        self.set_logic(self.work)
        self.set_activation_policy(immediate_policy())

    def work(self, slot_data: dict[str, list[Any]], policy_message: Any, worker_state: Any) -> None:
        print("activation", flush=True)
        threading.Event().wait(0.05)


def three_stages() -> Flow:
    flow = Flow("three_stages")
    for number in range(3):
        stage = Stage()
        stage.set_config(name=f"stage_{number}")
        flow.add_routine(stage, f"stage_{number}")
    flow.connect("stage_0", "output", "stage_1", "input")
    flow.connect("stage_1", "output", "stage_2", "input")
    return flow


def one(routine: Routine, name: str) -> Flow:
    flow = Flow(name)
    flow.add_routine(routine, "only")
    return flow


def serve(database: str) -> None:
    """A process of the recovery benchmark: owns, or waits to take over, the worker `w`."""
    FlowRegistry.get_instance().register_by_name("slow", one(Slow(), "slow"))
    with Runtime(2, database=database):
        print("ready", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    serve(sys.argv[1])
