"""Posts in the caller's own transaction: stored with the caller's rows, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from sqlalchemy import Column, Connection, Integer, MetaData, Table, create_engine, insert, select
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from routilux import Client, IdempotencyConflictError, JobNotFoundError, StateError
from tests.flows.flows import GOOD, Seen, Step, chain, engine_of, known_flow, running
from tests.support.looking import column, stored
from tests.support.waiting import eventually

orders = Table("orders", MetaData(), Column("n", Integer, primary_key=True))


@contextmanager
def own_table(database: str) -> Iterator[Any]:
    """The user's own engine, with a table `orders`."""
    engine = engine_of(database)
    with engine.begin() as connection:
        orders.create(connection)
    yield engine
    engine.dispose()


@pytest.fixture(params=["core", "orm"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextmanager
def transaction_of(engine: Any, kind: str) -> Iterator[Any]:
    """A Core connection or an ORM session with a transaction open; the test ends it."""
    with engine.connect() if kind == "core" else Session(engine) as mine:
        yield mine


def test_a_post_goes_in_with_the_callers_rows_or_not_at_all(database: str, kind: str) -> None:
    seen = Seen()
    registry = chain(Step(seen))
    known_flow(database, registry)
    with own_table(database) as engine, Client(database) as client:
        with transaction_of(engine, kind) as mine:
            mine.execute(insert(orders).values(n=1))
            kept = client.post(*GOOD, {"n": 1}, "w", transaction=mine, metadata={"k": 1})
            assert client.get_job(kept.job_id) is None  # nobody else sees it yet
            assert (kept.status, kept.metadata) == ("pending", {"k": 1})
            assert not kept.job.wait(0.05)
            mine.commit()
            assert kept.status == "pending"
            mine.execute(insert(orders).values(n=2))
            lost = client.post(*GOOD, {"n": 2}, "w", transaction=mine)
            many = client.post_many(*GOOD, [{"n": 3}, {"n": 4}], transaction=mine)
            mine.rollback()
        for job in (lost.job, *many):
            assert client.get_job(job.job_id) is None
            with pytest.raises(JobNotFoundError):
                job.status
        with engine.connect() as connection:
            assert connection.execute(select(orders.c.n)).scalars().all() == [1]
        with running(database, registry) as runtime:
            assert kept.job.wait(10)
            assert runtime.get_job(lost.job_id) is None
    assert seen.items == [{"n": 1}]


def test_a_runtime_posts_in_the_callers_transaction_too(database: str, kind: str) -> None:
    seen = Seen()
    with running(database, chain(Step(seen))) as runtime, own_table(database) as engine:
        with transaction_of(engine, kind) as mine:
            mine.execute(insert(orders).values(n=1))
            posted = runtime.post(*GOOD, {"n": 1}, transaction=mine)
            assert (posted.worker, posted.status) == (None, "pending")
            jobs = runtime.post_many(*GOOD, [{"n": 2}, {"n": 3}], transaction=mine)
            assert seen.items == []
            mine.commit()
        assert posted.job.wait(10)
        assert all(job.wait(10) for job in jobs)
        assert (posted.job.status, posted.job.worker_id) == ("completed", "w")
    assert seen.items == [{"n": 1}, {"n": 2}, {"n": 3}]


def test_an_id_and_a_savepoint_in_the_callers_transaction(database: str) -> None:
    seen = Seen()
    registry = chain(Step(seen))
    known_flow(database, registry)
    with own_table(database) as engine, Client(database) as client:
        with engine.begin() as mine:
            client.post(*GOOD, {"n": 1}, job_id="mine", transaction=mine)
            client.post(*GOOD, {"n": 1}, job_id="mine", transaction=mine)
            with pytest.raises(IdempotencyConflictError):
                client.post(*GOOD, {"n": 2}, job_id="mine", transaction=mine)
            with mine.begin_nested() as savepoint:
                undone = client.post(*GOOD, {"n": 3}, transaction=mine)
                savepoint.rollback()
        assert stored(database)["inbox"] == 1
        assert client.get_job(undone.job_id) is None
        with engine.begin() as mine:
            assert client.post(*GOOD, {"n": 1}, job_id="mine", transaction=mine).status == "pending"
        with running(database, registry):
            assert client.get_job("mine").wait(10)
    assert seen.items == [{"n": 1}]


def test_two_callers_that_commit_one_id_at_once_make_one_job(database: str) -> None:
    """Each looked before the other committed: the owner settles it when it accepts them."""
    seen = Seen()
    registry = chain(Step(seen))
    known_flow(database, registry)
    with own_table(database) as engine, Client(database) as client:
        if database.startswith("sqlite"):  # one writer at a time: the second looks after the first
            for _ in range(2):
                with engine.begin() as mine:
                    client.post(*GOOD, {"n": 1}, job_id="mine", transaction=mine)
        else:
            with engine.begin() as one, engine.begin() as two:
                for mine in (one, two):
                    client.post(*GOOD, {"n": 1}, job_id="mine", transaction=mine)
        with running(database, registry) as runtime:
            assert client.get_job("mine").wait(10)
            assert runtime.wait_until_all_jobs_finished(10)
            eventually(lambda: stored(database)["inbox"] == 0)
    assert seen.items == [{"n": 1}]
    assert column(database, "SELECT job_id FROM routilux_jobs") == ["mine"]


def test_on_sqlite_the_callers_transaction_comes_from_sqlite_engine(sqlite_database: str) -> None:
    with running(sqlite_database, chain(Step(Seen()))) as runtime:
        plain = create_engine(sqlite_database, poolclass=NullPool)
        with plain.connect() as mine, pytest.raises(StateError, match=r"routilux\.sqlite_engine"):
            runtime.post(*GOOD, {}, transaction=mine)
        with own_table(sqlite_database) as engine, engine.begin() as mine:
            mine.execute(insert(orders).values(n=1))
            with pytest.raises(StateError, match="transaction="):  # else it would wait for itself
                runtime.post(*GOOD, {})
    assert stored(sqlite_database)["inbox"] == 0


def test_a_connection_that_is_not_in_a_transaction_begins_one(database: str) -> None:
    seen = Seen()
    registry = chain(Step(seen))
    known_flow(database, registry)
    with own_table(database) as engine, Client(database) as client, engine.connect() as mine:
        assert isinstance(mine, Connection)
        assert not mine.in_transaction()
        client.post(*GOOD, {"n": 1}, transaction=mine)
        assert mine.in_transaction()
    assert stored(database)["inbox"] == 0  # closed without a commit


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
