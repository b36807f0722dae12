"""The codec: what is carried comes back as it was, all else is refused at the door with the path to it."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, RootModel, field_validator

from routilux.core import payload
from routilux.errors import PayloadError, PayloadTooLargeError


class Colour(enum.Enum):
    RED = 1
    BLUE = "blue"


class Word(enum.StrEnum):
    A = "a"


class Count(enum.IntEnum):
    ONE = 1


class Right(enum.Flag):
    READ = 1
    WRITE = 2
    RUN = 4


@dataclasses.dataclass
class Point:
    x: Any
    y: Any = None


@dataclasses.dataclass(frozen=True)
class Doubled:
    x: int
    twice: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "twice", self.x * 2)


@dataclasses.dataclass
class NeedsMore:
    x: int
    seed: dataclasses.InitVar[int]

    def __post_init__(self, seed: int) -> None:
        self.x += seed


@dataclasses.dataclass
class Growing:
    x: int

    def __post_init__(self) -> None:
        self.x += 1


class Order(BaseModel):
    number: int = Field(alias="orderNumber")
    placed_at: datetime | None = None
    lines: list[Point] = []


class Open(BaseModel, extra="allow"):
    known: int


class Numbers(RootModel[list[int]]):
    pass


class Salted(BaseModel):
    word: str

    @field_validator("word")
    @classmethod
    def salt(cls, word: str) -> str:
        return word + "!"


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
KEYS = TEXT | st.sampled_from(["$", "$$", "$int", "$datetime", "$model", "$$enum"])
OFFSETS = st.integers(-86_399, 86_399).map(lambda seconds: timezone(timedelta(seconds=seconds)))
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
    | st.binary()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.dates()
    | st.times()
    | st.datetimes(timezones=st.none() | OFFSETS)
    | st.timedeltas()
    | st.sampled_from([*Colour, *Word, *Count, *Right])
    | st.integers(0, 7).map(Right)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(KEYS, inner)
        | st.builds(Point, inner, inner)
        | st.builds(Order, orderNumber=st.integers(), lines=st.lists(st.builds(Point, inner)))
    ),
    max_leaves=12,
)


def shape(value: Any) -> Any:
    """The value with what `==` does not see: types, the sign of zero, the fold of a time."""
    match value:
        case dict():
            return {key: shape(item) for key, item in value.items()}
        case list():
            return [shape(item) for item in value]
        case Point() | Order():
            return type(value), {key: shape(item) for key, item in vars(value).items()}
        case datetime() | time():
            return type(value), value, value.utcoffset(), value.fold
        case float():
            return float, value, math.copysign(1, value)
    return type(value), value


@given(VALUES)
def test_whatever_is_encoded_comes_back_as_it_was(value: Any) -> None:
    assert shape(payload.decode(payload.encode(value))) == shape(value)


@given(st.text() | st.dictionaries(st.text(), st.text()) | st.floats() | st.sets(st.integers()))
def test_any_value_is_encoded_to_text_that_a_database_stores_or_refused(value: Any) -> None:
    try:
        text = payload.encode(value)
    except PayloadError:
        return
    assert "\0" not in text
    assert payload.decode(text) == value


ZONE = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    "value",
    [
        datetime(2020, 10, 25, 2, 30, fold=1),  # noqa: DTZ001  # naive is the point
        time(2, 30, fold=1),
        time(2, 30, 1, 5, tzinfo=UTC),
        timedelta(days=-1, microseconds=3),
        Decimal("1.10"),
        2**64,
        -(2**63) - 1,
        "\\u0000",
        {"a\\u0000": "b\\u0000"},
        {"$int": "5"},
        {"$datetime": ["x", 1], "other": 1},
        Right.READ | Right.RUN,
        Right(0),
        Point([Point(1)], {"$x": b"\x00"}),
        Doubled(4),
        Order(orderNumber=5, placed_at=datetime(2020, 1, 1, tzinfo=UTC), lines=[Point(1)]),
        Open.model_validate({"known": 1, "extra": date(2020, 1, 1)}),
        Numbers([1, 2]),
    ],
    ids=repr,
)
def test_values_with_a_trap_come_back_as_they_were(value: Any) -> None:
    assert shape(payload.decode(payload.encode(value))) == shape(value)


def test_the_second_of_two_equal_hours_stays_the_second() -> None:
    later = datetime(2020, 10, 25, 2, 30, fold=1, tzinfo=ZONE)
    assert payload.decode(payload.encode(later)).utcoffset() == later.utcoffset()


def test_an_offset_that_python_may_misread_is_carried_or_refused_but_not_changed() -> None:
    odd = datetime(2020, 1, 1, tzinfo=timezone(timedelta(microseconds=1)))
    try:
        restored = payload.decode(payload.encode(odd))
    except PayloadError:
        return
    assert restored.utcoffset() == odd.utcoffset()


def test_a_decimal_keeps_its_digits() -> None:
    assert str(payload.decode(payload.encode(Decimal("1.100")))) == "1.100"


def test_what_json_has_no_word_for_comes_back_as_what_it_is_like() -> None:
    class Name(str):
        pass

    restored = payload.decode(payload.encode({"tuple": (1, 2), "str": Name("x"), Word.A: True}))
    assert restored == {"tuple": [1, 2], "str": "x", "a": True}
    assert type(restored["str"]) is str


def test_plain_json_is_stored_as_plain_json() -> None:
    assert payload.encode({"a": [1, None, "ü"], "b": 1.5}) == '{"a":[1,null,"ü"],"b":1.5}'


def test_a_tag_says_what_it_carries() -> None:
    assert payload.encode({"at": date(2020, 1, 2)}) == '{"at":{"$date":"2020-01-02"}}'


def circular() -> dict[str, Any]:
    ring: dict[str, Any] = {}
    ring["self"] = ring
    return ring


def local_class() -> object:
    @dataclasses.dataclass
    class Local:
        x: int

    return Local(1)


def local_enum() -> object:
    class Shade(enum.Enum):
        DARK = 1

    return Shade.DARK


@pytest.mark.parametrize(
    ("value", "path", "reason"),
    [
        ({"items": [1, 2, {"fn": len}]}, "data.items[2].fn", "builtin_function_or_method is not JSON"),
        ({"s": {1}}, "data.s", "set is not JSON"),
        ({"s": bytearray(b"x")}, "data.s", "bytearray is not JSON"),
        ({"s": 1j}, "data.s", "complex is not JSON"),
        ({"s": int}, "data.s", "a class is not JSON"),
        ({"s": Point}, "data.s", "a class is not JSON"),
        ({"s": object()}, "data.s", "object is not JSON"),
        ({"s": math.nan}, "data.s", "nan is not JSON"),
        ({"s": [0.5, math.inf]}, "data.s[1]", "inf is not JSON"),
        ({"s": "a\0"}, "data.s", "U+0000"),
        ({"a\0": 1}, "data", "U+0000"),
        ({"s": "\ud800"}, "data.s", "lone surrogate at 0"),
        ({"\ud800": 1}, "data", "lone surrogate at 0"),
        ({"s": {1: 2}}, "data.s", "the key 1 is int, not a string"),
        (circular(), "data.self", "contains itself"),
        ({"s": local_class()}, "data.s", "cannot be found by its name"),
        ({"s": local_enum()}, "data.s", "cannot be found by its name"),
        ({"s": time(1, tzinfo=ZONE)}, "data.s", "would lose its time zone"),
        ({"s": NeedsMore(1, 2)}, "data.s", "cannot be made from its fields"),
        ({"s": Growing(1)}, "data.s.x", "would be changed when read back"),
        ({"s": Salted(word="x")}, "data.s.word", "would be changed when read back"),
        ({"s": Point(Point({2}))}, "data.s.x.x", "set is not JSON"),
        ({"s": Order(orderNumber=1, lines=[Point(len)])}, "data.s.lines[0].x", "is not JSON"),
    ],
)
def test_what_cannot_be_stored_is_refused_by_path(value: Any, path: str, reason: str) -> None:
    with pytest.raises(PayloadError) as refused:
        payload.encode(value)
    assert refused.value.path == path
    assert str(refused.value).startswith(f"{path}: ")
    assert reason in str(refused.value)


def test_the_path_begins_with_the_root_it_was_given() -> None:
    with pytest.raises(PayloadError) as refused:
        payload.encode({"x": len}, root="emit('out')")
    assert refused.value.path == "emit('out').x"


def nested(depth: int, innermost: object) -> Any:
    value = innermost
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("innermost", [1, 0.5, b"not plain"])
def test_the_limit_of_depth_is_the_same_for_plain_values_and_others(innermost: object) -> None:
    deepest = nested(payload.MAX_DEPTH, innermost)
    assert payload.decode(payload.encode(deepest)) == deepest
    with pytest.raises(PayloadError, match="nested deeper than 200"):
        payload.encode([deepest])


@pytest.mark.parametrize("build", [Point, lambda inner: {"k": inner}], ids=["dataclass", "dict"])
def test_a_chain_of_any_kind_is_carried_to_a_depth_and_then_refused(build: Callable[[Any], Any]) -> None:
    value = build(1)
    for _ in range(60):
        assert payload.decode(payload.encode(value)) == value
        value = build(value)
    for _ in range(payload.MAX_DEPTH):
        value = build(value)
    with pytest.raises(PayloadError, match="nested deeper than 200"):
        payload.encode(value)


def test_the_limit_counts_bytes_of_utf_8() -> None:
    assert payload.encode("éé", limit=6) == '"éé"'
    with pytest.raises(PayloadTooLargeError) as refused:
        payload.encode("ééé", limit=7)
    assert (refused.value.size_bytes, refused.value.limit_bytes) == (8, 7)


def test_a_message_must_be_a_mapping() -> None:
    with pytest.raises(PayloadError, match="data: must be a mapping, not list"):
        payload.encode_object([1])
    assert payload.encode_object({"a": 1}) == '{"a":1}'


@pytest.mark.parametrize(
    "text",
    [
        "nope",
        "",
        '{"a":',
        '{"$datetime":"junk"}',
        '{"$datetime":5}',
        '{"$datetime":["2020-01-01",2]}',
        '{"$date":null}',
        '{"$time":"25:00"}',
        '{"$timedelta":[1]}',
        '{"$timedelta":[999999999999,0,0]}',
        '{"$decimal":"x"}',
        '{"$uuid":5}',
        '{"$uuid":"x"}',
        '{"$bytes":"*"}',
        '{"$bytes":"YQ"}',
        '{"$int":"x"}',
        '{"$int":null}',
        '{"$enum":5}',
        '{"$enum":["os:system","x"]}',
        '{"$enum":["no.such.module:X","x"]}',
        '{"$enum":["","x"]}',
        '{"$flag":["signal:Signals","x"]}',
        '{"$dataclass":["no.such.module:X",{}]}',
        '{"$dataclass":["builtins:dict",{}]}',
        '{"$model":["builtins:int",{}]}',
        '{"$model":["pydantic:BaseModel",5]}',
        '{"$unknown":1}',
        '{"$int":"1","other":2}',
        '[{"deep":{"$bytes":1}}]',
        "[" * 1000 + '"$"' + "]" * 1000,
        "[" * 2000 + '"$"' + "]" * 2000,
    ],
)
def test_text_that_encode_did_not_write_is_refused(text: str) -> None:
    with pytest.raises(PayloadError):
        payload.decode(text)


def stored(value: object, old: str, new: str) -> str:
    """The text of a value as a class of another day would have written it."""
    text = payload.encode(value)
    assert old in text
    return text.replace(old, new)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (stored(Colour.BLUE, "BLUE", "GREEN"), "no longer has a member 'GREEN'"),
        (stored(Right.RUN, ",4]", ",64]"), "cannot be read back"),
        (stored(Point(1), '"x"', '"z"'), "unexpected keyword argument 'z'"),
        (stored(Open(known=1), ":1}", ':"one"}'), "valid integer"),
        (stored(Point(1), "Point", "Colour"), "no longer the kind of class"),
        (stored(Point(1), "Point", "Gone"), "cannot be found"),
    ],
)
def test_a_class_that_has_changed_since_is_an_error_that_says_how(text: str, reason: str) -> None:
    with pytest.raises(PayloadError, match=reason):
        payload.decode(text)


def test_a_field_that_has_come_since_takes_its_default() -> None:
    assert payload.decode(stored(Point(1), ',"y":null', "")) == Point(1)


def test_a_class_is_never_made_before_it_is_known_to_be_one_of_three_kinds() -> None:
    with pytest.raises(PayloadError, match="no longer the kind of class"):
        payload.decode('{"$dataclass":["subprocess:Popen",{"args":["true"]}]}')


@given(st.text())
def test_an_escaped_text_can_always_be_stored(text: str) -> None:
    escaped = payload.escape_text(text)
    assert payload.decode(payload.encode(escaped)) == escaped


def test_escaping_shows_what_it_replaces_and_cuts_with_a_mark() -> None:
    assert payload.escape_text("a\0\ud800b") == "a\\x00\\ud800b"
    assert payload.escape_text("abcdef", 3) == "abc…"
    assert payload.escape_text("abc", 3) == "abc"


def test_a_uuid_comes_back_as_a_uuid() -> None:
    one = UUID("12345678-1234-5678-1234-567812345678")
    assert payload.decode(payload.encode([one])) == [one]
