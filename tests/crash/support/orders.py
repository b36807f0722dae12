"""The flow of the crash suite: split → work → store. One job makes `PARTS` rows in the user's own table.

    split   fans a job out; counts with a whole-state write
    work    fails at the first try of some parts and is retried; counts with `increment`
    store   writes the row, numbered by its own counter, and counts in the job's data

`gates` are called inside logic with the routine's name, for tests that want to be there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Column, Integer, MetaData, String, Table, insert

from routilux.activation_policies import immediate_policy
from routilux.core.context import get_current_job
from routilux.core.error_handler import ErrorHandler
from routilux.core.flow import Flow
from routilux.core.registry import FlowRegistry
from routilux.core.routine import Routine

FLOW = "orders"
PARTS = 2

metadata = MetaData()
orders = Table(
    "orders",
    metadata,
    Column(
        "id", Integer, primary_key=True
    ),  # nothing is unique but this: a doubled effect must be seen, not refused
    Column("worker_id", String(100)),
    Column("place", Integer),
    Column("job_id", String(100)),
    Column("part", Integer),
    Column("amount", Integer),
)

is_flaky = True  # `work` fails at some first tries
gates: list[Callable[[str, dict[str, Any]], None]] = []


def amount_of(number: int, part: int) -> int:
    """What the row of a part must hold."""
    return number * 31 + part


def job_id_of(number: int) -> str:
    return f"job-{number:05d}"


class FirstTryError(Exception):
    """Raised by `work` at the first try in each process of every seventh part."""


class Split(Routine):
    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input")
        self.add_event("part")
        self.set_activation_policy(immediate_policy())
        self.set_logic(self.split)

    def split(self, slot_data: Any, policy_message: Any, worker_state: Any) -> None:
        item = slot_data["input"][0]
        _pass("split", item)
        self.set_state(worker_state, "n", self.get_state(worker_state, "n", 0) + 1)
        for part in range(PARTS):
            self.emit("part", number=item["number"], part=part, amount=amount_of(item["number"], part))


class Work(Routine):
    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input")
        self.add_event("done")
        self.set_activation_policy(immediate_policy())
        self.set_error_handler(ErrorHandler("retry", max_retries=1000, retry_delay=0.005, retry_backoff=1.0))
        self.set_logic(self.work)
        self._tried: set[tuple[int, int]] = set()

    def work(self, slot_data: Any, policy_message: Any, worker_state: Any) -> None:
        item = slot_data["input"][0]
        _pass("work", item)
        worker_state.increment("work", "n")
        key = (item["number"], item["part"])
        if is_flaky and sum(key) % 7 == 3 and key not in self._tried:
            self._tried.add(key)
            raise FirstTryError(f"part {key}")
        self.emit("done", **item)


class Store(Routine):
    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input")
        self.set_activation_policy(immediate_policy())
        self.set_logic(self.store)

    def store(self, slot_data: Any, policy_message: Any, worker_state: Any) -> None:
        item = slot_data["input"][0]
        _pass("store", item)
        place = self.get_state(worker_state, "n", 0) + 1
        self.set_state(worker_state, "n", place)
        job = get_current_job()
        job.increment("parts")
        self.write(
            insert(orders).values(
                worker_id=worker_state.worker_id,
                place=place,
                job_id=job.job_id,
                part=item["part"],
                amount=item["amount"],
            )
        )


def _pass(routine: str, item: dict[str, Any]) -> None:
    for gate in gates:
        gate(routine, item)


def register() -> FlowRegistry:
    """The flow in a registry of its own."""
    flow = Flow(FLOW)
    for name, routine in (("split", Split()), ("work", Work()), ("store", Store())):
        flow.add_routine(routine, name)
    flow.connect("split", "part", "work", "input")
    flow.connect("work", "done", "store", "input")
    registry = FlowRegistry()
    registry.register_by_name(FLOW, flow)
    return registry
