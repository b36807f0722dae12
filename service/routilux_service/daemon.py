"""`routilux daemon`: one process that runs the flows of a module until it is told to stop.

The module registers its flows when it is imported. SIGTERM or SIGINT: nothing new starts, what runs finishes and
commits, the leases are given back, exit code 0. A SIGINT after that ends the process at once; that is safe, too.
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
LOOK_S = 1.0  # how often the main thread sees whether its engine is still there


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
        message = getattr(error, "orig", None) or error  # the driver's words, without the statement
        typer.echo(f"error: {message}", err=True)
        raise typer.Exit(1) from error
    raise typer.Exit(0 if is_clean else 1)


class AppError(Exception):
    """What `--app` names cannot be run; the message says what to do."""


def load_flows(module: str) -> list[str]:
    """Import a module, also from the working directory; the names of the flows that are registered then.

    Raises `AppError` when there is no such module, when its code raises (with the traceback of that code), or when
    it registers nothing.
    """
    if not all(part.isidentifier() for part in module.split(".")):
        raise AppError(f"--app takes a module's name, as in package.module, not {module!r}")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        importlib.import_module(module)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            raise AppError(
                f"no module named {error.name!r}, neither installed nor in {here}: start the daemon in the folder"
                f" that holds {module.partition('.')[0]!r}, or set PYTHONPATH"
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
    """Without the frames of this file and of the import machinery, which lead up to it."""
    leading = (__file__, str(importlib.__file__), "<frozen importlib")
    frame = error.__traceback__
    while frame is not None and frame.tb_frame.f_code.co_filename.startswith(leading):
        frame = frame.tb_next
    return "".join(traceback.format_exception(error.with_traceback(frame))).rstrip()


def serve(database: str, names: list[str]) -> bool:
    """Run until a signal comes. False: logic was still running at the deadline of the drain."""
    shown = make_url(database).render_as_string(hide_password=True)
    # A put to this queue is safe inside a signal handler, where the lock of an Event may be taken already.
    signals: queue.SimpleQueue[signal.Signals] = queue.SimpleQueue()

    def on_signal(number: int, frame: FrameType | None) -> None:
        signals.put(signal.Signals(number))
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # not SIGTERM: timeout(1) and others send that one twice

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, on_signal)
    runtime = Runtime(database=database)
    log.info("runs %s on %s", ", ".join(names), shown)
    received = _wait(runtime, signals)
    if received is None:
        log.error("the engine has stopped")
        runtime.shutdown(wait=False)
        return False
    log.info("%s: finishes what runs", received.name)
    is_clean = runtime.shutdown(wait=False)
    log.info("stopped" if is_clean else "stopped; logic still ran, its work goes on at the next start")
    return is_clean


def _wait(runtime: Runtime, signals: queue.SimpleQueue[signal.Signals]) -> signal.Signals | None:
    """The signal that came; None: the engine is gone."""
    while not runtime.is_engine_gone:
        try:
            return signals.get(timeout=LOOK_S)
        except queue.Empty:
            continue
    return None
