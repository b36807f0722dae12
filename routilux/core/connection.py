"""`Connection`: an event connected to a slot."""

from __future__ import annotations

from collections.abc import Callable

from routilux.core.event import Event
from routilux.core.slot import Slot
from routilux.errors import RemovedNameError


class Connection:
    """One connection, made by `Flow.connect`. Every connected slot gets all of the emitted data."""

    def __init__(
        self,
        source_event: Event,
        target_slot: Slot,
        forget: Callable[[Connection], None] | None = None,
        **removed: object,
    ) -> None:
        if removed:
            raise RemovedNameError(
                f"Connection({', '.join(removed)}=…)", "rename fields in the logic of the emitting routine"
            )
        self.source_event = source_event
        self.target_slot = target_slot
        self._forget = forget
        source_event.connect(target_slot)

    def __repr__(self) -> str:
        return f"<Connection {self.source_event.name!r} -> {self.target_slot.name!r}>"

    def disconnect(self) -> None:
        """Remove the connection, also from its flow. Delivered messages stay. It is safe to call it twice."""
        self.source_event.disconnect(self.target_slot)
        if self._forget is not None:
            self._forget(self)
