"""Flows that together have all ways of joining, gathering, retrying, writing and ending."""

from __future__ import annotations

from typing import Any

from sqlalchemy import CheckConstraint, Column, ForeignKey, Integer, MetaData, Table, Text, insert

from routilux import ErrorHandler, Flow, Routine
from routilux.activation_policies import (
    all_slots_ready_policy,
    batch_size_policy,
    immediate_policy,
    time_interval_policy,
)
from routilux.core import get_current_job
from routilux.testing import End

tables = MetaData()
accounts = Table("accounts", tables, Column("number", Integer, primary_key=True))
ledger = Table(
    "ledger",
    tables,
    Column("entry", Integer, primary_key=True),
    Column("routine", Text, nullable=False),
    Column("job", Integer, CheckConstraint("job >= 0"), nullable=False),
    Column("account", Integer, ForeignKey("accounts.number", deferrable=True, initially="DEFERRED")),
)

# how the row is refused that `audit` writes for a job
REFUSALS = {0: "at once", 2: "by COMMIT", 3: "with its transaction", 6: "by COMMIT"}


def routine(
    name: str,
    slots: list[str],
    events: list[str],
    *,
    policy: Any = None,
    retries: bool = False,
    books: bool = False,
    room: int | None = None,
) -> Routine:
    """Passes its first item on; its state keeps what it saw. `books`: so does a row of the user's table."""
    made = Routine()
    for slot in slots:
        made.add_slot(slot, max_queue_length=room)
    for event in events:
        made.add_event(event)

    def logic(slot_data: dict[str, list[Any]], policy_message: Any, worker_state: Any) -> None:
        items = [item for taken in slot_data.values() for item in taken]
        state = worker_state.get_routine_state(name) or {"count": 0, "seen": []}
        worker_state.update_routine_state(
            name, {"count": state["count"] + 1, "seen": [*state["seen"], [item["id"] for item in items]]}
        )
        worker_state.increment("all", "activations")
        job = get_current_job()
        assert job is not None
        job.increment(name)
        number = items[0]["id"]
        if books and not (name == "first" and number % 3 == 1):  # some write nothing
            refusal = REFUSALS.get(number) if name == "audit" else None
            row = {"routine": name, "job": -1 if refusal in ("at once", "with its transaction") else number}
            statement = insert(ledger).values(**row, account=99 if refusal == "by COMMIT" else None)
            made.write(
                statement.prefix_with("OR ROLLBACK") if refusal == "with its transaction" else statement
            )
        for event in events:
            made.emit(event, id=items[0]["id"])

    made.set_logic(logic)
    made.set_activation_policy(policy or immediate_policy())
    if retries:
        made.set_error_handler(ErrorHandler("retry", max_retries=10, retry_delay=5.0, retry_backoff=1.0))
    return made


def diamond() -> Flow:
    """Fan-out, a join by job, a batch; retries, user statements, some of them refused."""
    flow = Flow("diamond")
    flow.add_routine(routine("split", ["in"], ["a", "b"]), "split")
    flow.add_routine(routine("left", ["in"], ["out"], retries=True), "left")
    flow.add_routine(routine("right", ["in"], ["out"], retries=True, books=True), "right")
    flow.add_routine(routine("join", ["l", "r"], ["out"], policy=all_slots_ready_policy(by_job=True)), "join")
    flow.add_routine(routine("batch", ["in"], [], policy=batch_size_policy(3)), "batch")
    audit = routine("audit", ["in"], [], books=True)
    audit.set_error_handler(ErrorHandler("continue"))
    flow.add_routine(audit, "audit")
    for source, event, target, slot in [
        ("split", "a", "left", "in"),
        ("split", "b", "right", "in"),
        ("left", "out", "join", "l"),
        ("right", "out", "join", "r"),
        ("join", "out", "batch", "in"),
        ("split", "b", "audit", "in"),
    ]:
        flow.connect(source, event, target, slot)
    return flow


def gathering() -> Flow:
    """A time interval, pairs by position, a batch with a longest wait; all are retried."""
    flow = Flow("gathering")

    flow.add_routine(routine("first", ["in"], ["a", "b"], retries=True, books=True), "first")
    flow.add_routine(
        routine("pairs", ["x", "y"], ["out"], policy=all_slots_ready_policy(), retries=True), "pairs"
    )
    flow.add_routine(routine("late", ["in"], [], policy=time_interval_policy(10.0), retries=True), "late")
    flow.add_routine(
        routine(
            "some", ["in"], ["out"], policy=batch_size_policy(4, max_wait=30.0), retries=True, books=True
        ),
        "some",
    )
    for source, event, target, slot in [
        ("first", "a", "pairs", "x"),
        ("first", "b", "pairs", "y"),
        ("pairs", "out", "some", "in"),
        ("some", "out", "late", "in"),
    ]:
        flow.connect(source, event, target, slot)
    return flow


def grown() -> list[Flow]:
    """`diamond`, then a release of it with one more routine after the join."""
    after = diamond()
    after.add_routine(routine("report", ["in"], []), "report")
    after.routines["join"].add_event("more")
    after.connect("join", "out", "report", "in")
    return [diamond(), after]


def narrow() -> Flow:
    """A slot with room for two messages, then batches of several jobs that are retried as a whole."""
    flow = Flow("narrow")
    flow.add_routine(routine("gate", ["in"], ["out"], room=2), "gate")
    flow.add_routine(routine("crowd", ["in"], ["out"], policy=batch_size_policy(2), retries=True), "crowd")
    flow.add_routine(routine("some", ["in"], [], retries=True, books=True), "some")
    flow.connect("gate", "out", "crowd", "in")
    flow.connect("crowd", "out", "some", "in")
    return flow


def timed() -> Flow:
    """Jobs that may be at work for 1.5 s: steps that are retried, and a branch that waits for batches."""
    flow = Flow("timed", execution_timeout=1.5)
    flow.add_routine(routine("first", ["in"], ["a", "b"], retries=True, books=True), "first")
    flow.add_routine(routine("left", ["in"], ["out"], retries=True), "left")
    flow.add_routine(routine("pair", ["in"], [], policy=batch_size_policy(2), retries=True), "pair")
    flow.add_routine(routine("last", ["in"], []), "last")
    flow.connect("first", "a", "left", "in")
    flow.connect("first", "b", "pair", "in")
    flow.connect("left", "out", "last", "in")
    return flow


def check_books(end: End) -> None:
    check_ledger(end)
    check_counts(end)


def check_counts(end: End) -> None:
    """Each activation saw what the one before it left: their counts miss no activation."""
    counted = {
        tuple(row)
        for row in end.rows(
            "SELECT worker, routine, json_extract(value, '$') FROM routilux_worker_state WHERE key = 'count'"
        )
    }
    done = {
        tuple(row)
        for row in end.rows(
            "SELECT worker, routine, count(*) FROM routilux_activations"
            " WHERE status = 'completed' GROUP BY 1, 2"
        )
    }
    assert counted == done, f"counted {sorted(counted)}, activations {sorted(done)}"


def check_ledger(end: End) -> None:
    """One row for each stored activation that writes one, and no other rows."""
    booked = sorted(end.rows("SELECT routine, job FROM ledger"))
    done = end.rows(
        "SELECT a.routine, json_extract(m.payload, '$.id') FROM routilux_activations AS a"
        " JOIN routilux_messages AS m ON m.worker = a.worker AND m.seq ="
        " (SELECT min(CAST(value AS integer)) FROM json_each('[' || a.seqs || ']'))"
        " WHERE a.status = 'completed' AND a.routine IN ('right', 'first', 'some', 'audit') AND m.slot = 'in'"
        " AND NOT (a.routine = 'first' AND json_extract(m.payload, '$.id') % 3 = 1)"
    )
    assert booked == sorted(done), f"own rows {booked}, activations {sorted(done)}"


def _scene(flow: Any, entry: str, signals: str | None = None) -> dict[str, Any]:
    slots = {"entry": (entry, "in"), "signals": (signals or entry, "in")}
    return {"flow": flow, **slots, "tables": tables, "check": check_books}


SCENES = {
    "diamond": _scene(diamond, "split"),
    "gathering": _scene(gathering, "first"),
    "grown": _scene(grown, "split"),
    "narrow": _scene(narrow, "gate", signals="crowd"),
    "timed": _scene(timed, "first", signals="left"),
}

__all__ = ["SCENES"]
