"""What an activation wants to write, as data. Logic fills it, and the engine turns it into rows."""

from __future__ import annotations

import traceback as tracebacks
from dataclasses import dataclass
from typing import Any

from routilux.core import payload
from routilux.core.message import Activation

MAX_ERROR_TEXT = 32_768


# Most activations make these two. They are not frozen, since a frozen dataclass costs three times as much.
@dataclass(slots=True)
class Replace:
    """The new routine state, complete. The texts are shared, so they must not be changed."""

    routine: str
    texts: dict[str, str]


@dataclass(slots=True)
class Increment:
    """Add to a number in routine state."""

    routine: str
    key: str
    by: float


@dataclass(frozen=True, slots=True)
class JobSet:
    key: str
    text: str


@dataclass(frozen=True, slots=True)
class JobIncrement:
    key: str
    by: float


@dataclass(frozen=True, slots=True)
class JobEnd:
    status: str
    error: str | None
    result: str | None


@dataclass(frozen=True, slots=True)
class Trace:
    kind: str
    routine: str
    action: str
    details: str | None
    at: int

    def shown(self) -> dict[str, Any]:
        """Return it in the form of `JobContext.trace_log`."""
        return {
            "timestamp": self.at / 1e6,
            "routine_id": self.routine,
            "action": self.action,
            "details": None if self.details is None else payload.decode(self.details),
        }


@dataclass(frozen=True, slots=True)
class Failure:
    """A user exception, stored as data."""

    error: BaseException
    type: str
    text: str
    traceback: str

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        return cls(
            error,
            type(error).__name__,
            payload.escape_text(text_of(error), MAX_ERROR_TEXT),
            payload.escape_text(_traceback_of(error), MAX_ERROR_TEXT),
        )


def _traceback_of(error: BaseException) -> str:
    """Return the traceback as Python prints it, without the carets below the lines.

    Python places carets with `ast.parse`. CPython up to 3.12 has one counter of its depth for all threads
    (python/cpython#106905). Logic that parses code in another thread would get a `SystemError` caused by us.
    """
    formatted = tracebacks.TracebackException.from_exception(error)
    chain = [formatted]
    while chain:
        link = chain.pop()
        for frame in link.stack:
            frame.colno = frame.end_colno = None
        chain += [each for each in (link.__cause__, link.__context__, *(link.exceptions or ())) if each]
    return "".join(formatted.format())


def text_of(error: BaseException) -> str:
    """Return the text of an error, or a note that it has none."""
    try:
        return str(error)
    except Exception as broken:  # a user's __str__ may raise
        return f"<{type(error).__name__} whose text cannot be made: {type(broken).__name__}>"


# Most activations leave most lists empty, and a list costs more than the activation's row.
_NOTHING: Any = ()


class Outcome:
    """Everything one activation wants to write."""

    __slots__ = (
        "activation",
        "emits",
        "ended_at",
        "failure",
        "job",
        "job_end",
        "run",
        "started_at",
        "state",
        "traces",
        "writes",
    )

    def __init__(self, activation: Activation, started_at: int, ended_at: int = 0, run: Any = None) -> None:
        self.activation = activation
        self.started_at = started_at
        self.ended_at = ended_at
        self.run = run  # a `Run`, or None if it failed without running
        self.failure: Failure | None = None
        self.emits: list[tuple[str, str, str]] = _NOTHING  # target routine, slot, JSON text
        self.state: list[Replace | Increment] = _NOTHING
        self.job: list[JobSet | JobIncrement] = _NOTHING
        self.job_end: JobEnd | None = None
        self.writes: list[tuple[Any, Any]] = _NOTHING
        self.traces: list[Trace] = _NOTHING

    def fail(self, error: BaseException) -> None:
        """Record the failure and drop everything but the traces."""
        self.failure = Failure.of(error)
        self.emits = self.state = self.job = self.writes = _NOTHING
        self.job_end = None
