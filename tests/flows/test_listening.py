"""Postgres: what another process wants is heard at once.

The runtimes here would not look for an hour by themselves.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, create_engine, event, text

from routilux import Client, Runtime
from routilux.engine.settings import Settings
from routilux.store.backends import notify
from tests.flows.flows import Step, chain, running
from tests.support.inside_runtime import identity, lease
from tests.support.waiting import eventually

HOUR_S = 3600.0


@pytest.fixture
def deaf_but_for_calls(postgres_database: str) -> Iterator[Runtime]:
    settings = Settings(poll_s=HOUR_S, reconcile_s=HOUR_S, lease_s=2.0)
    with running(postgres_database, chain(Step(lambda *_: None)), lease=2.0, settings=settings) as runtime:
        eventually(lambda: lease(runtime).listens)
        yield runtime


@pytest.fixture
def users_engine(postgres_database: str) -> Iterator[Engine]:
    engine = create_engine(postgres_database)
    yield engine
    engine.dispose()


def test_posts_of_another_process_are_heard(deaf_but_for_calls: Runtime, postgres_database: str) -> None:
    """The second follows too soon to be told of: it is found by looking once more."""
    with Client(postgres_database) as client:
        jobs = [client.post("f", "s0", "input", {"n": n}, "w").job for n in range(2)]
        assert all(job.wait(20) for job in jobs)


def test_a_post_in_the_callers_transaction_is_heard_when_that_commits(
    deaf_but_for_calls: Runtime, postgres_database: str, users_engine: Engine
) -> None:
    with Client(postgres_database) as client:
        with users_engine.begin() as connection:
            job = client.post("f", "s0", "input", {"n": 1}, "w", transaction=connection).job
        assert job.wait(20)


@pytest.mark.parametrize("is_prepared", [False, True])
def test_a_transaction_that_may_be_prepared_does_not_tell(
    postgres_database: str, users_engine: Engine, is_prepared: bool
) -> None:
    """Postgres refuses to prepare one that does."""
    sent: list[str] = []
    event.listen(
        users_engine, "before_cursor_execute", lambda c, cursor, statement, *rest: sent.append(statement)
    )
    registry = chain(Step(lambda *_: None))
    with (
        running(postgres_database, registry),
        Client(postgres_database) as client,
        users_engine.connect() as connection,
    ):
        transaction = connection.begin_twophase() if is_prepared else connection.begin()
        client.post("f", "s0", "input", {"n": 1}, "w", transaction=connection)
        transaction.rollback()
    assert any("pg_notify" in statement for statement in sent) is not is_prepared


def test_a_runtime_listens_again_when_its_connection_was_lost(
    deaf_but_for_calls: Runtime, postgres_database: str, users_engine: Engine
) -> None:
    key = identity(deaf_but_for_calls)
    query = text("SELECT backend_pid FROM routilux_runtimes WHERE key = :key")
    with users_engine.connect() as connection:
        before = connection.execute(query, {"key": key}).scalar_one()
        connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": before})

    def has_another() -> bool:
        with users_engine.connect() as connection:
            return bool(connection.execute(query, {"key": key}).scalar_one() != before)

    eventually(has_another)
    eventually(lambda: lease(deaf_but_for_calls).listens)
    with Client(postgres_database) as client:
        assert client.post("f", "s0", "input", {"n": 1}, "w").job.wait(20)


def test_who_posts_fast_does_not_tell_of_each(
    postgres_database: str, users_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit that tells waits for all others that do."""
    monkeypatch.setattr(notify, "TELL_EVERY_S", HOUR_S)
    with users_engine.connect() as ear:
        ear.execution_options(isolation_level="AUTOCOMMIT")
        ear.execute(text(f"LISTEN {notify.CHANNEL}"))
        with running(postgres_database, chain(Step(lambda *_: None))), Client(postgres_database) as client:
            for n in range(20):
                client.post("f", "s0", "input", {"n": n}, "w")
        driver = ear.connection.driver_connection
        assert driver is not None
        assert len(list(driver.notifies(timeout=1.0, stop_after=2))) == 1


def test_whom_one_database_was_told_of_does_not_silence_another(
    postgres_database: str, users_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process may have clients of several databases."""
    monkeypatch.setattr(notify, "TELL_EVERY_S", HOUR_S)
    with users_engine.connect() as ear:
        ear.execution_options(isolation_level="AUTOCOMMIT")
        ear.execute(text(f"LISTEN {notify.CHANNEL}"))
        with running(postgres_database, chain(Step(lambda *_: None))):
            for n in range(2):
                with Client(postgres_database) as client:
                    client.post("f", "s0", "input", {"n": n}, "w")
        driver = ear.connection.driver_connection
        assert driver is not None
        assert len(list(driver.notifies(timeout=1.0, stop_after=2))) == 2
