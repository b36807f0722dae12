"""Turns tagged JSON back into values. `routilux.core.payload` explains tags."""

from __future__ import annotations

import base64
import dataclasses
import importlib
import sys
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, Flag
from typing import Any
from uuid import UUID

from pydantic import BaseModel, RootModel

from routilux.errors import PayloadError


def untagged(value: Any) -> Any:
    """Replace the tags in parsed JSON by their values. Raises `PayloadError`."""
    if isinstance(value, list):
        return [untagged(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        (key, item), *_ = value.items()
        read = _READERS.get(key)
        if read is not None:
            return _read(key, read, item)
    return {_plain_key(key): untagged(item) for key, item in value.items()}


def _read(tag: str, read: Callable[[Any], Any], item: Any) -> Any:
    try:
        return read(item)
    except PayloadError:
        raise
    except Exception as error:  # bad text, or any error from a user's class
        raise PayloadError(f"a stored {tag} cannot be read back: {type(error).__name__}: {error}") from error


def _plain_key(key: str) -> str:
    if not key.startswith("$"):
        return key
    if not key.startswith("$$"):
        raise PayloadError(f"stored text has the tag {key!r}, which this version does not know")
    return key[1:]


def _class(name: str, fits: Callable[[type], bool]) -> Any:
    """Return the class of a tag. Only Enums, dataclasses and Pydantic models are allowed."""
    try:
        kind = class_named(name)
    except (ImportError, AttributeError) as error:
        raise PayloadError(f"the class {name} of a stored value cannot be found: {error}") from error
    if not (isinstance(kind, type) and fits(kind)):
        raise PayloadError(f"{name} is no longer the kind of class that was stored")
    return kind


def _is_a(base: type) -> Callable[[type], bool]:
    return lambda kind: issubclass(kind, base)


def _enum(item: list[str]) -> Any:
    name, member = item
    kind = _class(name, _is_a(Enum))
    if member not in kind.__members__:
        raise PayloadError(f"{name} no longer has a member {member!r}")
    return kind[member]


def _flag(item: list[Any]) -> Any:
    name, number = item
    return _class(name, _is_a(Flag))(number)


def _dataclass(item: list[Any]) -> Any:
    name, fields = item
    return make(_class(name, dataclasses.is_dataclass), untagged(fields))


def _model(item: list[Any]) -> Any:
    name, fields = item
    return make(_class(name, _is_a(BaseModel)), untagged(fields))


def class_named(name: str) -> Any:
    """Find the class of a tag by its name, `module:qualified.name`."""
    module, _, qualname = name.partition(":")
    found: Any = sys.modules.get(module) or importlib.import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    return found


def make(kind: type, fields: dict[str, Any]) -> Any:
    """Make a dataclass or model from these fields. Raises any error that the class raises."""
    if not issubclass(kind, BaseModel):
        return kind(**fields)
    if issubclass(kind, RootModel):
        return kind.model_validate(fields["root"])
    return kind.model_validate(fields, by_alias=False, by_name=True)


def _timedelta(item: list[int]) -> timedelta:
    days, seconds, microseconds = item
    return timedelta(days, seconds, microseconds)


def _read_moment(kind: type[datetime | time]) -> Callable[[Any], Any]:
    def read(item: Any) -> Any:
        text, fold = item if isinstance(item, list) else (item, 0)
        return kind.fromisoformat(text).replace(fold=fold)

    return read


_READERS: dict[str, Callable[[Any], Any]] = {
    "$datetime": _read_moment(datetime),
    "$date": date.fromisoformat,
    "$time": _read_moment(time),
    "$timedelta": _timedelta,
    "$decimal": Decimal,
    "$uuid": UUID,
    "$bytes": lambda item: base64.b64decode(item, validate=True),
    "$int": int,
    "$enum": _enum,
    "$flag": _flag,
    "$dataclass": _dataclass,
    "$model": _model,
}
