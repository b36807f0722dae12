"""The rig of `tests.torture`: a short round on each database, and a checker that sees each kind of fault."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, pool

from tests.crash.support.program import Acknowledged
from tests.crash.support.zygote import Zygote
from tests.torture import checker, load

JOBS = 8


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_short_round_loses_nothing(kind: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.torture", "--faults", "6", "--database", kind],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SIGKILL of a runtime" in done.stdout


@pytest.fixture
def finished(database: str, zygote: Zygote, tmp_path: Path) -> tuple[Any, set[str]]:
    """A connection to a database in which some jobs have come to rest, some of them retried,
    and their ids.
    """
    with create_engine(database, poolclass=pool.NullPool).begin() as connection:
        load.tables.create_all(connection)
    child = zygote.start("tests.torture.processes:a_few", url=database, folder=str(tmp_path), count=JOBS)
    assert child.wait() == 0, child.output
    return database, Acknowledged.read(tmp_path / "acknowledged")


def test_the_checker_finds_nothing_in_a_database_that_is_whole(finished: tuple[str, set[str]]) -> None:
    database, acknowledged = finished
    assert len(acknowledged) == JOBS
    found = checker.check(database, acknowledged)
    assert not found.counts, str(found)


ANY = "(SELECT min(job_id) FROM routilux_jobs)"
PLANTS: dict[str, tuple[str, str]] = {
    "a job that is gone": ("lost", f"DELETE FROM routilux_jobs WHERE job_id = {ANY}"),
    "a job that has not ended": (
        "lost",
        f"UPDATE routilux_jobs SET status = 'running', open_count = 1 WHERE job_id = {ANY}",
    ),
    "an own row that is gone": ("lost", "DELETE FROM joined WHERE id = (SELECT max(id) FROM joined)"),
    "an activation that is gone": (
        "lost",
        "DELETE FROM routilux_activations WHERE routine = 'store' AND n = (SELECT max(n) FROM"
        " routilux_activations WHERE routine = 'store')",
    ),
    "a post that was refused": (
        "refused",
        "UPDATE routilux_messages SET payload = '{\"number\": 900000}' WHERE routine = 'intake' AND seq ="
        " (SELECT max(seq) FROM routilux_messages WHERE routine = 'intake')",
    ),
    "an own row twice": (
        "doubled",
        "INSERT INTO stored (id, worker_id, place, job_id, part)"
        " SELECT 900000 + id, worker_id, place, job_id, part FROM stored WHERE id = (SELECT max(id) FROM"
        " stored)",
    ),
    "an activation twice": (
        "doubled",
        "INSERT INTO routilux_activations (worker, n, job, routine, attempt, status, started_at, ended_at,"
        " seqs) SELECT worker, 900000, job, routine, attempt, status, started_at, ended_at, seqs FROM"
        " routilux_activations WHERE routine = 'intake' AND n = (SELECT max(n) FROM routilux_activations"
        " WHERE routine = 'intake')",
    ),
    "a message that still waits": (
        "orphaned",
        "UPDATE routilux_messages SET status = 'waiting', consumed_by = NULL WHERE routine = 'work'",
    ),
    "a row in the inbox": (
        "orphaned",
        "INSERT INTO routilux_inbox (kind, flow, body, created_at) VALUES ('post', 'torture', '{}', 1)",
    ),
    "a message that was overtaken": (
        "out of order",
        "UPDATE routilux_activations SET n = -n WHERE routine = 'store' AND n = (SELECT max(n) FROM"
        " routilux_activations WHERE routine = 'store')",
    ),
    "a retry at once": (
        "early",
        "UPDATE routilux_activations SET started_at = 0 WHERE attempt > 1 AND routine = 'work'",
    ),
    "a state that has counted one too many": (
        "state",
        "UPDATE routilux_worker_state SET value = '900000' WHERE routine = 'intake' AND key = 'n'",
    ),
    "a place that is left out": (
        "state",
        "UPDATE stored SET place = 900000 WHERE id = (SELECT max(id) FROM stored)",
    ),
}


def test_the_checker_finds_each_fault_that_is_planted(finished: tuple[str, set[str]]) -> None:
    database, acknowledged = finished
    with closing(checker.connect(database)) as connection:
        for name, (kind, plant) in PLANTS.items():
            assert connection.execute(plant).rowcount > 0, name
            found = checker.check_in(connection, acknowledged, refused={"900000"})
            assert found.counts[kind], f"{name}: {found or 'nothing'}"
            connection.rollback()
        assert not checker.check_in(connection, acknowledged, refused={"900000"}).counts
    assert {kind for kind, _ in PLANTS.values()} == set(checker.KINDS)
