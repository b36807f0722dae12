"""`Slot`: an input of a routine. It is a definition, and also the view that policies and tests work on.

The messages themselves belong to a worker and live in the database. A view holds copies of the first of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import BaseModel, ValidationError

from routilux.errors import DefinitionError, SlotModelError, SlotQueueFullError


class Owner(Protocol):
    """The routine that has a slot or an event, as both see it. `Routine` is one."""

    @property
    def slots(self) -> Mapping[str, Slot]: ...
    @property
    def events(self) -> Mapping[str, Source]: ...
    def config(self) -> dict[str, Any]: ...


class Source(Protocol):
    """What feeds a slot, as the slot sees it. `Event` is one."""

    name: str
    routine: Owner | None


@dataclass(slots=True)
class SlotDataPoint:
    """One item and its source. Times are in seconds since 1970."""

    data: Any
    emitted_at: float = 0.0
    enqueued_at: float = 0.0
    consumed_at: float | None = None
    emitted_from: str = ""
    seq: int = 0


class Slot:
    """A named input of a routine.

    `max_queue_length`: how many messages may wait in a worker's slot before `post` is rejected. None: no
    limit. `watermark`: a share of that limit, from 0 to 1. Above it, routines that feed the slot run last.
    `model`: a Pydantic model that every message must fit.
    """

    def __init__(
        self,
        name: str = "",
        routine: Owner | None = None,
        max_queue_length: int | None = None,
        watermark: float = 0.8,
        *,
        model: type[BaseModel] | None = None,
    ) -> None:
        if max_queue_length is not None and (type(max_queue_length) is not int or max_queue_length <= 0):
            raise DefinitionError(
                f"max_queue_length of slot {name!r} must be an integer above 0 or None,"
                f" not {max_queue_length!r}"
            )
        if not isinstance(watermark, (int, float)) or not 0 <= watermark <= 1:
            raise DefinitionError(f"watermark of slot {name!r} must be between 0 and 1, not {watermark!r}")
        if model is not None and not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise DefinitionError(f"model of slot {name!r} must be a Pydantic model class, not {model!r}")
        self.name = name
        self.routine = routine
        self.max_queue_length = max_queue_length
        self.watermark = watermark
        self.model = model
        self.connected_events: list[Source] = []
        self.consumed: list[SlotDataPoint] = []
        self._waiting: deque[SlotDataPoint] = deque()

    def __repr__(self) -> str:
        return f"<Slot {self.name!r}>"

    @property
    def watermark_threshold(self) -> int | None:
        """The number of waiting messages at the watermark, or None without a limit."""
        return None if self.max_queue_length is None else int(self.max_queue_length * self.watermark)

    def connect(self, event: Source) -> None:
        """Add an event that feeds this slot. `Flow.connect` calls it."""
        if event not in self.connected_events:
            self.connected_events.append(event)

    def disconnect(self, event: Source) -> None:
        if event in self.connected_events:
            self.connected_events.remove(event)

    def check(self, data: Mapping[str, Any], root: str = "data") -> dict[str, Any]:
        """Return `data` as the slot's model converts it, or unchanged without a model.

        Raises `SlotModelError` with the path of the field.
        """
        if self.model is None:
            return dict(data)
        try:
            return self.model.model_validate(dict(data)).model_dump()
        except Exception as error:  # a user's validator may raise anything
            if not isinstance(error, ValidationError):
                raise SlotModelError(
                    f"{root}: {self.model.__name__} of slot {self.name!r} raised {type(error).__name__}",
                    path=root,
                ) from error
            first = error.errors(include_url=False)[0]
            path = ".".join([root, *map(str, first["loc"])])
            raise SlotModelError(
                f"{path}: {first['msg']} (slot {self.name!r} takes {self.model.__name__})", path=path
            ) from error

    # the view

    def view(self, points: Iterable[SlotDataPoint]) -> Slot:
        """Return a slot with the same name and limits that holds these points. Policies take from it."""
        other = Slot(self.name, self.routine, self.max_queue_length, self.watermark, model=self.model)
        other._waiting.extend(points)
        return other

    def enqueue(self, data: Any, emitted_from: str = "", emitted_at: float = 0.0) -> None:
        """Add an item to this view. Raises `SlotQueueFullError` at the limit."""
        if self.max_queue_length is not None and len(self._waiting) >= self.max_queue_length:
            raise SlotQueueFullError(self.name, self.max_queue_length)
        self._waiting.append(SlotDataPoint(data, emitted_at, emitted_at, None, emitted_from))

    def consume_one_new(self) -> Any:
        """Take the first waiting item. Returns None if there is none."""
        if not self._waiting:
            return None
        point = self._waiting.popleft()
        self.consumed.append(point)
        return point.data

    def consume_all_new(self) -> list[Any]:
        """Take all waiting items, in order."""
        taken = list(self._waiting)
        self._waiting.clear()
        self.consumed.extend(taken)
        return [point.data for point in taken]

    def consume_all(self) -> list[Any]:
        """Return every item, also those that were taken before. Afterwards all are taken."""
        before = [point.data for point in self.consumed]
        return before + self.consume_all_new()

    def consume_latest_and_mark_all_consumed(self) -> Any:
        """Take all waiting items and return the last one, or None if there is none."""
        taken = self.consume_all_new()
        return taken[-1] if taken else None

    def peek_one_new(self) -> Any:
        return self._waiting[0].data if self._waiting else None

    def peek_all_new(self) -> list[Any]:
        return [point.data for point in self._waiting]

    def peek_latest(self) -> Any:
        return self._waiting[-1].data if self._waiting else None

    def get_unconsumed_count(self) -> int:
        return len(self._waiting)

    def get_consumed_count(self) -> int:
        return len(self.consumed)

    def get_total_count(self) -> int:
        return len(self._waiting) + len(self.consumed)

    def get_queue_state(self) -> dict[str, Any]:
        """Return counts and limits of this view."""
        return {
            "total_count": self.get_total_count(),
            "unconsumed_count": self.get_unconsumed_count(),
            "consumed_count": self.get_consumed_count(),
            "max_length": self.max_queue_length,
            "watermark_threshold": self.watermark_threshold,
            "oldest_unconsumed": self._waiting[0].enqueued_at if self._waiting else None,
        }

    def get_queue_status(self) -> dict[str, Any]:
        """Return how full it is.

        `pressure_level` is low (below 0.6), medium (below the watermark), high, or critical (full).
        """
        limit, waiting = self.max_queue_length, len(self._waiting)
        usage = 0.0 if limit is None else waiting / limit
        if usage < 0.6:
            level = "low"
        elif usage < self.watermark:
            level = "medium"
        else:
            level = "high" if usage < 1 else "critical"
        return {
            "unconsumed_count": waiting,
            "total_count": self.get_total_count(),
            "max_length": limit,
            "watermark_threshold": self.watermark_threshold,
            "usage_percentage": usage,
            "pressure_level": level,
            "is_full": usage >= 1,
            "is_near_full": limit is not None and usage >= self.watermark,
        }


__all__ = ["Slot", "SlotDataPoint", "SlotQueueFullError"]
