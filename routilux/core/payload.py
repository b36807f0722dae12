"""Values to JSON text and back.

Plain JSON goes through one `orjson.dumps`. What JSON cannot say (datetime, Decimal, UUID, bytes, Enum, dataclass,
Pydantic model, an int beyond 64 bits) is carried in a tag, a one-key object like `{"$datetime": "…"}` (tagging),
and brought back by `decode` (untagging); keys of the user's own that begin with `$` get a second one. Everything else is
refused with the path to it: orjson alone would turn NaN into null and an Enum into its value.

The law: `decode(encode(x)) == x`, of the same types, or `encode` raises. Four things come back as the JSON they are
like: a tuple as a list, a mapping as a dict, a subclass of str, int or float as its base, a time zone as its offset.
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
    """`value` as JSON text. `limit`: bytes of UTF-8.

    Raises `PayloadError` naming the path of what cannot be stored, `PayloadTooLargeError` above the limit.
    """
    if type(value) is int and INT_MIN <= value <= INT_MAX:
        return str(value)  # counters are most of what state is made of
    carried = value if _is_plain(value, 0) else tagged(value, root)
    try:
        raw = orjson.dumps(carried)
    except orjson.JSONEncodeError:
        # a lone surrogate, or an int beyond 64 bits: the slow walk names it or carries it
        raw = orjson.dumps(tagged(value, root))
    if b"\\u0000" in raw:
        # names U+0000, or finds the six characters \u0000 in a text, which are fine
        tagged(value, root)
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
    raise PayloadError(f"{root}: must be a mapping, not {kind_of(value)}: post {{'value': …}}", path=root)


def decode(text: str | bytes) -> Any:
    """The value that was encoded. Raises `PayloadError` for text that `encode` did not write, and when the class of a
    tag cannot be found or no longer takes what was stored."""
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
