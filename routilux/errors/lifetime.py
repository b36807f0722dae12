"""A runtime that can no longer be used."""

from __future__ import annotations

from routilux.errors.root import RoutiluxError


class RuntimeShutDownError(RoutiluxError, RuntimeError):
    """The runtime accepts no more calls."""

    def __init__(self, message: str = "Runtime is shut down; make a new Runtime") -> None:
        super().__init__(message)


class ForkedRuntimeError(RoutiluxError, RuntimeError):
    """A runtime was made before a fork and used after it."""

    def __init__(self) -> None:
        super().__init__(
            "this Runtime was made before a fork; make it in the child process,"
            " or start children with multiprocessing's 'spawn' method"
        )


class LeaseLostError(RoutiluxError, RuntimeError):
    """This runtime lost its lease and may not commit. Another runtime may already run its workers."""

    def __init__(
        self, message: str = "this runtime lost its lease; it registers again under a new identity"
    ) -> None:
        super().__init__(message)
