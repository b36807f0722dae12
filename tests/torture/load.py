"""The flow that is tortured.

What a job leaves follows from its number alone, so a checker can say what must be there.

intake ─┬─ part ×3 → work (fails at some first tries, retried after RETRY_S)
        │              ├→ store   own row, numbered by state
        │              ├→ batch   own rows, four at a time
        │              └→ join.part  (of the last part)
        └─ order ────────→ join.order  own row, one per job
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, Integer, MetaData, String, Table, insert

from routilux import ErrorHandler, Flow, FlowRegistry, Routine
from routilux.activation_policies import all_slots_ready_policy, batch_size_policy, immediate_policy
from routilux.core import get_current_job

FLOW = "torture"
PARTS = 3
BATCH = 4
RETRY_S = 0.2
WORKERS = ("a", "b", "c", "d")

tables = MetaData()
# Postgres: a trigger of the user's that refuses posts while there is a row in `mood`. Not those that come
# from the inbox: they are accepted already, and would be dead letters.
MOODY_TRIGGER = (
    "CREATE TABLE mood (is_bad boolean)",
    "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF EXISTS (SELECT FROM mood)"
    " AND current_setting('torture.inbox', true) IS DISTINCT FROM 'taken' THEN RAISE EXCEPTION 'in a bad"
    " mood'; END IF; RETURN NEW; END $$",
    "CREATE TRIGGER moody BEFORE INSERT ON routilux_messages FOR EACH ROW WHEN (NEW.routine = 'intake')"
    " EXECUTE FUNCTION refuse()",
    "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM"
    " set_config('torture.inbox', 'taken', true);"
    " RETURN NULL; END $$",
    "CREATE TRIGGER noting AFTER DELETE ON routilux_inbox FOR EACH ROW EXECUTE FUNCTION note()",
)


def _rows(name: str) -> Table:
    """Nothing is unique but the id: a doubled effect must be seen, not refused."""
    return Table(
        name,
        tables,
        Column("id", Integer, primary_key=True),
        Column("worker_id", String(20)),
        Column("place", Integer),
        Column("job_id", String(60)),
        Column("part", Integer),
    )


STORED, BATCHED, JOINED = _rows("stored"), _rows("batched"), _rows("joined")


class FirstTryError(Exception):
    """Raised at the first try that this process makes of some parts."""


class Intake(Routine):
    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input")
        for event in ("part", "order"):
            self.add_event(event)
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data: Any, policy_message: Any, worker_state: Any) -> None:
        number, job = slot_data["input"][0]["number"], get_current_job()
        assert job is not None
        _count(self, worker_state)
        for part in range(PARTS):
            self.emit("part", number=number, part=part, job=job.job_id)
        self.emit("order", number=number)


class Work(Routine):
    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input")
        for event in ("done", "last"):
            self.add_event(event)
        self.set_activation_policy(immediate_policy())
        self.set_error_handler(
            ErrorHandler("retry", max_retries=1000, retry_delay=RETRY_S, retry_backoff=1.0)
        )
        self._tried: set[tuple[int, int]] = set()

    def logic(self, slot_data: Any, policy_message: Any, worker_state: Any) -> None:
        item = slot_data["input"][0]
        worker_state.increment("work", "n")
        key = (item["number"], item["part"])
        if sum(key) % 9 == 4 and key not in self._tried:
            self._tried.add(key)
            raise FirstTryError(f"part {key}")
        self.emit("done", **item)
        if item["part"] == PARTS - 1:
            self.emit("last", **item)


class Writer(Routine):
    """Writes a row for each item it is given and counts them in its state."""

    def __init__(self, table: Table, slots: tuple[str, ...], policy: Any, counts_job: str) -> None:
        super().__init__()
        for slot in slots:
            self.add_slot(slot)
        self.set_activation_policy(policy)
        self._table = table
        self._counts_job = counts_job

    def logic(self, slot_data: Any, policy_message: Any, worker_state: Any) -> None:
        items = slot_data.get("input") or slot_data["part"]
        job = get_current_job()
        assert job is not None
        job.increment(self._counts_job, len(items))
        for item in items:
            place = _count(self, worker_state)
            self.write(
                insert(self._table).values(
                    worker_id=worker_state.worker_id,
                    place=place,
                    job_id=item["job"],
                    part=item["part"],
                )
            )


def _count(routine: Routine, worker_state: Any) -> int:
    """The whole state is replaced: a lost or a doubled activation shows in it."""
    state = routine.get_state(worker_state) or {"n": 0}
    routine.set_state(worker_state, "n", state["n"] + 1)
    return int(state["n"]) + 1


def job_id_of(number: int) -> str | None:
    """An id of the caller's, and for every other job one that is made for it:
    that post may go in one text.
    """
    return f"job-{number:07d}" if number % 2 else None


def register() -> FlowRegistry:
    """The flow in a registry of its own."""
    flow = Flow(FLOW)
    flow.add_routine(Intake(), "intake")
    flow.add_routine(Work(), "work")
    flow.add_routine(Writer(STORED, ("input",), immediate_policy(), "stored"), "store")
    flow.add_routine(Writer(BATCHED, ("input",), batch_size_policy(BATCH), "batched"), "batch")
    flow.add_routine(Writer(JOINED, ("order", "part"), all_slots_ready_policy(by_job=True), "joined"), "join")
    for source, event, target, slot in (
        ("intake", "part", "work", "input"),
        ("intake", "order", "join", "order"),
        ("work", "done", "store", "input"),
        ("work", "done", "batch", "input"),
        ("work", "last", "join", "part"),
    ):
        flow.connect(source, event, target, slot)
    registry = FlowRegistry()
    registry.register_by_name(FLOW, flow)
    return registry
