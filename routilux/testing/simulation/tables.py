"""Reads the tables of a world for the model; and `Violation`, for what breaks a promise."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

Json = Any
ENDED = ("completed", "failed", "cancelled")


class Violation(BaseException):
    """A promise is broken.

    `promise`: P1 to P11; "pause", "cancel" or "time limit" for what these mean; "flow" for the user's flow.
    """

    def __init__(self, promise: str, text: str) -> None:
        super().__init__(f"{promise}: {text}")
        self.promise = promise
        self.text = text


class Tables:
    """Reads with a connection of its own."""

    def __init__(self, reader: sqlite3.Connection) -> None:
        self._reader = reader

    def all(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        return self._reader.execute(sql, values).fetchall()

    def one(self, sql: str, *values: object) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._reader.execute(sql, values).fetchone()
        return row

    def states(self) -> dict[tuple[int, str], dict[str, Json]]:
        """(worker, routine) -> its state, as it is stored."""
        states: dict[tuple[int, str], dict[str, Json]] = {}
        for worker, routine, key, value in self.all(
            "SELECT worker, routine, key, value FROM routilux_worker_state ORDER BY worker"
        ):
            state = states.setdefault((worker, routine), {})
            if key or value:  # an empty key marks an empty state
                state[key] = json.loads(value)
        return states
