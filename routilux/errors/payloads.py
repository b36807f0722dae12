"""Values that cannot be stored."""

from __future__ import annotations

from routilux.errors.root import RoutiluxError


class PayloadError(RoutiluxError, ValueError):
    """A value cannot be stored as JSON, or stored text cannot be read back. `path` names the place in it."""

    def __init__(self, message: str, *, path: str = "") -> None:
        self.path = path
        super().__init__(message)


class PayloadTooLargeError(PayloadError):
    """The JSON text of a value is longer than the limit. Both sizes are in bytes of UTF-8."""

    def __init__(self, path: str, size_bytes: int, limit_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes
        super().__init__(
            f"{path}: {size_bytes} bytes of JSON, the limit is {limit_bytes};"
            " store the data elsewhere and pass a reference to it",
            path=path,
        )


class SlotModelError(PayloadError):
    """Data does not fit the Pydantic model of a slot. `path` names the field."""
