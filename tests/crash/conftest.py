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
    with create_engine(database, poolclass=pool.NullPool).begin() as connection:
        orders.metadata.create_all(connection)
    return database


@pytest.fixture(scope="package")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    with Zygote(tmp_path_factory.mktemp("zygote")) as running:
        yield running


@pytest.fixture(scope="package")
def other_zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    """For a second process at the same time."""
    with Zygote(tmp_path_factory.mktemp("zygote")) as running:
        yield running


@pytest.fixture
def acknowledged(tmp_path: Path) -> Path:
    return tmp_path / "acknowledged"
