"""Whatever somebody could hand over: strategies for fuzzing, and what counts as a refusal.

`ROUTILUX_EXAMPLES` is how many examples each property tries (default: few, so that the suite stays fast).
"""

# ruff: noqa: PT017, DTZ901

from __future__ import annotations

import dataclasses
import enum
import math
import os
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from routilux.errors import RoutiluxError

EXAMPLES = int(os.environ.get("ROUTILUX_EXAMPLES", "25"))
fuzzing = settings(
    max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)


class Colour(enum.Enum):
    RED = 1
    BLUE = "blue"


@dataclasses.dataclass
class Point:
    x: Any = None
    y: Any = None


class Hostile:
    """Raises whatever is asked of it."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def _raise(self, name: str) -> None:
        if name in self.names:
            raise RuntimeError(name)

    def __repr__(self) -> str:
        self._raise("repr")
        return "<Hostile>"

    def __eq__(self, other: object) -> bool:
        self._raise("eq")
        return self is other

    def __hash__(self) -> int:
        return 1

    def __bool__(self) -> bool:
        self._raise("bool")
        return True


class HostileMapping(dict[Any, Any]):
    def items(self) -> Any:
        raise RuntimeError("items")


class HostileText(str):
    def encode(self, *_: Any, **__: Any) -> bytes:
        raise RuntimeError("encode")


ANY_TEXT = (
    st.text(max_size=20)
    | st.text(st.characters(categories=["Cs", "Cc", "Lu", "So"]), max_size=5)
    | st.sampled_from(
        ["", "\x00", "\ud800", "f", "r", "in", "w", "$datetime", "'; --", "x" * 513, "é" * 300, "x" * 70_000]
    )
)
OFFSETS = st.integers(-86_399, 86_399).map(lambda seconds: timezone(timedelta(seconds=seconds)))
MOMENTS = st.datetimes(timezones=st.none() | OFFSETS | st.just(UTC)) | st.sampled_from(
    [
        datetime.max,
        datetime.min,
        datetime.max.replace(tzinfo=UTC),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-23))),
    ]
)
NUMBERS = (
    st.integers()
    | st.floats()
    | st.decimals()
    | st.sampled_from([10**30, -(10**30), 10**4250, True, -1, 0, 1, math.inf, math.nan, 1e300, 5e-324])
)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT
STRANGE = (
    st.builds(Hostile, st.sampled_from(["", "repr", "eq", "bool"]))
    | st.builds(HostileText, st.text(max_size=3))
    | st.builds(HostileMapping, st.dictionaries(st.text(max_size=3), st.integers(), max_size=2))
    | st.sampled_from([object, len, print, Ellipsis, NotImplemented, Colour, dataclasses])
    | st.complex_numbers()
    | st.sets(st.integers(), max_size=2)
    | st.builds(lambda: (item for item in ()))
    | st.builds(bytearray, st.binary(max_size=3))
)
CARRIED = (
    st.binary(max_size=10)
    | st.decimals()
    | st.uuids()
    | st.dates()
    | st.times()
    | MOMENTS
    | st.timedeltas()
    | st.sampled_from(Colour)
)


def _nested(leaves: st.SearchStrategy[Any], keys: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(keys, inner, max_size=3)
            | st.tuples(inner, inner)
            | st.builds(Point, inner, inner)
        ),
        max_leaves=8,
    )


JSON_LIKE = _nested(PLAIN, ANY_TEXT)
VALUES = _nested(PLAIN | CARRIED | NUMBERS, ANY_TEXT)
ANYTHING = _nested(
    PLAIN | CARRIED | NUMBERS | STRANGE,
    ANY_TEXT | st.integers() | st.none() | st.builds(Hostile, st.just("repr")),
)


def refusal(call: Callable[[], object]) -> Exception | None:
    """The error with which a call refuses its arguments; None: it takes them.

    Fails for an error that only a library below raises: that one names neither the argument nor what to do.
    """
    try:
        call()
    except RoutiluxError as error:
        str(error).encode()
        return error
    except (TypeError, ValueError) as error:
        last = traceback.extract_tb(error.__traceback__)[-1].filename
        assert "/routilux/" in last or "/datetime" in last, f"{type(error).__name__} of {last}: {error}"
        assert not isinstance(error, UnicodeError), error
        assert "UTF-8" not in str(error), error
        assert "serializable" not in str(error), error
        return error
    return None


def shape(value: Any) -> Any:
    """What a value is after a way through JSON, in a form that can be compared: types, digits and offsets
    count.
    """
    match value:
        case enum.Enum():
            return value
        case str() | bool() | None:
            return value
        case float():
            return ("float", repr(value))
        case Mapping():
            return {str(key): shape(item) for key, item in value.items()}
        case list() | tuple():
            return [shape(item) for item in value]
        case Decimal():
            return ("decimal", str(value))
        case datetime() | time():
            return (type(value), value.replace(tzinfo=None), value.utcoffset(), value.fold)
        case Point():
            return (Point, shape(value.x), shape(value.y))
        case date() | _:
            return (type(value), value)


__all__ = [
    "ANYTHING",
    "ANY_TEXT",
    "EXAMPLES",
    "JSON_LIKE",
    "MOMENTS",
    "NUMBERS",
    "VALUES",
    "fuzzing",
    "refusal",
    "shape",
]
