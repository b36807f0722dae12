"""Patches for broken engines that record errors of their own.

The real engine survives nearly all errors of what it calls. They show as a failed activation, or as an engine
that gave up. So a patch that fails itself would be caught as well, and that would prove nothing.
"""

from __future__ import annotations

import functools
import traceback
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

SLIPS = (TypeError, AttributeError, NameError, UnboundLocalError, KeyError, IndexError, ImportError)


class Patch(pytest.MonkeyPatch):
    """A `monkeypatch` whose functions record their own errors in a file, for all processes of a test."""

    def __init__(self, inner: pytest.MonkeyPatch, file: Path) -> None:
        super().__init__()
        self._inner = inner
        self._file = file

    def setattr(self, target: Any, name: Any, value: Any = None, raising: bool = True) -> None:
        self._inner.setattr(target, name, self._watched(value), raising)

    def setitem(self, dic: Any, name: Any, value: Any) -> None:
        self._inner.setitem(dic, name, self._watched(value))

    def slips(self) -> str:
        """Tracebacks of the errors that patches raised. Returns an empty text if there were none."""
        return self._file.read_text() if self._file.exists() else ""

    def _watched(self, value: Any) -> Any:
        if not isinstance(value, FunctionType):
            return value

        @functools.wraps(value)
        def watched(*args: Any, **more: Any) -> Any:
            try:
                return value(*args, **more)
            except Exception as error:
                if type(error) in SLIPS:  # not their subclasses in Routilux
                    with self._file.open("a") as file:
                        file.write("".join(traceback.format_exception(error)))
                raise

        return watched


__all__ = ["Patch"]
