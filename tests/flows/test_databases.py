"""Databases that cannot serve: each raises a named error that says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.pool import NullPool

from routilux import (
    Client,
    DatabaseReadOnlyError,
    DatabaseUnavailableError,
    FlowRegistry,
    Runtime,
    SchemaForeignError,
    SchemaMissingError,
    SchemaTooNewError,
)
from routilux.store import schema
from tests.flows.flows import GOOD, Step, chain, count, running
from tests.support.fresh import empty_database
from tests.support.looking import rows, stored
from tests.support.postgres import PostgresServer


def test_a_database_that_is_missing(database: str, tmp_path: Path, postgres_server: Any) -> None:
    if database.startswith("sqlite"):
        missing = f"sqlite:///{tmp_path / 'no' / 'such' / 'folder' / 'r.db'}"
    else:
        missing = postgres_server.url("nowhere")
    for door in (lambda: Runtime(1, database=missing), lambda: Client(missing)):
        with pytest.raises(DatabaseUnavailableError):
            door()


def test_a_database_without_a_schema(database: str, tmp_path: Path) -> None:
    with empty_database(database, tmp_path) as empty:
        if database.startswith("postgres"):  # a SQLite file gets its tables at the start of a runtime
            with pytest.raises(SchemaMissingError, match="run `routilux db upgrade`"):
                Runtime(1, database=empty, registry=FlowRegistry())
            with pytest.raises(SchemaMissingError, match="run `routilux db upgrade`"):
                Client(empty)
        else:
            with Runtime(1, database=empty, registry=FlowRegistry()):
                pass
            with Client(empty) as client:
                assert client.list_jobs() == []


@pytest.mark.parametrize(
    ("statement", "error", "match"),
    [
        (
            "UPDATE routilux_alembic_version SET version_num = '9999'",
            SchemaTooNewError,
            "install the version that made it",
        ),
        ("DROP TABLE routilux_alembic_version", SchemaForeignError, "use another database or schema"),
    ],
)
def test_a_schema_that_this_code_cannot_serve(
    database: str, statement: str, error: type[Exception], match: str
) -> None:
    with create_engine(database, poolclass=NullPool).begin() as connection:
        connection.execute(text(statement))
    for door in (lambda: Runtime(1, database=database, registry=FlowRegistry()), lambda: Client(database)):
        with pytest.raises(error, match=match):
            door()
    assert rows(database, "SELECT count(*) FROM routilux_runtimes") == [(0,)]


def test_a_postgres_in_which_this_user_may_only_read(postgres_database: str) -> None:
    with running(postgres_database, chain(Step(count))):
        pass
    reader = f"reader_{uuid4().hex}"
    admin = create_engine(postgres_database, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {reader} LOGIN IN ROLE pg_read_all_data")
    url = make_url(postgres_database).set(username=reader).render_as_string()
    before = stored(postgres_database)
    try:
        with pytest.raises(DatabaseReadOnlyError):
            Runtime(1, database=url, registry=FlowRegistry())
        with Client(url) as client:
            assert client.list_jobs() == []
            with pytest.raises(DatabaseReadOnlyError):
                client.post(*GOOD, {})
        assert stored(postgres_database) == before
    finally:
        with admin.connect() as connection:
            connection.exec_driver_sql(f"DROP ROLE {reader}")


@pytest.fixture(params=["LATIN1", "SQL_ASCII"])
def encoded_otherwise(request: pytest.FixtureRequest, postgres_server: PostgresServer) -> Iterator[str]:
    name = f"t_{uuid4().hex}"
    postgres_server.execute(
        f"CREATE DATABASE {name} ENCODING '{request.param}' LOCALE 'C' TEMPLATE template0"
    )
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


def test_a_database_that_does_not_have_every_text_is_refused_by_name(encoded_otherwise: str) -> None:
    for use in (schema.upgrade, schema.check, Client, lambda url: Runtime(database=url)):
        with pytest.raises(
            DatabaseUnavailableError, match=r"encoding of .* is \w+, .* createdb --encoding=UTF8"
        ):
            use(encoded_otherwise)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///a\x00b",
        "sqlite:///\ud800",
        "sqlite:///" + "x" * 5000,
        "postgresql://user:hunter2@host:port/x",
        "postgresql://user:hunter2@[::1/x",
        "postgresql://user:hunter2@a..b/x",
        "user:hunter2@host",
        "nothing://?password=hunter2",
        "",
    ],
)
def test_a_url_that_cannot_be_one_is_named_without_its_password(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatabaseUnavailableError) as refused:
        Runtime(database=url)
    assert "hunter2" not in str(refused.value)
    assert str(refused.value).encode()
