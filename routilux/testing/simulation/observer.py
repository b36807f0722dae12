"""What somebody who looks on is told of a world: facts, not sentences."""

from __future__ import annotations

import sqlite3


class Observer:
    """Looks on at one world; does nothing as it is. A subclass must leave the world alone: it may read, not write."""

    def event(self, kind: str, *facts: object) -> None:
        """Something happens: a step and its number, a process that acts, logic, a verb and whom it is for."""

    def statement(self, text: str, rows: int) -> None:
        """A statement is about to be sent, for so many rows; it may still fail, or be rolled back."""

    def committed(self, database: sqlite3.Connection) -> None:
        """A transaction is in. `database`: a connection to read with."""

    def end(self, database: sqlite3.Connection) -> object:
        """Nothing more happens. What this returns is in `Report.observed`."""
        return None


__all__ = ["Observer"]
