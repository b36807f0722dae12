"""What an observer of a world is told: facts, not sentences."""

from __future__ import annotations

import sqlite3


class Observer:
    """Observes one world; this class ignores all. A subclass may read the world, but must not change it."""

    def event(self, kind: str, *facts: object) -> None:
        """Something happens: a step and its number, an act of a process, logic, a command and its target."""

    def statement(self, text: str, rows: int) -> None:
        """A statement is about to be sent, for so many rows. It may still fail or be rolled back."""

    def committed(self, database: sqlite3.Connection) -> None:
        """A transaction is in. `database`: a connection to read with."""

    def end(self, database: sqlite3.Connection) -> object:
        """Nothing more happens. `Report.observed` gets what this returns."""
        return None


__all__ = ["Observer"]
