"""The command `routilux`. Each group of commands is a module that is loaded on use.

`COMMANDS` lists the groups. Each module has a Typer `app`, and is not imported before its command is called.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

COMMANDS = {
    "daemon": ("routilux_service.daemon", "Run the flows of a module until SIGTERM or SIGINT."),
    "demo": (
        "routilux_service.demo",
        "Show how it works: index Python sources with a daemon that is killed twice.",
    ),
    "db": ("routilux_service.db", "Check a database, or upgrade it to the schema of this version."),
}


class LazyGroup(TyperGroup):
    """Finds a command in `COMMANDS` and imports its module only then."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module, summary = COMMANDS[cmd_name]
        command = get_command(importlib.import_module(module).app)
        command.name, command.help = cmd_name, summary
        return command


app = typer.Typer(cls=LazyGroup, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"routilux {version('routilux')}")
        raise typer.Exit


@app.callback()
def root(
    is_version_asked: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
    ),
) -> None:
    """Durable event-driven workflows on SQLite and Postgres."""


def main() -> None:
    """Run the command line of this process."""
    app(prog_name="routilux")
