"""The registry: one name, one flow."""

from __future__ import annotations

import gc

import pytest

from routilux import FlowRegistry as PublicFlowRegistry
from routilux.core.flow import Flow
from routilux.core.registry import FlowRegistry, get_flow_registry
from routilux.errors import DefinitionError, FlowNotFoundError
from routilux.monitoring.flow_registry import FlowRegistry as DocumentedFlowRegistry


@pytest.fixture
def registry() -> FlowRegistry:
    return FlowRegistry()


def test_the_process_has_one_registry_under_every_path() -> None:
    assert FlowRegistry is DocumentedFlowRegistry
    assert FlowRegistry is PublicFlowRegistry
    assert FlowRegistry.get_instance() is FlowRegistry.get_instance()
    assert get_flow_registry() is FlowRegistry.get_instance()
    assert FlowRegistry() is not FlowRegistry.get_instance()


def test_a_flow_is_found_by_its_name_and_by_its_id(registry: FlowRegistry) -> None:
    flow = Flow("the-id")
    registry.register_by_name("the-name", flow)
    assert registry.get_by_name("the-name") is flow
    assert registry.get("the-id") is flow
    assert registry.resolve("the-name") is flow
    assert registry.resolve("the-id") is flow
    assert registry.names() == ["the-name", "the-id"]
    assert registry.list_all() == [flow]


def test_a_flow_without_id_takes_its_name(registry: FlowRegistry) -> None:
    flow = Flow()
    registry.register_by_name("name", flow)
    assert flow.flow_id == "name"


def test_the_same_flow_again_is_nothing_new_and_another_is_refused(registry: FlowRegistry) -> None:
    flow, other = Flow(), Flow()
    registry.register_by_name("name", flow)
    registry.register_by_name("name", flow)
    with pytest.raises(DefinitionError, match="Flow name 'name' is already registered"):
        registry.register_by_name("name", other)
    assert registry.resolve("name") is flow
    registry.register_by_name("name", other, replace=True)
    assert registry.resolve("name") is other


def test_a_name_goes_before_an_id(registry: FlowRegistry) -> None:
    by_id, by_name = Flow("x"), Flow("y")
    registry.register(by_id)
    registry.register_by_name("x", by_name)
    assert registry.resolve("x") is by_name


def test_an_unknown_name_says_how_to_register_it(registry: FlowRegistry) -> None:
    with pytest.raises(
        FlowNotFoundError, match=r"Flow 'x' not found in registry; .*register_by_name\('x', flow\)"
    ):
        registry.resolve("x")
    assert (registry.get("x"), registry.get_by_name("x")) == (None, None)


def test_an_id_is_taken_by_one_flow(registry: FlowRegistry) -> None:
    flow, other = Flow("x"), Flow("x")
    registry.register(flow)
    registry.register(flow)
    with pytest.raises(DefinitionError, match="'x' is already registered"):
        registry.register(other)


def test_register_needs_a_flow_with_an_id(registry: FlowRegistry) -> None:
    for wrong in (Flow(), "flow"):
        with pytest.raises(TypeError, match="register takes a Flow with a flow_id"):
            registry.register(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="takes a Flow, not str"):
        registry.register_by_name("x", "flow")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", "a\0"])
def test_a_name_that_no_database_stores_is_refused(registry: FlowRegistry, name: str) -> None:
    with pytest.raises(DefinitionError, match="a flow's name"):
        registry.register_by_name(name, Flow())
    assert registry.list_all() == []


def test_register_alone_does_not_keep_a_flow_and_a_name_does(registry: FlowRegistry) -> None:
    registry.register(Flow("by-id"))
    registry.register_by_name("by-name", Flow())
    gc.collect()
    assert registry.names() == ["by-name"]


def test_a_forgotten_name_is_free_again(registry: FlowRegistry) -> None:
    registry.register_by_name("x", Flow())
    assert registry.unregister_by_name("x") is True
    assert registry.unregister_by_name("x") is False
    assert registry.list_all() == []
    registry.register_by_name("x", Flow())


def test_clear_forgets_everything(registry: FlowRegistry) -> None:
    flow = Flow("id")
    registry.register_by_name("name", flow)
    registry.clear()
    assert (registry.names(), registry.list_all()) == ([], [])
