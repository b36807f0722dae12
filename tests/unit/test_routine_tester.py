"""`RoutineTester`: one routine's logic, called by hand."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel
from sqlalchemy import column, insert, select, table

import routilux
from routilux import Routine, RoutineTester, get_current_job
from routilux.activation_policies import immediate_policy
from routilux.errors import (
    CalledInLogicError,
    DefinitionError,
    EventNotFoundError,
    OutsideLogicError,
    PayloadError,
    SlotModelError,
    StateError,
    WriteError,
)
from tests.flows.flows import Step


class Amount(BaseModel):
    value: int


class Doubler(Routine):
    """Counts what it doubled."""

    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input")
        self.add_slot("amount", model=Amount)
        self.add_event("output")
        self.add_event("other")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data: Any, policy_message: Any, worker_state: Any) -> None:
        for item in slot_data["input"]:
            self.emit("output", result=item["value"] * 2)
        self.set_state(worker_state, "count", self.get_state(worker_state, "count", 0) + 1)
        if any(item["value"] < 0 for item in slot_data["input"]):
            raise ValueError("negative")


def with_logic(logic: Any, *slots: str) -> Routine:
    routine = Routine()
    for slot in slots or ("input",):
        routine.add_slot(slot)
    routine.add_event("output")
    routine.set_logic(logic)
    return routine


def test_it_is_found_under_its_documented_names() -> None:
    from routilux import testing

    assert routilux.RoutineTester is testing.RoutineTester


def test_what_is_emitted_is_captured_in_order_and_by_name() -> None:
    tester = RoutineTester(Doubler())
    tester.call_slot("input", value=1)
    tester.call_slot("input", value=2)
    events = tester.get_captured_events()
    assert [(event.name, event.data) for event in events] == [
        ("output", {"result": 2}),
        ("output", {"result": 4}),
    ]
    assert events["output"] == [{"result": 2}, {"result": 4}]
    assert events["other"] == []
    assert (len(events), events[-1].data, events[:1]) == (2, {"result": 4}, [events[0]])
    assert "output" in events
    assert "other" not in events
    assert events[0] in events
    assert (events.get("output"), events.get("other", [])) == ([{"result": 2}, {"result": 4}], [])
    with pytest.raises(KeyError, match="no event 'outptu'; the routine has 'output', 'other'"):
        events["outptu"]


def test_capture_events_begins_anew_and_returns_what_fills_up() -> None:
    tester = RoutineTester(Doubler())
    tester.call_slot("input", value=1)
    events = tester.capture_events()
    assert events == []
    tester.call_slot("input", value=5)
    assert events["output"] == [{"result": 10}]
    tester.clear_captured_events()
    assert events == tester.get_captured_events() == []


def test_state_that_logic_wrote_is_seen_and_can_be_set_before() -> None:
    tester = RoutineTester(Doubler())
    tester.call_slot("input", value=1)
    assert tester.job_state.get_routine_state("doubler") == {"count": 1}
    tester.worker_state.update_routine_state("doubler", {"count": 10})
    tester.worker_state.increment("doubler", "count", 5)
    tester.call_slot("input", value=1)
    assert tester.job_state.routine_states == {"doubler": {"count": 16}}
    assert tester.job_state.status == "idle"


def test_an_exception_reaches_the_test_and_nothing_of_that_call_is_kept() -> None:
    tester = RoutineTester(Doubler())
    tester.call_slot("input", value=1)
    with pytest.raises(ValueError, match="negative"):
        tester.call_slot("input", value=-1)
    assert tester.get_captured_events()["output"] == [{"result": 2}]
    assert tester.job_state.get_routine_state("doubler") == {"count": 1}
    with pytest.raises(OutsideLogicError):
        tester.routine.emit("output", result=1)


def test_an_unknown_slot_is_named_with_those_that_there_are() -> None:
    with pytest.raises(
        ValueError, match="Slot 'inptu' not found in routine 'doubler'; it has 'input', 'amount'"
    ):
        RoutineTester(Doubler()).call_slot("inptu", value=1)
    with pytest.raises(ValueError, match="it has none"):
        RoutineTester(Routine().set_logic(lambda a, policy_message, worker_state: None)).call_slot("x")


def test_items_are_checked_and_travel_as_they_would_between_routines() -> None:
    seen: list[Any] = []
    routine = with_logic(
        lambda slot_data, policy_message, worker_state: seen.append(slot_data), "input", "amount"
    )
    routine.slots["amount"].model = Amount
    tester = RoutineTester(routine)
    tester.call_slot("input", pair=(1, 2))
    tester.call_slot(slot_name="amount", value="7")
    assert seen == [{"input": [{"pair": [1, 2]}], "amount": []}, {"input": [], "amount": [{"value": 7}]}]
    with pytest.raises(PayloadError, match=r"data\.fn: function is not JSON"):
        tester.call_slot("input", fn=lambda: None)
    with pytest.raises(SlotModelError, match=r"data\.value: .*slot 'amount' takes Amount"):
        tester.call_slot("amount", value="seven")


def test_several_items_and_a_policys_message() -> None:
    seen: list[Any] = []
    tester = RoutineTester(
        with_logic(
            lambda slot_data, policy_message, worker_state: seen.append((slot_data, policy_message)), "a", "b"
        )
    )
    tester.call_slots({"b": [{"n": 1}, {"n": 2}]}, policy_message={"reason": "batch_ready"})
    assert seen == [({"a": [], "b": [{"n": 1}, {"n": 2}]}, {"reason": "batch_ready"})]


def test_a_list_per_slot_is_served_as_well() -> None:
    seen: list[Any] = []
    tester = RoutineTester(
        with_logic(lambda a, b, policy_message, worker_state: seen.append((a, b)), "a", "b")
    )
    tester.call_slot("b", n=1)
    assert seen == [([], [{"n": 1}])]


def test_the_job_keeps_data_traces_and_its_end() -> None:
    def logic(slot_data: Any, policy_message: Any, worker_state: Any) -> None:
        job = get_current_job()
        assert job is not None
        job.trace("r", "seen", {"n": 1})
        job.increment("calls")
        job.set_data("user", job.metadata["user"])
        if slot_data["input"][0].get("last"):
            job.complete(result={"calls": job.get_data("calls")})

    tester = RoutineTester(with_logic(logic), metadata={"user": "ada"})
    assert tester.job.status == "pending"
    tester.call_slot("input")
    assert (tester.job.status, tester.job.data) == ("running", {"calls": 1, "user": "ada"})
    tester.job.set_data("calls", 5)
    tester.call_slot("input", last=True)
    done = tester.job
    assert done.wait()
    assert (done.status, done.result()) == ("completed", {"calls": 6})
    assert [line["action"] for line in done.trace_log] == ["seen", "seen"]
    tester.call_slot("input")
    assert (tester.job.status, tester.job.data["calls"]) == ("running", 1)
    tester.job.cancel("enough")
    assert (tester.job.status, tester.job.error) == ("cancelled", "enough")


def test_a_trace_is_kept_even_if_logic_raises() -> None:
    def logic(slot_data: Any, policy_message: Any, worker_state: Any) -> None:
        job = get_current_job()
        assert job is not None
        job.trace("r", "tried")
        raise RuntimeError("no")

    tester = RoutineTester(with_logic(logic))
    with pytest.raises(RuntimeError, match="no"):
        tester.call_slot("input")
    assert [line["action"] for line in tester.job.trace_log] == ["tried"]


def test_own_statements_are_collected_and_refused_as_in_a_runtime() -> None:
    orders = table("orders", column("n"))

    def logic(slot_data: Any, policy_message: Any, worker_state: Any) -> None:
        routine.write(insert(orders), {"n": 1})
        with pytest.raises(WriteError):
            routine.write(select(orders))

    routine = with_logic(logic)
    tester = RoutineTester(routine)
    tester.call_slot("input")
    ((statement, parameters),) = tester.writes
    assert (str(statement), parameters) == ("INSERT INTO orders (n) VALUES (:n)", {"n": 1})


def test_what_a_runtime_refuses_inside_logic_is_refused_here() -> None:
    def logic(slot_data: Any, policy_message: Any, worker_state: Any) -> None:
        job = get_current_job()
        assert job is not None
        with pytest.raises(EventNotFoundError):
            routine.emit("nope")
        with pytest.raises(PayloadError, match=r"emit\('output'\)\.n: nan is not JSON"):
            routine.emit("output", n=float("nan"))
        with pytest.raises(CalledInLogicError):
            job.wait()
        with pytest.raises(StateError):
            worker_state.update_routine_state("r", {})

    routine = with_logic(logic).set_concurrency(2)
    RoutineTester(routine).call_slot("input")


async def _slow(routine: Routine, slot_data: Any) -> None:
    await asyncio.sleep(0)
    routine.emit("output", n=slot_data["input"][0]["n"])


def async_routine() -> Routine:
    async def logic(slot_data: Any, policy_message: Any, worker_state: Any) -> None:
        await _slow(routine, slot_data)
        if slot_data["input"][0]["n"] < 0:
            raise ValueError("negative")

    routine = with_logic(logic)
    return routine


def test_async_logic_runs_to_its_end() -> None:
    tester = RoutineTester(async_routine())
    tester.call_slot("input", n=1)
    with pytest.raises(ValueError, match="negative"):
        tester.call_slot("input", n=-1)
    assert tester.get_captured_events()["output"] == [{"n": 1}]


def test_async_logic_can_be_called_from_an_async_test() -> None:
    async def test() -> Any:
        tester = RoutineTester(async_routine())
        tester.call_slot("input", n=1)
        with pytest.raises(ValueError, match="negative"):
            tester.call_slot("input", n=-1)
        return tester.get_captured_events()["output"]

    assert asyncio.run(test()) == [{"n": 1}]


def test_cleanup_forgets_everything_and_a_with_block_cleans_up() -> None:
    with RoutineTester(Doubler()) as tester:
        tester.call_slot("input", value=1)
    assert (tester.get_captured_events(), tester.job_state.routine_states, tester.writes) == ([], {}, [])
    tester.call_slot("input", value=1)
    assert len(tester.get_captured_events()) == 1


def test_what_cannot_be_tested_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match="takes a Routine, not str"):
        RoutineTester("r")  # type: ignore[arg-type]
    routine = Routine()
    routine.add_slot("input")
    with pytest.raises(DefinitionError, match="'routine' has no logic"):
        RoutineTester(routine).call_slot("input")


@pytest.mark.settled_row(39)
def test_row_39_captured_events_are_a_list_and_a_mapping() -> None:
    """`get_captured_events()` returns a list of objects with `name` and `data` that also takes
    `["event"]`.
    """

    def logic(step: Step, slot_data: Any, worker_state: Any) -> None:
        for item in slot_data["input"]:
            step.emit("output", n=item["n"])

    tester = RoutineTester(Step(logic))
    tester.capture_events()
    tester.call_slot("input", n=1)
    tester.call_slot("input", n=2)
    events = tester.get_captured_events()
    assert isinstance(events, list)
    assert [(event.name, event.data) for event in events] == [("output", {"n": 1}), ("output", {"n": 2})]
    assert events["output"] == [{"n": 1}, {"n": 2}]
