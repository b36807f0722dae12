"""`routilux demo`: a daemon indexes the sources of the standard library and is killed twice on the way.

All files are in the folder `routilux-demo`: the database (unless `--database` names another), five files that
are not valid Python, and the log of the daemon. `demo_flow` has the flow, `demo_checks` has the checks.
"""

from __future__ import annotations

import sysconfig
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text
from sqlalchemy import Connection, Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from routilux import Client, Post, Runtime, sqlite_engine
from routilux.errors import RoutiluxError
from routilux.store import schema
from routilux.store.writes import ownership, suspects
from routilux_service import demo_checks, demo_flow
from routilux_service.demo_checks import Check, DeadFile
from routilux_service.demo_process import DaemonDied, DaemonProcess

app = typer.Typer()
FOLDER = Path("routilux-demo")
KILLS = (0.25, 0.6)  # kill after these shares of all activations
MIN_FILES_FOR_KILLS = 200  # with fewer files, the work may be done before a kill
POLL_S = 0.1
STALL_S = 120.0
BROKEN = {
    "missing_bracket.py": b"print('hello'\n",
    "python_2.py": b"print 'hello'\n",
    "bad_indent.py": b"def f():\nreturn 1\n",
    "not_utf8.py": b"name = '\xff\xfe'\n",
    "unknown_encoding.py": b"# -*- coding: klingon -*-\n",
}
# There are as many test files as other sources. They would only make the demo longer.
SKIPPED_FOLDERS = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test"}


@app.command()
def demo(
    database: Annotated[
        str | None,
        typer.Option(help="SQLAlchemy URL of the database; default a SQLite file in routilux-demo."),
    ] = None,
    directory: Annotated[
        Path | None, typer.Option(help="Folder of Python sources; default the standard library's.")
    ] = None,
) -> None:
    """Index Python sources with a daemon that gets SIGKILL twice, and check that nothing is lost."""
    console = Console()
    folder = directory or Path(sysconfig.get_paths()["stdlib"])
    try:
        FOLDER.mkdir(exist_ok=True)
        url = database or f"sqlite:///{FOLDER / 'routilux.db'}"
        with _opened(url) as engine:
            is_good = Demo(console, url, engine).run(_sources(folder))
    except (DemoError, DaemonDied, RoutiluxError, ArgumentError, SQLAlchemyError, OSError) as error:
        message = getattr(error, "orig", None) or error
        console.print(Text(f"error: {message}", style="red"))
        raise typer.Exit(1) from error
    raise typer.Exit(0 if is_good else 1)


class DemoError(Exception):
    """The demo cannot continue. The message says why."""


def _sources(folder: Path) -> list[Path]:
    found = sorted(
        path for path in folder.rglob("*.py") if not SKIPPED_FOLDERS & set(path.relative_to(folder).parts)
    )
    if not found:
        raise DemoError(f"no Python sources in {folder}: name another folder with --directory")
    return found


@contextmanager
def _opened(url: str) -> Iterator[Engine]:
    schema.upgrade(url)
    engine = sqlite_engine(url) if make_url(url).get_backend_name() == "sqlite" else create_engine(url)
    try:
        demo_flow.metadata.create_all(engine)
        yield engine
    finally:
        engine.dispose()


class Demo:
    """One run of the demo. Each run has its own worker, so it ignores jobs of earlier runs."""

    def __init__(self, console: Console, url: str, engine: Engine) -> None:
        self._console = console
        self._url = url
        self._engine = engine
        self._run = f"demo-{datetime.now(UTC):%Y%m%d-%H%M%S-%f}"
        self._broken = (FOLDER / "broken").absolute()
        self._daemon = DaemonProcess(url, FOLDER / "daemon.log")
        self._killed = 0

    def run(self, sources: list[Path]) -> bool:
        """Run the demo. Returns False if a check failed."""
        files = [*sources, *self._write_broken()]
        with Runtime(1, database=self._url, recover=False) as runtime:
            runtime.exec(demo_flow.FLOW, worker_id=self._run)  # registers the flow and the worker
        try:
            self._daemon.start()
            with Client(self._url) as client:
                items = [self._job(path) for path in files]
                client.post_many(demo_flow.FLOW, "read", "file", items, worker_id=self._run)
            self._console.print(f"{len(files)} files posted, one job each")
            self._watch(len(files))
            exit_code = self._daemon.stop()
        finally:
            self._daemon.kill()
        return self._report(len(files), exit_code)

    def _reading(self) -> Connection:
        return self._engine.connect().execution_options(routilux_readonly=True)

    def _number(self, sql: str) -> int:
        with self._reading() as connection:
            return demo_checks.number(connection, sql)

    def _write_broken(self) -> list[Path]:
        self._broken.mkdir(exist_ok=True)
        for name, source in BROKEN.items():
            (self._broken / name).write_bytes(source)
        return [self._broken / name for name in BROKEN]

    def _job(self, path: Path) -> Post:
        item = {"path": str(path.absolute()), "run": self._run}
        return Post(item, job_id=f"{self._run}:{path.absolute()}", metadata={"file": str(path.absolute())})

    def _watch(self, total: int) -> None:
        """Show progress until every job has ended, and kill the daemon on the way."""
        ended_sql = demo_checks.ENDED.format(run=self._run)
        done_sql = f"SELECT count(*) FROM routilux_activation_history WHERE worker_id = '{self._run}'"
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        last, since, killed_at = -1, time.monotonic(), 0
        with Progress(*columns, console=self._console) as progress:
            bar = progress.add_task("jobs ended", total=total)
            while (ended := self._number(ended_sql)) < total:
                progress.update(bar, completed=ended)
                done = self._number(done_sql)
                # done > killed_at: the current daemon has done some work
                if self._killed < len(KILLS) and done > max(killed_at, KILLS[self._killed] * 5 * total):
                    self._kill(progress)
                    killed_at = done
                self._daemon.check_alive()
                if done != last:
                    last, since = done, time.monotonic()
                elif time.monotonic() - since > STALL_S:
                    raise DemoError(f"no progress for {STALL_S:g} s; see {FOLDER / 'daemon.log'}")
                threading.Event().wait(POLL_S)
            progress.update(bar, completed=total)

    def _kill(self, progress: Progress) -> None:
        """Kill the daemon and start it again. The kill counts only if work was in flight."""
        pid = self._daemon.pid
        self._daemon.kill()
        in_flight = self._in_flight(pid)
        self._killed += 1 if in_flight else 0
        progress.console.print(
            f"daemon {pid}: kill -9, with {in_flight} messages in flight; new daemon {self._daemon.start()}"
        )

    def _in_flight(self, pid: int) -> int:
        """Return how many messages a dead process had in flight after its last commit."""
        with self._reading() as connection:
            keys = [row.key for row in ownership.others_alive(connection, 0) if row.pid == pid]
            ranges = [entry for key in keys for entry in suspects.last_in_flight(connection, key)]
            return sum(
                len(suspects.messages_in_flight(connection, worker, routine, first, last)) or 1
                for worker, routine, first, last, *_ in ranges
            )

    def _report(self, posted: int, exit_code: int | None) -> bool:
        with Runtime(1, database=self._url, recover=False) as runtime:
            worker = runtime.exec(demo_flow.FLOW, worker_id=self._run)
            totals: dict[str, Any] = worker.get_routine_state("aggregate", {})
        with self._reading() as connection:
            dead = demo_checks.dead_letters(connection, self._run)
            results = list(
                demo_checks.checks(
                    connection,
                    self._run,
                    posted=posted,
                    unparsable=sum(not file.can_be_parsed() for file in dead),
                    broken=self._broken,
                    planted=len(BROKEN),
                    lines=totals.get("lines", 0),
                )
            )
        kills = len(KILLS) if posted >= MIN_FILES_FOR_KILLS else self._killed
        results.append(Check("kill -9 of the daemon at work", self._killed, kills))
        results.append(Check("exit code of the daemon after SIGTERM", exit_code, 0))
        self._print_dead_letters(dead)
        self._print_results(results)
        self._print_queries(results)
        return all(result.is_met for result in results)

    def _print_dead_letters(self, dead: list[DeadFile]) -> None:
        table = Table("file", "error", title="Dead letters", title_justify="left")
        for file in dead:
            table.add_row(Text(file.path.name), Text(file.error))
        self._console.print(table)

    def _print_results(self, results: list[Check]) -> None:
        table = Table("check", "found", "expected", "", title="Result", title_justify="left")
        for result in results:
            mark = Text("ok", style="green") if result.is_met else Text("WRONG", style="bold red")
            table.add_row(result.title, str(result.found), str(result.expected), mark)
        self._console.print(table)

    def _print_queries(self, results: list[Check]) -> None:
        """Print plain lines that can be copied."""
        print = self._console.out
        print("\nThe same numbers from SQL:\n", highlight=False)
        for result in results:
            if result.sql:
                print(f"  -- {result.title}: {result.expected}\n  {result.sql};", highlight=False)
        print(f"\nThe database is kept. To query it:\n\n{self._query_command()}\n", highlight=False)

    def _query_command(self) -> str:
        url = make_url(self._url)
        query = "SELECT path, lines FROM indexed_modules ORDER BY lines DESC LIMIT 5"
        if url.get_backend_name() == "sqlite":
            code = f"import sqlite3; print(*sqlite3.connect('{url.database}').execute('{query}'), sep='\\n')"
            return f'  sqlite3 -box {url.database} "{query}"\n  python -c "{code}"'
        plain = url.set(drivername="postgresql").render_as_string(hide_password=True)
        return f'  psql {plain} -c "{query}"'
