"""What a routine emitted in a test."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, SupportsIndex, overload


@dataclass(frozen=True, slots=True)
class CapturedEvent:
    """What was emitted: the event's name, and its data as the next routine would see it."""

    name: str
    data: dict[str, Any]


class CapturedEvents(list[CapturedEvent]):
    """Captured events in the order of the calls; `events["name"]` is the data of those of one name."""

    def __init__(self, names: Collection[str]) -> None:
        super().__init__()
        self._names = names

    @overload
    def __getitem__(self, key: str) -> list[dict[str, Any]]: ...
    @overload
    def __getitem__(self, key: SupportsIndex) -> CapturedEvent: ...
    @overload
    def __getitem__(self, key: slice) -> list[CapturedEvent]: ...

    def __getitem__(self, key: str | SupportsIndex | slice) -> Any:
        """Raises `KeyError` for an event that the routine does not have."""
        if not isinstance(key, str):
            return super().__getitem__(key)
        if key not in self._names:
            raise KeyError(f"no event {key!r}; the routine has {listed(self._names)}")
        return [event.data for event in self if event.name == key]

    def __contains__(self, item: object) -> bool:
        """Whether such an event was captured; a string: any of that name."""
        if isinstance(item, str):
            return any(event.name == item for event in self)
        return super().__contains__(item)

    def get(self, name: str, default: Any = None) -> Any:
        """The data of the events of one name, or `default` if there is none."""
        return [event.data for event in self if event.name == name] or default


def listed(names: Collection[str]) -> str:
    return ", ".join(map(repr, names)) or "none"
