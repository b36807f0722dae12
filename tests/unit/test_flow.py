"""Flows: ids, wires, what is checked, what a definition is, and the builder."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from routilux.activation_policies import batch_size_policy, immediate_policy
from routilux.core.connection import Connection
from routilux.core.error_handler import ErrorHandler, ErrorStrategy
from routilux.core.flow import Flow
from routilux.core.flow_builder import FlowBuilder
from routilux.core.routine import Routine
from routilux.errors import DefinitionError, RemovedAttributeError, RemovedNameError


class Step(Routine):
    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input")
        self.add_event("out")
        self.set_logic(lambda slot_data, policy_message, worker_state: None)
        self.set_activation_policy(immediate_policy())


class HTTPFetchStep2(Step):
    pass


class NoLogic(Routine):
    def __init__(self) -> None:
        super().__init__()
        self.set_activation_policy(immediate_policy())


class BadLogic(Step):
    def __init__(self) -> None:
        super().__init__()
        self._logic = None

    def logic(self) -> None: ...


def flow_of(*ids: str) -> Flow:
    flow = Flow("f")
    for routine_id in ids:
        flow.add_routine(Step(), routine_id)
    return flow


# ids


def test_a_routine_without_id_gets_its_class_name_and_a_number_if_it_is_taken() -> None:
    flow = Flow()
    ids = [flow.add_routine(Step()), flow.add_routine(Step()), flow.add_routine(HTTPFetchStep2())]
    assert ids == ["step", "step_2", "http_fetch_step2"]
    assert flow.add_routine(Step()) == "step_3"


def test_equal_structures_have_equal_hashes() -> None:
    assert flow_of("a").definition_hash() == flow_of("a").definition_hash()


def test_a_taken_id_is_refused() -> None:
    with pytest.raises(DefinitionError, match="Routine ID 'a' already exists in flow"):
        flow_of("a", "a")


@pytest.mark.parametrize("routine_id", ["", "a\0b"])
def test_an_id_that_no_database_stores_is_refused(routine_id: str) -> None:
    with pytest.raises(DefinitionError, match="routine_id"):
        flow_of(routine_id)
    with pytest.raises(DefinitionError, match="flow_id"):
        Flow(routine_id)


def test_what_is_no_routine_is_refused() -> None:
    with pytest.raises(TypeError, match="takes a Routine, not type"):
        Flow().add_routine(Step)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("timeout", "error"),
    [
        (0, DefinitionError),
        (-1, DefinitionError),
        (float("inf"), DefinitionError),
        (True, TypeError),
        ("5", TypeError),
    ],
)
def test_a_time_limit_is_a_finite_number_of_seconds_above_zero(timeout: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="execution_timeout"):
        Flow(execution_timeout=timeout)


def test_there_is_no_time_limit_unless_it_is_given() -> None:
    assert Flow().execution_timeout is None
    assert Flow(execution_timeout=2.5).execution_timeout == 2.5


# wires


@pytest.mark.parametrize(
    ("wire", "message"),
    [
        (("x", "out", "b", "input"), "Source routine 'x' not found in flow"),
        (("a", "x", "b", "input"), "Event 'x' not found in routine 'a'"),
        (("a", "out", "x", "input"), "Target routine 'x' not found in flow"),
        (("a", "out", "b", "x"), "Slot 'x' not found in routine 'b'"),
    ],
)
def test_a_wire_to_nothing_is_refused_by_name(wire: tuple[str, str, str, str], message: str) -> None:
    flow = flow_of("a", "b")
    with pytest.raises(DefinitionError) as refused:
        flow.connect(*wire)
    assert str(refused.value) == message
    assert isinstance(refused.value, ValueError)
    assert flow.connections == []


def targets(flow: Flow, routine_id: str) -> list[tuple[str, str]]:
    return [(target, slot) for target, slot, _ in flow.compiled().routines[routine_id].targets["out"]]


def test_an_event_reaches_every_slot_it_is_wired_to_in_order_once() -> None:
    flow = flow_of("a", "b", "c")
    to_c = flow.connect("a", "out", "c", "input")
    to_b = flow.connect("a", "out", "b", "input")
    assert flow.connect("a", "out", "c", "input") is to_c
    assert targets(flow, "a") == [("c", "input"), ("b", "input")]
    assert flow.connections == [to_c, to_b]
    assert flow.get_connections_for_event(flow.routines["a"].events["out"]) == [to_c, to_b]
    assert flow.get_connections_for_event(flow.routines["b"].events["out"]) == []


def test_a_routine_may_be_wired_to_itself() -> None:
    flow = flow_of("a")
    flow.connect("a", "out", "a", "input")
    assert targets(flow, "a") == [("a", "input")]


def test_a_disconnected_wire_is_out_of_the_flow() -> None:
    flow = flow_of("a", "b", "c")
    gone = flow.connect("a", "out", "b", "input")
    stays = flow.connect("a", "out", "c", "input")
    flow.compiled()
    gone.disconnect()
    gone.disconnect()
    assert flow.connections == [stays]
    assert targets(flow, "a") == [("c", "input")]
    assert flow.routines["a"].events["out"].connected_slots == [flow.routines["c"].slots["input"]]


def test_a_wire_may_be_made_again() -> None:
    flow = flow_of("a", "b")
    flow.connect("a", "out", "b", "input").disconnect()
    flow.connect("a", "out", "b", "input")
    assert targets(flow, "a") == [("b", "input")]


def test_a_connection_of_no_flow_ties_its_ends() -> None:
    source, target = Step(), Step()
    wire = Connection(source.events["out"], target.slots["input"])
    assert target.slots["input"].connected_events == [source.events["out"]]
    wire.disconnect()
    assert target.slots["input"].connected_events == []


def test_the_same_routine_in_two_flows_is_wired_in_each_by_itself() -> None:
    shared, first, second = Step(), flow_of("b"), flow_of("b")
    first.add_routine(shared, "a")
    second.add_routine(shared, "a")
    first.connect("a", "out", "b", "input")
    assert targets(first, "a") == [("b", "input")]
    assert targets(second, "a") == []


# old names


@pytest.mark.parametrize(
    ("name", "instead"),
    [("execute", "runtime.exec"), ("pause", "pause_worker"), ("post_job", "runtime.post")],
)
def test_an_old_method_says_what_to_use_and_hasattr_says_no(name: str, instead: str) -> None:
    flow = Flow()
    with pytest.raises(RemovedAttributeError, match=f"flow.{name} is gone: .*{instead}"):
        getattr(flow, name)
    assert not hasattr(flow, name)


def test_an_attribute_that_never_was_is_an_ordinary_error() -> None:
    with pytest.raises(AttributeError, match="'Flow' object has no attribute 'nope'") as refused:
        Flow().nope
    assert not isinstance(refused.value, RemovedNameError)


def test_old_arguments_of_wires_say_what_to_do() -> None:
    flow = flow_of("a", "b")
    with pytest.raises(RemovedNameError, match="param_mapping"):
        flow.connect("a", "out", "b", "input", param_mapping={"x": "y"})
    ends = flow.routines["a"].events["out"], flow.routines["b"].slots["input"]
    with pytest.raises(RemovedNameError, match="param_mapping"):
        Connection(*ends, param_mapping={"x": "y"})


def test_a_flow_can_be_copied() -> None:
    assert copy.copy(flow_of("a", "b")).routines.keys() == {"a", "b"}


# what the engine gets


def test_the_routines_handler_goes_before_the_flows_and_stop_comes_last() -> None:
    flow = flow_of("own", "flows")
    flow.routines["own"].set_error_handler(ErrorHandler("skip"))
    assert strategies(flow) == {"own": ErrorStrategy.SKIP, "flows": ErrorStrategy.STOP}
    flow.set_error_handler(ErrorHandler("continue"))
    assert strategies(flow) == {"own": ErrorStrategy.SKIP, "flows": ErrorStrategy.CONTINUE}
    flow.error_handler = None
    assert strategies(flow) == {"own": ErrorStrategy.SKIP, "flows": ErrorStrategy.STOP}


def strategies(flow: Flow) -> dict[str, ErrorStrategy]:
    return {name: routine.error_handler.strategy for name, routine in flow.compiled().routines.items()}


def test_a_flows_handler_is_an_error_handler() -> None:
    with pytest.raises(TypeError, match="ErrorHandler, not str"):
        Flow().error_handler = "retry"  # type: ignore[assignment]


def test_an_unchanged_flow_is_compiled_once_and_a_changed_one_again() -> None:
    flow = flow_of("a", "b")
    first = flow.compiled()
    assert flow.compiled() is first
    flow.routines["a"].set_concurrency(3)
    second = flow.compiled()
    assert (second is first, second.routines["a"].concurrency) == (False, 3)
    flow.connect("a", "out", "b", "input")
    flow.add_routine(Step(), "c")
    assert flow.compiled().routines.keys() == {"a", "b", "c"}
    assert targets(flow, "a") == [("b", "input")]


def test_the_definition_is_described_in_json_and_its_hash_follows_it() -> None:
    flow = flow_of("a", "b")
    before = flow.definition_hash()
    flow.connect("a", "out", "b", "input")
    assert flow.serialize()["connections"] == [{"from": "a.out", "to": "b.input"}]
    assert flow.serialize()["routines"]["a"]["policy"]["type"] == "immediate"
    assert flow.definition_hash() != before


def test_routines_are_found_by_type() -> None:
    flow = Flow()
    flow.add_routine(Step())
    fetch = HTTPFetchStep2()
    flow.add_routine(fetch, "fetch")
    assert flow.find_routines_by_type(HTTPFetchStep2) == [("fetch", fetch)]
    assert len(flow.find_routines_by_type(Routine)) == 2


# validation


def test_ends_that_lead_nowhere_are_warnings() -> None:
    flow = flow_of("a", "b")
    flow.connect("a", "out", "b", "input")
    assert flow.validate() == [
        "Warning: slot 'input' of routine 'a' is not connected: only post() reaches it",
        "Warning: event 'out' of routine 'b' is not connected: its data is not delivered",
    ]


def test_a_routine_that_can_never_run_is_a_warning() -> None:
    flow = Flow()
    flow.add_routine(NoLogic(), "a")
    routine = Routine()
    routine.set_logic(lambda slot_data, policy_message, worker_state: None)
    flow.add_routine(routine, "b")
    assert flow.validate() == [
        "Warning: routine 'a' has no logic and will never run",
        "Warning: routine 'b' has no activation policy and will never run",
    ]


def test_a_batch_that_can_never_be_full_is_an_error() -> None:
    flow = Flow()
    routine = Step()
    routine.add_slot("small", max_queue_length=4)
    flow.add_routine(routine, "a")
    routine.set_activation_policy(batch_size_policy(4))
    assert not [finding for finding in flow.validate() if finding.startswith("Error")]
    routine.set_activation_policy(batch_size_policy(5))
    errors = [finding for finding in flow.validate() if finding.startswith("Error")]
    assert len(errors) == 1
    assert "routine 'a' waits for 5 messages, but slot 'small' holds at most 4" in errors[0]


def test_a_logic_method_of_no_form_is_an_error() -> None:
    flow = Flow()
    flow.add_routine(BadLogic(), "a")
    errors = [finding for finding in flow.validate() if finding.startswith("Error")]
    assert len(errors) == 1
    assert errors[0].startswith("Error: routine 'a': logic logic()")


# the builder


def test_a_flow_is_built_in_one_chain() -> None:
    handler = ErrorHandler("retry")
    flow = (
        FlowBuilder("chain")
        .add_routine(Step(), "a", config={"x": 1}, error_handler=handler)
        .add_routine(Step())
        .connect("a", "out", "step", "input")
        .build()
    )
    assert flow.flow_id == "chain"
    assert targets(flow, "a") == [("step", "input")]
    assert (flow.routines["a"].get_config("x"), flow.routines["a"].get_error_handler()) == (1, handler)


def test_the_builder_goes_on_with_warnings_and_stops_at_errors() -> None:
    builder = FlowBuilder().add_routine(Step(), "lonely")
    assert builder.validate() is builder
    builder.add_routine(BadLogic(), "bad")
    with pytest.raises(DefinitionError, match="routine 'bad'"):
        builder.build()


@pytest.mark.parametrize("name", ["execution_strategy", "max_workers"])
def test_settings_of_an_older_flow_say_what_there_is_instead(name: str) -> None:
    with pytest.raises(RemovedNameError, match=rf"Flow\({name}=…\) is gone: Runtime\(thread_pool_size=…\)"):
        Flow("f", **{name: 1})  # type: ignore[arg-type]
