"""What a call must pass before anything is stored: names, payload, size, times, ids.

Checks and encoding only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from routilux.core import payload
from routilux.core.compiled import CompiledFlow
from routilux.core.slot import Slot
from routilux.engine.acceptance import fingerprint
from routilux.engine.commands import Command
from routilux.engine.ids import new_id
from routilux.engine.inputs import Post
from routilux.errors import (
    LONGEST_DELAY_S,
    IdempotencyConflictError,
    NaiveDatetimeError,
    RoutineNotFoundError,
    SlotNotFoundError,
)

Seconds = float | timedelta
MOST_ROWS = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class PostItem:
    """One item of `post_many` with settings of its own.

    `data`: a mapping; `job_id`: idempotency key; `delay`: seconds or timedelta; `metadata`: a JSON mapping.
    """

    data: Mapping[str, Any]
    job_id: str | None = None
    delay: Seconds | None = None
    metadata: Mapping[str, Any] | None = None


def seconds(value: Seconds, name: str = "delay") -> float:
    """Plain numbers are seconds. Raises `ValueError` naming the argument."""
    number = value.total_seconds() if isinstance(value, timedelta) else value
    is_number = isinstance(number, (int, float)) and not isinstance(number, bool)
    if not is_number or not -LONGEST_DELAY_S <= number <= LONGEST_DELAY_S:
        raise ValueError(
            f"{name} must be a number of seconds, at most a century, or a timedelta, not {value!r}"
        )
    return float(number)


def slot_of(flow: CompiledFlow, flow_name: str, routine: str, slot: str) -> Slot:
    """The slot that a post names. Raises the error that says what there is."""
    found = flow.routines.get(routine) if isinstance(routine, str) else None
    if found is None:
        raise RoutineNotFoundError(routine, flow_name)
    if not isinstance(slot, str) or slot not in found.slots:
        raise SlotNotFoundError(slot, routine)
    return found.slots[slot]


def due_at_us(now_us: int, delay: Seconds | None, at: datetime | None) -> int | None:
    """When a post is due, µs since 1970. Returns None for now; a time in the past means now."""
    if at is not None:
        if not isinstance(at, datetime):
            raise TypeError(f"at must be a datetime with a time zone, not {type(at).__name__}")
        if at.tzinfo is None:
            raise NaiveDatetimeError("at")
        due = round(at.timestamp() * 1e6)
        return due if due > now_us else None
    if delay is None:
        return None
    wait = seconds(delay)
    return now_us + round(wait * 1e6) if wait > 0 else None


def checked_id(job_id: str) -> str:
    if not isinstance(job_id, str) or not job_id:
        raise ValueError(f"job_id must be a non-empty string, not {job_id!r}")
    payload.encode(job_id, root="job_id", limit=512)
    return job_id


def check_ids(posts: Sequence[Post]) -> None:
    """One call may post an id twice only as the same. Raises `IdempotencyConflictError`."""
    seen: dict[str, str | None] = {}
    for post in posts:
        if seen.setdefault(post.job_id, post.fingerprint) != post.fingerprint:
            raise IdempotencyConflictError(post.job_id)


def checked_command(command: Command) -> Command:
    """A command as every database stores it. Raises `TypeError` naming the field."""
    changes: dict[str, Any] = {}
    for name in ("reason", "error"):
        text = getattr(command, name, None)
        if text is None:
            continue
        if not isinstance(text, str):
            raise TypeError(f"{name} must be a string, not {type(text).__name__}")
        changes[name] = payload.escape_text(text)
    by = getattr(command, "by", 0)
    if not isinstance(by, (int, float)) or (isinstance(by, int) and abs(by) >= 1 << 63):
        raise TypeError(f"by must be a float, or an int of 64 bits, outside logic, not {type(by).__name__}")
    return replace(command, **changes) if changes else command


def timeout_s(timeout: Seconds | None) -> float | None:
    """How long to wait. Returns None, as for infinity, for as long as it takes. Raises `ValueError`."""
    if timeout is None or (isinstance(timeout, float) and timeout == math.inf):
        return None
    return seconds(timeout, "timeout")


def count(limit: int, name: str = "limit") -> int:
    """How many rows to read. Raises `TypeError`, `ValueError`."""
    if isinstance(limit, bool) or not isinstance(limit, int):
        raise TypeError(f"{name} must be a number of rows, not {limit!r}")
    if limit < 0:
        raise ValueError(f"{name} must not be negative, not {limit}")
    return min(limit, MOST_ROWS)


def encode_payload(spec: Slot | None, data: object, limit: int, root: str = "data") -> str:
    """A payload as JSON text, checked against the slot's model."""
    if spec is not None and spec.model is not None:
        data = spec.check(payload.as_dict(data, root), root=root)
    return payload.encode_object(data, root=root, limit=limit)


def encode_metadata(metadata: Mapping[str, Any] | None, limit: int) -> str | None:
    return None if metadata is None else payload.encode_object(metadata, root="metadata", limit=limit)


def make_post(
    names: tuple[str, str, str], text: str, job_id: str | None, metadata: str | None, due_at: int | None
) -> Post:
    """A post ready for the engine; an id that the caller chose becomes an idempotency key."""
    if job_id is None:
        return Post(new_id(), text, metadata, due_at)
    return Post(checked_id(job_id), text, metadata, due_at, fingerprint(*names, text))
