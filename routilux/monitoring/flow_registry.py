"""The documented import path of the flow registry."""

from routilux.core.registry import FlowRegistry, get_flow_registry

__all__ = ["FlowRegistry", "get_flow_registry"]
