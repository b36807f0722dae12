"""`routilux demo` on a small folder: two kills, every number right,
and checks that notice when one is not.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from routilux_service import demo_checks
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool


def _demo(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "routilux", "demo", *arguments],
        cwd=cwd,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=200,
    )


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """207 real modules, in three folders; and one that is no Python."""
    modules = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    modules = [module for module in modules if 2_000 < module.stat().st_size < 20_000][:69]
    assert len(modules) == 69
    for name in ("a", "b", "c"):
        (tmp_path / "sources" / name).mkdir(parents=True)
        for module in modules:
            shutil.copy(module, tmp_path / "sources" / name)
    (tmp_path / "sources" / "worse.py").write_text("this is no Python")
    return tmp_path / "sources"


def test_nothing_is_lost_and_the_checks_would_have_seen_it(
    database: str, sources: Path, tmp_path: Path
) -> None:
    done = _demo(tmp_path, "--database", database, "--directory", str(sources))
    printed = done.stdout
    assert done.returncode == 0, printed + done.stderr
    assert printed.count("kill -9, with") >= 2
    assert "WRONG" not in printed
    for name in ("worse.py", "not_utf8.py", "unknown_encoding.py", "missing_bracket.py", "bad_indent.py"):
        assert name in printed
    queries = dict(_printed_queries(printed))
    assert len(queries) == 9

    run = printed.partition("worker_id = '")[2].partition("'")[0]
    asked = {
        "posted": 213,
        "unparsable": 6,
        "planted": 5,
        "broken": tmp_path / "routilux-demo" / "broken",
        "lines": next(n for sql, n in queries.items() if "sum(lines)" in sql),
    }
    engine = create_engine(database, poolclass=NullPool)
    with engine.connect() as connection:
        assert {sql: demo_checks.number(connection, sql) for sql in queries} == queries
        dead = demo_checks.dead_letters(connection, run)
        assert len(dead) == 6
        assert not any(file.can_be_parsed() for file in dead)
    for fault, seen in _FAULTS.items():
        with engine.connect() as connection:  # rolled back
            connection.execute(text(fault.replace(":run", f"'{run}'")))
            checks = demo_checks.checks(connection, run, **asked)
            assert [check.title for check in checks if not check.is_met] == seen, fault


# what is planted, and the checks that must say so
_FAULTS = {
    "SELECT 1": [],
    "DELETE FROM indexed_modules WHERE id = (SELECT min(id) FROM indexed_modules WHERE run = :run)": [
        "rows in indexed_modules = jobs completed",
        "lines in all rows = lines in worker state",
    ],
    "INSERT INTO indexed_modules (job_id, run, path, lines, functions, classes, imports, longest_function)"
    " SELECT job_id, run, path, lines, functions, classes, imports, longest_function FROM indexed_modules"
    " WHERE lines = (SELECT max(lines) FROM indexed_modules WHERE run = :run) AND run = :run AND id ="
    " (SELECT max(id) FROM indexed_modules AS m WHERE m.lines = indexed_modules.lines AND m.run = :run)": [
        "rows in indexed_modules = jobs completed",
        "… files with more than one row",
        "lines in all rows = lines in worker state",
    ],
    "UPDATE routilux_jobs SET status = 'running' WHERE job_id ="
    " (SELECT min(job_id) FROM routilux_job_history WHERE worker_id = :run AND status = 'completed')": [
        "… completed or failed",
        "rows in indexed_modules = jobs completed",
        "… rows without a completed job",
    ],
    "DELETE FROM routilux_parked WHERE reason = 'dead'": ["dead letters", "… the bad files of this demo"],
}


def _printed_queries(printed: str) -> list[tuple[str, int]]:
    lines = printed.splitlines()
    return [
        (sql.strip().rstrip(";"), int(title.rpartition(": ")[2]))
        for title, sql in itertools.pairwise(lines)
        if title.startswith("  -- ")
    ]


def test_a_folder_without_sources_is_a_message(tmp_path: Path) -> None:
    done = _demo(tmp_path, "--directory", str(tmp_path))
    assert done.returncode == 1
    assert "no Python sources" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_few_files_may_be_done_before_a_kill_comes(tmp_path: Path) -> None:
    (tmp_path / "few").mkdir()
    (tmp_path / "few" / "one.py").write_text("x = 1\n")
    for _ in range(2):  # a second run in the same database stands for itself
        done = _demo(tmp_path, "--directory", "few")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "6 files posted" in done.stdout
    assert (tmp_path / "routilux-demo" / "routilux.db").exists()
