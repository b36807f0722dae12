"""The tests' own Postgres (`tests/support/postgres.py`) is a real server: it dies and restarts like one."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import psutil
import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from tests.conftest import Spare
from tests.support.postgres import PostgresServer
from tests.support.waiting import eventually


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """One of its own: the other tests' server must not be killed."""
    server = PostgresServer().start()
    yield server
    server.remove()


def ask(url: str, statement: str) -> object:
    with create_engine(url, poolclass=NullPool).connect() as connection:
        return connection.exec_driver_sql(statement).scalar()


def do(url: str, *statements: str) -> None:
    with create_engine(url, poolclass=NullPool).begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def busy(server: PostgresServer) -> None:
    """A query that runs until its backend is ended."""
    with pytest.raises(OperationalError):
        ask(server.url(), "SELECT count(*) FROM generate_series(1, 100000000000)")


def test_it_is_postgres_18_with_durable_settings(server: PostgresServer) -> None:
    assert str(ask(server.url(), "SHOW server_version")).startswith("18.")
    assert ask(server.url(), "SHOW fsync") == "on"
    assert ask(server.url(), "SHOW synchronous_commit") == "on"


def test_a_spare_database_that_was_lost_with_the_server_is_made_again(server: PostgresServer) -> None:
    spare = Spare(server, "template1")
    server.kill9()
    spare._next = spare._create()  # nobody is there
    assert spare._next.exception() is not None
    server.start()
    assert ask(spare.take(), "SELECT 1") == 1
    assert ask(spare.take(), "SELECT 1") == 1
    spare.close()


def test_it_does_not_run_as_root(server: PostgresServer) -> None:
    assert psutil.Process(server.pid).uids().real != 0


def test_committed_rows_outlive_kill9_and_a_restart(server: PostgresServer) -> None:
    url = server.create_database("outlives")
    do(url, "CREATE TABLE t (a INTEGER)", "INSERT INTO t VALUES (42)")
    before = server.pid

    server.kill9()
    with pytest.raises(OperationalError):
        ask(url, "SELECT 1")
    server.start()

    assert server.pid != before
    assert ask(url, "SELECT a FROM t") == 42


def test_kill9_leaves_no_backend_that_works_on_a_query(server: PostgresServer) -> None:
    client = threading.Thread(target=busy, args=(server,))
    client.start()
    running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%%generate_series(1, 100000000000)'"
    eventually(lambda: ask(server.url(), running))
    children = psutil.Process(server.pid).children(recursive=True)

    server.kill9()

    left = [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    assert left == []
    client.join(10)
    server.start()
    assert ask(server.url(), "SELECT 1") == 1


def test_restart_keeps_port_and_data(server: PostgresServer) -> None:
    url = server.create_database("kept")
    do(url, "CREATE TABLE t (a INTEGER)", "INSERT INTO t VALUES (7)")

    server.restart()

    assert ask(url, "SELECT a FROM t") == 7


def test_a_database_from_a_template_has_its_tables_and_is_apart(server: PostgresServer) -> None:
    template = server.create_database("model")
    do(template, "CREATE TABLE t (a INTEGER)", "INSERT INTO t VALUES (1)")

    copy = server.create_database("copy", "model")
    do(copy, "INSERT INTO t VALUES (2)")

    assert ask(copy, "SELECT count(*) FROM t") == 2
    assert ask(template, "SELECT count(*) FROM t") == 1


def test_a_dropped_database_is_gone_though_someone_is_connected(server: PostgresServer) -> None:
    url = server.create_database("dropped")
    connection = create_engine(url, poolclass=NullPool).connect()

    server.drop_database("dropped")

    with pytest.raises(OperationalError, match="does not exist"):
        ask(url, "SELECT 1")
    connection.invalidate()
    connection.close()


def test_only_the_process_that_started_it_removes_it(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        server.remove()

    assert server.home.exists()
    assert ask(server.url(), "SELECT 1") == 1


def test_remove_ends_every_process_and_deletes_the_data() -> None:
    server = PostgresServer().start()
    processes = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]

    server.remove()
    server.remove()

    eventually(lambda: not any(process.is_running() for process in processes))
    assert not server.home.exists()
