"""The error handler: a strategy and its numbers, refused by name when they cannot be."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

import pytest

from routilux.core import error
from routilux.core.error_handler import ErrorHandler, ErrorStrategy
from routilux.errors import DefinitionError, RemovedNameError


def test_the_defaults_are_the_documented_ones() -> None:
    handler = ErrorHandler()
    assert dataclasses.asdict(handler) == {
        "strategy": "stop",
        "max_retries": 3,
        "retry_delay": 1.0,
        "retry_backoff": 2.0,
        "retryable_exceptions": (Exception,),
        "is_critical": False,
        "max_retry_delay": None,
        "retry_jitter": 0.0,
    }


@pytest.mark.parametrize("name", ["stop", "continue", "retry", "skip"])
def test_a_strategy_may_be_given_by_name_in_any_case(name: str) -> None:
    assert ErrorHandler(name).strategy is ErrorStrategy(name)
    assert ErrorHandler(name.upper()).strategy is ErrorStrategy(name)
    assert ErrorHandler(ErrorStrategy(name)).strategy is ErrorStrategy(name)


def test_an_unknown_strategy_names_the_known_ones() -> None:
    with pytest.raises(
        DefinitionError, match="unknown strategy 'explode'; use one of stop, continue, retry, skip"
    ):
        ErrorHandler("explode")
    with pytest.raises(TypeError, match="not int"):
        ErrorHandler(1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("max_retries", value) for value in (-1, 1.5, True, "3", None)],
        *[
            ("retry_delay", value)
            for value in (-1, float("inf"), float("nan"), 1e12, True, "1", None, timedelta(-1))
        ],
        *[("retry_backoff", value) for value in (0.9, float("inf"), float("nan"), True, "2", None)],
        *[("max_retry_delay", value) for value in (-1, float("inf"), 1e12, "1", timedelta(-1))],
        *[("retry_jitter", value) for value in (-0.1, 1.1, float("nan"), True, "0", None)],
    ],
)
def test_a_bad_number_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(DefinitionError, match=f"^{name} must be"):
        ErrorHandler("retry", **{name: value})


def test_durations_are_seconds_or_timedeltas() -> None:
    handler = ErrorHandler("retry", retry_delay=timedelta(minutes=1), max_retry_delay=timedelta(hours=1))
    assert (handler.retry_delay, handler.max_retry_delay) == (60.0, 3600.0)


def test_retryable_exceptions_are_a_class_or_several() -> None:
    assert ErrorHandler(retryable_exceptions=ValueError).retryable_exceptions == (ValueError,)
    assert ErrorHandler(retryable_exceptions=[ValueError, OSError]).retryable_exceptions == (
        ValueError,
        OSError,
    )
    assert ErrorHandler(retryable_exceptions=()).retryable_exceptions == ()


@pytest.mark.parametrize("given", [("ValueError",), int, (int,), [ValueError()]])
def test_what_is_no_exception_class_is_refused(given: Any) -> None:
    with pytest.raises(TypeError, match="retryable_exceptions takes exception classes"):
        ErrorHandler(retryable_exceptions=given)


def test_a_handler_never_changes() -> None:
    handler = ErrorHandler()
    with pytest.raises(dataclasses.FrozenInstanceError):
        handler.max_retries = 5  # type: ignore[misc]
    assert handler.max_retries == 3


def test_equal_handlers_are_equal() -> None:
    assert ErrorHandler("retry", 2) == ErrorHandler(ErrorStrategy.RETRY, 2)
    assert hash(ErrorHandler("retry", 2)) == hash(ErrorHandler(ErrorStrategy.RETRY, 2))
    assert ErrorHandler("retry", 2) != ErrorHandler("retry", 3)


def test_the_old_way_to_decide_says_what_to_use() -> None:
    with pytest.raises(RemovedNameError, match="RetryLater or GiveUp"):

        class Old(ErrorHandler):
            def handle_error(self) -> None: ...


def test_the_documented_path_has_the_same_names() -> None:
    assert (error.ErrorHandler, error.ErrorStrategy) == (ErrorHandler, ErrorStrategy)
