"""Activation policies: when a routine runs, and with which of its waiting items.

The engine recognises built-in policies by type and applies them to its own queues (see `selection`). Called
directly, a policy reads `Slot` views and returns `(activate, {slot: [item, …]}, message)`, as user policies
do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from routilux.core.slot import Slot
from routilux.errors import LONGEST_DELAY_S, PolicyError

if TYPE_CHECKING:
    from routilux.core.worker_state import WorkerState

Slots = Mapping[str, Slot]
Answer = tuple[bool, dict[str, list[Any]], Any]
NO: Answer = (False, {}, None)


@dataclass(frozen=True, slots=True)
class ImmediatePolicy:
    """One message each, in order. `max_items` above 1: up to that many consecutive messages of one job."""

    max_items: int = 1

    def __call__(self, slots: Slots, worker_state: WorkerState | None = None) -> Answer:
        for name, slot in slots.items():
            if slot.get_unconsumed_count():
                items = [
                    slot.consume_one_new() for _ in range(min(self.max_items, slot.get_unconsumed_count()))
                ]
                return True, _all(slots, {name: items}), {"reason": "immediate"}
        return NO

    def describe(self) -> dict[str, Any]:
        return {"type": "immediate", "description": "runs for every message", "max_items": self.max_items}


@dataclass(frozen=True, slots=True)
class AllSlotsReadyPolicy:
    """One message of each slot, by position. `by_job`: all of the same job."""

    by_job: bool = False

    def __call__(self, slots: Slots, worker_state: WorkerState | None = None) -> Answer:
        if not slots or not all(slot.get_unconsumed_count() for slot in slots.values()):
            return NO
        return (
            True,
            {name: [slot.consume_one_new()] for name, slot in slots.items()},
            {"reason": "all_slots_ready"},
        )

    def describe(self) -> dict[str, Any]:
        return {
            "type": "all_slots_ready",
            "description": "runs when every slot has a message",
            "by_job": self.by_job,
        }


@dataclass(frozen=True, slots=True)
class BatchSizePolicy:
    """Runs when any slot has `size` messages, with up to `size` of each slot.

    `size` is a number, or a function of slots and worker state.
    """

    size: int | Callable[..., int]
    max_wait_s: float | None = None

    def __call__(self, slots: Slots, worker_state: WorkerState | None = None) -> Answer:
        size = self.size if isinstance(self.size, int) else self.size(slots, worker_state)
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise PolicyError(f"batch_size_policy: the size must be an integer, 1 or more, not {size!r}")
        if not any(slot.get_unconsumed_count() >= size for slot in slots.values()):
            return NO
        taken = {
            name: [slot.consume_one_new() for _ in range(min(size, slot.get_unconsumed_count()))]
            for name, slot in slots.items()
        }
        return True, taken, {"reason": "batch_ready", "batch_size": size}

    def describe(self) -> dict[str, Any]:
        size = self.size if isinstance(self.size, int) else "dynamic"
        return {
            "type": "batch_size",
            "description": f"runs for every {size} messages",
            "min_batch_size": size,
            "max_wait": self.max_wait_s,
        }


@dataclass(frozen=True, slots=True)
class TimeIntervalPolicy:
    """Runs at most once per interval, with all waiting messages."""

    interval_s: float

    def __call__(self, slots: Slots, worker_state: WorkerState | None = None) -> Answer:
        if not any(slot.get_unconsumed_count() for slot in slots.values()):
            return NO
        taken = {name: slot.consume_all_new() for name, slot in slots.items()}
        return (
            True,
            taken,
            {"reason": "time_interval_met", "interval": self.interval_s, "last_activation": None},
        )

    def describe(self) -> dict[str, Any]:
        return {
            "type": "time_interval",
            "description": f"runs at most every {self.interval_s} s",
            "min_interval_seconds": self.interval_s,
        }


@dataclass(frozen=True, slots=True)
class CustomPolicy:
    """A user function `(slots, worker_state) -> bool | (bool, {slot: [item, …]}, message)`.

    It is called again after each activation and when a message arrives. A plain True takes all messages.
    """

    fn: Callable[..., Any]

    def __call__(self, slots: Slots, worker_state: WorkerState | None = None) -> Answer:
        answer = self.fn(slots, worker_state)
        if isinstance(answer, bool):
            if not answer:
                return NO
            taken = {name: slot.consume_all_new() for name, slot in slots.items()}
            return True, taken, {"reason": "custom_policy_met"}
        if not (isinstance(answer, tuple) and len(answer) == 3 and isinstance(answer[1], Mapping)):
            raise PolicyError(
                "a policy must return a bool or (bool, {slot: [item, …]}, message),"
                f" not {type(answer).__name__}"
            )
        return bool(answer[0]), _all(slots, dict(answer[1])), answer[2]

    def describe(self) -> dict[str, Any]:
        return {"type": "custom", "description": getattr(self.fn, "__name__", "a user function")}


Policy = ImmediatePolicy | AllSlotsReadyPolicy | BatchSizePolicy | TimeIntervalPolicy | CustomPolicy


def _all(slots: Slots, taken: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {name: taken.get(name, []) for name in slots}


def as_policy(policy: object) -> Policy:
    """Return a built-in policy, or wrap a user's callable. Raises `PolicyError` for anything else."""
    if isinstance(policy, Policy):
        return policy
    if callable(policy):
        return CustomPolicy(policy)
    raise PolicyError(
        f"an activation policy must be a function of (slots, worker_state), not {type(policy).__name__}"
    )


def evaluate(policy: Policy, slots: Slots, worker_state: WorkerState) -> tuple[list[int], Any] | None:
    """Call a policy that is user code. Returns the consumed seqs and its message, or None if it said no.

    A policy that says yes must consume items. Otherwise the routine would run without messages in a loop.
    """
    activate, _, message = policy(slots, worker_state)
    if not activate:
        return None
    seqs = [point.seq for slot in slots.values() for point in slot.consumed]
    if not seqs:
        raise PolicyError(
            "the policy says yes but consumed nothing: take items with slot.consume_one_new()"
            " or slot.consume_all_new()"
        )
    return seqs, message


def seconds_of(value: float | timedelta, name: str) -> float:
    """Return a positive duration in seconds. Raises `PolicyError` with the name of the argument."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if not is_number or not 0 < seconds <= LONGEST_DELAY_S:
        raise PolicyError(f"{name} must be a positive number of seconds, not {value!r}")
    return float(seconds)
