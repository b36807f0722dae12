"""Decides what to do after an error: (error, attempt, handler, now) -> decision. A pure function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from routilux.core.error_handler import ErrorHandler, ErrorStrategy
from routilux.errors import GiveUp, RetryLater


class DecisionKind(StrEnum):
    FAIL = "fail"  # STOP: dead letter, job failed
    CONTINUE = "continue"  # consumed, recorded, the job continues
    SKIP = "skip"  # consumed, the routine is skipped for the job
    RETRY = "retry"  # again at due_at, an attempt is counted
    LATER = "later"  # again at due_at, no attempt is counted
    DEAD = "dead"  # exhausted, not retryable, or given up: dead letter, job failed


@dataclass(frozen=True, slots=True)
class Decision:
    """`due_at`: seconds since 1970, for RETRY and LATER."""

    kind: DecisionKind
    due_at: float | None = None


def decide(
    error: BaseException, attempt: int, handler: ErrorHandler, now: float, *, random: Callable[[], float]
) -> Decision:
    """Decide. `attempt` counts from 1. `random` returns a number in [0, 1) for the jitter."""
    if isinstance(error, GiveUp):
        return Decision(DecisionKind.DEAD)
    if isinstance(error, RetryLater):
        return Decision(DecisionKind.LATER, now + error.delay_s)
    match handler.strategy:
        case ErrorStrategy.CONTINUE:
            return Decision(DecisionKind.CONTINUE)
        case ErrorStrategy.SKIP:
            return Decision(DecisionKind.SKIP)
        case ErrorStrategy.STOP:
            return Decision(DecisionKind.FAIL)
    if attempt > handler.max_retries or not isinstance(error, handler.retryable_exceptions):
        return Decision(DecisionKind.DEAD)
    return Decision(DecisionKind.RETRY, now + delay(handler, attempt) * (1 + handler.retry_jitter * random()))


def delay(handler: ErrorHandler, attempt: int) -> float:
    """Return the seconds between this attempt and the next one, without jitter."""
    try:
        seconds = handler.retry_delay * handler.retry_backoff ** (attempt - 1)
    except OverflowError:
        seconds = float("inf")
    ceiling = handler.max_retry_delay
    # a year by default: long enough, and the due time still fits into a datetime
    return min(seconds, ceiling if ceiling is not None else 365 * 86_400.0)
