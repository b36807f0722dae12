"""How a database gets its schema, and what a runtime says to one that it cannot serve."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, inspect, pool, text

from routilux.errors import (
    DatabaseUnavailableError,
    SchemaForeignError,
    SchemaMissingError,
    SchemaTooNewError,
    SchemaTooOldError,
)
from routilux.store import schema, tables
from tests.support.fresh import empty_database


@pytest.fixture
def empty(database: str, tmp_path: Path) -> Iterator[str]:
    with empty_database(database, tmp_path) as url:
        yield url


def engine_of(url: str) -> Engine:
    return create_engine(url, poolclass=pool.NullPool)


def run(url: str, *statements: str) -> None:
    with engine_of(url).begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def go_back(url: str) -> None:
    """Undo the last revision."""
    run(
        url,
        *(f"DROP VIEW {name}" for name in schema.VIEWS),
        f"UPDATE {schema.VERSION_TABLE} SET version_num = '0001'",
    )


def ensure(url: str, **options: object) -> None:
    schema.ensure(engine_of(url), url, **options)  # type: ignore[arg-type]  # one option, passed on


def is_sqlite(url: str) -> bool:
    return url.startswith("sqlite")


def test_a_migrated_database_is_what_tables_py_says(empty: str) -> None:
    schema.upgrade(empty)
    with engine_of(empty).connect() as connection:
        options = {
            "version_table": schema.VERSION_TABLE,
            "compare_type": True,
            "compare_server_default": True,
        }
        assert compare_metadata(MigrationContext.configure(connection, opts=options), tables.metadata) == []


def test_tables_py_says_which_sqlite_tables_have_no_rowid(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/t.db"
    schema.upgrade(url)
    with engine_of(url).connect() as connection:
        rows = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE type = 'table'"))
        without = {name for name, sql in rows if "WITHOUT ROWID" in sql}
    said = {
        name
        for name, t in tables.metadata.tables.items()
        if t.dialect_options["sqlite"]["with_rowid"] is False
    }
    assert without == said


def test_a_new_database_has_the_settings_that_live_in_it(empty: str) -> None:
    schema.upgrade(empty)
    with engine_of(empty).connect() as connection:
        if is_sqlite(empty):
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
            assert connection.exec_driver_sql("PRAGMA auto_vacuum").scalar() == 2
            return
        rows = connection.execute(
            text("SELECT relname, reloptions FROM pg_class WHERE reloptions IS NOT NULL")
        )
        options = {name: set(values) for name, values in rows}
        assert "fillfactor=70" in options["routilux_messages"]
        assert "autovacuum_vacuum_cost_delay=0" in options["routilux_inbox"]


def test_the_revisions_in_the_code_are_those_of_the_scripts() -> None:
    config = Config()
    config.set_main_option("script_location", "routilux_migrations:.")
    scripts = ScriptDirectory.from_config(config)
    assert [script.revision for script in scripts.walk_revisions()][::-1] == list(schema.REVISIONS)
    assert scripts.get_current_head() == schema.HEAD


def test_every_view_is_there_after_an_upgrade(empty: str) -> None:
    schema.upgrade(empty)
    with engine_of(empty).connect() as connection:
        assert set(schema.VIEWS) <= set(inspect(connection).get_view_names())


def test_an_upgrade_of_a_database_that_is_up_to_date_changes_nothing(empty: str) -> None:
    schema.upgrade(empty)
    schema.upgrade(empty)
    assert schema.check(empty).is_ok


def test_an_older_revision_goes_on_from_where_it_is(empty: str) -> None:
    schema.upgrade(empty)
    go_back(empty)
    assert schema.check(empty).state == "old"
    schema.upgrade(empty)
    assert schema.check(empty).is_ok


def test_a_runtime_makes_the_schema_of_sqlite_and_asks_for_it_on_postgres(empty: str) -> None:
    if is_sqlite(empty):
        ensure(empty, is_exclusive=lambda: False)
        assert schema.check(empty).is_ok
        return
    with pytest.raises(SchemaMissingError, match="routilux db upgrade"):
        ensure(empty)
    assert schema.check(empty).state == "missing"


def test_an_old_sqlite_file_is_upgraded_only_when_nobody_else_is_alive_on_it(empty: str) -> None:
    schema.upgrade(empty)
    go_back(empty)
    with pytest.raises(SchemaTooOldError):
        ensure(empty, is_exclusive=lambda: False)
    if is_sqlite(empty):
        ensure(empty, is_exclusive=lambda: True)
        assert schema.check(empty).is_ok


def test_a_schema_newer_than_the_code_is_left_alone(empty: str) -> None:
    schema.upgrade(empty)
    run(empty, f"UPDATE {schema.VERSION_TABLE} SET version_num = '9999'")
    for attempt in (ensure, schema.upgrade):
        with pytest.raises(SchemaTooNewError):
            attempt(empty)
    assert schema.check(empty).state == "new"


@pytest.mark.parametrize(
    "strange",
    [
        ["CREATE TABLE routilux_jobs (id INTEGER)"],
        [
            f"CREATE TABLE {schema.VERSION_TABLE} (version_num VARCHAR(32))",
            f"INSERT INTO {schema.VERSION_TABLE} VALUES ('deadbeef')",
        ],
    ],
    ids=["tables without a version", "a revision nobody knows"],
)
def test_tables_that_are_not_ours_are_left_alone(empty: str, strange: list[str]) -> None:
    run(empty, *strange)
    for attempt in (ensure, schema.upgrade):
        with pytest.raises(SchemaForeignError):
            attempt(empty)
    assert schema.check(empty).state == "foreign"


def test_the_users_own_tables_stay(empty: str) -> None:
    run(empty, "CREATE TABLE orders (id INTEGER)", "INSERT INTO orders VALUES (7)")
    schema.upgrade(empty)
    with engine_of(empty).connect() as connection:
        assert connection.execute(text("SELECT id FROM orders")).scalar() == 7


def test_check_tells_of_a_view_that_is_gone(empty: str) -> None:
    schema.upgrade(empty)
    run(empty, "DROP VIEW routilux_lineage")
    report = schema.check(empty)
    assert report.state == "foreign"
    assert any("routilux_lineage is missing" in note for note in report.notes)


def test_check_makes_no_file(tmp_path: Path) -> None:
    report = schema.check(f"sqlite:///{tmp_path}/none.db")
    assert report.state == "missing"
    assert not (tmp_path / "none.db").exists()


def test_a_database_in_memory_is_upgraded_on_its_own_connection() -> None:
    with create_engine("sqlite://").connect() as connection:
        schema.ensure(connection, "sqlite://")
        assert connection.execute(text("SELECT count(*) FROM routilux_job_history")).scalar() == 0


def test_all_is_well_costs_one_query_and_no_alembic(empty: str) -> None:
    schema.upgrade(empty)
    program = (
        "import sys; from sqlalchemy import create_engine, event; from routilux.store import schema;"
        "url = sys.argv[1]; engine = create_engine(url); seen = [];"
        "connection = engine.connect();"
        "event.listen(engine, 'before_cursor_execute', lambda *a: seen.append(a[2]));"
        "schema.ensure(connection, url); assert len(seen) == 1, seen; assert 'alembic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, empty], check=True, timeout=60)


def test_processes_that_start_at_once_all_find_the_schema(empty: str) -> None:
    call = "ensure(create_engine(url), url)" if is_sqlite(empty) else "upgrade(url)"
    program = (
        "import sys; from sqlalchemy import create_engine; from routilux.store.schema import ensure, upgrade;"
        f"url = sys.argv[1]; {call}"
    )
    started = [subprocess.Popen([sys.executable, "-c", program, empty]) for _ in range(4)]
    assert [process.wait(timeout=60) for process in started] == [0] * 4
    assert schema.check(empty).is_ok


def test_a_schema_that_somebody_makes_between_two_looks_is_not_foreign(
    empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = schema._revision

    def overtaken(connection: Connection) -> str | None:
        monkeypatch.setattr(schema, "_revision", look)
        found = look(connection)
        schema.upgrade(empty)
        return found

    monkeypatch.setattr(schema, "_revision", overtaken)
    with engine_of(empty).connect() as connection:
        schema.ensure(connection, empty)
    assert schema.check(empty).is_ok


def test_an_upgrade_goes_on_when_others_let_go_and_gives_up_if_they_do_not(
    empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_sqlite(empty):
        run(empty, "CREATE TABLE orders (id INTEGER)")
        monkeypatch.setattr(schema, "BUSY_S", 0.05)
    else:
        run(empty, f"CREATE TABLE {schema.VERSION_TABLE} (version_num VARCHAR(32) PRIMARY KEY)")
        monkeypatch.setattr(
            schema, "_revision", lambda connection: None
        )  # else this read would wait without end
        monkeypatch.setattr(schema, "_state", lambda connection, current: "missing")
    pauses: list[float] = []
    with engine_of(empty).connect() as holder:
        holder.exec_driver_sql(
            "BEGIN EXCLUSIVE" if is_sqlite(empty) else f"LOCK TABLE {schema.VERSION_TABLE}"
        )

        def let_go(seconds: float) -> None:
            pauses.append(seconds)
            if not is_sqlite(empty):
                holder.rollback()

        monkeypatch.setattr("time.sleep", let_go)
        if is_sqlite(empty):
            with pytest.raises(DatabaseUnavailableError, match="locked"):
                schema.upgrade(empty)
            holder.rollback()
        schema.upgrade(empty)
    monkeypatch.undo()
    assert pauses or is_sqlite(empty)
    assert schema.check(empty).is_ok
