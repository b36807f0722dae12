"""Turns values into JSON text and back.

Plain JSON takes one `orjson.dumps`. Types that JSON does not have (datetime, Decimal, UUID, bytes, Enum,
dataclass, Pydantic model, an int beyond 64 bits) are stored in a tag, an object with one key like
`{"$datetime": "…"}`. `decode` turns tags back into values. A user's key that begins with `$` gets a second
`$`. All other values raise an error with their path: orjson alone would turn NaN into null and an Enum into
its value.

The law: `decode(encode(x)) == x`, with the same types, or `encode` raises. There are four exceptions: a tuple
becomes a list, a mapping a dict, a subclass of str, int or float its base, and a time zone its offset.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from routilux.core.json_decode import untagged
from routilux.core.json_encode import INT_MAX, INT_MIN, MAX_DEPTH, kind_of, tagged
from routilux.errors import PayloadError, PayloadTooLargeError

_PLAIN = frozenset({str, int, bool, type(None)})


def encode(value: object, *, root: str = "data", limit: int | None = None) -> str:
    """Return `value` as JSON text. `limit`: bytes of UTF-8.

    Raises `PayloadError` with the path of a bad value, `PayloadTooLargeError` above the limit.
    """
    if type(value) is int and INT_MIN <= value <= INT_MAX:
        return str(value)  # most state values are counters
    plain = value if _is_plain(value, 0) else tagged(value, root)
    try:
        raw = orjson.dumps(plain)
    except orjson.JSONEncodeError:
        # a lone surrogate or an int beyond 64 bits: the slow walk raises an error or makes a tag
        raw = orjson.dumps(tagged(value, root))
    if b"\\u0000" in raw:
        # raises for U+0000; the six characters \u0000 in a text are valid
        tagged(value, root)
    if limit is not None and len(raw) > limit:
        raise PayloadTooLargeError(root, len(raw), limit)
    return raw.decode()


def encode_object(value: object, *, root: str = "data", limit: int | None = None) -> str:
    """Same as `encode`, for a value that must be a mapping. Every message is one."""
    if type(value) is not dict:
        value = as_dict(value, root)
    return encode(value, root=root, limit=limit)


def as_dict(value: object, root: str) -> dict[Any, Any]:
    """Return any mapping as a dict. Raises `PayloadError`."""
    try:
        if isinstance(value, Mapping):
            return dict(value)
    except Exception as error:  # a user's class may raise anything
        raise PayloadError(
            f"{root}: {type(value).__name__} cannot be read: {type(error).__name__}", path=root
        ) from error
    raise PayloadError(f"{root}: must be a mapping, not {kind_of(value)}: post {{'value': …}}", path=root)


def decode(text: str | bytes) -> Any:
    """Return the value that was encoded.

    Raises `PayloadError` if `encode` did not write the text, or if the class of a tag cannot be found or no
    longer accepts the stored fields.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise PayloadError(f"stored text is not JSON: {error}") from error
    if ('"$' in text) if isinstance(text, str) else (b'"$' in text):
        try:
            return untagged(value)
        except RecursionError as error:
            raise PayloadError("stored text is nested deeper than encode writes it") from error
    return value


def escape_text(text: str, most: int | None = None) -> str:
    """Return a text that both databases can store, cut after `most` characters.

    U+0000 and lone surrogates become visible escapes.
    """
    if most is not None and len(text) > most:
        text = text[:most] + "…"
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")


def _is_plain(value: object, depth: int) -> bool:
    """Return whether orjson alone encodes it correctly. This is the hot path: scalars cost no call."""
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
