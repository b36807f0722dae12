"""Breaking an engine so that an error of the patch itself is told from what the broken engine does.

The real engine survives errors of nearly everything that it calls, and shows them as a consequence of its own: a failed
activation, or an engine that gave up. A fault whose patch fails is caught then, and proves nothing.
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
    """A `monkeypatch` whose functions write their slips down. `file`: seeds are shared among processes, all of which reach it."""

    def __init__(self, inner: pytest.MonkeyPatch, file: Path) -> None:
        super().__init__()
        self._inner = inner
        self._file = file

    def setattr(self, target: Any, name: Any, value: Any = None, raising: bool = True) -> None:
        self._inner.setattr(target, name, self._watched(value), raising)

    def setitem(self, dic: Any, name: Any, value: Any) -> None:
        self._inner.setitem(dic, name, self._watched(value))

    def slips(self) -> str:
        """Tracebacks of the errors that came out of patches; empty: there were none."""
        return self._file.read_text() if self._file.exists() else ""

    def _watched(self, value: Any) -> Any:
        if not isinstance(value, FunctionType):
            return value

        @functools.wraps(value)
        def watched(*args: Any, **more: Any) -> Any:
            try:
                return value(*args, **more)
            except Exception as error:
                if type(error) in SLIPS:  # not what Routilux derives from them
                    with self._file.open("a") as file:
                        file.write("".join(traceback.format_exception(error)))
                raise

        return watched


__all__ = ["Patch"]
