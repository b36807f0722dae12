"""Many rows, few statements, for both databases. A row is a tuple in column order.

SQLite: multi-row VALUES in some fixed sizes, so that the statements stay prepared. `executemany` gives the
interpreter lock away at every row, and `json_each` costs four times as much (13.5 against 3.5 µs a row of eleven
columns). Postgres: COPY for what is only inserted, else one statement over `jsonb_array_elements`; an `unnest` of
Python lists costs the client more than the server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

import orjson
from sqlalchemy import BigInteger, Column, Connection, Integer, SmallInteger, Table, TextClause, text

from routilux.store.backends import driver_sql

Row = tuple[object, ...]

MOST_ROWS = 1024  # to a statement, on SQLite
COPY_ROWS = 1000  # to a piece of a COPY
COPY_FROM = 16  # fewer rows than this are not worth a COPY
KEPT_ROWS = 8  # statements of more rows are not kept prepared
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


class Literal(NamedTuple):
    """A statement with `%s` for each value. `is_plain`: its plan is always the same, and it is short enough to be kept."""

    statement: str
    values: list[object]
    is_plain: bool


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
    """The most of these rows that one statement is made for: a number of three binary digits and zeros. A statement gives the
    interpreter away, so few of them; and each size is parsed once, so few sizes.
    """
    count = min(count, MOST_ROWS)
    zeros = max(0, count.bit_length() - 3)
    return count >> zeros << zeros


@dataclass(frozen=True, slots=True)
class Query:
    """A question about `:rows`, a JSON array of rows."""

    sqlite: TextClause
    postgres: TextClause

    def ask(self, connection: Connection, rows: Sequence[Row]) -> Sequence[Any]:
        asked = self.sqlite if connection.dialect.name == "sqlite" else self.postgres
        return connection.execute(asked, {"rows": orjson.dumps(rows).decode()}).all()


@dataclass(frozen=True, slots=True, eq=False)
class Bulk:
    """One step in the words of both databases; in the texts `:rows` is a JSON array of rows."""

    sqlite: Values | TextClause
    postgres: TextClause
    copy: str | None = None
    copy_tail: str = ""  # of every line

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

    def literal(self, rows: Sequence[Row]) -> Literal:
        """Postgres: a statement for these few rows, for `driver_sql.send_whole`.

        A change is an insert that always conflicts, as on SQLite: a key among constants may be worth any index to the planner
        of a table that has grown since it was analysed, and a conflict is looked for in the index of the key.
        """
        if isinstance(self.sqlite, Values):
            statement = self.sqlite.text(len(rows)).replace("?", "%s")
            is_plain = len(rows) <= KEPT_ROWS and statement.startswith("INSERT")
            return Literal(statement, list(chain.from_iterable(rows)), is_plain)
        return Literal(self.postgres.text.replace(":rows", "%s"), [orjson.dumps(rows).decode()], False)

    def is_small(self, rows: Sequence[Row]) -> bool:
        return self.copy is None or len(rows) < COPY_FROM


_together: dict[tuple[Bulk, ...], TextClause] = {}


def run_together(connection: Connection, steps: Sequence[tuple[Bulk, Sequence[Row]]]) -> None:
    """Postgres: steps none of which touches a row of another, as one statement: one way there and back.

    https://www.postgresql.org/docs/current/queries-with.html#QUERIES-WITH-MODIFYING
    """
    bulks = tuple(bulk for bulk, _ in steps)
    if bulks not in _together:
        parts = [
            f"s{i} AS ({bulk.postgres.text.replace(':rows', f':rows{i}')})" for i, bulk in enumerate(bulks)
        ]
        _together[bulks] = text(f"WITH {', '.join(parts)} SELECT 1")
    values = {f"rows{i}": orjson.dumps(rows).decode() for i, (_, rows) in enumerate(steps)}
    connection.execute(_together[bulks], values)


def _copy(connection: Connection, statement: str, rows: Sequence[Row], end: str) -> None:
    """https://www.postgresql.org/docs/current/sql-copy.html, text format."""
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(statement) as copy:
        for start in range(0, len(rows), COPY_ROWS):  # the server reads on while the next are written down
            copy.write(_lines(rows[start : start + COPY_ROWS], end))


def _lines(rows: Sequence[Row], end: str) -> str:
    """Rows as COPY reads them. Values are escaped only where the whole shows that one of them needs it."""
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
    return lines if is_plain else "".join(["\t".join(map(_field, row)) + end for row in rows])


def _field(value: object) -> str:
    if value is None:
        return "\\N"
    return value.translate(_ESCAPES) if isinstance(value, str) else str(value)


def postgres_source(table: Table, columns: Sequence[str], literals: Sequence[str] = ()) -> str:
    """A SELECT of typed columns out of `:rows`."""
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


def _list(names: Sequence[str]) -> str:
    return ", ".join(map(_quoted, names))


def _marks(count: int, literals: Sequence[str] = ()) -> str:
    return "(" + ", ".join(["?"] * count + [*literals]) + ")"


def _literal(value: object) -> str:
    return str(value) if isinstance(value, int) else f"'{value}'"


def insert(table: Table, columns: Sequence[str], constants: Mapping[str, object] = {}) -> Bulk:
    """New rows. `constants`: columns that are the same in all of them; what is not bound costs nothing."""
    head = f"INSERT INTO {table.name} ({_list([*columns, *constants])}) "
    literals = [_literal(value) for value in constants.values()]
    return Bulk(
        Values(head + "VALUES ", _marks(len(columns), literals), ""),
        text(head + postgres_source(table, columns, literals)),
        f"COPY {table.name} ({_list([*columns, *constants])}) FROM STDIN",
        "".join(f"\t{value}" for value in constants.values()),
    )


def upsert(table: Table, columns: Sequence[str], changed: Sequence[str]) -> Bulk:
    """Insert, or change `changed` where the key is there."""
    sets = ", ".join(f"{_quoted(name)} = excluded.{_quoted(name)}" for name in changed)
    keys = _list([column.name for column in table.primary_key])
    tail = f" ON CONFLICT ({keys}) DO UPDATE SET {sets}"
    head = f"INSERT INTO {table.name} ({_list(columns)}) "
    return Bulk(
        Values(head + "VALUES ", _marks(len(columns)), tail),
        text(head + postgres_source(table, columns) + tail),
    )


def update(
    table: Table, keys: Sequence[str], changed: Sequence[str], constants: Mapping[str, object] = {}
) -> Bulk:
    """Change rows that exist. Row: keys, then the new values. `constants`: columns that are set the same in all.

    SQLite has no UPDATE over a list that uses the key's index, so there it is an insert that always conflicts, with
    empty values for the columns that may not be NULL.
    """
    columns = [*keys, *changed]
    fillers = [
        c.name for c in table.columns if not c.nullable and c.name not in columns and c.server_default is None
    ]
    fixed = [f"{_quoted(name)} = {_literal(value)}" for name, value in constants.items()]
    sqlite = Values(
        f"INSERT INTO {table.name} ({_list([*columns, *fillers])}) VALUES ",
        _marks(len(columns), ["''" if _type(table.c[name]) == "text" else "0" for name in fillers]),
        f" ON CONFLICT ({_list(keys)}) DO UPDATE SET "
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
    where = f"DELETE FROM {table.name} WHERE ({_list(keys)}) IN "
    return Bulk(
        Values(where + "(VALUES ", _marks(len(keys)), ")"), text(where + f"({postgres_source(table, keys)})")
    )
