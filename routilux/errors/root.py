"""`RoutiluxError`, the root of the tree."""

from __future__ import annotations


class RoutiluxError(Exception):
    """Root of all errors of this package."""

    def __reduce__(self) -> tuple[object, ...]:
        # Python would call the class with the message, but most constructors here take other arguments.
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(kind: type[RoutiluxError], args: tuple[object, ...], fields: dict[str, object]) -> RoutiluxError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(fields)
    return error
