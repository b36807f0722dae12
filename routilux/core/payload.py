"""Values to JSON text and back.

Plain JSON goes through one `orjson.dumps`. What JSON cannot say (datetime, Decimal, UUID, bytes, Enum, dataclass,
Pydantic model, an int beyond 64 bits) is carried in a tag, a one-key object like `{"$datetime": "…"}`, and brought
back by `decode`; keys of the user's own that begin with `$` get a second one. Everything else is refused with the
path to it: orjson alone would turn NaN into null and an Enum into its value.

The law: `decode(encode(x)) == x`, of the same types, or `encode` raises. Four things come back as the JSON they are
like: a tuple as a list, a mapping as a dict, a subclass of str, int or float as its base, a time zone as its offset.
"""

from __future__ import annotations

import base64
import dataclasses
import importlib
import sys
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, Flag
from typing import Any
from uuid import UUID

import orjson
from pydantic import BaseModel, RootModel

from routilux.errors import PayloadError, PayloadTooLargeError

MAX_DEPTH = 200
MAX_INT_BITS = 14_000  # Python refuses to read more than 4300 digits
_PLAIN = frozenset({str, int, bool, type(None)})
_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1


def encode(value: object, *, root: str = "data", limit: int | None = None) -> str:
    """`value` as JSON text. `limit`: bytes of UTF-8.

    Raises `PayloadError` naming the path of what cannot be stored, `PayloadTooLargeError` above the limit.
    """
    if type(value) is int and _INT_MIN <= value <= _INT_MAX:
        return str(value)  # counters are most of what state is made of
    carried = value if _is_plain(value, 0) else _carry(value, root, 0, ())
    try:
        raw = orjson.dumps(carried)
    except orjson.JSONEncodeError:
        # a lone surrogate, or an int beyond 64 bits: the slow walk names it or carries it
        raw = orjson.dumps(_carry(value, root, 0, ()))
    if b"\\u0000" in raw:
        # names U+0000, or finds the six characters \u0000 in a text, which are fine
        _carry(value, root, 0, ())
    if limit is not None and len(raw) > limit:
        raise PayloadTooLargeError(root, len(raw), limit)
    return raw.decode()


def encode_object(value: object, *, root: str = "data", limit: int | None = None) -> str:
    """The same for a value that must be a mapping, as every message is."""
    if type(value) is not dict:
        value = as_dict(value, root)
    return encode(value, root=root, limit=limit)


def as_dict(value: object, root: str) -> dict[Any, Any]:
    """Any mapping as a dict. Raises `PayloadError`."""
    try:
        if isinstance(value, Mapping):
            return dict(value)
    except Exception as error:  # whatever a class of the user's own raises
        raise PayloadError(
            f"{root}: {type(value).__name__} cannot be read: {type(error).__name__}", path=root
        ) from error
    raise PayloadError(f"{root}: must be a mapping, not {_kind(value)}: post {{'value': …}}", path=root)


def decode(text: str | bytes) -> Any:
    """The value that was encoded. Raises `PayloadError` for text that `encode` did not write, and when the class of a
    tag cannot be found or no longer takes what was stored."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise PayloadError(f"stored text is not JSON: {error}") from error
    if ('"$' in text) if isinstance(text, str) else (b'"$' in text):
        try:
            return _restore(value)
        except RecursionError as error:
            raise PayloadError("stored text is nested deeper than encode writes it") from error
    return value


def escape_text(text: str, most: int | None = None) -> str:
    """Any text as one that both databases store: U+0000 and lone surrogates made visible, cut after `most` characters."""
    if most is not None and len(text) > most:
        text = text[:most] + "…"
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")


def _is_plain(value: object, depth: int) -> bool:
    """Whether orjson alone does the right thing. The hot path: one tight walk, scalars without a call."""
    kind = type(value)
    if kind is dict:
        if depth >= MAX_DEPTH:
            return False
        for key, item in value.items():  # type: ignore[attr-defined]  # kind is dict
            if type(key) is not str or key[:1] == "$":
                return False
            kind = type(item)
            if kind in _PLAIN:
                continue
            if kind is float:
                if item - item != 0.0:  # NaN and the infinities
                    return False
            elif not _is_plain(item, depth + 1):
                return False
        return True
    if kind is list:
        if depth >= MAX_DEPTH:
            return False
        for item in value:  # type: ignore[attr-defined]  # noqa: SIM110  # kind is list; all() is slower
            if type(item) not in _PLAIN and not _is_plain(item, depth + 1):
                return False
        return True
    if kind is float:
        return value - value == 0.0  # type: ignore[operator, no-any-return]  # kind is float
    return kind in _PLAIN


def _carry(value: object, path: str, depth: int, above: tuple[int, ...]) -> object:
    """A copy that orjson can take, tags in it; raises for what cannot be carried."""
    try:
        return _carried(value, path, depth, above)
    except PayloadError:
        raise
    except Exception as error:  # whatever a class of the user's own raises when it is looked at
        raise PayloadError(
            f"{path}: {type(value).__name__} cannot be read: {type(error).__name__}", path=path
        ) from error


def _carried(value: object, path: str, depth: int, above: tuple[int, ...]) -> object:
    match value:
        case Flag():  # a combination of members has no name to find it by
            return {"$flag": [_name_of(type(value), path), value.value]}
        case Enum():
            return {"$enum": [_name_of(type(value), path), value.name]}
        case str():
            return _text(value, path)
        case bool() | None:
            return value
        case int():
            return int(value) if _INT_MIN <= value <= _INT_MAX else {"$int": _digits(int(value), path)}
        case float():
            if value - value != 0.0:
                raise PayloadError(f"{path}: {value!r} is not JSON: use None or a string", path=path)
            return float(value)
    if type(value) in _WRITERS:
        tag, write = _WRITERS[type(value)]
        return {tag: write(value, path)}
    return _carry_compound(value, path, depth, above)


def _digits(value: int, path: str) -> str:
    if value.bit_length() > MAX_INT_BITS:
        raise PayloadError(
            f"{path}: an int of {value.bit_length()} bits is too large, use a string", path=path
        )
    return str(value)


def _carry_compound(value: object, path: str, depth: int, above: tuple[int, ...]) -> object:
    if id(value) in above:
        raise PayloadError(f"{path}: contains itself", path=path)
    if depth >= MAX_DEPTH:
        raise PayloadError(f"{path[:80]}…: nested deeper than {MAX_DEPTH}", path=path)
    above = (*above, id(value))
    match value:
        case Mapping():
            return {
                _key(key, path): _carry(item, f"{path}.{key}", depth + 1, above)
                for key, item in value.items()
            }
        case list() | tuple():
            return [_carry(item, f"{path}[{i}]", depth + 1, above) for i, item in enumerate(value)]
        case _ if _has_fields(value):
            return _carry_fields(value, path, depth, above)
    raise PayloadError(f"{path}: {_kind(value)} is not JSON", path=path)


def _carry_fields(value: object, path: str, depth: int, above: tuple[int, ...]) -> object:
    """A model or dataclass by its fields; raises unless its class, given them, makes it again."""
    kind = type(value)
    name, fields = _name_of(kind, path), _fields(value)
    # a tag, its list and the fields: three levels of JSON
    carried = {key: _carry(item, f"{path}.{key}", depth + 3, above) for key, item in fields.items()}
    try:
        again = _made(kind, fields)
    except Exception as error:  # whatever the user's class raises
        raise PayloadError(
            f"{path}: {kind.__name__} cannot be made from its fields: {error}", path=path
        ) from error
    changed = [key for key, item in _fields(again, every=True).items() if item != getattr(value, key)]
    if changed:
        at = f"{path}.{changed[0]}"
        raise PayloadError(
            f"{at}: would come back changed, {kind.__name__} makes another value of it", path=at
        )
    return {"$model" if isinstance(value, BaseModel) else "$dataclass": [name, carried]}


def _has_fields(value: object) -> bool:
    return isinstance(value, BaseModel) or (dataclasses.is_dataclass(value) and not isinstance(value, type))


def _fields(value: Any, *, every: bool = False) -> dict[str, Any]:
    """Name to value; of a dataclass those that its constructor takes, or every one."""
    if isinstance(value, BaseModel):
        return {name: getattr(value, name) for name in type(value).model_fields} | (value.model_extra or {})
    return {
        field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init or every
    }


def _made(kind: type, fields: dict[str, Any]) -> Any:
    if not issubclass(kind, BaseModel):
        return kind(**fields)
    if issubclass(kind, RootModel):
        return kind.model_validate(fields["root"])
    return kind.model_validate(fields, by_alias=False, by_name=True)


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
        raise PayloadError(
            f"{path}: contains a lone surrogate at {error.start}, which is no text", path=path
        ) from None
    return str.__str__(value)


def _kind(value: object) -> str:
    return "a class" if issubclass(type(value), type) else type(value).__name__


def _name_of(kind: type, path: str) -> str:
    name = f"{kind.__module__}:{kind.__qualname__}"
    try:
        is_found = _found(name) is kind
    except (ImportError, AttributeError, ValueError):
        is_found = False
    if not is_found:
        raise PayloadError(
            f"{path}: the class {kind.__qualname__} could not be found again: define it at the top of a module",
            path=path,
        )
    return name


def _found(name: str) -> Any:
    module, _, qualname = name.partition(":")
    found: Any = sys.modules.get(module) or importlib.import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    return found


def _restore(value: Any) -> Any:
    if isinstance(value, list):
        return [_restore(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        (key, item), *_ = value.items()
        read = _READERS.get(key)
        if read is not None:
            return _read(key, read, item)
    return {_plain_key(key): _restore(item) for key, item in value.items()}


def _read(tag: str, read: Callable[[Any], Any], item: Any) -> Any:
    try:
        return read(item)
    except PayloadError:
        raise
    except Exception as error:  # bad text, or whatever a class of the user's raises for it
        raise PayloadError(f"a stored {tag} cannot be read back: {type(error).__name__}: {error}") from error


def _plain_key(key: str) -> str:
    if not key.startswith("$"):
        return key
    if not key.startswith("$$"):
        raise PayloadError(f"stored text has the tag {key!r}, which this version does not know")
    return key[1:]


def _class(name: str, fits: Callable[[type], bool]) -> Any:
    """The class of a tag: only an Enum, a dataclass or a Pydantic model is ever made."""
    try:
        found = _found(name)
    except (ImportError, AttributeError) as error:
        raise PayloadError(f"the class {name} of a stored value cannot be found: {error}") from error
    if not (isinstance(found, type) and fits(found)):
        raise PayloadError(f"{name} is no longer the kind of class that was stored")
    return found


def _is_a(base: type) -> Callable[[type], bool]:
    return lambda found: issubclass(found, base)


def _enum(item: list[str]) -> Any:
    name, member = item
    kind = _class(name, _is_a(Enum))
    if member not in kind.__members__:
        raise PayloadError(f"{name} has no member {member!r} any more")
    return kind[member]


def _flag(item: list[Any]) -> Any:
    name, number = item
    return _class(name, _is_a(Flag))(number)


def _dataclass(item: list[Any]) -> Any:
    name, fields = item
    return _made(_class(name, dataclasses.is_dataclass), _restore(fields))


def _model(item: list[Any]) -> Any:
    name, fields = item
    return _made(_class(name, _is_a(BaseModel)), _restore(fields))


def _write_moment(value: datetime | time, path: str) -> object:
    text, offset = value.isoformat(), value.utcoffset()
    # a time of a zone that has no offset without a date; and Python reads an offset below a second as none
    if value.tzinfo is not None and (offset is None or type(value).fromisoformat(text).utcoffset() != offset):
        raise PayloadError(f"{path}: {value!r} would lose its time zone: give it a fixed offset", path=path)
    return [text, 1] if value.fold else text


def _timedelta(item: list[int]) -> timedelta:
    days, seconds, microseconds = item
    return timedelta(days, seconds, microseconds)


def _read_moment(kind: type[datetime | time]) -> Callable[[Any], Any]:
    def read(item: Any) -> Any:
        text, fold = item if isinstance(item, list) else (item, 0)
        return kind.fromisoformat(text).replace(fold=fold)

    return read


_WRITERS: dict[type, tuple[str, Callable[[Any, str], Any]]] = {
    datetime: ("$datetime", _write_moment),
    date: ("$date", lambda value, _: value.isoformat()),
    time: ("$time", _write_moment),
    timedelta: ("$timedelta", lambda value, _: [value.days, value.seconds, value.microseconds]),
    Decimal: ("$decimal", lambda value, _: str(value)),
    UUID: ("$uuid", lambda value, _: str(value)),
    bytes: ("$bytes", lambda value, _: base64.b64encode(value).decode()),
}
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
