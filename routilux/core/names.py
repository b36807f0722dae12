"""The names of flows, routines, slots and events: they are columns, and parts of addresses, so they must be texts that
every database stores."""

from __future__ import annotations

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
