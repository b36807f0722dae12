"""`FlowRegistry`: flows by name, for every runtime of the process."""

from __future__ import annotations

from weakref import WeakValueDictionary

from routilux.core.flow import Flow
from routilux.core.names import check_name
from routilux.errors import DefinitionError, FlowNotFoundError


class FlowRegistry:
    """Flows by name and by id. `register_by_name` keeps the flow alive, `register` alone does not."""

    def __init__(self) -> None:
        self._by_name: dict[str, Flow] = {}
        self._by_id: WeakValueDictionary[str, Flow] = WeakValueDictionary()

    @staticmethod
    def get_instance() -> FlowRegistry:
        """The registry of the process."""
        return _PROCESS_REGISTRY

    def register(self, flow: Flow) -> None:
        """Register a flow under its `flow_id`.

        Raises `TypeError` if it has none, `DefinitionError` if another flow has the id.
        """
        if not isinstance(flow, Flow) or flow.flow_id is None:
            raise TypeError("register takes a Flow with a flow_id; register_by_name() gives it one")
        known = self._by_id.get(flow.flow_id)
        if known is not None and known is not flow:
            raise DefinitionError(f"Flow id {flow.flow_id!r} is already registered")
        self._by_id[flow.flow_id] = flow

    def register_by_name(self, name: str, flow: Flow, *, replace: bool = False) -> None:
        """Register a flow under a name. The same flow again is a no-op.

        A flow without an id gets the name as id. Raises `DefinitionError` if another flow has the name,
        unless `replace` is set.
        """
        if not isinstance(flow, Flow):
            raise TypeError(f"register_by_name takes a Flow, not {type(flow).__name__}")
        check_name(name, "a flow's name")
        known = self._by_name.get(name)
        if known is not None and known is not flow and not replace:
            raise DefinitionError(
                f"Flow name {name!r} is already registered; pass replace=True to replace the flow"
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
        """Find a flow by name first, then by id. Raises `FlowNotFoundError`."""
        flow = self._by_name.get(name) or self._by_id.get(name)
        if flow is None:
            raise FlowNotFoundError(name)
        return flow

    def names(self) -> list[str]:
        """Return every name and id that `resolve` finds."""
        return list(dict.fromkeys([*self._by_name, *self._by_id]))

    def list_all(self) -> list[Flow]:
        """Return every known flow, once."""
        return list({id(flow): flow for flow in [*self._by_name.values(), *self._by_id.values()]}.values())

    def unregister_by_name(self, name: str) -> bool:
        """Remove a name. Returns False if it was not registered."""
        flow = self._by_name.pop(name, None)
        if flow is not None and flow.flow_id is not None and self._by_id.get(flow.flow_id) is flow:
            del self._by_id[flow.flow_id]
        return flow is not None

    def clear(self) -> None:
        self._by_name.clear()
        self._by_id.clear()


_PROCESS_REGISTRY = FlowRegistry()


def get_flow_registry() -> FlowRegistry:
    """The registry of the process."""
    return FlowRegistry.get_instance()
