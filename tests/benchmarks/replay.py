"""The limit of the raw driver: the rows that the engine writes, in the groups in which it commits them, and
no engine.

SQLite: `executemany` of the standard library's sqlite3, which is what one thread alone does best. Postgres:
psycopg, COPY for new rows, UPDATE over `unnest` for changes. Same tables, same indexes, same durability.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import psycopg
from sqlalchemy import BigInteger, Integer, SmallInteger, make_url

from routilux.store.tables import metadata
from tests.benchmarks.bench import POSTGRES, SQLITE, Bench
from tests.benchmarks.figure import Role, Series, Values
from tests.benchmarks.recording import record

HOW = {SQLITE: "executemany", POSTGRES: "COPY and unnest"}
NAME = {SQLITE: "raw sqlite3", POSTGRES: "raw psycopg"}
COPY_FROM = 16  # fewer rows are not worth a COPY
Rows = Sequence[Sequence[Any]]


def limit(kind: str, measure: Callable[..., Values], jobs: int) -> Series:
    """The series that writes what `measure` writes; recorded once in each run of the suite."""

    def run(bench: Bench) -> Values:
        key = ("recording", kind, measure.__name__)
        if key not in bench.kept:
            path = bench.folder / f"{measure.__name__}_{kind}.json"
            with bench.database(kind) as url:
                bench.child(record, measure.__module__, measure.__name__, url, bench.scaled(jobs), str(path))
            bench.kept[key] = path
        with bench.database(kind) as url:
            return bench.child(replay, url, str(bench.kept[key]), bench.scaled(jobs))

    return Series(NAME[kind], run, Role.LIMIT)


def replay(database: str, recording: str, jobs: int) -> Values:
    """Jobs per second if writing their rows were all there is to do."""
    told = json.loads(Path(recording).read_text())
    out = writer(database)
    feed = _Feed(told["rows"])
    commits = [
        [(verb, table, tuple(columns), count) for verb, table, columns, count in c] for c in told["commits"]
    ]
    with contextlib.closing(out):
        for commit in commits[: told["begun"]]:
            feed.write(out, commit)
        begun = time.perf_counter()
        for commit in commits[told["begun"] :]:
            feed.write(out, commit)
        took = time.perf_counter() - begun
    return {"jobs": jobs / took}


def writer(database: str) -> Writer:
    """The raw driver of a database."""
    return SqliteWriter(database) if database.startswith("sqlite") else PostgresWriter(database)


class Writer(Protocol):
    def transaction(self) -> contextlib.AbstractContextManager[object]: ...
    def insert(self, table: str, columns: tuple[str, ...], rows: Rows) -> None: ...
    def change(self, table: str, keys: tuple[str, ...], changed: tuple[str, ...], rows: Rows) -> None: ...
    def close(self) -> None: ...


class _Feed:
    """Hands out the recorded rows of each table in the order of their keys,
    once for each kind of statement.
    """

    def __init__(self, rows: dict[str, Rows]) -> None:
        self._rows = rows
        self._next: dict[tuple[object, ...], int] = {}

    def write(self, writer: Writer, commit: list[tuple[str, str, tuple[str, ...], int]]) -> None:
        with writer.transaction():
            for verb, table, columns, count in _merged(commit):
                rows = self._take(verb, table, columns, count)
                if not rows:
                    continue
                if verb == "insert":
                    writer.insert(table, columns, _picked(table, columns, rows))
                else:
                    keys = tuple(column.name for column in metadata.tables[table].primary_key)
                    changed = tuple(name for name in columns if name not in keys)
                    writer.change(table, keys, changed, _picked(table, (*keys, *changed), rows))

    def _take(self, verb: str, table: str, columns: tuple[str, ...], count: int) -> Rows:
        rows, key = self._rows[table], (verb, table) if verb == "insert" else (verb, table, columns)
        first = self._next.get(key, 0)
        self._next[key] = first + count
        if verb == "insert":
            return rows[first : first + count]  # fewer if some were pruned meanwhile
        return [rows[n % len(rows)] for n in range(first, first + count)] if rows else []


def _merged(
    commit: list[tuple[str, str, tuple[str, ...], int]],
) -> list[tuple[str, str, tuple[str, ...], int]]:
    """Many statements for one list of rows are one list here."""
    counts: dict[tuple[str, str, tuple[str, ...]], int] = {}
    for verb, table, columns, count in commit:
        counts[verb, table, columns] = counts.get((verb, table, columns), 0) + count
    return [(*key, count) for key, count in counts.items()]


def _picked(table: str, columns: tuple[str, ...], rows: Rows) -> Rows:
    names = [column.name for column in metadata.tables[table].columns]
    places = [names.index(name) for name in columns]
    return [[row[place] for place in places] for row in rows]


class SqliteWriter:
    def __init__(self, database: str) -> None:
        self._connection = sqlite3.connect(str(make_url(database).database), isolation_level=None)
        for pragma in ("synchronous = FULL", "cache_size = -65536", "wal_autocheckpoint = 4000"):
            self._connection.execute(f"PRAGMA {pragma}")

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        yield
        self._connection.execute("COMMIT")

    def insert(self, table: str, columns: tuple[str, ...], rows: Rows) -> None:
        marks = ", ".join("?" * len(columns))
        self._connection.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", rows)

    def change(self, table: str, keys: tuple[str, ...], changed: tuple[str, ...], rows: Rows) -> None:
        """Of rows that are there, as nearly all are; else the row is new: state, counters."""
        places = {name: number for number, name in enumerate((*keys, *changed), 1)}
        sets = ", ".join(f"{name} = ?{places[name]}" for name in changed)
        where = " AND ".join(f"{name} = ?{places[name]}" for name in keys)
        self._connection.executemany(f"UPDATE {table} SET {sets} WHERE {where}", rows)

    def close(self) -> None:
        self._connection.close()


class PostgresWriter:
    def __init__(self, database: str) -> None:
        url = make_url(database).set(drivername="postgresql").render_as_string(hide_password=False)
        self._connection = psycopg.connect(url, autocommit=True)
        self._cursor = self._connection.cursor()

    def transaction(self) -> contextlib.AbstractContextManager[object]:
        return self._connection.transaction()

    def insert(self, table: str, columns: tuple[str, ...], rows: Rows) -> None:
        if len(rows) >= COPY_FROM:
            with self._cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
        else:
            marks = ", ".join(["%s"] * len(columns))
            self._cursor.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", rows)

    def change(self, table: str, keys: tuple[str, ...], changed: tuple[str, ...], rows: Rows) -> None:
        columns = (*keys, *changed)
        lists = ", ".join(f"%s::{_type(table, name)}[]" for name in columns)
        statement = (
            f"UPDATE {table} AS t SET {', '.join(f'{name} = n.{name}' for name in changed)}"
            f" FROM unnest({lists}) AS n ({', '.join(columns)})"
            f" WHERE {' AND '.join(f't.{name} = n.{name}' for name in keys)}"
        )
        self._cursor.execute(statement, [list(column) for column in zip(*rows, strict=True)], prepare=True)

    def close(self) -> None:
        self._connection.close()


def _type(table: str, column: str) -> str:
    kind = metadata.tables[table].c[column].type
    if isinstance(kind, SmallInteger):
        return "smallint"
    if isinstance(kind, BigInteger):
        return "bigint"
    return "integer" if isinstance(kind, Integer) else "text"
