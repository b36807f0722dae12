"""Reading rows back, past the code under test."""

from __future__ import annotations

from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool


def rows(url: str, query: str, **parameters: Any) -> list[tuple[Any, ...]]:
    """The answer to a query, as tuples."""
    with create_engine(url, poolclass=NullPool).connect() as connection:
        return [tuple(row) for row in connection.execute(text(query), parameters)]


def column(url: str, query: str, **parameters: Any) -> list[Any]:
    """The first column of the answer."""
    return [row[0] for row in rows(url, query, **parameters)]


def stored(url: str) -> dict[str, int]:
    """How many rows there are of everything that a post could leave behind."""
    names = ("messages", "jobs", "job_keys", "inbox", "parked", "workers")
    counts = ", ".join(f"(SELECT count(*) FROM routilux_{name})" for name in names)
    return dict(zip(names, rows(url, f"SELECT {counts}")[0], strict=True))
