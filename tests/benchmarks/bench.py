"""What every measurement is given: fresh databases of either kind, and processes of their own to measure in.

Routilux is never measured in this process: memory, garbage collection and the switch interval of a child are
its own. A child is `python -m tests.benchmarks.child module function arguments`; it prints one JSON line at
its end.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from routilux.store.schema import upgrade
from tests.benchmarks.figure import Values
from tests.support.postgres import PostgresServer

ROOT = Path(__file__).resolve().parents[2]
SQLITE, POSTGRES = "SQLite", "Postgres"
CHILD_TIMEOUT_S = 900


class Skipped(Exception):
    """What a series needs is not there; the message says what."""


class Bench:
    """A folder, a Postgres that starts when it is asked for, and how large the runs are.

    A context manager.
    """

    def __init__(self, *, is_quick: bool = False) -> None:
        self.is_quick = is_quick
        # BENCH_DIR: a folder on the disk to be measured; a file system in memory has no fsync to wait for
        self.folder = Path(tempfile.mkdtemp(prefix="routilux-bench-", dir=os.environ.get("BENCH_DIR")))
        self.kept: dict[tuple[object, ...], Any] = {}  # what figures of one run share: recordings, fills
        self._count = 0
        self._server: PostgresServer | None = None

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.remove()
        shutil.rmtree(self.folder, ignore_errors=True)

    def scaled(self, count: int, quick: int | None = None) -> int:
        """A tenth, or `quick`, with --quick."""
        return (quick or -(-count // 10)) if self.is_quick else count

    @property
    def server(self) -> PostgresServer:
        if self._server is None:
            self._server = PostgresServer().start()
        return self._server

    @contextlib.contextmanager
    def database(self, kind: str) -> Iterator[str]:
        """The URL of a new database with the schema of Routilux; gone afterwards."""
        if kind == SQLITE:
            path = self._new_file()
            shutil.copy(self._sqlite_template, path)
            yield f"sqlite:///{path}"
            for file in path.parent.glob(f"{path.name}*"):
                file.unlink()
        else:
            with self.empty_postgres(self._postgres_template) as url:
                yield url

    @contextlib.contextmanager
    def empty_postgres(self, template: str | None = None) -> Iterator[str]:
        name = self._new_name()
        yield self.server.create_database(name, template)
        self.server.drop_database(name)

    def kept_database(self, kind: str) -> str:
        """One with the schema of Routilux that stays until the end."""
        if kind == SQLITE:
            path = self._new_file()
            shutil.copy(self._sqlite_template, path)
            return f"sqlite:///{path}"
        return self.server.create_database(self._new_name(), self._postgres_template)

    def child(self, measure: Callable[..., Values], *arguments: object) -> dict[str, float]:
        """Run a function of a module here in a process of its own; its arguments and its answer travel as
        JSON.
        """
        done = subprocess.run(
            self._command(measure, arguments),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            timeout=CHILD_TIMEOUT_S,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{measure.__module__}.{measure.__name__} ended with {done.returncode}")
        answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return answer

    @contextlib.contextmanager
    def running(
        self, measure: Callable[..., Values | None], *arguments: object
    ) -> Iterator[subprocess.Popen[str]]:
        """The same, to be talked to while it runs, through its standard input and output;
        killed at the end.
        """
        process = subprocess.Popen(
            self._command(measure, arguments),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def _command(self, measure: Callable[..., object], arguments: tuple[object, ...]) -> list[str]:
        entry = [sys.executable, "-m", "tests.benchmarks.child"]
        return [*entry, measure.__module__, measure.__name__, json.dumps(arguments)]

    def _new_name(self) -> str:
        self._count += 1
        return f"bench_{self._count}"

    def _new_file(self) -> Path:
        return self.folder / f"{self._new_name()}.db"

    @cached_property
    def _sqlite_template(self) -> Path:
        path = self.folder / "template.db"
        upgrade(f"sqlite:///{path}")
        return path

    @cached_property
    def _postgres_template(self) -> str:
        upgrade(self.server.create_database("bench_template"))
        return "bench_template"


def fresh(
    kind: str, measure: Callable[..., Values], count: int, *arguments: object
) -> Callable[[Bench], Values]:
    """How a series measures one run in a new database, in a process of its own: `count`, scaled, and
    `arguments`.
    """

    def run(bench: Bench) -> Values:
        with bench.database(kind) as url:
            return bench.child(measure, url, bench.scaled(count), *arguments)

    return run


def said(process: subprocess.Popen[Any], word: str) -> str:
    """Wait until a child prints a line that begins with this word; the rest of that line."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(word):
            return str(line[len(word) :]).strip()
    raise RuntimeError(f"the process ended before it said {word!r}")
