"""Postgres: a small commit goes to the server whole, from BEGIN to COMMIT in one text.

What the server reads too late, or will not have, is not in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, Table, event, insert, select, update
from sqlalchemy.exc import DBAPIError

from routilux import Runtime
from routilux.store.backends import driver_sql
from routilux.store.backends.database import Database
from routilux.store.errors import Failure, classify
from routilux.store.tables import commits, inbox, metadata, runtimes, workers
from routilux.store.writes.commit_rows import WHOLE_ROWS, Changes, CommitRow
from routilux.store.writes.store import Store
from tests.crash.support import checker
from tests.crash.support.proxy import LateProxy
from tests.flows.flows import Step, chain
from tests.support.postgres import PostgresServer

RUNTIME = 7
TABLES = [table for table in metadata.sorted_tables if table is not inbox]


def _base() -> Changes:
    """Messages 1 to 5 of jobs 1 to 5, and one of each thing that can be changed."""
    made = Changes()
    made.waiting = [(1, n, n, "r", "in", '{"a": 1}', None, 10) for n in range(1, 6)]
    made.messages = [(1, 6, 5, "r", "in", "{}", None, "parked", 10)]
    made.posted_jobs = [(1, n, f"job {n}", "f", None, 10) for n in range(1, 6)]
    made.state = {(1, "r", "kept"): "1", (1, "r", "gone"): "2"}
    made.parked = {(1, 5): _parked(5), (1, 6): _parked(6)}
    made.slots = {(1, "r", "in"): (1, "r", "in", 5, 1, None, 10)}
    return made


def _parked(seq: int) -> tuple[object, ...]:
    return (1, seq, 5, "r", "retry", 50, None, f"[{seq}]", 1, 0, 3, None, "E", "e", 20)


def _small() -> Changes:
    """A row of every kind, with texts that have to be quoted."""
    made = Changes()
    made.waiting = [(1, 7, 1, "r", "in", '"it\'s" 100% \\u0000 ü \\ %s ?', 2, -30)]
    made.messages = [
        (1, 8, 1, "r", "in", "{}", None, "parked", 30),
        (1, 9, 1, "r", "in", "{}", 4, "parked", 30),
    ]
    made.payloads = [(1, 4, '{"edited": "\\"}')]
    made.moved = [(1, 6, 10)]
    made.settled = [(1, 4, "cancelled"), (1, 10, "dead")]
    made.consumed = [(1, 1, 11), (1, 2, 12)]
    made.completed = [(1, 11, 1, "r", 20, 30, "1")]
    made.activations = [
        (1, 12, 2, "r", 2, "retrying", 20, 30, "2", None, "E", "it's", "line\n\tline"),
        (1, 13, 3, "r", 1, "skipped", 20, 30, "3", '"m"', None, None, None),
    ]
    made.new_jobs = [(1, 6, "job 6", "f", "failed", 0, None, "{}", None, None, "e", 10, 20, 30, 5)]
    made.posted_jobs = [(1, 7, "job 7", "f", '{"m": "ü"}', 30)]
    made.started_jobs = [(1, 1, 3, 20), (1, 2, 1, 21)]
    made.finished_jobs = [(1, 3, 20, 30)]
    made.jobs = [(1, 4, "cancelled", 0, '{"d": 1}', None, None, "why", None, 30, 0)]
    made.traces = [(1, 11, 0, 1, "trace", "r", "said", None, 25)]
    made.state = {(1, "r", "kept"): "3", (1, "r", "gone"): None, (1, "", "new"): '"\\\\"'}
    made.parked = {(1, 5): None, (1, 6): None, (1, 8): _parked(8), (1, 9): _parked(9)}
    made.slots = {(1, "r", "in"): (1, "r", "in", 1, 3, 30, 30)}
    made.workers = {1: (1, "running", 20, 20, 0, None, 20, None)}
    return made


ROW: CommitRow = (RUNTIME, 2, "[]", 40)
Opening = Callable[[str], tuple[Database, Store]]


@pytest.fixture
def opening() -> Iterator[Opening]:
    """Opens a migrated database in which the runtime 7 lives, its first commit is in, and it owns the worker
    1.
    """
    opened = []

    def with_base(url: str) -> tuple[Database, Store]:
        database = Database.open(url)
        opened.append(database)
        with database.write() as connection:
            _fill(connection)
            _base().write(connection, (RUNTIME, 1, "[]", 10))
        return database, Store(database)

    yield with_base
    for database in opened:
        database.close()


def _fill(connection: Connection) -> None:
    living = {
        column.name: 0 if "INT" in str(column.type) else "x" for column in runtimes.c if not column.nullable
    }
    connection.execute(insert(runtimes).values({**living, "key": RUNTIME, "state": "alive"}))
    worker = {
        column.name: 0 if "INT" in str(column.type) else "x" for column in workers.c if not column.nullable
    }
    connection.execute(insert(workers).values({**worker, "key": 1, "owner": RUNTIME, "worker_id": "w"}))


def _rows(database: Database) -> dict[str, list[Any]]:
    with database.read() as connection:
        return {table.name: _sorted(connection, table) for table in TABLES}


def _sorted(connection: Connection, table: Table) -> list[Any]:
    return sorted((tuple(row) for row in connection.execute(select(table))), key=repr)


def test_every_kind_of_row_is_the_same_whole_and_one_by_one(
    opening: Opening, sqlite_database: str, postgres_database: str
) -> None:
    small = _small()
    assert all(
        getattr(small, field.name)
        for field in dataclasses.fields(Changes)
        if field.name not in ("swept_jobs", "swept_counts", "cancelled_workers")
    ), "a kind of row is not tried"
    one_by_one, _ = opening(sqlite_database)
    with one_by_one.write() as connection:
        small.write(connection, ROW)
    whole, store = opening(postgres_database)
    assert store.commit_whole(small, ROW)
    assert _rows(whole) == _rows(one_by_one)


@pytest.mark.parametrize("changed", ["many rows", "swept", "cancelled", "watched", "sqlite"])
def test_what_is_not_small_or_must_read_goes_the_long_way(
    opening: Opening, sqlite_database: str, postgres_database: str, changed: str
) -> None:
    database, store = opening(sqlite_database if changed == "sqlite" else postgres_database)
    made = Changes()
    made.waiting = [(1, n, 1, "r", "in", "{}", None, 10) for n in range(20, 20 + WHOLE_ROWS)]
    match changed:
        case "many rows":
            made.waiting *= 2
        case "swept":
            made.swept_jobs = [(1, 1)]
        case "cancelled":
            made.cancelled_workers = [(1, 40, "why")]
        case "watched":
            made.state = {}
            event.listen(database._engine, "before_cursor_execute", lambda *call: None)
    before = _rows(database)
    assert store.commit_whole(made, ROW) is None
    assert _rows(database) == before


def test_a_runtime_that_is_dead_commits_nothing(opening: Opening, postgres_database: str) -> None:
    database, store = opening(postgres_database)
    with database.write() as connection:
        connection.execute(update(runtimes).values(state="dead"))
    before = _rows(database)
    assert store.commit_whole(_small(), ROW) is False
    assert _rows(database) == before


def test_what_the_server_refuses_is_refused_whole_and_the_next_goes_in(
    opening: Opening, postgres_database: str
) -> None:
    database, store = opening(postgres_database)
    before = _rows(database)
    for broken in ([(1, 1, 1, "r", "in", "{}", None, 10)], [(1, 99, 1, "r", "in", "\0", None, 10)]):
        made = _small()
        made.waiting = [*broken]
        assert store.commit_whole(made, ROW) is False
        assert _rows(database) == before
    assert store.commit_whole(_small(), ROW)


def _prepared(store: Store) -> list[str]:
    with store.commit(RUNTIME) as commit:
        query = "SELECT name FROM pg_prepared_statements WHERE name LIKE 'routilux%%' ORDER BY name"
        return list(commit.connection.exec_driver_sql(query).scalars())


def test_what_is_sent_again_and_again_is_prepared_once(opening: Opening, postgres_database: str) -> None:
    database, store = opening(postgres_database)
    made = Changes()
    made.state = {(1, "r", "kept"): '"2"'}
    assert store.commit_whole(made, ROW)
    names = _prepared(store)
    made.state = {(1, "r", "kept"): '"it\'s 3 %s $1"'}
    assert store.commit_whole(made, (RUNTIME, 3, "[]", 50))
    assert _prepared(store) == names
    assert len(names) == 3  # the state, the row of the commit, the fence
    assert (1, "r", "kept", '"it\'s 3 %s $1"') in _rows(database)["routilux_worker_state"]


def test_what_is_not_prepared_any_more_is_prepared_again(opening: Opening, postgres_database: str) -> None:
    """A statement of the user's may do that, and an error may leave open what is."""
    _, store = opening(postgres_database)
    made = Changes()
    made.state = {(1, "r", "kept"): '"2"'}
    assert store.commit_whole(made, ROW)
    with store.commit(RUNTIME) as commit:
        commit.connection.exec_driver_sql("DEALLOCATE ALL")
    assert store.commit_whole(made, (RUNTIME, 3, "[]", 50)) is False
    assert store.commit_whole(made, (RUNTIME, 3, "[]", 50))
    assert store.commit_whole(made, (RUNTIME, 4, "[]", 60))


def test_an_error_that_ends_the_connection_says_nothing_about_the_commit(
    opening: Opening, postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of whatever kind it is: the server may have gone down after it had committed."""
    database, _ = opening(postgres_database)
    with database.connect_kept() as connection:
        driver = connection.connection.driver_connection

        class Dying:
            def __init__(self, *_: object) -> None:
                driver.close()
                raise psycopg.errors.InternalError_("panic")

        monkeypatch.setattr(psycopg, "ClientCursor", Dying)
        with pytest.raises(DBAPIError) as caught:
            driver_sql.send_whole(connection, "", ())
        connection.invalidate()
    assert classify(caught.value) is Failure.LOST


@pytest.mark.parametrize("are_pruned", [False, True])
def test_a_text_that_the_server_reads_after_later_commits_is_refused(
    opening: Opening, postgres_database: str, monkeypatch: pytest.MonkeyPatch, are_pruned: bool
) -> None:
    """Its own answer is given up, it is sent again and goes in, others follow, the row that told of it is
    pruned.
    """
    database, store = opening(postgres_database)
    sent: list[tuple[Any, ...]] = []
    send = driver_sql.send_whole
    monkeypatch.setattr(driver_sql, "send_whole", lambda *call: (sent.append(call), send(*call)))
    made = Changes()
    for n in (2, 3, 4):
        made.state = {(1, "r", "kept"): f'"of commit {n}"'}
        assert store.commit_whole(made, (RUNTIME, n, "[]", 50))
    if are_pruned:
        with database.write() as connection:
            connection.execute(commits.delete().where(commits.c.n < 4))
    before = _rows(database)
    assert "PREPARE" not in sent[1][1]
    with pytest.raises(DBAPIError) as caught:
        driver_sql.send_whole(*sent[1])
    assert type(caught.value.orig).__name__ == ("DivisionByZero" if are_pruned else "UniqueViolation")
    assert _rows(database) == before


def test_what_reaches_the_server_when_nobody_waits_for_it_any_more_is_not_done_twice(
    postgres_database: str, postgres_server: PostgresServer
) -> None:
    """A proxy keeps every fourth commit, hangs up,
    and hands it to the server when later ones have gone in.
    """
    with LateProxy(postgres_server.port) as proxy:
        url = postgres_database.replace(f":{postgres_server.port}/", f":{proxy.port}/")
        with _counting(url) as runtime:
            proxy.cut(every=4)
            _count_to(30, runtime)
            proxy.cut(every=0)
            assert runtime.wait_until_all_jobs_finished(30)
    assert proxy.refused >= 3
    _check_counted(30, postgres_database)


def test_what_one_caller_at_a_time_brings_goes_whole(
    postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the long way would hide that the short one is refused."""
    results: list[bool | None] = []
    commit_whole = Store.commit_whole

    def noting(*arguments: Any) -> bool | None:
        results.append(commit_whole(*arguments))
        return results[-1]

    monkeypatch.setattr(Store, "commit_whole", noting)
    with _counting(postgres_database) as runtime:
        _count_to(20, runtime)
        assert runtime.wait_until_all_jobs_finished(30)
    assert len(results) >= 20
    assert set(results) == {True}
    _check_counted(20, postgres_database)


@contextmanager
def _counting(url: str) -> Iterator[Runtime]:
    """A flow of two steps, each of which counts in its state."""

    def count(step: Step, slot_data: Any, worker_state: Any) -> None:
        worker_state.increment(step._id, "count")
        step.emit("output", number=1)

    with Runtime(2, database=url, registry=chain(Step(count), Step(count))) as runtime:
        runtime.exec("f", worker_id="w")
        yield runtime


def _count_to(jobs: int, runtime: Runtime) -> None:
    for number in range(jobs):
        runtime.post("f", "s0", "input", {"number": number}, "w")


def _check_counted(jobs: int, url: str) -> None:
    with closing(checker.connect(url)) as connection:
        for question, answer in (
            ("SELECT value FROM routilux_worker_state WHERE key = 'count'", [(str(jobs),)] * 2),
            ("SELECT status, count(*) FROM routilux_jobs GROUP BY 1", [("completed", jobs)]),
            ("SELECT status, count(*) FROM routilux_activations GROUP BY 1", [("completed", 2 * jobs)]),
            ("SELECT status, count(*) FROM routilux_messages GROUP BY 1", [("consumed", 2 * jobs)]),
        ):
            assert connection.execute(question).fetchall() == answer
