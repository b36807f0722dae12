"""What each commit of the engine writes: table, columns and row count of every statement, as the driver
counted them.

Listens to SQLAlchemy and to psycopg's COPY, so it does not depend on how the engine words its statements
beyond the shape of an INSERT, an UPDATE and a COPY. `replay` writes the same rows in the same groups with the
raw driver.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, select

from routilux.store.tables import metadata
from routilux.store.writes import bulk
from routilux.store.writes.bulk import Bulk, Row

_TABLE = re.compile(r"\s*(INSERT INTO|UPDATE|COPY)\s+(routilux_\w+)")
_SET = re.compile(r"\bSET\b(.*?)(?:\bFROM\b|\bWHERE\b|$)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Shape:
    """`verb`: insert (`columns`: those given) or change (of rows that are there, but for upserts; `columns`:
    set).
    """

    verb: str
    table: str
    columns: tuple[str, ...]


def shape_of(statement: str) -> Shape | None:
    """None for anything that writes no rows of ours, and for deletes,
    of which these flows have next to none.
    """
    found = _TABLE.match(statement)
    if found is None:
        return None
    word, table = found.groups()
    rest = statement[found.end() :]
    if word == "UPDATE" or "DO UPDATE" in statement:
        changed = _SET.search(rest if word == "UPDATE" else rest.partition("DO UPDATE")[2])
        assert changed is not None, statement
        return Shape("change", table, tuple(re.findall(r'"?(\w+)"?\s*=(?!=)', changed[1])))
    return Shape("insert", table, tuple(re.findall(r"\w+", rest.partition("(")[2].partition(")")[0])))


class Recorder:
    """Every commit of this process while it listens.

    `begin` says where the clock of the measurement starts.
    """

    def __init__(self) -> None:
        self.commits: list[list[tuple[Shape, int]]] = []
        self.begun = 0
        self._open: dict[Any, list[tuple[Shape, int]]] = {}
        self._shapes: dict[str, Shape | None] = {}

    def begin(self) -> None:
        self.begun = len(self.commits)

    @contextlib.contextmanager
    def listening(self) -> Iterator[Recorder]:
        event.listen(Engine, "after_cursor_execute", self._executed)
        event.listen(Engine, "commit", self._committed)
        event.listen(Engine, "rollback", self._rolled_back)
        with self._copies(), self._together():
            yield self

    def _executed(self, connection: Connection, cursor: Any, statement: str, *_: object) -> None:
        self._note(connection.connection.driver_connection, statement, cursor.rowcount)

    def _note(self, driver: object, statement: str, count: int) -> None:
        if statement not in self._shapes:
            self._shapes[statement] = shape_of(statement)
        shape = self._shapes[statement]
        if shape is not None and count > 0:
            self._open.setdefault(driver, []).append((shape, count))

    def _committed(self, connection: Connection) -> None:
        if written := self._open.pop(connection.connection.driver_connection, None):
            self.commits.append(written)

    def _rolled_back(self, connection: Connection) -> None:
        self._open.pop(connection.connection.driver_connection, None)

    @contextlib.contextmanager
    def _copies(self) -> Iterator[None]:
        """SQLAlchemy does not see a COPY."""
        import psycopg

        real, note = psycopg.Cursor.copy, self._note

        @contextlib.contextmanager
        def copy(cursor: psycopg.Cursor[Any], statement: str) -> Iterator[psycopg.Copy]:
            with real(cursor, statement) as running:
                yield running
            note(cursor.connection, statement, cursor.rowcount)

        psycopg.Cursor.copy = copy  # type: ignore[method-assign, assignment]  # put back below
        try:
            yield
        finally:
            psycopg.Cursor.copy = real  # type: ignore[method-assign]

    @contextlib.contextmanager
    def _together(self) -> Iterator[None]:
        """Steps that Postgres gets as one statement have no row counts of their own."""
        real, note = bulk.run_together, self._note

        def run_together(connection: Connection, steps: Sequence[tuple[Bulk, Sequence[Row]]]) -> None:
            real(connection, steps)
            for step, rows in steps:
                note(connection.connection.driver_connection, step.postgres.text, len(rows))

        bulk.run_together = run_together
        try:
            yield
        finally:
            bulk.run_together = real


def record(module: str, function: str, database: str, jobs: int, target: str) -> dict[str, float]:
    """Run a measurement of a module here, and write what its commits wrote, and the rows, to a file."""
    measure = getattr(importlib.import_module(module), function)
    with Recorder().listening() as recorder:
        measure(database, jobs, on_begin=recorder.begin)
    written = {shape.table for commit in recorder.commits for shape, _ in commit}
    engine = create_engine(database)
    with engine.connect() as connection:
        rows = {
            name: [list(row) for row in connection.execute(select(table).order_by(*table.primary_key))]
            for name, table in metadata.tables.items()
            if name in written
        }
    engine.dispose()
    commits = [
        [(shape.verb, shape.table, shape.columns, count) for shape, count in commit]
        for commit in recorder.commits
    ]
    Path(target).write_text(json.dumps({"commits": commits, "begun": recorder.begun, "rows": rows}))
    counts = [sum(count for _, count in commit) for commit in recorder.commits[recorder.begun :]]
    return {"commits": len(counts), "rows": sum(counts)}
