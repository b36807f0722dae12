"""Answers to COMMIT that do not arrive."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import psycopg
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from routilux.runtime import Runtime
from tests.support.inside_runtime import store, writer

BEFORE, AFTER = "not committed", "committed"


class Losses:
    """Loses the answers to the next commits of a runtime, in these ways; goes at its end."""

    def __init__(
        self, runtime: Runtime, ways: list[str], meanwhile: Callable[[], None] = lambda: None
    ) -> None:
        self.left = list(ways)
        self._meanwhile = meanwhile
        self._writer = writer(runtime)
        self._is_sqlite = store(runtime).database.is_sqlite

    def __enter__(self) -> Losses:
        self._writer.before_commit, self._writer.after_commit = self._before, self._after
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.before_commit = self._writer.after_commit = None

    def _before(self, connection: Connection) -> None:
        if self.left[:1] == [BEFORE]:
            self._lose()

    def _after(self) -> None:
        if self.left[:1] == [AFTER]:
            self._lose()

    def _lose(self) -> None:
        self.left.pop(0)
        self._meanwhile()
        if self._is_sqlite:
            cause: Exception = sqlite3.ProgrammingError("Cannot operate on a closed database.")
        else:
            cause = psycopg.OperationalError("server closed the connection unexpectedly")
        raise OperationalError("COMMIT", None, cause, connection_invalidated=True)
