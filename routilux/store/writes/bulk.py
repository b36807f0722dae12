"""Many rows in few statements, for both databases. A row is a tuple in column order.

SQLite: multi-row VALUES in a few fixed sizes, so that the statements stay prepared. `executemany` releases
the GIL at every row, and `json_each` costs four times as much (13.5 against 3.5 µs for a row of eleven
columns). Postgres: COPY for plain inserts, otherwise one statement over `jsonb_array_elements`. An `unnest`
of Python lists costs the client more than the server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import orjson
from sqlalchemy import BigInteger, Column, Connection, Integer, SmallInteger, Table, TextClause, text

from routilux.store.backends import driver_sql

Row = tuple[object, ...]

MOST_ROWS = 1024  # per statement, on SQLite
COPY_ROWS = 1000  # per chunk of a COPY
COPY_FROM = 16  # fewer rows are not worth a COPY
KEPT_ROWS = 8  # statements with more rows are not kept prepared
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


@dataclass(frozen=True, slots=True)
class Values:
    """A statement around a list of value tuples: `head (?, …), (?, …) tail`."""

    head: str
    one: str
    tail: str
    _texts: dict[int, str] = field(default_factory=dict)

    def run(self, connection: Connection, rows: Sequence[Row]) -> None:
        start = 0
        while start < len(rows):
            size = _size(len(rows) - start)
            parameters = tuple(chain.from_iterable(rows[start : start + size]))
            driver_sql.send(connection, self.text(size), parameters)
            start += size

    def text(self, size: int) -> str:
        if size not in self._texts:
            self._texts[size] = self.head + ", ".join([self.one] * size) + self.tail
        return self._texts[size]


def _size(count: int) -> int:
    """How many of these rows the next statement takes: three binary digits followed by zeros.

    Each statement releases the GIL, so there should be few statements. Each size is parsed once, so there
    should be few sizes.
    """
    count = min(count, MOST_ROWS)
    zeros = max(0, count.bit_length() - 3)
    return count >> zeros << zeros


@dataclass(frozen=True, slots=True)
class Query:
    """A SELECT over `:rows`, a JSON array of rows."""

    sqlite: TextClause
    postgres: TextClause

    def fetch(self, connection: Connection, rows: Sequence[Row]) -> Sequence[Any]:
        statement = self.sqlite if connection.dialect.name == "sqlite" else self.postgres
        return connection.execute(statement, {"rows": orjson.dumps(rows).decode()}).all()


@dataclass(frozen=True, slots=True, eq=False)
class Bulk:
    """One step as SQL for both databases. In the texts `:rows` is a JSON array of rows."""

    sqlite: Values | TextClause
    postgres: TextClause
    copy: str | None = None
    copy_tail: str = ""  # constant values at the end of every line

    def run(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Execute for all rows."""
        if connection.dialect.name == "sqlite":
            if isinstance(self.sqlite, Values):
                self.sqlite.run(connection, rows)
            else:
                connection.execute(self.sqlite, {"rows": orjson.dumps(rows).decode()})
        elif self.copy is not None and len(rows) >= COPY_FROM:
            _copy(connection, self.copy, rows, self.copy_tail + "\n")
        else:
            connection.execute(self.postgres, {"rows": orjson.dumps(rows).decode()})

    def literal(self, rows: Sequence[Row]) -> driver_sql.Literal:
        """Postgres: a statement for these few rows, for `driver_sql.send_whole`.

        A change is an insert that always conflicts, as on SQLite. With keys as constants, the planner may
        choose any index if the table has grown since it was analysed. A conflict is always looked up in the
        index of the key.
        """
        if isinstance(self.sqlite, Values):
            statement = self.sqlite.text(len(rows)).replace("?", "%s")
            is_plain = len(rows) <= KEPT_ROWS and statement.startswith("INSERT")
            return driver_sql.Literal(statement, list(chain.from_iterable(rows)), is_plain)
        return driver_sql.Literal(
            self.postgres.text.replace(":rows", "%s"), [orjson.dumps(rows).decode()], False
        )

    def is_small(self, rows: Sequence[Row]) -> bool:
        return self.copy is None or len(rows) < COPY_FROM


_combined: dict[tuple[Bulk, ...], TextClause] = {}


def run_together(connection: Connection, steps: Sequence[tuple[Bulk, Sequence[Row]]]) -> None:
    """Postgres: send several steps as one statement, in one round trip. No two may touch the same row.

    https://www.postgresql.org/docs/current/queries-with.html#QUERIES-WITH-MODIFYING
    """
    bulks = tuple(bulk for bulk, _ in steps)
    if bulks not in _combined:
        parts = [
            f"s{i} AS ({bulk.postgres.text.replace(':rows', f':rows{i}')})" for i, bulk in enumerate(bulks)
        ]
        _combined[bulks] = text(f"WITH {', '.join(parts)} SELECT 1")
    values = {f"rows{i}": orjson.dumps(rows).decode() for i, (_, rows) in enumerate(steps)}
    connection.execute(_combined[bulks], values)


def _copy(connection: Connection, statement: str, rows: Sequence[Row], end: str) -> None:
    """https://www.postgresql.org/docs/current/sql-copy.html, text format."""
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(statement) as copy:
        for start in range(0, len(rows), COPY_ROWS):  # the server reads a chunk while the next one is built
            copy.write(_copy_text(rows[start : start + COPY_ROWS], end))


def _copy_text(rows: Sequence[Row], end: str) -> str:
    """Rows in the format of COPY.

    Values are escaped only if the whole text shows that one of them needs it.
    """
    lines = "".join(
        [
            "\t".join([v if v.__class__ is str else "\\N" if v is None else str(v) for v in row]) + end
            for row in rows
        ]
    )
    nulls, tabs = sum([row.count(None) for row in rows]), len(rows[0]) - 1 + end.count("\t")
    is_plain = (
        lines.count("\\") == nulls
        and lines.count("\t") == tabs * len(rows)
        and lines.count("\n") == len(rows)
        and "\r" not in lines
    )
    return lines if is_plain else "".join(["\t".join(map(_copy_field, row)) + end for row in rows])


def _copy_field(value: object) -> str:
    if value is None:
        return "\\N"
    return value.translate(_ESCAPES) if isinstance(value, str) else str(value)


def postgres_source(table: Table, columns: Sequence[str], literals: Sequence[str] = ()) -> str:
    """A SELECT of typed columns from `:rows`."""
    picked = [
        f"CAST(r.v ->> {i} AS {_type(table.c[name])}) AS {_quoted(name)}" for i, name in enumerate(columns)
    ]
    return f"SELECT {', '.join([*picked, *literals])} FROM jsonb_array_elements(CAST(:rows AS jsonb)) AS r(v)"


def _type(column: Column[object]) -> str:
    if isinstance(column.type, SmallInteger):
        return "smallint"
    if isinstance(column.type, BigInteger):
        return "bigint"
    return "integer" if isinstance(column.type, Integer) else "text"


def _quoted(name: str) -> str:
    return f'"{name}"'


def _column_list(names: Sequence[str]) -> str:
    return ", ".join(map(_quoted, names))


def _placeholders(count: int, literals: Sequence[str] = ()) -> str:
    return "(" + ", ".join(["?"] * count + [*literals]) + ")"


def _literal(value: object) -> str:
    return str(value) if isinstance(value, int) else f"'{value}'"


def insert(table: Table, columns: Sequence[str], constants: Mapping[str, object] = {}) -> Bulk:
    """Insert rows.

    `constants`: columns with the same value in every row; a value that is not bound costs nothing.
    """
    head = f"INSERT INTO {table.name} ({_column_list([*columns, *constants])}) "
    literals = [_literal(value) for value in constants.values()]
    return Bulk(
        Values(head + "VALUES ", _placeholders(len(columns), literals), ""),
        text(head + postgres_source(table, columns, literals)),
        f"COPY {table.name} ({_column_list([*columns, *constants])}) FROM STDIN",
        "".join(f"\t{value}" for value in constants.values()),
    )


def upsert(table: Table, columns: Sequence[str], changed: Sequence[str]) -> Bulk:
    """Insert rows. Where the key exists, set the columns `changed` instead."""
    sets = ", ".join(f"{_quoted(name)} = excluded.{_quoted(name)}" for name in changed)
    keys = _column_list([column.name for column in table.primary_key])
    tail = f" ON CONFLICT ({keys}) DO UPDATE SET {sets}"
    head = f"INSERT INTO {table.name} ({_column_list(columns)}) "
    return Bulk(
        Values(head + "VALUES ", _placeholders(len(columns)), tail),
        text(head + postgres_source(table, columns) + tail),
    )


def update(
    table: Table, keys: Sequence[str], changed: Sequence[str], constants: Mapping[str, object] = {}
) -> Bulk:
    """Change existing rows. A row is the keys, then the new values.

    `constants`: columns that get the same value in every row.

    SQLite has no UPDATE over a list that uses the index of the key. So there it is an insert that always
    conflicts, with empty values for the columns that must not be NULL.
    """
    columns = [*keys, *changed]
    fillers = [
        c.name for c in table.columns if not c.nullable and c.name not in columns and c.server_default is None
    ]
    fixed = [f"{_quoted(name)} = {_literal(value)}" for name, value in constants.items()]
    sqlite = Values(
        f"INSERT INTO {table.name} ({_column_list([*columns, *fillers])}) VALUES ",
        _placeholders(len(columns), ["''" if _type(table.c[name]) == "text" else "0" for name in fillers]),
        f" ON CONFLICT ({_column_list(keys)}) DO UPDATE SET "
        + ", ".join([*(f"{_quoted(name)} = excluded.{_quoted(name)}" for name in changed), *fixed]),
    )
    postgres = (
        f"UPDATE {table.name} AS t SET "
        + ", ".join([*(f"{_quoted(name)} = n.{_quoted(name)}" for name in changed), *fixed])
        + f" FROM ({postgres_source(table, columns)}) AS n WHERE "
        + " AND ".join(f"t.{_quoted(key)} = n.{_quoted(key)}" for key in keys)
    )
    return Bulk(sqlite, text(postgres))


def delete(table: Table, keys: Sequence[str]) -> Bulk:
    where = f"DELETE FROM {table.name} WHERE ({_column_list(keys)}) IN "
    return Bulk(
        Values(where + "(VALUES ", _placeholders(len(keys)), ")"),
        text(where + f"({postgres_source(table, keys)})"),
    )
