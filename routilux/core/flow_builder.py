"""`FlowBuilder`: a flow written as one chain of calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from routilux.core.error_handler import ErrorHandler
from routilux.core.flow import Flow
from routilux.core.routine import Routine
from routilux.errors import DefinitionError


class FlowBuilder:
    """Add routines, connect them, then call `build()`. All other calls return the builder.

    Example:
        >>> source, sink = Routine(), Routine()
        >>> _ = source.add_event("out"), sink.add_slot("input")
        >>> builder = FlowBuilder("copy").add_routine(source, "source").add_routine(sink, "sink")
        >>> builder.connect("source", "out", "sink", "input").build()
        <Flow 'copy' routines=['source', 'sink']>
    """

    def __init__(self, flow_id: str | None = None) -> None:
        self.flow = Flow(flow_id)

    def add_routine(
        self,
        routine: Routine,
        routine_id: str | None = None,
        config: Mapping[str, Any] | None = None,
        error_handler: ErrorHandler | None = None,
    ) -> FlowBuilder:
        """Same as `Flow.add_routine`, then `set_config` and `set_error_handler` of the routine."""
        self.flow.add_routine(routine, routine_id)
        if config:
            routine.set_config(**config)
        if error_handler is not None:
            routine.set_error_handler(error_handler)
        return self

    def connect(
        self, source_routine_id: str, source_event: str, target_routine_id: str, target_slot: str
    ) -> FlowBuilder:
        """Same as `Flow.connect`."""
        self.flow.connect(source_routine_id, source_event, target_routine_id, target_slot)
        return self

    def validate(self) -> FlowBuilder:
        """Raises `DefinitionError` with all errors of the flow.

        Warnings do not raise, since every flow has ends that are not connected.
        """
        errors = [finding for finding in self.flow.validate() if finding.startswith("Error: ")]
        if errors:
            raise DefinitionError("\n".join(error.removeprefix("Error: ") for error in errors))
        return self

    def build(self) -> Flow:
        """Validate the flow and return it. Register it with `FlowRegistry.register_by_name`."""
        return self.validate().flow
