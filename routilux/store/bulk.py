"""Many rows, one statement: SQL over a JSON array of rows, for both databases.

`executemany` gives the interpreter lock away at every row; one statement over `json_each` (SQLite) or
`jsonb_array_elements` (Postgres) does not, and costs the client one `dumps`. A row is a tuple in column order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import orjson
from sqlalchemy import BigInteger, Column, Connection, Integer, SmallInteger, Table, TextClause, text

Row = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Bulk:
    """One statement in the words of both databases; `:rows` is the JSON array."""

    sqlite: TextClause
    postgres: TextClause

    def run(self, connection: Connection, rows: Sequence[Row]) -> int:
        """Execute for all rows; returns the number of rows it touched."""
        return connection.execute(self.clause(connection), {"rows": orjson.dumps(rows).decode()}).rowcount

    def clause(self, connection: Connection) -> TextClause:
        return self.sqlite if connection.dialect.name == "sqlite" else self.postgres


def _of(sqlite: str, postgres: str) -> Bulk:
    # text() takes a colon for a parameter: casts are written as CAST, never as ::
    return Bulk(text(sqlite), text(postgres))


def _type(column: Column[object]) -> str:
    if isinstance(column.type, SmallInteger):
        return "smallint"
    if isinstance(column.type, BigInteger):
        return "bigint"
    return "integer" if isinstance(column.type, Integer) else "text"


def _sqlite_source(table: Table, columns: Sequence[str]) -> str:
    picked = ", ".join(f"json_extract(value, '$[{i}]') AS {_quoted(name)}" for i, name in enumerate(columns))
    return f"SELECT {picked} FROM json_each(:rows)"


def _postgres_source(table: Table, columns: Sequence[str]) -> str:
    picked = ", ".join(
        f"CAST(r.v ->> {i} AS {_type(table.c[name])}) AS {_quoted(name)}" for i, name in enumerate(columns)
    )
    return f"SELECT {picked} FROM jsonb_array_elements(CAST(:rows AS jsonb)) AS r(v)"


def _quoted(name: str) -> str:
    return f'"{name}"'


def _list(names: Sequence[str], prefix: str = "") -> str:
    return ", ".join(prefix + _quoted(name) for name in names)


def _keys(table: Table) -> list[str]:
    return [column.name for column in table.primary_key]


def insert(table: Table, columns: Sequence[str]) -> Bulk:
    head = f"INSERT INTO {table.name} ({_list(columns)}) "
    return _of(head + _sqlite_source(table, columns), head + _postgres_source(table, columns))


def upsert(table: Table, columns: Sequence[str], changed: Sequence[str]) -> Bulk:
    """Insert, or change `changed` where the key is there."""
    tail = f" ON CONFLICT ({_list(_keys(table))}) DO UPDATE SET " + ", ".join(
        f"{_quoted(name)} = excluded.{_quoted(name)}" for name in changed
    )
    head = f"INSERT INTO {table.name} ({_list(columns)}) "
    # WHERE true: without it SQLite reads ON CONFLICT as the ON of a join
    return _of(
        head + _sqlite_source(table, columns) + " WHERE true" + tail,
        head + _postgres_source(table, columns) + tail,
    )


def update(table: Table, keys: Sequence[str], changed: Sequence[str]) -> Bulk:
    """Change rows that exist. Row: keys, then the new values.

    SQLite's UPDATE … FROM json_each scans the whole table, so there it is an insert that always conflicts, with
    empty values for the columns that may not be NULL.
    """
    columns = [*keys, *changed]
    required = [
        c.name for c in table.columns if not c.nullable and c.name not in columns and c.server_default is None
    ]
    picked = _sqlite_source(table, columns).removeprefix("SELECT ").removesuffix(" FROM json_each(:rows)")
    fillers = "".join(f", '' AS {_quoted(name)}" for name in required)
    sets = ", ".join(f"{_quoted(name)} = excluded.{_quoted(name)}" for name in changed)
    sqlite = (
        f"INSERT INTO {table.name} ({_list([*columns, *required])}) SELECT {picked}{fillers}"
        f" FROM json_each(:rows) WHERE true ON CONFLICT ({_list(keys)}) DO UPDATE SET {sets}"
    )
    postgres = (
        f"UPDATE {table.name} AS t SET "
        + ", ".join(f"{_quoted(name)} = n.{_quoted(name)}" for name in changed)
        + f" FROM ({_postgres_source(table, columns)}) AS n WHERE "
        + " AND ".join(f"t.{_quoted(key)} = n.{_quoted(key)}" for key in keys)
    )
    return _of(sqlite, postgres)


def delete(table: Table, keys: Sequence[str]) -> Bulk:
    where = f"DELETE FROM {table.name} WHERE ({_list(keys)}) IN "
    return _of(where + f"({_sqlite_source(table, keys)})", where + f"({_postgres_source(table, keys)})")


def returning_ids(bulk: Bulk, columns: str) -> Bulk:
    """The same statement, giving back columns of the rows it touched."""
    return _of(f"{bulk.sqlite.text} RETURNING {columns}", f"{bulk.postgres.text} RETURNING {columns}")
