"""Routines: what they are made of, and what their calls do inside logic and outside it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from routilux.activation_policies import immediate_policy
from routilux.core.context import get_current_job, get_current_job_id, get_current_worker_state
from routilux.core.error_handler import ErrorHandler, ErrorStrategy
from routilux.core.flow import Flow
from routilux.core.routine import Routine
from routilux.core.worker_state import WorkerState
from routilux.errors import (
    ConfigReadOnlyError,
    DefinitionError,
    EventNotFoundError,
    LogicSignatureError,
    OutsideLogicError,
    PayloadError,
    PayloadTooLargeError,
    PolicyError,
    RemovedNameError,
    SlotModelError,
    WriteError,
)
from tests.support.inside import inside


class Amount(BaseModel):
    value: int


class Source(Routine):
    def __init__(self) -> None:
        super().__init__()
        self.add_slot("trigger")
        self.add_event("out")
        self.add_event("unconnected")


class Sink(Routine):
    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input")
        self.add_slot("amount", model=Amount)


@pytest.fixture
def wired() -> tuple[Flow, Source]:
    flow, source = Flow("f"), Source()
    flow.add_routine(source, "source")
    flow.add_routine(Sink(), "sink")
    flow.connect("source", "out", "sink", "input")
    return flow, source


def test_slots_and_events_are_found_by_name() -> None:
    source = Source()
    assert source.get_slot("trigger") is source.slots["trigger"]
    assert source.get_event("out") is source.events["out"]
    assert source.get_slot("out") is None
    assert source.get_event("trigger") is None


def test_a_taken_name_is_refused() -> None:
    source = Source()
    with pytest.raises(DefinitionError, match="Slot 'trigger' already exists in Source"):
        source.add_slot("trigger")
    with pytest.raises(DefinitionError, match="Event 'out' already exists in Source"):
        source.add_event("out")


@pytest.mark.parametrize("name", ["", "a\0b", "\ud800", "x" * 600])
def test_a_name_that_no_database_stores_is_refused(name: str) -> None:
    with pytest.raises(DefinitionError, match="a slot's name"):
        Routine().add_slot(name)
    with pytest.raises(DefinitionError, match="an event's name"):
        Routine().add_event(name)


def test_a_name_is_a_string() -> None:
    with pytest.raises(TypeError, match="must be a string, not int"):
        Routine().add_slot(5)  # type: ignore[arg-type]


def test_an_old_handler_argument_says_what_to_use() -> None:
    with pytest.raises(RemovedNameError, match="set_logic"):
        Routine().add_slot("input", handler=print)


def test_an_event_documents_what_it_is_emitted_with() -> None:
    assert Routine().add_event("out", ["a", "b"]).output_params == ["a", "b"]


def test_logic_that_fits_no_form_is_refused_when_it_is_set() -> None:
    source = Source()
    with pytest.raises(LogicSignatureError, match="no_parameters"):
        source.set_logic(no_parameters)


def no_parameters() -> None: ...


def test_a_method_named_logic_is_the_logic_unless_another_is_set() -> None:
    class WithMethod(Source):
        def logic(self, slot_data: Any, policy_message: Any, worker_state: Any) -> str:
            return "method"

    routine = WithMethod()
    call, is_async = routine._normalized()
    assert call is not None
    assert (call({}, None, None), is_async) == ("method", False)
    routine.set_logic(lambda slot_data, policy_message, worker_state: "set")
    call, _ = routine._normalized()
    assert call is not None
    assert call({}, None, None) == "set"


def test_a_slot_added_after_the_logic_counts_for_its_form() -> None:
    class Late(Routine):
        def logic(self, first: Any, second: Any, policy_message: Any, worker_state: Any) -> Any:
            return first, second

    routine = Late()
    routine.add_slot("a")
    with pytest.raises(LogicSignatureError):
        routine._normalized()
    routine.add_slot("b")
    call, _ = routine._normalized()
    assert call is not None
    assert call({"a": [1], "b": [2]}, None, None) == ([1], [2])


def test_a_routine_without_policy_says_that_it_never_runs() -> None:
    assert Routine().get_activation_policy_info()["type"] == "none"
    routine = Routine().set_activation_policy(immediate_policy(max_items=3))
    assert routine.get_activation_policy_info() == {
        "type": "immediate",
        "description": "runs for every message",
        "max_items": 3,
    }


def test_a_policy_must_be_callable() -> None:
    with pytest.raises(PolicyError, match="not str"):
        Routine().set_activation_policy("immediate")  # type: ignore[arg-type]


@pytest.mark.parametrize("n", [0, -1, True, 1.5, "2", None])
def test_concurrency_is_a_number_from_one_up(n: Any) -> None:
    with pytest.raises(DefinitionError, match="concurrency"):
        Routine().set_concurrency(n)


def test_critical_retries_and_optional_goes_on() -> None:
    critical = Routine().set_as_critical(max_retries=7).get_error_handler()
    assert critical is not None
    assert (critical.strategy, critical.max_retries, critical.is_critical) == (ErrorStrategy.RETRY, 7, True)
    optional = Routine().set_as_optional().get_error_handler()
    assert optional is not None
    assert (optional.strategy, optional.is_critical) == (ErrorStrategy.CONTINUE, False)
    skipping = Routine().set_as_optional("skip").get_error_handler()
    assert skipping is not None
    assert skipping.strategy is ErrorStrategy.SKIP


def test_an_error_handler_is_an_error_handler() -> None:
    with pytest.raises(TypeError, match="ErrorHandler, not str"):
        Routine().set_error_handler("retry")  # type: ignore[arg-type]


def test_setters_return_the_routine() -> None:
    routine = Source()
    chained = (
        routine.set_config(a=1)
        .set_concurrency(2)
        .set_error_handler(ErrorHandler())
        .set_logic(lambda slot_data, policy_message, worker_state: None)
        .set_activation_policy(immediate_policy())
    )
    assert chained is routine


def test_config_is_read_by_key_and_as_a_copy() -> None:
    routine = Routine().set_config(a=1, b=2)
    routine.config()["a"] = 5
    assert (routine.get_config("a"), routine.get_config("c"), routine.get_config("c", 3)) == (1, None, 3)
    assert routine.get_all_config() == {"a": 1, "b": 2}


def test_config_is_read_only_inside_logic_and_only_there(wired: tuple[Flow, Source]) -> None:
    flow, source = wired
    with inside(flow, "source"), pytest.raises(ConfigReadOnlyError, match="Use WorkerState") as refused:
        source.set_config(a=1)
    assert isinstance(refused.value, RuntimeError)
    assert source.set_config(a=1).get_config("a") == 1


def test_emit_leaves_one_message_per_connected_slot(wired: tuple[Flow, Source]) -> None:
    flow, source = wired
    flow.add_routine(Sink(), "other")
    flow.connect("source", "out", "other", "input")
    with inside(flow, "source") as outcome:
        source.emit("out", a=1, b=[2])
    assert outcome.emits == [("sink", "input", '{"a":1,"b":[2]}'), ("other", "input", '{"a":1,"b":[2]}')]


def test_emit_to_nowhere_leaves_nothing(wired: tuple[Flow, Source]) -> None:
    flow, source = wired
    with inside(flow, "source") as outcome:
        source.emit("unconnected", a=1)
    assert outcome.emits == []


def test_emit_takes_the_arguments_of_old_programs_and_does_not_send_them(wired: tuple[Flow, Source]) -> None:
    flow, source = wired
    with inside(flow, "source") as outcome:
        source.emit("out", runtime=object(), worker_state=object(), a=1)
    assert outcome.emits == [("sink", "input", '{"a":1}')]


def test_an_event_emits_as_its_routine_does(wired: tuple[Flow, Source]) -> None:
    flow, source = wired
    with inside(flow, "source") as outcome:
        source.events["out"].emit(a=1)
    assert outcome.emits == [("sink", "input", '{"a":1}')]


def test_what_is_emitted_is_fixed_at_the_call(wired: tuple[Flow, Source]) -> None:
    flow, source = wired
    items = [1]
    with inside(flow, "source") as outcome:
        source.emit("out", items=items)
        items.append(2)
    assert outcome.emits == [("sink", "input", '{"items":[1]}')]


def test_emit_refuses_an_unknown_event_and_what_cannot_be_stored(wired: tuple[Flow, Source]) -> None:
    flow, source = wired
    with inside(flow, "source") as outcome:
        with pytest.raises(EventNotFoundError, match="'nope' not found in routine 'source'"):
            source.emit("nope")
        with pytest.raises(PayloadError) as refused:
            source.emit("out", a=[object()])
        with pytest.raises(PayloadTooLargeError):
            source.emit("out", a="x" * 1000)
    assert refused.value.path == "emit('out').a[0]"
    assert not outcome.emits


def test_what_is_emitted_to_a_slot_with_a_model_must_fit_it() -> None:
    flow, source = Flow("f"), Source()
    flow.add_routine(source, "source")
    flow.add_routine(Sink(), "sink")
    flow.connect("source", "out", "sink", "amount")
    with inside(flow, "source") as outcome:
        source.emit("out", value="7")
        with pytest.raises(SlotModelError) as refused:
            source.emit("out", value="seven")
    assert outcome.emits == [("sink", "amount", '{"value":7}')]
    assert refused.value.path == "emit('out').value"


def test_calls_of_logic_are_refused_outside_it() -> None:
    source = Source()
    for call in (
        lambda: source.emit("out"),
        lambda: source.events["out"].emit(),
        lambda: source.write("INSERT"),
        lambda: source.get_state(WorkerState(), "k"),
        lambda: source.set_state(WorkerState(), "k", 1),
    ):
        with pytest.raises(OutsideLogicError, match="works only inside logic"):
            call()


def test_write_keeps_the_order_of_the_calls_and_refuses_with_the_reason(wired: tuple[Flow, Source]) -> None:
    flow, source = wired
    first, second = object(), object()
    with inside(flow, "source") as outcome:
        source.write(first)
        source.write(second, {"a": 1})
    assert outcome.writes == [(first, None), (second, {"a": 1})]
    with (
        inside(flow, "source", refuse=lambda statement: "no text") as outcome,
        pytest.raises(WriteError, match="no text"),
    ):
        source.write("INSERT")
    assert not outcome.writes


def test_own_state_is_kept_under_the_routines_id(wired: tuple[Flow, Source]) -> None:
    flow, source = wired
    with inside(flow, "source"):
        state = get_current_worker_state()
        assert state is not None
        assert source.get_state(state) == {}
        source.set_state(state, "a", 1)
        source.update_state(state, {"b": 2})
        assert source.get_state(state) == state.get_routine_state("source") == {"a": 1, "b": 2}
        assert (source.get_state(state, "a"), source.get_state(state, "z", 9)) == (1, 9)
        assert state.get_routine_state("sink") is None


def test_logic_knows_where_it_runs_and_nobody_else_does(wired: tuple[Flow, Source]) -> None:
    flow, source = wired
    with inside(flow, "source", job_id="j-7"):
        around = source.get_execution_context()
        job = get_current_job()
        assert around is not None
        assert job is not None
        assert (around.routine_id, around.job_context.job_id) == ("source", "j-7")
        assert (job.job_id, get_current_job_id()) == ("j-7", "j-7")
    assert source.get_execution_context() is None
    assert (get_current_job(), get_current_job_id(), get_current_worker_state()) == (None, None, None)
