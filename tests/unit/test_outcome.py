"""What the outcome of an activation keeps of an error that logic raised."""

from __future__ import annotations

import ast
from typing import Any

import pytest

from routilux.core.outcome import Failure


def _raised() -> BaseException:
    def look_up(of: dict[str, Any]) -> Any:
        return of["a"]["b"].c

    try:
        try:
            look_up({"a": {}})
        except KeyError as first:
            raise ValueError("no such thing") from first
    except ValueError as second:
        return second
    raise AssertionError


def test_the_traceback_names_each_line_and_the_cause() -> None:
    kept = Failure.of(_raised())
    assert (kept.type, kept.text) == ("ValueError", "no such thing")
    for line in ("KeyError: 'b'", "direct cause", "ValueError: no such thing", 'return of["a"]["b"].c'):
        assert line in kept.traceback


def test_a_traceback_is_made_without_parsing_code(monkeypatch: pytest.MonkeyPatch) -> None:
    # Logic that parses in another thread at that moment would get a SystemError: python/cpython#106905.
    parsed: list[Any] = []
    error = _raised()
    monkeypatch.setattr(ast, "parse", lambda *args, **named: parsed.append(args))
    Failure.of(error)
    assert parsed == []
