"""A database with the user's own table in it, and processes that start fast."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, pool

from tests.crash.support import orders
from tests.crash.support.zygote import Zygote


@pytest.fixture
def shop(database: str) -> str:
    """The URL of a migrated database with the table `orders`."""
    return _with_orders(database)


@pytest.fixture
def postgres_shop(postgres_database: str) -> str:
    """The same on Postgres alone."""
    return _with_orders(postgres_database)


def _with_orders(url: str) -> str:
    with create_engine(url, poolclass=pool.NullPool).begin() as connection:
        orders.metadata.create_all(connection)
    return url


@pytest.fixture(scope="package")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    with Zygote(tmp_path_factory.mktemp("zygote")) as running:
        yield running


@pytest.fixture(scope="package")
def other_zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    """For a second process at the same time."""
    with Zygote(tmp_path_factory.mktemp("zygote")) as running:
        yield running


@pytest.fixture(scope="package")
def third_zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    with Zygote(tmp_path_factory.mktemp("zygote")) as running:
        yield running


@pytest.fixture
def acknowledged(tmp_path: Path) -> Path:
    return tmp_path / "acknowledged"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Kills by phase, also of a run that is quiet."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == "kills":
                terminalreporter.write_line(f"kills survived: {value}")
