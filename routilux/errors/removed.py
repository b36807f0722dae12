"""Names of an older Routilux that no longer exist."""

from __future__ import annotations

from routilux.errors.root import RoutiluxError


class RemovedNameError(RoutiluxError, TypeError):
    """A name of an older Routilux is gone. `instead` says what to use."""

    def __init__(self, removed: str, instead: str) -> None:
        self.removed = removed
        self.instead = instead
        super().__init__(f"{removed} is gone: {instead}")


class RemovedAttributeError(RemovedNameError, AttributeError):
    """The same for an attribute, so that `hasattr` returns False."""


class RemovedImportError(RemovedNameError, ImportError):
    """The same for an import, so that `except ImportError` around the old name still works."""
