"""What every suite shares: a fresh migrated database of either kind, and a real Postgres for the session."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support.postgres import PostgresServer

BACKENDS = ("sqlite", "postgres")
TEMPLATE = "routilux_template"
_ran: Counter[str] = Counter()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """Started by the first test that needs it."""
    server = PostgresServer().start()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def _template(postgres_server: PostgresServer) -> str:
    from routilux.store.schema import upgrade

    upgrade(postgres_server.create_database(TEMPLATE))
    return TEMPLATE


@pytest.fixture(scope="session")
def _sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    from routilux.store.schema import upgrade

    path = tmp_path_factory.mktemp("template") / "routilux.db"
    upgrade(f"sqlite:///{path}")
    return path.read_bytes()


@pytest.fixture
def empty_postgres_database(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of a new database without any table."""
    name = f"t_{uuid4().hex}"
    yield postgres_server.create_database(name)
    postgres_server.drop_database(name)


@pytest.fixture
def postgres_database(postgres_server: PostgresServer, _template: str) -> Iterator[str]:
    """The URL of a new, migrated Postgres database."""
    name = f"t_{uuid4().hex}"
    yield postgres_server.create_database(name, _template)
    postgres_server.drop_database(name)


@pytest.fixture
def sqlite_database(tmp_path: Path, _sqlite_template: bytes) -> str:
    """The URL of a new, migrated SQLite file."""
    path = tmp_path / "routilux.db"
    path.write_bytes(_sqlite_template)
    return f"sqlite:///{path}"


@pytest.fixture(params=BACKENDS)
def database(request: pytest.FixtureRequest) -> str:
    """The URL of a new, migrated database: each test runs on both kinds."""
    return str(request.getfixturevalue(f"{request.param}_database"))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call":
        for backend in BACKENDS:
            if f"[{backend}" in report.nodeid or f"-{backend}" in report.nodeid:
                _ran[backend] += report.outcome != "skipped"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(f"shared suites: sqlite={_ran['sqlite']} postgres={_ran['postgres']}")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """In CI every shared test must have run on Postgres too."""
    if os.environ.get("CI") == "true" and exitstatus == 0 and _ran["postgres"] < _ran["sqlite"]:
        session.exitstatus = 1
