"""`ErrorHandler`: what happens to the messages and the job when logic raises."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from routilux.errors import LONGEST_DELAY_S, DefinitionError, RemovedNameError

Classes = type[BaseException] | Iterable[type[BaseException]]


class ErrorStrategy(StrEnum):
    """STOP fails the job. CONTINUE and SKIP continue without this activation. RETRY runs it again later."""

    STOP = "stop"
    CONTINUE = "continue"
    RETRY = "retry"
    SKIP = "skip"


@dataclass(frozen=True, slots=True, init=False)
class ErrorHandler:
    """A strategy and its settings. Immutable: attempts are counted per batch of messages, in the database.

    `strategy`: an `ErrorStrategy` or its name. `max_retries`: retries after the first attempt. `retry_delay`:
    seconds or timedelta before the first retry. Before retry k the delay is
    `retry_delay * retry_backoff ** (k - 1)`, at most `max_retry_delay`. A random share of the delay, up to
    `retry_jitter`, is added. `retryable_exceptions`: one exception class or several; default all.
    `is_critical`: only documents that the flow needs this routine.

    Raises `DefinitionError` with the name of the parameter, and `TypeError` for a strategy or an exception
    class of a wrong type.
    """

    strategy: ErrorStrategy
    max_retries: int
    retry_delay: float
    retry_backoff: float
    retryable_exceptions: tuple[type[BaseException], ...]
    is_critical: bool
    max_retry_delay: float | None
    retry_jitter: float

    def __init__(
        self,
        strategy: str | ErrorStrategy = "stop",
        max_retries: int = 3,
        retry_delay: float | timedelta = 1.0,
        retry_backoff: float = 2.0,
        retryable_exceptions: Classes | None = None,
        is_critical: bool = False,
        *,
        max_retry_delay: float | timedelta | None = None,
        retry_jitter: float = 0.0,
    ) -> None:
        longest = None if max_retry_delay is None else _seconds("max_retry_delay", max_retry_delay)
        values = {
            "strategy": _strategy(strategy),
            "max_retries": max_retries,
            "retry_delay": _seconds("retry_delay", retry_delay),
            "retry_backoff": retry_backoff,
            "retryable_exceptions": _classes(retryable_exceptions),
            "is_critical": is_critical,
            "max_retry_delay": longest,
            "retry_jitter": retry_jitter,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        self._check()

    def _check(self) -> None:
        if (
            isinstance(self.max_retries, bool)
            or not isinstance(self.max_retries, int)
            or self.max_retries < 0
        ):
            raise DefinitionError(f"max_retries must be an integer, 0 or more, not {self.max_retries!r}")
        if not _is_number(self.retry_backoff) or not 1.0 <= self.retry_backoff < float("inf"):
            raise DefinitionError(f"retry_backoff must be a number, 1 or more, not {self.retry_backoff!r}")
        if not _is_number(self.retry_jitter) or not 0 <= self.retry_jitter <= 1:
            raise DefinitionError(f"retry_jitter must be a number from 0 to 1, not {self.retry_jitter!r}")

    def __init_subclass__(cls) -> None:
        if "handle_error" in vars(cls):
            raise RemovedNameError(
                "ErrorHandler.handle_error", "choose a strategy, or raise RetryLater or GiveUp in logic"
            )


def _strategy(strategy: str | ErrorStrategy) -> ErrorStrategy:
    if not isinstance(strategy, str):
        raise TypeError(f"strategy must be an ErrorStrategy or its name, not {type(strategy).__name__}")
    try:
        return ErrorStrategy(strategy.lower())
    except ValueError:
        names = ", ".join(member.value for member in ErrorStrategy)
        raise DefinitionError(f"unknown strategy {strategy!r}; use one of {names}") from None


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _seconds(name: str, value: float | timedelta) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if not _is_number(seconds) or not 0 <= seconds <= LONGEST_DELAY_S:
        raise DefinitionError(f"{name} must be a finite number of seconds, 0 or more, not {value!r}")
    return float(seconds)


def _classes(exceptions: Classes | None) -> tuple[type[BaseException], ...]:
    if exceptions is None:
        return (Exception,)
    classes = (exceptions,) if isinstance(exceptions, type) else tuple(exceptions)
    for kind in classes:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise TypeError(f"retryable_exceptions takes exception classes, not {kind!r}")
    return classes


DEFAULT = ErrorHandler()
