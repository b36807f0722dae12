"""Names and keys: they are columns, and parts of addresses, so they must be texts that every database stores."""

from __future__ import annotations

from decimal import Decimal

from routilux.core import payload
from routilux.errors import DefinitionError, PayloadError

MAX_NAME_BYTES = 512


def check_name(name: object, what: str) -> None:
    """Raises `TypeError` for what is no string, `DefinitionError` for one that cannot be a name; `what` is said in it."""
    if not isinstance(name, str):
        raise TypeError(f"{what} must be a string, not {type(name).__name__}")
    if not name:
        raise DefinitionError(f"{what} must not be empty")
    try:
        payload.encode(name, root=what, limit=MAX_NAME_BYTES)
    except PayloadError as error:
        raise DefinitionError(str(error)) from error


def check_key(key: object, what: str) -> None:
    """A key of state or data, or the id that state is kept under: any text that can be stored, also an empty one.

    Raises `TypeError` for what is no string, `PayloadError` for one that no database stores.
    """
    if type(key) is str and key.isascii() and "\x00" not in key:
        return
    if not isinstance(key, str):
        raise TypeError(f"{what} must be a string, not {type(key).__name__}")
    payload.encode(key, root=what)


def check_number(by: object) -> None:
    """What a number in state or data grows by. Raises `TypeError`, or `PayloadError` for NaN and the infinities."""
    if type(by) is int:
        return
    if not isinstance(by, (int, float, Decimal)):
        raise TypeError(f"by must be a number, not {type(by).__name__}")
    payload.encode(by, root="by")
