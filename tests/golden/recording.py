"""What the driver of Postgres is handed, as text that is the same from run to run; and a time that only a
test moves.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import wraps
from importlib.metadata import version
from typing import Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus

START_US = 1_704_067_200_000_000  # 2024-01-01
REAL_US = 1_750_000_000_000_000  # no script gets so far: an instant of the host's
_IDS = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|\b[0-9a-f]{64}\b|\b[0-9a-f]{32}\b")
_CLASS = re.compile(r'("class": ?)"[^"]*"')
_TRACEBACK = "Traceback (most recent call last)"
_IN_COPY = re.compile(re.escape(_TRACEBACK) + r"[^\t\n]*")
_IN_JSON = re.compile(re.escape(_TRACEBACK) + r"(?:\\.|[^\"\\])*")


class Recorder:
    """Statements and parameters of all connections to one database."""

    def __init__(self, patch: pytest.MonkeyPatch, database: str) -> None:
        self.lines: list[str] = []
        self._database = database
        self._connections: list[psycopg.Connection[Any]] = []
        self._ids: dict[str, str] = {}
        self._inside = threading.local()  # `executemany` and `copy` may be made of others
        self._is_off = False
        for name in ("execute", "executemany"):
            patch.setattr(psycopg.Cursor, name, self._around_statement(getattr(psycopg.Cursor, name), name))
        patch.setattr(psycopg.Cursor, "copy", self._around_copy(psycopg.Cursor.copy))
        patch.setattr(psycopg.Copy, "write", self._around_write(psycopg.Copy.write))
        for name in ("commit", "rollback"):
            patch.setattr(psycopg.Connection, name, self._around_end(getattr(psycopg.Connection, name), name))

    def section(self, title: str) -> None:
        self.lines += ["", f"==== {title}"]

    @contextlib.contextmanager
    def off(self) -> Iterator[None]:
        self._is_off = True
        try:
            yield
        finally:
            self._is_off = False

    def _note(self, connection: psycopg.Connection[Any], what: str, text: str, values: Any = None) -> None:
        if self._is_off or connection.info.dbname != self._database or getattr(self._inside, "is_on", False):
            return
        if not any(connection is known for known in self._connections):
            self._connections.append(connection)
        place = next(i for i, known in enumerate(self._connections, 1) if known is connection)
        self.lines.append(f"-- connection {place}: {what}")
        if text:
            self.lines.append("    " + self._same(text).replace("; ", ";\n    ").rstrip("\n"))
        for name, value in _named(values):
            self.lines.append(f"        {name} = {self._value(value, connection)}")

    def _value(self, value: object, connection: psycopg.Connection[Any]) -> str:
        if isinstance(value, int) and value == connection.info.backend_pid:
            return "<backend>"
        if isinstance(value, int) and value == os.getpid():
            return "<pid>"
        if isinstance(value, int) and value >= REAL_US:
            return "<instant>"
        if value == socket.gethostname():
            return "<host>"
        if isinstance(value, str) and value.startswith(_TRACEBACK):
            return "<traceback>"
        if value == version("routilux"):
            return "<version>"
        if isinstance(value, (list, tuple)):
            return f"[{', '.join(self._value(each, connection) for each in value)}]"
        return self._same(value if isinstance(value, str) else repr(value))

    def _same(self, text: str) -> str:
        text = _IN_JSON.sub("<traceback>", text)
        text = _CLASS.sub(r'\1"<class>"', text)
        return _IDS.sub(lambda found: self._ids.setdefault(found[0], f"<id {len(self._ids) + 1}>"), text)

    # what is put around the driver's

    def _around_statement(self, real: Callable[..., Any], name: str) -> Callable[..., Any]:
        @wraps(real)
        def noted(cursor: Any, query: Any, params: Any = None, *rest: Any, **more: Any) -> Any:
            rows = list(params) if name == "executemany" else params
            what = type(cursor).__name__ if name == "execute" else f"executemany, {len(rows)} rows"
            self._note(cursor.connection, what, _text(query, cursor), rows)
            with self._alone():
                return real(cursor, query, rows, *rest, **more)

        return noted

    def _around_copy(self, real: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(real)
        def noted(cursor: Any, statement: Any, *rest: Any, **more: Any) -> Any:
            self._note(cursor.connection, "copy", _text(statement, cursor))
            return real(cursor, statement, *rest, **more)

        return noted

    def _around_write(self, real: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(real)
        def noted(copy: Any, data: Any) -> None:
            text = data if isinstance(data, str) else bytes(data).decode()
            self._note(copy.connection, "copied", _IN_COPY.sub("<traceback>", text).replace("\n", "\n    "))
            real(copy, data)

        return noted

    def _around_end(self, real: Callable[..., Any], name: str) -> Callable[..., Any]:
        @wraps(real)
        def noted(connection: Any) -> None:
            if not connection.closed and connection.info.transaction_status != TransactionStatus.IDLE:
                self._note(connection, name, "")
            real(connection)

        return noted

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        was_on = getattr(self._inside, "is_on", False)
        self._inside.is_on = True
        try:
            yield
        finally:
            self._inside.is_on = was_on


def _text(query: Any, cursor: Any) -> str:
    if isinstance(query, str):
        return query
    return query.decode() if isinstance(query, bytes) else str(query.as_string(cursor))


def _named(values: Any) -> list[tuple[object, object]]:
    if values is None:
        return []
    return list(values.items()) if isinstance(values, dict) else list(enumerate(values, 1))


class Time:
    """Of the host and of the server; it stands still until it is moved.

    That it moves is no statement of Routilux.
    """

    def __init__(self, patch: pytest.MonkeyPatch, url: str, recorder: Recorder) -> None:
        self.us = START_US
        self._recorder = recorder
        database = url.replace("+psycopg", "")
        self._server = psycopg.connect(database, autocommit=True)
        with recorder.off():
            self._stop_server()
        patch.setattr(time, "monotonic", lambda: self.us / 1e6)
        patch.setattr(time, "time_ns", lambda: self.us * 1000)
        patch.setattr(time, "clock_gettime_ns", lambda clock: self.us * 1000)

    def advance(self, seconds: float) -> None:
        self.us += round(seconds * 1e6)
        with self._recorder.off():
            self._server.execute("UPDATE stopped.clock SET now = to_timestamp(%s)", [self.us / 1e6])

    def _stop_server(self) -> None:
        """Its clock is found before its own by whoever connects from now on."""
        self._server.execute("CREATE SCHEMA stopped")
        self._server.execute("CREATE TABLE stopped.clock AS SELECT to_timestamp(%s) AS now", [self.us / 1e6])
        self._server.execute(
            "CREATE FUNCTION stopped.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE"
            " AS 'SELECT now FROM stopped.clock'"
        )
        name = self._server.info.dbname
        self._server.execute(f"ALTER DATABASE {name} SET search_path = public, stopped, pg_catalog")

    def close(self) -> None:
        self._server.close()


__all__ = ["Recorder", "Time"]
