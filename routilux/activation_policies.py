"""The built-in activation policies. Pass one to `Routine.set_activation_policy`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from routilux.core.policies import (
    AllSlotsReadyPolicy,
    BatchSizePolicy,
    CustomPolicy,
    ImmediatePolicy,
    TimeIntervalPolicy,
    seconds_of,
)
from routilux.errors import PolicyError

__all__ = [
    "all_slots_ready_policy",
    "batch_size_policy",
    "custom_policy",
    "immediate_policy",
    "time_interval_policy",
]


def immediate_policy(*, max_items: int = 1) -> ImmediatePolicy:
    """Run for every message, in order. `max_items`: take up to that many consecutive messages of one job."""
    _check_count(max_items, "max_items")
    return ImmediatePolicy(max_items)


def all_slots_ready_policy(*, by_job: bool = False) -> AllSlotsReadyPolicy:
    """Run when every slot has a message, with one of each. `by_job`: join only messages of the same job."""
    return AllSlotsReadyPolicy(by_job)


def batch_size_policy(
    min_batch_size: int | Callable[..., int], *, max_wait: float | timedelta | None = None
) -> BatchSizePolicy:
    """Run when any slot has `min_batch_size` messages, with up to that many of each slot.

    `min_batch_size` may be a function of `(slots, worker_state)`. `max_wait` (seconds or timedelta): deliver
    a partial batch when its oldest message has waited that long. The wait counts from the message's creation,
    so it survives restarts. A partial batch is also delivered while a caller waits for all jobs to finish and
    nothing else can run.
    """
    if not callable(min_batch_size):
        _check_count(min_batch_size, "min_batch_size")
    elif max_wait is not None:
        raise PolicyError("batch_size_policy: max_wait needs a fixed min_batch_size")
    return BatchSizePolicy(min_batch_size, None if max_wait is None else seconds_of(max_wait, "max_wait"))


def time_interval_policy(min_interval_seconds: float | timedelta) -> TimeIntervalPolicy:
    """Run at most once per interval, with all waiting messages.

    Messages that wait at the end of an interval start a run, even if no new message comes.
    """
    return TimeIntervalPolicy(seconds_of(min_interval_seconds, "min_interval_seconds"))


def custom_policy(fn: Callable[..., Any]) -> CustomPolicy:
    """Run when your `fn(slots, worker_state)` says so.

    It returns a bool (True takes all waiting messages), or `(bool, {slot: [item, …]}, message)`.
    """
    if not callable(fn):
        raise PolicyError(f"custom_policy takes a function of (slots, worker_state), not {type(fn).__name__}")
    return CustomPolicy(fn)


def _check_count(value: object, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise PolicyError(f"{name} must be an integer, 1 or more, not {value!r}")
