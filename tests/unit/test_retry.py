"""What follows an error: the strategy decides, unless the error itself does."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from routilux.core.error_handler import ErrorHandler
from routilux.core.retry import Decision, DecisionKind, decide, delay
from routilux.errors import LONGEST_DELAY_S, GiveUp, RetryLater

NOW = 1_700_000_000.0
STRATEGIES = st.sampled_from(["stop", "continue", "skip", "retry"])
HANDLERS = st.builds(
    ErrorHandler,
    STRATEGIES,
    st.integers(0, 50),
    st.floats(0, 1e6),
    st.floats(1, 1e6),
    max_retry_delay=st.none() | st.floats(0, LONGEST_DELAY_S),
    retry_jitter=st.floats(0, 1),
)
ATTEMPTS = st.integers(1, 10_000)
CHANCE = st.floats(0, 1, exclude_max=True)


def after(error: BaseException, attempt: int, handler: ErrorHandler, chance: float = 0.0) -> Decision:
    return decide(error, attempt, handler, NOW, random=lambda: chance)


@pytest.mark.parametrize(
    ("strategy", "kind"),
    [("stop", DecisionKind.FAIL), ("continue", DecisionKind.CONTINUE), ("skip", DecisionKind.SKIP)],
)
def test_three_strategies_decide_at_once(strategy: str, kind: DecisionKind) -> None:
    assert after(ValueError(), 1, ErrorHandler(strategy)) == Decision(kind)


def test_retry_waits_longer_each_time_and_then_gives_up() -> None:
    handler = ErrorHandler("retry", max_retries=3, retry_delay=1.0, retry_backoff=2.0)
    decisions = [after(ValueError(), attempt, handler) for attempt in (1, 2, 3, 4)]
    assert decisions == [
        Decision(DecisionKind.RETRY, NOW + 1),
        Decision(DecisionKind.RETRY, NOW + 2),
        Decision(DecisionKind.RETRY, NOW + 4),
        Decision(DecisionKind.DEAD),
    ]


def test_no_retries_means_the_first_failure_is_the_last() -> None:
    assert after(ValueError(), 1, ErrorHandler("retry", max_retries=0)) == Decision(DecisionKind.DEAD)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError(), DecisionKind.RETRY),
        (UnicodeError(), DecisionKind.RETRY),  # a ValueError too
        (KeyError(), DecisionKind.DEAD),
    ],
)
def test_only_retryable_exceptions_are_retried(error: Exception, kind: DecisionKind) -> None:
    assert after(error, 1, ErrorHandler("retry", retryable_exceptions=ValueError)).kind is kind


@pytest.mark.parametrize("error", [SystemExit(), KeyboardInterrupt()])
def test_leaving_the_program_is_not_retried_unless_asked_for(error: BaseException) -> None:
    assert after(error, 1, ErrorHandler("retry")).kind is DecisionKind.DEAD
    assert (
        after(error, 1, ErrorHandler("retry", retryable_exceptions=BaseException)).kind is DecisionKind.RETRY
    )


@given(STRATEGIES, ATTEMPTS, st.floats(0, LONGEST_DELAY_S))
def test_what_logic_asks_for_goes_before_any_strategy(strategy: str, attempt: int, seconds: float) -> None:
    handler = ErrorHandler(strategy, max_retries=0)
    assert after(GiveUp("no"), attempt, handler) == Decision(DecisionKind.DEAD)
    assert after(RetryLater(seconds), attempt, handler) == Decision(DecisionKind.LATER, NOW + seconds)


@given(HANDLERS, ATTEMPTS, CHANCE)
def test_a_retry_is_never_early_and_its_time_is_always_a_date(
    handler: ErrorHandler, attempt: int, chance: float
) -> None:
    decision = after(ValueError(), attempt, handler, chance)
    if decision.kind is not DecisionKind.RETRY:
        assert decision.due_at is None
        return
    assert decision.due_at is not None
    assert decision.due_at >= NOW + delay(handler, attempt)
    assert datetime.fromtimestamp(decision.due_at, UTC).year < 2300


@given(HANDLERS, ATTEMPTS)
def test_delays_never_shrink_and_stay_below_the_ceiling(handler: ErrorHandler, attempt: int) -> None:
    here = delay(handler, attempt)
    assert 0 <= here <= delay(handler, attempt + 1)
    assert here <= (handler.max_retry_delay if handler.max_retry_delay is not None else 365 * 86_400)


@given(HANDLERS, ATTEMPTS)
def test_below_the_ceiling_the_delay_is_the_documented_formula(handler: ErrorHandler, attempt: int) -> None:
    assume(attempt < 20)
    wanted = handler.retry_delay * handler.retry_backoff ** (attempt - 1)
    assume(wanted <= (handler.max_retry_delay if handler.max_retry_delay is not None else 365 * 86_400))
    assert math.isclose(delay(handler, attempt), wanted)


@given(CHANCE)
def test_jitter_adds_up_to_its_share(chance: float) -> None:
    handler = ErrorHandler("retry", retry_delay=10.0, retry_jitter=0.5)
    due_at = after(ValueError(), 1, handler, chance).due_at
    assert due_at is not None
    assert NOW + 10.0 <= due_at <= NOW + 15.0
    assert math.isclose(due_at - NOW, 10.0 * (1 + 0.5 * chance), abs_tol=1e-6)


@pytest.mark.parametrize("seconds", [-1, float("inf"), float("nan"), 1e12, timedelta(-1)])
def test_retry_later_takes_a_time_that_can_be_reached(seconds: Any) -> None:
    with pytest.raises(ValueError, match="RetryLater: delay"):
        RetryLater(seconds)


def test_retry_later_says_why() -> None:
    assert str(RetryLater(2)) == "again in 2 s"
    assert str(RetryLater(timedelta(minutes=1), "rate limit")) == "rate limit"


@pytest.mark.parametrize("delay", [10**4000, float("inf"), float("nan"), -1])
def test_logic_cannot_ask_for_a_delay_that_no_float_holds(delay: float) -> None:
    with pytest.raises(ValueError, match="RetryLater: delay must be"):
        RetryLater(delay)
