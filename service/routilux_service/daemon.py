"""`routilux daemon`: one process that runs the flows of a module until a signal stops it.

The module registers its flows when it is imported. After SIGTERM or SIGINT nothing new starts, running logic
finishes and commits, the leases are released, and the exit code is 0. A SIGINT after that ends the process at
once, which is also safe.
"""

from __future__ import annotations

import importlib
import logging
import queue
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from routilux.core.registry import FlowRegistry
from routilux.errors import RoutiluxError
from routilux.runtime import Runtime

app = typer.Typer()
log = logging.getLogger("routilux.daemon")

DEFAULT_DATABASE = "sqlite:///routilux.db"
POLL_S = 1.0  # how often the main thread checks that its engine still runs


@app.command()
def daemon(
    module: Annotated[
        str, typer.Option("--app", help="Module that registers flows when imported, as package.module.")
    ],
    database: Annotated[
        str,
        typer.Option("--database", envvar="ROUTILUX_DATABASE_URL", help="SQLAlchemy URL of the database."),
    ] = DEFAULT_DATABASE,
) -> None:
    """Run the flows of a module until SIGTERM or SIGINT."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("routilux").setLevel(logging.INFO)
    try:
        names = load_flows(module)
        is_clean = serve(database, names)
    except (AppError, RoutiluxError, ArgumentError, SQLAlchemyError) as error:
        message = getattr(error, "orig", None) or error  # the driver's text, without the statement
        typer.echo(f"error: {message}", err=True)
        raise typer.Exit(1) from error
    raise typer.Exit(0 if is_clean else 1)


class AppError(Exception):
    """The module of `--app` cannot be used. The message says what to do."""


def load_flows(module: str) -> list[str]:
    """Import a module, also from the working directory, and return the names of all registered flows.

    Raises `AppError` if the module does not exist, if its code raises (with the traceback of that code), or
    if it registers no flow.
    """
    if not all(part.isidentifier() for part in module.split(".")):
        raise AppError(f"--app takes the name of a module, like package.module, not {module!r}")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        importlib.import_module(module)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            raise AppError(
                f"no module named {error.name!r} is installed or in {here}: start the daemon in the folder"
                f" that contains {module.partition('.')[0]!r}, or set PYTHONPATH"
            ) from error
        raise AppError(f"importing {module!r} failed:\n{_traceback_of_the_module(error)}") from error
    names = FlowRegistry.get_instance().names()
    if not names:
        raise AppError(
            f"module {module!r} was imported, but it registers no flow: call"
            " FlowRegistry.get_instance().register_by_name(name, flow) at its top level"
        )
    return names


def _traceback_of_the_module(error: Exception) -> str:
    """Return the traceback without the leading frames of this file and of Python's import code."""
    leading = (__file__, str(importlib.__file__), "<frozen importlib")
    frame = error.__traceback__
    while frame is not None and frame.tb_frame.f_code.co_filename.startswith(leading):
        frame = frame.tb_next
    return "".join(traceback.format_exception(error.with_traceback(frame))).rstrip()


def serve(database: str, names: list[str]) -> bool:
    """Run until a signal comes. Returns False if logic was still running when the shutdown timed out."""
    shown = make_url(database).render_as_string(hide_password=True)
    # SimpleQueue.put is safe inside a signal handler. An Event is not: the main thread may hold its lock.
    signals: queue.SimpleQueue[signal.Signals] = queue.SimpleQueue()

    def on_signal(number: int, frame: FrameType | None) -> None:
        signals.put(signal.Signals(number))
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # not SIGTERM: timeout(1) and other tools send it twice

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    runtime = Runtime(database=database)
    log.info("running %s on %s", ", ".join(names), shown)
    received = _wait(runtime, signals)
    if received is None:
        log.error("the engine has stopped unexpectedly; shutting down")
        runtime.shutdown(wait=False)
        return False
    log.info("received %s; waiting for running logic", received.name)
    is_clean = runtime.shutdown(wait=False)
    log.info("stopped" if is_clean else "shutdown timed out; running work starts again at the next start")
    return is_clean


def _wait(runtime: Runtime, signals: queue.SimpleQueue[signal.Signals]) -> signal.Signals | None:
    """Return the received signal, or None if the engine is gone."""
    while runtime.is_running:
        try:
            return signals.get(timeout=POLL_S)
        except queue.Empty:
            continue
    return None
