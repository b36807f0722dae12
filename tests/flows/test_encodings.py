"""Postgres: every text goes in and comes out as it is, whatever encoding a role or a database asks its
clients for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import create_engine

from routilux import Client, Runtime
from routilux.errors import DatabaseUnavailableError, StateError
from routilux.store import schema
from tests.flows.flows import Step, chain, running
from tests.support.postgres import PostgresServer
from tests.support.waiting import eventually

TEXT = "zażółć 日本語 🙂 \u0085 ÿ"


@pytest.fixture(params=["LATIN1", "WIN1250", "SQL_ASCII"])
def asking_for(
    request: pytest.FixtureRequest, postgres_database: str, postgres_server: PostgresServer
) -> str:
    """A database in UTF8 that asks its clients for another encoding."""
    name = postgres_database.rpartition("/")[2]
    postgres_server.execute(f"ALTER DATABASE {name} SET client_encoding = '{request.param}'")
    return postgres_database


@pytest.fixture(params=["LATIN1", "SQL_ASCII"])
def encoded_otherwise(request: pytest.FixtureRequest, postgres_server: PostgresServer) -> Iterator[str]:
    name = f"t_{uuid4().hex}"
    postgres_server.execute(
        f"CREATE DATABASE {name} ENCODING '{request.param}' LOCALE 'C' TEMPLATE template0"
    )
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


@pytest.mark.parametrize("query", ["", "?client_encoding=latin1"], ids=["", "in the URL, too"])
def test_text_is_the_same_again(asking_for: str, query: str) -> None:
    seen: list[Any] = []

    def keep(step: Step, slot_data: Any, worker_state: Any) -> None:
        worker_state.update_routine_state("s0", {TEXT: TEXT})
        seen.append(slot_data["input"][0]["text"])

    url = asking_for + query
    with running(url, chain(Step(keep))) as runtime, Client(url) as client:
        mine = runtime.post("f", "s0", "input", {"text": TEXT}, "w", metadata={TEXT: TEXT}).job
        theirs = client.post("f", "s0", "input", {"text": TEXT}, "w", job_id="zażółć").job
        assert mine.wait(20)
        assert theirs.wait(20)
        assert mine.metadata == {TEXT: TEXT}
        assert client.get_job("zażółć").status == "completed"
    assert seen == [TEXT, TEXT]
    with running(url, chain(Step(keep))) as again:
        assert again.exec("f", worker_id="w").get_routine_state("s0") == {TEXT: TEXT}


def test_a_database_that_does_not_have_every_text_is_refused_by_name(encoded_otherwise: str) -> None:
    for use in (schema.upgrade, schema.check, Client, lambda url: Runtime(database=url)):
        with pytest.raises(
            DatabaseUnavailableError, match=r"encoding of .* is \w+, .* createdb --encoding=UTF8"
        ):
            use(encoded_otherwise)


def test_a_connection_of_the_callers_that_lacks_a_character_is_named(postgres_database: str) -> None:
    theirs = create_engine(postgres_database, connect_args={"client_encoding": "LATIN1"})
    try:
        with Client(postgres_database) as client, running(postgres_database, chain(Step(lambda *_: None))):
            for text, is_there in (("zażółć", False), ("plain", True)):
                with suppress(StateError), theirs.begin() as connection:
                    client.post("f", "s0", "input", {"text": text}, "w", job_id=text, transaction=connection)
                    assert is_there
            eventually(lambda: client.get_job("plain"))
            assert client.get_job("zażółć") is None
    finally:
        theirs.dispose()
