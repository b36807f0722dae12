"""Turns values that JSON does not have into tagged JSON. `routilux.core.payload` explains tags.

The result is a copy that orjson accepts, or an error with the path of the value that cannot be stored.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, Flag
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from routilux.core.json_decode import class_named, make
from routilux.errors import PayloadError

MAX_DEPTH = 200
MAX_INT_BITS = 14_000  # Python does not parse more than 4300 digits
INT_MIN, INT_MAX = -(2**63), 2**64 - 1  # what orjson accepts


def tagged(value: object, path: str, depth: int = 0, above: tuple[int, ...] = ()) -> object:
    """Return a copy with tags that orjson accepts.

    `path`: the name of the value in errors. `depth`: how many containers it is in. `above`: their ids. Raises
    `PayloadError` for a value that cannot be stored.
    """
    try:
        return _encoded(value, path, depth, above)
    except PayloadError:
        raise
    except Exception as error:  # a user's class may raise anything when its fields are read
        raise PayloadError(
            f"{path}: {type(value).__name__} cannot be read: {type(error).__name__}", path=path
        ) from error


def _encoded(value: object, path: str, depth: int, above: tuple[int, ...]) -> object:
    match value:
        case Flag():  # a combination of members has no name, so its number is stored
            return {"$flag": [_name_of(type(value), path), value.value]}
        case Enum():
            return {"$enum": [_name_of(type(value), path), value.name]}
        case str():
            return _text(value, path)
        case bool() | None:
            return value
        case int():
            return int(value) if INT_MIN <= value <= INT_MAX else {"$int": _digits(int(value), path)}
        case float():
            if value - value != 0.0:
                raise PayloadError(f"{path}: {value!r} is not JSON: use None or a string", path=path)
            return float(value)
    if type(value) in _WRITERS:
        tag, write = _WRITERS[type(value)]
        return {tag: write(value, path)}
    return _encode_compound(value, path, depth, above)


def _digits(value: int, path: str) -> str:
    if value.bit_length() > MAX_INT_BITS:
        raise PayloadError(
            f"{path}: an int of {value.bit_length()} bits is too large; use a string", path=path
        )
    return str(value)


def _encode_compound(value: object, path: str, depth: int, above: tuple[int, ...]) -> object:
    if id(value) in above:
        raise PayloadError(f"{path}: contains itself", path=path)
    if depth >= MAX_DEPTH:
        raise PayloadError(f"{path[:80]}…: nested deeper than {MAX_DEPTH}", path=path)
    above = (*above, id(value))
    match value:
        case Mapping():
            return {
                _key(key, path): tagged(item, f"{path}.{key}", depth + 1, above)
                for key, item in value.items()
            }
        case list() | tuple():
            return [tagged(item, f"{path}[{i}]", depth + 1, above) for i, item in enumerate(value)]
        case _ if _has_fields(value):
            return _encode_fields(value, path, depth, above)
    raise PayloadError(f"{path}: {kind_of(value)} is not JSON", path=path)


def _encode_fields(value: object, path: str, depth: int, above: tuple[int, ...]) -> object:
    """Encode a model or dataclass by its fields. Raises unless its class makes an equal value from them."""
    kind = type(value)
    name, fields = _name_of(kind, path), _fields(value)
    # the tag, its list and the fields are three levels of JSON
    encoded = {key: tagged(item, f"{path}.{key}", depth + 3, above) for key, item in fields.items()}
    try:
        again = make(kind, fields)
    except Exception as error:  # a user's class may raise anything
        raise PayloadError(
            f"{path}: {kind.__name__} cannot be made from its fields: {error}", path=path
        ) from error
    changed = [key for key, item in _fields(again, every=True).items() if item != getattr(value, key)]
    if changed:
        at = f"{path}.{changed[0]}"
        raise PayloadError(f"{at}: would be changed when read back: {kind.__name__} converts it", path=at)
    return {"$model" if isinstance(value, BaseModel) else "$dataclass": [name, encoded]}


def _has_fields(value: object) -> bool:
    return isinstance(value, BaseModel) or (dataclasses.is_dataclass(value) and not isinstance(value, type))


def _fields(value: Any, *, every: bool = False) -> dict[str, Any]:
    """Return names and values. Of a dataclass: the constructor's fields, or with `every` all fields."""
    if isinstance(value, BaseModel):
        return {name: getattr(value, name) for name in type(value).model_fields} | (value.model_extra or {})
    return {
        field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init or every
    }


def _key(key: object, path: str) -> str:
    if not isinstance(key, str):
        raise PayloadError(f"{path}: the key {key!r} is {kind_of(key)}, not a string", path=path)
    text = _text(key, path)
    return "$" + text if text.startswith("$") else text


def _text(value: str, path: str) -> str:
    if "\x00" in value:
        raise PayloadError(f"{path}: contains U+0000, which no database stores in a text", path=path)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise PayloadError(
            f"{path}: contains a lone surrogate at {error.start}, which is not valid text", path=path
        ) from None
    return str.__str__(value)


def kind_of(value: object) -> str:
    return "a class" if issubclass(type(value), type) else type(value).__name__


def _name_of(kind: type, path: str) -> str:
    name = f"{kind.__module__}:{kind.__qualname__}"
    try:
        is_found = class_named(name) is kind
    except (ImportError, AttributeError, ValueError):
        is_found = False
    if not is_found:
        raise PayloadError(
            f"{path}: the class {kind.__qualname__} cannot be found by its name:"
            " define it at the top level of a module",
            path=path,
        )
    return name


def _write_moment(value: datetime | time, path: str) -> object:
    text, offset = value.isoformat(), value.utcoffset()
    # A time has no date, so its zone may have no offset. Python parses an offset below a second as none.
    if value.tzinfo is not None and (offset is None or type(value).fromisoformat(text).utcoffset() != offset):
        raise PayloadError(f"{path}: {value!r} would lose its time zone: give it a fixed offset", path=path)
    return [text, 1] if value.fold else text


_WRITERS: dict[type, tuple[str, Callable[[Any, str], Any]]] = {
    datetime: ("$datetime", _write_moment),
    date: ("$date", lambda value, _: value.isoformat()),
    time: ("$time", _write_moment),
    timedelta: ("$timedelta", lambda value, _: [value.days, value.seconds, value.microseconds]),
    Decimal: ("$decimal", lambda value, _: str(value)),
    UUID: ("$uuid", lambda value, _: str(value)),
    bytes: ("$bytes", lambda value, _: base64.b64encode(value).decode()),
}
