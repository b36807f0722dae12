"""What every suite shares: a fresh migrated database of either kind, and a real Postgres for the session."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support.postgres import PostgresServer
from tests.support.shared_suites import BACKENDS, SharedSuites

TEMPLATE = "routilux_template"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """Started by the first test that needs it."""
    server = PostgresServer().start()
    yield server
    server.remove()


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


class Spare:
    """Migrated databases, the next one made while a test runs."""

    def __init__(self, server: PostgresServer, template: str) -> None:
        self._server = server
        self._template = template
        self._background = ThreadPoolExecutor(1)
        self._next = self._create()

    def _create(self) -> Future[str]:
        return self._background.submit(self._server.create_database, f"t_{uuid4().hex}", self._template)

    def take(self) -> str:
        """The one that is ready. If a test killed the server while it was made, another."""
        made = self._next if self._next.exception() is None else self._create()
        self._next = self._create()
        return made.result()

    def give_back(self, url: str) -> None:
        self._background.submit(self._server.drop_database, url.rpartition("/")[2])

    def close(self) -> None:
        self._background.shutdown()


@pytest.fixture(scope="session")
def _spare(postgres_server: PostgresServer) -> Iterator[Spare]:
    from routilux.store.schema import upgrade

    upgrade(postgres_server.create_database(TEMPLATE))
    spare = Spare(postgres_server, TEMPLATE)
    yield spare
    spare.close()


@pytest.fixture
def postgres_database(_spare: Spare) -> Iterator[str]:
    """The URL of a new, migrated Postgres database."""
    url = _spare.take()
    yield url
    _spare.give_back(url)


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


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(SharedSuites(), "shared_suites")
