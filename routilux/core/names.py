"""Checks for names and keys. They are columns and parts of addresses, so every database must store them."""

from __future__ import annotations

from decimal import Decimal

from routilux.core import payload
from routilux.errors import DefinitionError, PayloadError

MAX_NAME_BYTES = 512


def check_name(name: object, what: str) -> None:
    """Raises `TypeError` if `name` is not a string, `DefinitionError` if it is not valid.

    `what`: how the error calls it.
    """
    if not isinstance(name, str):
        raise TypeError(f"{what} must be a string, not {type(name).__name__}")
    if not name:
        raise DefinitionError(f"{what} must not be empty")
    try:
        payload.encode(name, root=what, limit=MAX_NAME_BYTES)
    except PayloadError as error:
        raise DefinitionError(str(error)) from error


def check_key(key: object, what: str) -> None:
    """Check a key of state or data, or the id of a state. Any text that can be stored is valid, even "".

    Raises `TypeError` if it is not a string, `PayloadError` if no database can store it.
    """
    if type(key) is str and key.isascii() and "\x00" not in key:
        return
    if not isinstance(key, str):
        raise TypeError(f"{what} must be a string, not {type(key).__name__}")
    payload.encode(key, root=what)


def check_number(by: object) -> None:
    """Check an increment. Raises `TypeError` if it is not a number, `PayloadError` for NaN and infinity."""
    if type(by) is int:
        return
    if not isinstance(by, (int, float, Decimal)):
        raise TypeError(f"by must be a number, not {type(by).__name__}")
    payload.encode(by, root="by")
