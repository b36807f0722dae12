"""`routilux db`: check or upgrade the schema of a database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from routilux.errors import RoutiluxError
from routilux.store import schema
from routilux.store.types import SQLAlchemyError

app = typer.Typer(no_args_is_help=True)

DEFAULT_DATABASE = "sqlite:///routilux.db"
Database = Annotated[
    str, typer.Option("--database", envvar="ROUTILUX_DATABASE_URL", help="SQLAlchemy URL of the database.")
]

_ADVICE = {
    "ok": "ok",
    "missing": "no tables yet: run `routilux db upgrade`",
    "old": "older than this version of Routilux: run `routilux db upgrade`",
    "new": "newer than this version of Routilux: install the version that made it",
    "foreign": "has tables named routilux_… that this version did not make",
}


@app.command()
def upgrade(database: Database = DEFAULT_DATABASE) -> None:
    """Create or change the tables so that this version of Routilux can use them."""
    with _errors_as_messages():
        schema.upgrade(database)
        typer.echo(f"the schema is at revision {schema.HEAD}")


@app.command()
def check(database: Database = DEFAULT_DATABASE) -> None:
    """Show the state of the schema; change nothing. Exit code 0: a runtime can use it, 1: it cannot."""
    with _errors_as_messages():
        report = schema.check(database)
        _print(report)
    raise typer.Exit(0 if report.is_ok else 1)


@contextmanager
def _errors_as_messages() -> Iterator[None]:
    try:
        yield
    except (RoutiluxError, SQLAlchemyError) as error:
        message = getattr(error, "orig", None) or error  # the driver's text, without the statement
        typer.echo(f"error: {message}", err=True)
        raise typer.Exit(1) from error


def _print(report: schema.SchemaReport) -> None:
    from rich.console import Console  # imported here since it is slow to import
    from rich.table import Table
    from rich.text import Text

    table = Table("", "", show_header=False)
    rows = {
        "database": f"{report.dialect} {report.server_version}",
        "revision": f"{report.current or 'none'} (this version needs {report.head})",
        "state": _ADVICE[report.state],
    }
    for name, value in rows.items():
        table.add_row(name, Text(value))
    for note in report.notes:
        table.add_row("note", Text(note))
    Console().print(table)
