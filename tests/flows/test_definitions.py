"""What flows, routines and connections refuse when they are defined or registered."""

from __future__ import annotations

import pytest

from routilux import DefinitionError, Flow, FlowRegistry, PayloadError, Routine
from tests.flows.flows import Step, count, ignore, running


@pytest.mark.settled_row(7)
def test_row_07_a_flow_is_registered_before_it_is_used(sqlite_database: str) -> None:
    """A flow is found only if it was registered; the same flow again under its name is nothing new, another
    one is a `ValueError` unless `replace=True`.
    """
    known, other = Flow(), Flow("unregistered")
    registry = FlowRegistry()
    registry.register_by_name("f", known)
    registry.register_by_name("f", known)
    with pytest.raises(ValueError, match="'f' is already registered"):
        registry.register_by_name("f", other)
    assert registry.get_by_name("f") is known
    with running(sqlite_database, registry) as runtime:
        with pytest.raises(ValueError, match="Flow 'unregistered' not found in registry"):
            runtime.exec("unregistered")
        with pytest.raises(ValueError, match="Flow 'unregistered' not found in registry"):
            runtime.post("unregistered", "r", "in", {})
    registry.register_by_name("f", other, replace=True)
    assert registry.get_by_name("f") is other


def test_a_connection_to_what_there_is_not() -> None:
    flow = Flow("f")
    for name in ("a", "b"):
        flow.add_routine(Step(count), name)
    for wire, said in {
        ("c", "output", "b", "input"): "Source routine 'c' not found in flow",
        ("a", "out", "b", "input"): "Event 'out' not found in routine 'a'",
        ("a", "output", "c", "input"): "Target routine 'c' not found in flow",
        ("a", "output", "b", "in"): "Slot 'in' not found in routine 'b'",
    }.items():
        with pytest.raises(DefinitionError, match=said) as refused:
            flow.connect(*wire)
        assert isinstance(refused.value, ValueError)
    assert flow.connections == []


def test_texts_of_definitions_are_checked_when_they_are_given() -> None:
    with pytest.raises(PayloadError, match="a name in output_params: contains a lone surrogate"):
        Routine().add_event("out", ["\ud800"])
    with pytest.raises(DefinitionError) as refused:
        Flow("f").connect("\ud800", "out", "b", "in")
    assert str(refused.value).encode()


@pytest.mark.settled_row(41)
def test_row_41_names_that_are_gone_say_what_to_use() -> None:
    """`handler=` and `merge_strategy=` of a slot and `param_mapping=` of a connection are a `TypeError` that
    says what to use instead.
    """
    flow, source, sink = Flow("f"), Step(ignore), Step(ignore)
    flow.add_routine(source, "source")
    flow.add_routine(sink, "sink")
    for old in ("handler", "merge_strategy"):
        with pytest.raises(TypeError, match=rf"{old}.* is gone: set_logic\(\)"):
            sink.add_slot("more", **{old: "append"})
    with pytest.raises(TypeError, match=r"param_mapping.* is gone: rename fields in the logic"):
        flow.connect("source", "output", "sink", "input", param_mapping={"a": "b"})
    assert flow.connections == []
