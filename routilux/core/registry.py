"""`FlowRegistry`: flows by name, for every runtime of the process."""

from __future__ import annotations

from weakref import WeakValueDictionary

from routilux.core.flow import Flow
from routilux.core.names import check_name
from routilux.errors import DefinitionError, FlowNotFoundError


class FlowRegistry:
    """Names for flows. Registering under a name keeps the flow; `register` alone does not keep it alive."""

    def __init__(self) -> None:
        self._by_name: dict[str, Flow] = {}
        self._by_id: WeakValueDictionary[str, Flow] = WeakValueDictionary()

    @staticmethod
    def get_instance() -> FlowRegistry:
        """The registry of the process."""
        return _OF_THE_PROCESS

    def register(self, flow: Flow) -> None:
        """Make a flow known under its `flow_id`. Raises `TypeError` without one, `DefinitionError` if it is taken."""
        if not isinstance(flow, Flow) or flow.flow_id is None:
            raise TypeError("register takes a Flow with a flow_id; register_by_name() gives it one")
        known = self._by_id.get(flow.flow_id)
        if known is not None and known is not flow:
            raise DefinitionError(f"Flow id {flow.flow_id!r} is already registered")
        self._by_id[flow.flow_id] = flow

    def register_by_name(self, name: str, flow: Flow, *, replace: bool = False) -> None:
        """Make a flow known under a name; the same flow again is a no-op.

        Raises `DefinitionError` when another flow has the name, unless `replace`. A flow without id gets the name as id.
        """
        if not isinstance(flow, Flow):
            raise TypeError(f"register_by_name takes a Flow, not {type(flow).__name__}")
        check_name(name, "a flow's name")
        known = self._by_name.get(name)
        if known is not None and known is not flow and not replace:
            raise DefinitionError(
                f"Flow name {name!r} is already registered; replace=True puts another in its place"
            )
        self._by_name[name] = flow
        if flow.flow_id is None:
            flow.flow_id = name
        self._by_id[flow.flow_id] = flow

    def get(self, flow_id: str) -> Flow | None:
        return self._by_id.get(flow_id)

    def get_by_name(self, name: str) -> Flow | None:
        return self._by_name.get(name)

    def resolve(self, name: str) -> Flow:
        """By name first, then by id. Raises `FlowNotFoundError`."""
        flow = self._by_name.get(name) or self._by_id.get(name)
        if flow is None:
            raise FlowNotFoundError(name)
        return flow

    def names(self) -> list[str]:
        """Every name and id that resolves."""
        return list(dict.fromkeys([*self._by_name, *self._by_id]))

    def list_all(self) -> list[Flow]:
        """Every flow that is known, once."""
        return list({id(flow): flow for flow in [*self._by_name.values(), *self._by_id.values()]}.values())

    def unregister_by_name(self, name: str) -> bool:
        """Forget a name; False if there was none."""
        flow = self._by_name.pop(name, None)
        if flow is not None and flow.flow_id is not None and self._by_id.get(flow.flow_id) is flow:
            del self._by_id[flow.flow_id]
        return flow is not None

    def clear(self) -> None:
        self._by_name.clear()
        self._by_id.clear()


_OF_THE_PROCESS = FlowRegistry()


def get_flow_registry() -> FlowRegistry:
    """The registry of the process."""
    return FlowRegistry.get_instance()
