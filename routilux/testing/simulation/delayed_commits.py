"""Whole commits whose connection is lost before the database reads them. It reads them later.

Postgres does this with what `store.whole_commit` sends: first the fence and the row of the commit, then all
the rest or nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Statement = tuple[str, Any]
Who = tuple[int | None, int]  # the runtime that commits, and when it began

_FENCE = (
    "SELECT 1 FROM routilux_runtimes WHERE key = ? AND state = 'alive' AND NOT EXISTS"
    " (SELECT 1 FROM routilux_commits WHERE runtime = ? AND n >= ?)"
)


@dataclass(slots=True)
class Text:
    """What was sent. `n`: the commit number. `left`: how many other write transactions come before it."""

    who: Who
    runtime: int
    n: int
    statements: list[Statement]
    left: int


class Unread:
    """Texts in a buffer. `lander`: the connection of the server that reads them."""

    def __init__(
        self,
        lander: sqlite3.Connection,
        committed: Callable[[Who], None],
        told: Callable[[str, int], None],
    ) -> None:
        self._lander = lander
        self._committed = committed
        self._told = told
        self._texts: list[Text] = []

    def keep(self, text: Text) -> None:
        self._texts.append(text)

    def read_on(self, *, reads_all: bool = False) -> None:
        """A write is about to begin: first read the texts that are due."""
        due = [text for text in self._texts if reads_all or text.left == 0]
        self._texts = [text for text in self._texts if text not in due]
        for text in self._texts:
            text.left -= 1
        for text in due:
            if self._goes_in(text):
                self._committed(text.who)

    def _goes_in(self, text: Text) -> bool:
        self._lander.execute("BEGIN IMMEDIATE")
        try:
            may = self._lander.execute(_FENCE, (text.runtime, text.runtime, text.n)).fetchone() is not None
            for statement, parameters in text.statements if may else ():
                self._told(statement, 1)
                self._lander.execute(statement, parameters)
        except sqlite3.Error:
            self._lander.execute("ROLLBACK")
            return False
        self._lander.execute("COMMIT")
        return may


__all__ = ["Statement", "Text", "Unread", "Who"]
