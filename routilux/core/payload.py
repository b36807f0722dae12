"""Values to JSON text and back.

Plain JSON goes through one `orjson.dumps`. What JSON cannot say (datetime, Decimal, UUID, bytes, Enum, dataclass,
Pydantic model, an int beyond 64 bits) is carried in a tag, a one-key object like `{"$datetime": "…"}`, and brought
back by `decode`; keys of the user's own that begin with `$` get a second one. Everything else is refused with the
path to it: orjson alone would turn NaN into null and an Enum into its value.
"""

from __future__ import annotations

import base64
import dataclasses
import importlib
import sys
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import orjson
from pydantic import BaseModel

from routilux.errors import PayloadError, PayloadTooLargeError

MAX_DEPTH = 200
_PLAIN = frozenset({str, int, bool, type(None)})
_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1


def encode(value: object, *, root: str = "data", limit: int | None = None) -> str:
    """`value` as JSON text. `limit`: bytes of UTF-8.

    Raises `PayloadError` naming the path of what cannot be stored, `PayloadTooLargeError` above the limit.
    """
    carried = value if _is_plain(value, 0) else _carry(value, root, ())
    try:
        raw = orjson.dumps(carried)
    except orjson.JSONEncodeError:
        # a lone surrogate, or an int beyond 64 bits: the slow walk names it or carries it
        raw = orjson.dumps(_carry(value, root, ()))
    if b"\\u0000" in raw:
        _carry(value, root, ())  # names U+0000, or finds the six characters \u0000 in a text, which are fine
    if limit is not None and len(raw) > limit:
        raise PayloadTooLargeError(root, len(raw), limit)
    return raw.decode()


def encode_object(value: object, *, root: str = "data", limit: int | None = None) -> str:
    """The same for a value that must be a mapping, as every message is."""
    if not isinstance(value, Mapping):
        raise PayloadError(f"{root}: must be a mapping, not {_kind(value)}: post {{'value': …}}", path=root)
    return encode(value if type(value) is dict else dict(value), root=root, limit=limit)


def decode(text: str | bytes) -> Any:
    """The value that was encoded. Raises `PayloadError` when the class of a tag cannot be found."""
    value = orjson.loads(text)
    if ('"$' in text) if isinstance(text, str) else (b'"$' in text):
        return _restore(value)
    return value


def escape_text(text: str, most: int | None = None) -> str:
    """Any text as one that both databases store: U+0000 and lone surrogates made visible, cut after `most` characters."""
    if most is not None and len(text) > most:
        text = text[:most] + "…"
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")


def _is_plain(value: object, depth: int) -> bool:
    """Whether orjson alone does the right thing. The hot path: one tight walk."""
    kind = type(value)
    if kind in _PLAIN:
        return True
    if kind is float:
        return value - value == 0.0  # type: ignore[operator]  # false for NaN and the infinities
    if depth > MAX_DEPTH:
        return False
    if kind is dict:
        for key, item in value.items():  # type: ignore[attr-defined]  # kind is dict
            if type(key) is not str or key[:1] == "$":
                return False
            if type(item) not in _PLAIN and not _is_plain(item, depth + 1):
                return False
        return True
    if kind is list:
        return all(_is_plain(item, depth + 1) for item in value)  # type: ignore[attr-defined]  # kind is list
    return False


def _carry(value: object, path: str, above: tuple[int, ...]) -> object:
    """A copy that orjson can take, tags in it; raises for what cannot be carried."""
    match value:
        case Enum():
            return {"$enum": [_name_of(type(value), path), value.name]}
        case str():
            return _text(value, path)
        case bool() | None:
            return value
        case int():
            return int(value) if _INT_MIN <= value <= _INT_MAX else {"$int": str(int(value))}
        case float():
            if value - value != 0.0:
                raise PayloadError(f"{path}: {value!r} is not JSON: use None or a string", path=path)
            return float(value)
        case _:
            return _carry_compound(value, path, above)


def _carry_compound(value: object, path: str, above: tuple[int, ...]) -> object:
    if id(value) in above:
        raise PayloadError(f"{path}: contains itself", path=path)
    if len(above) >= MAX_DEPTH:
        raise PayloadError(f"{path}: nested deeper than {MAX_DEPTH}", path=path)
    above = (*above, id(value))
    match value:
        case Mapping():
            return {_key(key, path): _carry(item, f"{path}.{key}", above) for key, item in value.items()}
        case list() | tuple():
            return [_carry(item, f"{path}[{i}]", above) for i, item in enumerate(value)]
        case BaseModel():
            fields = {name: getattr(value, name) for name in type(value).model_fields}
            return {"$model": [_name_of(type(value), path), _carry(fields, path, above)]}
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
            return {"$dataclass": [_name_of(type(value), path), _carry(fields, path, above)]}
    for kind, tag, write in _WRITERS:
        if type(value) is kind:
            return {tag: write(value)}
    raise PayloadError(f"{path}: {_kind(value)} is not JSON", path=path)


def _key(key: object, path: str) -> str:
    if not isinstance(key, str):
        raise PayloadError(f"{path}: the key {key!r} is {_kind(key)}, not a string", path=path)
    text = _text(key, path)
    return "$" + text if text.startswith("$") else text


def _text(value: str, path: str) -> str:
    if "\x00" in value:
        raise PayloadError(f"{path}: contains U+0000, which no database stores in a text", path=path)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise PayloadError(f"{path}: contains a lone surrogate at {error.start}, which is no text", path=path) from None
    return str.__str__(value)


def _kind(value: object) -> str:
    return "a class" if isinstance(value, type) else type(value).__name__


def _name_of(kind: type, path: str) -> str:
    if "<locals>" in kind.__qualname__:
        raise PayloadError(
            f"{path}: {kind.__qualname__} is local to a function and could not be found again: define it in a module",
            path=path,
        )
    return f"{kind.__module__}:{kind.__qualname__}"


def _restore(value: Any) -> Any:
    if isinstance(value, list):
        return [_restore(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        (key, item), *_ = value.items()
        read = _READERS.get(key)
        if read is not None:
            return read(item)
    return {key[1:] if key.startswith("$$") else key: _restore(item) for key, item in value.items()}


def _class(name: str, base: type | None) -> Any:
    """The class of a tag: only an Enum, a dataclass or a Pydantic model is ever made."""
    module, _, qualname = name.partition(":")
    try:
        found: Any = sys.modules.get(module) or importlib.import_module(module)
        for part in qualname.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise PayloadError(f"the class {name} of a stored value cannot be found: {error}") from error
    fits = isinstance(found, type) and (issubclass(found, base) if base else dataclasses.is_dataclass(found))
    if not fits:
        raise PayloadError(f"{name} is no longer the kind of class that was stored")
    return found


def _enum(item: list[str]) -> Any:
    kind = _class(item[0], Enum)
    if item[1] not in kind.__members__:
        raise PayloadError(f"{item[0]} has no member {item[1]!r} any more")
    return kind[item[1]]


def _made(item: list[Any], base: type | None) -> Any:
    kind = _class(item[0], base)
    try:
        return kind(**_restore(item[1]))
    except (TypeError, ValueError) as error:
        raise PayloadError(f"a stored {item[0]} cannot be made any more: {error}") from error


_WRITERS: tuple[tuple[type, str, Callable[[Any], Any]], ...] = (
    (datetime, "$datetime", datetime.isoformat),
    (date, "$date", date.isoformat),
    (time, "$time", time.isoformat),
    (timedelta, "$timedelta", lambda value: [value.days, value.seconds, value.microseconds]),
    (Decimal, "$decimal", str),
    (UUID, "$uuid", str),
    (bytes, "$bytes", lambda value: base64.b64encode(value).decode()),
)
_READERS: dict[str, Callable[[Any], Any]] = {
    "$datetime": datetime.fromisoformat,
    "$date": date.fromisoformat,
    "$time": time.fromisoformat,
    "$timedelta": lambda item: timedelta(*item),
    "$decimal": Decimal,
    "$uuid": UUID,
    "$bytes": base64.b64decode,
    "$int": int,
    "$enum": _enum,
    "$dataclass": lambda item: _made(item, None),
    "$model": lambda item: _made(item, BaseModel),
}
