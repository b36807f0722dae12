"""Processes that start in milliseconds: a fresh interpreter imports Routilux once and forks for each call.

Nothing runs in it before the fork (no runtime, no connection, no thread), so a child is what a new process
is. One zygote has one child at a time; the test holds the pid and may kill, stop or continue it as it likes.

    with Zygote(folder) as zygote:
        child = zygote.start("tests.crash.support.program:work", url=…)
        child.kill()
        assert child.wait() == -9
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

PRELOAD = (
    "tests.crash.support.program",
    "sqlalchemy.dialects.sqlite.pysqlite",
    "sqlalchemy.dialects.postgresql.psycopg",
    "psycopg",
    "alembic.migration",
    "apscheduler.schedulers.background",
    "apscheduler.executors.pool",
    "sqlalchemy.orm",
)


class Zygote:
    """The test's side."""

    def __init__(self, folder: Path, more: Mapping[str, str] | None = None) -> None:
        """`more`: environment of its own."""
        self._log = folder / f"zygote-{id(self):x}.log"
        python_path = os.pathsep.join(path or os.getcwd() for path in sys.path)
        environment = {**os.environ, "PYTHONPATH": python_path, **(more or {})}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.support.zygote", str(self._log)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
            bufsize=1,
        )
        self._child: Child | None = None

    def __enter__(self) -> Zygote:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self, run: str, **arguments: Any) -> Child:
        """Fork a child that calls `module:function` with these keyword arguments."""
        assert self._child is None or self._child.has_ended, "one child at a time"
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([run, arguments]) + "\n")
        self._process.stdin.flush()
        self._child = Child(self, int(self.line(60.0)))
        return self._child

    def line(self, timeout_s: float) -> str:
        """The next answer of the zygote."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], timeout_s)[0]:
            raise TimeoutError
        answer = self._process.stdout.readline()
        assert answer, f"the zygote is gone: {self.output}"
        return answer

    @property
    def output(self) -> str:
        """What its children have printed so far."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def close(self) -> None:
        if self._child is not None and not self._child.has_ended:
            self._child.go_on()
            self._child.kill()
            self._child.wait()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


class Child:
    """A forked process."""

    def __init__(self, zygote: Zygote, pid: int) -> None:
        self._zygote = zygote
        self.pid = pid
        self.exit_code: int | None = None

    @property
    def has_ended(self) -> bool:
        return self.exit_code is not None

    def signal(self, number: signal.Signals) -> None:
        if not self.has_ended:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)

    def stop(self) -> None:
        self.signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.signal(signal.SIGCONT)

    def wait(self, timeout_s: float = 90.0) -> int:
        """Its exit code, negative for a signal.

        A child that hangs prints all its stacks and fails the test.
        """
        if self.exit_code is None:
            try:
                self.exit_code = int(self._zygote.line(timeout_s))
            except TimeoutError:
                self.signal(signal.SIGABRT)
                self.exit_code = int(self._zygote.line(30.0))
                raise AssertionError(f"the process hung\n{self._zygote.output[-20000:]}") from None
        return self.exit_code

    def is_over(self, within_s: float) -> bool:
        """Whether it ends within this time."""
        if self.exit_code is None:
            try:
                self.exit_code = int(self._zygote.line(within_s))
            except TimeoutError:
                return False
        return True

    @property
    def output(self) -> str:
        return self._zygote.output


def until(holds: Callable[[], object], what: str, child: Child | None = None) -> None:
    """Until something holds, while the child lives."""
    for _ in range(6000):
        if holds():
            return
        if child is None:
            threading.Event().wait(0.01)
        else:
            assert not child.is_over(within_s=0.01), f"{what}: {child.output}"
    raise AssertionError(f"{what}: not within a minute: {child and child.output}")


def serve(log: str) -> None:
    """The zygote's side: fork, tell the pid, tell the end; one call a line."""
    for module in PRELOAD:
        importlib.import_module(module)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    for line in sys.stdin:
        run, arguments = json.loads(line)
        pid = os.fork()
        if pid == 0:
            answers.close()
            _be_the_child(log, run, arguments)
        answers.write(f"{pid}\n")
        _, status = os.waitpid(pid, 0)
        answers.write(f"{os.waitstatus_to_exitcode(status)}\n")


def _be_the_child(log: str, run: str, arguments: dict[str, Any]) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    faulthandler.enable(all_threads=True)
    module, function = run.split(":")
    code = 0
    try:
        getattr(importlib.import_module(module), function)(**arguments)
    except SystemExit as end:
        print(f"{os.getpid()} {end}", file=sys.stderr)
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
