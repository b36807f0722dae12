"""`Event`: a named output of a routine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from routilux.core.context import required_activation
from routilux.core.slot import Owner, Slot


class Event:
    """A named output. `output_params` documents the names of the emitted values."""

    def __init__(
        self, name: str = "", routine: Owner | None = None, output_params: Sequence[str] | None = None
    ) -> None:
        self.name = name
        self.routine = routine
        self.output_params = list(output_params or ())
        self.connected_slots: list[Slot] = []

    def __repr__(self) -> str:
        return f"<Event {self.name!r}>"

    def connect(self, slot: Slot) -> None:
        """Add a slot that this event feeds. `Flow.connect` calls it."""
        if slot not in self.connected_slots:
            self.connected_slots.append(slot)
        slot.connect(self)

    def disconnect(self, slot: Slot) -> None:
        if slot in self.connected_slots:
            self.connected_slots.remove(slot)
        slot.disconnect(self)

    def emit(self, runtime: object = None, worker_state: object = None, **data: Any) -> None:
        """Same as `Routine.emit`. Works only inside logic."""
        assert self.routine is not None
        required_activation("emit()").emit(self.name, data)
