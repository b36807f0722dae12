"""How both databases are reached: what holds for both, then what each has of its own."""

from __future__ import annotations

import os
import pwd
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import DBAPIError, OperationalError

from routilux.errors import DatabaseReadOnlyError, DatabaseUnavailableError, ForkedRuntimeError, StateError
from routilux.store.backends import postgres_connection, sqlite_connection
from routilux.store.backends.database import Database, sqlite_engine
from routilux.store.backends.host_clock import boot_time_us, host_boot_id
from routilux.store.errors import Failure, classify

ROOT = Path(__file__).parents[2]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture(params=["sqlite", "memory", "postgres"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An open database with an empty table `t`."""
    match request.param:
        case "sqlite":
            database = Database.open(f"sqlite:///{tmp_path}/jobs.db")
        case "memory":
            database = Database.open("sqlite://")
        case _:
            url = request.getfixturevalue("empty_postgres_database")
            database = Database.open(url, allow_fsync_off=True)
    with database.write() as connection:
        connection.exec_driver_sql("CREATE TABLE t (a INTEGER)")
    yield database
    database.close()


@pytest.fixture
def on_file(file: Path) -> Iterator[Database]:
    database = Database.open(f"sqlite:///{file}")
    with database.write() as connection:
        connection.exec_driver_sql("CREATE TABLE t (a INTEGER)")
    yield database
    database.close()


@pytest.fixture
def on_postgres(empty_postgres_database: str) -> Iterator[Database]:
    database = Database.open(empty_postgres_database, allow_fsync_off=True)
    yield database
    database.close()


def add(connection: Connection, value: int) -> None:
    connection.execute(text("INSERT INTO t VALUES (:value)"), {"value": value})


def rows(database: Database) -> list[int]:
    with database.read() as connection:
        return list(connection.execute(text("SELECT a FROM t ORDER BY a")).scalars())


def pragma(connection: Connection, name: str) -> object:
    return connection.exec_driver_sql(f"PRAGMA {name}").scalar()


# both


def test_a_write_is_there_when_its_block_has_ended(opened: Database) -> None:
    with opened.write() as connection:
        add(connection, 1)
    assert rows(opened) == [1]


def test_a_write_that_raises_leaves_nothing(opened: Database) -> None:
    with pytest.raises(ZeroDivisionError), opened.write() as connection:
        add(connection, 1)
        _ = 1 / 0
    with pytest.raises(DBAPIError), opened.write() as connection:
        add(connection, 1)
        connection.exec_driver_sql("INSERT INTO nowhere VALUES (1)")
    assert rows(opened) == []
    with opened.write() as connection:
        add(connection, 2)
    assert rows(opened) == [2]


def test_a_savepoint_takes_back_its_part_only(opened: Database) -> None:
    with opened.write() as connection:
        add(connection, 1)
        with pytest.raises(ZeroDivisionError), connection.begin_nested():
            add(connection, 2)
            _ = 1 / 0
        with connection.begin_nested():
            add(connection, 3)
    assert rows(opened) == [1, 3]


def test_a_writer_commits_and_can_be_dropped(opened: Database) -> None:
    writer = opened.connect_writer()
    for value in range(3):
        with writer.transaction() as connection:
            add(connection, value)
        if not opened.is_memory:
            writer.drop()
    assert rows(opened) == [0, 1, 2]


def test_what_before_commit_raises_prevents_the_commit_and_after_commit_hides_it(opened: Database) -> None:
    def fail(*_: object) -> None:
        raise ConnectionResetError

    writer = opened.connect_writer()
    writer.before_commit = fail
    with pytest.raises(ConnectionResetError), writer.transaction() as connection:
        add(connection, 1)
    writer.before_commit, writer.after_commit = None, fail
    with pytest.raises(ConnectionResetError), writer.transaction() as connection:
        add(connection, 2)
    assert rows(opened) == [2]


def test_threads_write_and_read_at_once(opened: Database) -> None:
    errors: list[BaseException] = []

    def work(start: int) -> None:
        try:
            for value in range(start, start + 25):
                with opened.write() as connection:
                    add(connection, value)
                rows(opened)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(100 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(rows(opened)) == 100


def test_now_is_in_microseconds_of_this_century(opened: Database) -> None:
    with opened.read() as connection:
        assert 1_700_000_000_000_000 < opened.now_us(connection) < 4_000_000_000_000_000


def test_a_closed_database_says_so(opened: Database) -> None:
    opened.close()
    opened.close()
    with pytest.raises(DatabaseUnavailableError, match="was closed"), opened.write():
        pass


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_may_not_use_the_database_of_its_parent(opened: Database) -> None:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            with opened.write():
                pass
        except ForkedRuntimeError:
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://host/name", "only SQLite and Postgres"),
        ("jobs.db", "is not a database URL"),
        ("sqlite:////nowhere/at/all/jobs.db", "directory /nowhere/at/all does not exist"),
        ("sqlite:///file:jobs.db?uri=true", "not a plain file"),
        ("postgresql://user:secret@127.0.0.1:1/name", "check that the server runs"),
    ],
)
def test_what_cannot_be_opened_is_refused_with_the_reason(url: str, words: str) -> None:
    with pytest.raises(DatabaseUnavailableError, match=words) as caught:
        Database.open(url)
    assert "secret" not in str(caught.value)


def test_an_unknown_durability_is_refused() -> None:
    with pytest.raises(ValueError, match="power_loss"):
        Database.open("sqlite://", durability="none")  # type: ignore[arg-type]  # the point


# SQLite


def test_the_writing_connection_syncs_every_commit(on_file: Database) -> None:
    expected = {
        "synchronous": 2,  # FULL
        "journal_mode": "wal",
        "foreign_keys": 1,
        "trusted_schema": 0,
        "cell_size_check": 1,
        "wal_autocheckpoint": 0,
        "mmap_size": 0,
        "temp_store": 2,
        "cache_size": -65536,
        "busy_timeout": sqlite_connection.BUSY_MS,
        "auto_vacuum": 2,  # INCREMENTAL
    }
    with on_file.write() as connection:
        assert {name: pragma(connection, name) for name in expected} == expected
    with sqlite_engine(on_file.url).begin() as connection:
        assert {name: pragma(connection, name) for name in expected} == expected


def test_two_databases_on_one_file_keep_their_own_durability(on_file: Database) -> None:
    weaker = Database.open(on_file.url, durability="process_crash")
    for _ in range(2):
        with weaker.write() as connection:
            assert pragma(connection, "synchronous") == 1
        with on_file.write() as connection:
            assert pragma(connection, "synchronous") == 2
    weaker.close()
    with on_file.write() as connection:  # the connection that they share is still there
        add(connection, 1)


def test_a_reader_cannot_write(on_file: Database) -> None:
    with pytest.raises(OperationalError) as caught, on_file.read() as connection:
        add(connection, 1)
    assert classify(caught.value) is Failure.READ_ONLY


def test_a_reader_does_not_stand_in_the_way_of_a_writer(on_file: Database) -> None:
    with on_file.read() as reading:
        assert reading.execute(text("SELECT count(*) FROM t")).scalar() == 0
        with on_file.write() as connection:
            add(connection, 1)
        assert reading.execute(text("SELECT count(*) FROM t")).scalar() == 0
    assert rows(on_file) == [1]


def test_a_transaction_that_a_statement_ended_does_no_harm_to_the_next(on_file: Database) -> None:
    with on_file.write() as connection:
        add(connection, 1)
        connection.exec_driver_sql("COMMIT")
    with on_file.write() as connection:
        add(connection, 2)
    assert rows(on_file) == [1, 2]


def test_an_engine_of_the_user_names_the_file(on_file: Database) -> None:
    again = Database.open(sqlite_engine(on_file.url))
    assert again.path == on_file.path
    again.close()
    with pytest.raises(DatabaseUnavailableError, match="in memory"):
        Database.open(create_engine("sqlite://"))


def test_a_file_that_was_deleted_and_made_anew_is_another_file(file: Path) -> None:
    for value in (1, 2):
        database = Database.open(f"sqlite:///{file}")
        with database.write() as connection:
            connection.exec_driver_sql("CREATE TABLE t (a INTEGER)")
            add(connection, value)
        assert rows(database) == [value]
        file.unlink()  # still open, as after a careless clean-up
        for end in ("-wal", "-shm"):
            Path(f"{file}{end}").unlink()


def test_a_file_of_something_else_is_refused(file: Path) -> None:
    file.write_text("no database " * 1000)
    with pytest.raises(DatabaseUnavailableError, match="not a SQLite database"):
        Database.open(f"sqlite:///{file}")
    assert file.read_text() == "no database " * 1000


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailableError, match="is a directory"):
        Database.open(f"sqlite:///{tmp_path}")


@contextmanager
def ordinary_user(*places: Path) -> Iterator[None]:
    """Root may write everywhere: act as `nobody`, who owns the places."""
    if os.geteuid() != 0:
        yield
        return
    nobody = pwd.getpwnam("nobody").pw_uid
    for place in places:
        os.chown(place, nobody, -1)
    os.setresuid(nobody, nobody, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


@pytest.mark.parametrize("what", ["file", "directory"])
def test_what_cannot_be_written_is_refused(what: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "a.db"
        Database.open(f"sqlite:///{file}").close()
        place = file if what == "file" else file.parent
        with ordinary_user(file.parent, *file.parent.iterdir()):
            mode = place.stat().st_mode
            place.chmod(mode & ~0o222)
            try:
                with pytest.raises(DatabaseReadOnlyError, match="no permission"):
                    Database.open(f"sqlite:///{file}")
            finally:
                place.chmod(mode)


def test_only_what_others_commit_is_a_change(on_file: Database) -> None:
    writer = on_file.connect_writer()
    token, is_changed = on_file.changed_since(None)
    assert is_changed
    with writer.transaction() as connection:
        add(connection, 1)
    token, is_changed = on_file.changed_since(token)
    assert not is_changed
    stranger = sqlite3.connect(str(on_file.path), isolation_level=None)
    for value in range(3):  # at once: the clock of the file system does not tell them apart
        stranger.execute("INSERT INTO t VALUES (?)", (value,))
        token, is_changed = on_file.changed_since(token)
        assert is_changed
        assert on_file.changed_since(token) == (token, False)
    stranger.close()


def test_a_post_of_another_runtime_of_this_process_is_a_change(opened: Database) -> None:
    writer = opened.connect_writer()
    token, _ = opened.changed_since(None)
    with opened.write() as connection:
        add(connection, 1)
    token, is_changed = opened.changed_since(token)
    assert is_changed
    with writer.transaction() as connection:
        add(connection, 2)
    assert opened.changed_since(token)[1] == opened.is_postgres


def test_a_change_during_our_own_commit_is_seen(on_file: Database) -> None:
    writer = on_file.connect_writer()
    token, _ = on_file.changed_since(None)
    stranger = sqlite3.connect(str(on_file.path), isolation_level=None)
    stranger.execute("INSERT INTO t VALUES (1)")
    stranger.close()
    with writer.transaction() as connection:
        add(connection, 2)
        assert on_file.changed_since(token) == (token, False)  # not to be known yet
    assert on_file.changed_since(token)[1]


def test_the_wal_is_copied_when_it_has_grown_and_then_begins_anew(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_connection, "WAL_BYTES", 1_000_000)
    database = Database.open(f"sqlite:///{file}")
    wal = Path(f"{file}-wal")
    with database.write() as connection:
        connection.exec_driver_sql("CREATE TABLE big (a BLOB)")
    for _ in range(100):
        with database.write() as connection:
            connection.exec_driver_sql("INSERT INTO big VALUES (zeroblob(200000))")
    assert wal.stat().st_size < 2_000_000
    database.checkpoint(truncate=True)
    assert wal.stat().st_size == 0
    engine = sqlite_engine(file)
    for _ in range(100):
        with engine.begin() as connection:
            connection.exec_driver_sql("INSERT INTO big VALUES (zeroblob(200000))")
    assert wal.stat().st_size < 2_000_000
    engine.dispose()
    database.close()


def test_a_held_reader_does_not_stop_a_checkpoint_or_the_writers(on_file: Database) -> None:
    with on_file.read() as reading:
        reading.execute(text("SELECT count(*) FROM t")).scalar()
        with on_file.write() as connection:
            add(connection, 1)
        pages, copied = on_file.checkpoint(truncate=True)
        assert copied < pages
    assert on_file.checkpoint(truncate=True) == (0, 0)


def test_the_clock_of_leases_runs_and_names_its_boot() -> None:
    before = boot_time_us()
    assert before <= boot_time_us() < before + 60_000_000
    assert host_boot_id() == host_boot_id() != ""


# the user's engine on SQLite


def test_a_users_transaction_has_the_turn_until_it_ends(on_file: Database) -> None:
    engine = sqlite_engine(on_file.url)
    with engine.connect() as connection:
        for end in (connection.commit, connection.rollback, connection.invalidate):
            add(connection, 1)
            with pytest.raises(StateError, match="commit it first"), on_file.write():
                pass
            end()
            with on_file.write(0.0) as ours:
                add(ours, 2)
            if connection.invalidated:
                connection.rollback()
        add(connection, 3)
    with on_file.write(0.0):  # it went back to the pool
        pass
    engine.dispose()
    assert rows(on_file) == [1, 2, 2, 2]


def test_a_users_transaction_makes_other_threads_wait(on_file: Database) -> None:
    engine = sqlite_engine(on_file.url)
    done = threading.Event()

    def write() -> None:
        with on_file.write() as connection:
            add(connection, 2)
        done.set()

    with engine.begin() as connection:
        add(connection, 1)
        thread = threading.Thread(target=write)
        thread.start()
        assert not done.is_set()
    thread.join()
    assert rows(on_file) == [1, 2]
    engine.dispose()


def test_a_users_read_only_transaction_waits_for_nobody_and_cannot_write(on_file: Database) -> None:
    engine = sqlite_engine(on_file.url)
    with on_file.write(), engine.connect().execution_options(routilux_readonly=True) as connection:
        assert connection.execute(text("SELECT count(*) FROM t")).scalar() == 0
        with pytest.raises(OperationalError, match="readonly"):
            add(connection, 1)
    with engine.begin() as connection:  # the same connection of the pool
        add(connection, 1)
    engine.dispose()


def test_a_user_engine_that_waits_too_long_says_who_has_the_turn(on_file: Database) -> None:
    engine = sqlite_engine(on_file.url, turn_timeout_s=0.02)
    errors: list[BaseException] = []

    def write() -> None:
        try:
            with engine.begin():
                pass
        except BaseException as error:
            errors.append(error)

    with engine.begin():
        pass
    with on_file.write():
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
    assert "a thread of this process" in str(errors[0])
    with engine.begin() as connection:
        add(connection, 1)
    engine.dispose()


INTERLEAVED = """
import sys, threading
from sqlalchemy import text
from routilux.store.backends.database import Database, sqlite_engine
database = Database.open(sys.argv[1])
engine = sqlite_engine(sys.argv[1])
writer = database.connect_writer()
insert = text("INSERT INTO t VALUES (1)")
failed = []
def ours():
    for _ in range(150):
        with writer.transaction() as connection:
            connection.execute(insert)
def theirs():
    for _ in range(150):
        with engine.begin() as connection:
            connection.execute(text("SELECT count(*) FROM t")).scalar()
            connection.execute(insert)
def run(loop):
    try:
        loop()
    except BaseException as error:
        failed.append(error)
threads = [threading.Thread(target=run, args=(loop,)) for loop in (ours, theirs)]
for thread in threads: thread.start()
for thread in threads: thread.join()
engine.dispose()
database.close()
sys.exit(str(failed) if failed else 0)
"""


def test_users_and_writers_of_two_processes_never_find_the_database_locked(on_file: Database) -> None:
    command = [sys.executable, "-c", INTERLEAVED, f"sqlite:///{on_file.path}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    children = [subprocess.Popen(command, stderr=subprocess.PIPE, env=environment) for _ in range(2)]
    said = [child.communicate()[1] for child in children]
    assert [child.returncode for child in children] == [0, 0], said
    assert len(rows(on_file)) == 600


# Postgres


def setting(connection: Connection, name: str) -> object:
    return connection.exec_driver_sql(f"SHOW {name}").scalar()


@pytest.mark.parametrize(("durability", "expected"), [("power_loss", "on"), ("process_crash", "off")])
def test_every_postgres_transaction_brings_its_settings(
    empty_postgres_database: str, durability: str, expected: str
) -> None:
    database = Database.open(empty_postgres_database, durability=durability, allow_fsync_off=True)  # type: ignore[arg-type]  # from a parameter
    writer = database.connect_writer()
    for _ in range(2):
        for begin in (database.write, writer.transaction):
            with begin() as connection:
                assert setting(connection, "synchronous_commit") == expected
                assert setting(connection, "transaction_isolation") == "read committed"
                assert setting(connection, "lock_timeout") == "5s"
                assert setting(connection, "idle_in_transaction_session_timeout") == "6s"
    with database.read() as connection:  # nothing of it stays behind in a session
        assert setting(connection, "lock_timeout") == "0"
        assert setting(connection, "transaction_read_only") == "on"
    database.close()


def test_a_plain_postgres_url_goes_through_psycopg(empty_postgres_database: str) -> None:
    plain = empty_postgres_database.replace("postgresql+psycopg", "postgresql")
    database = Database.open(plain, allow_fsync_off=True)
    assert database.url.drivername == "postgresql+psycopg"
    database.close()


def test_a_missing_postgres_database_is_named(empty_postgres_database: str) -> None:
    with pytest.raises(DatabaseUnavailableError, match=r"_gone.*create the database first"):
        Database.open(f"{empty_postgres_database}_gone", allow_fsync_off=True)


def test_a_server_that_does_not_sync_is_refused_unless_it_is_allowed(
    empty_postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = Connection.exec_driver_sql
    monkeypatch.setattr(
        Connection,
        "exec_driver_sql",
        lambda self, statement, *rest: look(
            self, "SELECT 'off'" if statement == "SHOW fsync" else statement, *rest
        ),
    )
    with pytest.raises(DatabaseUnavailableError, match="fsync=off"):
        Database.open(empty_postgres_database)
    Database.open(empty_postgres_database, allow_fsync_off=True).close()
    Database.open(empty_postgres_database, durability="process_crash").close()


def test_a_killed_backend_is_a_lost_connection_and_the_next_transaction_works(on_postgres: Database) -> None:
    writer = on_postgres.connect_writer()
    with pytest.raises(DBAPIError) as caught, writer.transaction() as connection:
        backend = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
        with on_postgres.write() as other:
            other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": backend})
        connection.exec_driver_sql("SELECT 1")
    assert classify(caught.value) is Failure.LOST
    writer.drop()
    with writer.transaction() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1


def test_a_backend_killed_between_transactions_is_no_trouble_for_the_pool(on_postgres: Database) -> None:
    with on_postgres.write() as connection:
        backend = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
    writer = on_postgres.connect_writer()
    with writer.transaction() as connection:
        held = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
    engine = create_engine(on_postgres.url)
    with engine.begin() as connection:
        for pid in {backend, held}:
            connection.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
    engine.dispose()
    with on_postgres.write() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1
    with pytest.raises(DBAPIError) as caught, writer.transaction() as connection:
        connection.exec_driver_sql("SELECT 1")
    assert classify(caught.value) is Failure.LOST
    writer.drop()
    with writer.transaction() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1


def test_a_question_travels_with_begin_and_a_lost_connection_is_seen_by_it(on_postgres: Database) -> None:
    writer = on_postgres.connect_writer()
    ask = "SELECT pg_backend_pid()"
    with writer.transaction(ask) as connection:
        (held,) = connection.info[postgres_connection.ANSWER]
        assert connection.exec_driver_sql("SHOW lock_timeout").scalar() == "5s"
    with writer.transaction("SELECT 1 WHERE false") as connection:
        assert connection.info[postgres_connection.ANSWER] is None
    with on_postgres.write() as other:
        other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": held})
    with pytest.raises(DBAPIError) as caught, writer.transaction(ask):
        pass
    assert classify(caught.value) is Failure.LOST
    writer.drop()
    with writer.transaction(ask) as connection:
        assert connection.info[postgres_connection.ANSWER] is not None


def test_statements_are_prepared_unless_a_pooler_stands_between(on_postgres: Database) -> None:
    with on_postgres.connect_writer().transaction() as connection:
        driver: Any = connection.connection.driver_connection
        assert driver.prepare_threshold == postgres_connection.PREPARE_AFTER
        assert connection.exec_driver_sql("SHOW plan_cache_mode").scalar() == "force_custom_plan"
        assert connection.exec_driver_sql("SELECT pg_backend_pid()").scalar() == driver.info.backend_pid

    class Pooled:
        """A pooler gives each client a pid of its own making."""

        prepare_threshold = None
        info = SimpleNamespace(backend_pid=429367734)

        def execute(self, statement: str) -> Pooled:
            return self

        def fetchone(self) -> tuple[int]:
            return (6060,)

    pooled = Pooled()
    postgres_connection.prepare_if_direct(pooled)
    assert pooled.prepare_threshold is None


def test_a_connection_that_is_given_back_after_the_close_is_closed(empty_postgres_database: str) -> None:
    """A thread may be at it while another stops the runtime."""
    database = Database.open(empty_postgres_database)
    with database.read() as connection:
        driver: Any = connection.connection.driver_connection
        database.close()
    assert driver.closed
