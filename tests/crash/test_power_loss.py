"""SQLite and power loss: what is acknowledged has been forced to the disk, and a torn WAL opens with all of
it.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from routilux.runtime import Runtime
from routilux.store.backends.database import Database, Durability
from tests.crash.support import orders, program
from tests.support.inside_runtime import store

FULL, NORMAL = 2, 1
POSTS = 20


@pytest.mark.parametrize(("durability", "expected"), [("power_loss", FULL), ("process_crash", NORMAL)])
def test_the_writing_connection_forces_each_commit_to_the_disk(
    sqlite_database: str, durability: Durability, expected: int
) -> None:
    database = Database.open(sqlite_database, durability=durability)
    for writing in (database.connect_writer().transaction, database.write):
        with writing() as connection:
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == expected
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    database.close()


def test_every_acknowledged_post_has_an_fsync_of_the_wal_after_its_last_write(
    sqlite_database: str, tmp_path: Path
) -> None:
    """As the kernel saw it: writes of the WAL, then a successful fsync,
    and only then the return of `post`.
    """
    acknowledged = tmp_path / "acknowledged"
    calls = _traced(sqlite_database, acknowledged)
    seen, is_written, is_forced = 0, False, False
    for call, path in calls:
        if path == str(acknowledged):
            assert is_written, f"post {seen} was acknowledged and nothing was written"
            assert is_forced, f"post {seen} was acknowledged before its write was forced to the disk"
            seen, is_written = seen + 1, False
        elif path.endswith("-wal"):
            is_forced = call in ("fsync", "fdatasync")
            is_written = is_written or not is_forced
    assert seen == POSTS


def _traced(url: str, acknowledged: Path) -> list[tuple[str, str]]:
    arguments = json.dumps({"url": url, "acknowledged": str(acknowledged), "numbers": [0, POSTS]})
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.crash.support.syscalls",
            "tests.crash.support.program:post_only",
            arguments,
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


class Disk:
    """A database whose WAL is known to be on the disk up to a length, for each acknowledged post."""

    def __init__(self, url: str, folder: Path) -> None:
        self._path = Path(url.removeprefix("sqlite:///"))
        self._copy = folder / "copy.db"
        self.forced: list[int] = []  # length of the WAL when a post had returned
        self.earlier = 0  # posts that a checkpoint has moved into the file

    def post(self, runtime: Runtime, numbers: range) -> None:
        for number in numbers:
            runtime.post(
                orders.FLOW, "split", "input", {"number": number}, "w", orders.job_id_of(number), delay=3600
            )
            self.forced.append(os.stat(f"{self._path}-wal").st_size)

    def take(self) -> None:
        self.database, self.wal = self._path.read_bytes(), Path(f"{self._path}-wal").read_bytes()

    def acknowledged(self, length: int) -> set[str]:
        """What had been acknowledged when the WAL was forced up to this length."""
        count = self.earlier + sum(forced <= length for forced in self.forced)
        return set(map(orders.job_id_of, range(count)))

    def opened_with(self, wal: bytes) -> set[str]:
        """The jobs in the database after a start with this WAL; it must be whole."""
        self._copy.write_bytes(self.database)
        Path(f"{self._copy}-wal").write_bytes(wal)
        Path(f"{self._copy}-shm").unlink(missing_ok=True)
        with closing(sqlite3.connect(self._copy)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            return {job_id for (job_id,) in connection.execute("SELECT job_id FROM routilux_jobs")}


@pytest.fixture(params=[False, True], ids=["one WAL", "after a checkpoint"])
def disk(request: pytest.FixtureRequest, sqlite_database: str, tmp_path: Path) -> Iterator[Disk]:
    found = Disk(sqlite_database, tmp_path)
    with program.start(sqlite_database, lease_s=600.0) as runtime:
        runtime.exec(orders.FLOW, worker_id="w")
        found.post(runtime, range(POSTS))
        if request.param:
            store(runtime).database.checkpoint(truncate=True)
            found.earlier, found.forced = POSTS, []
            found.post(runtime, range(POSTS, 2 * POSTS))
        found.take()
        yield found
        runtime.shutdown(wait=False)


def test_a_wal_cut_anywhere_opens_with_all_that_was_acknowledged_before_the_cut(disk: Disk) -> None:
    choose = random.Random(1)
    cuts = [choose.randrange(len(disk.wal) + 1) for _ in range(60)]
    cuts += [length + by for length in disk.forced[-3:] for by in (-1, 0, 1)]
    for cut in [0, 1, 31, 32, *cuts, len(disk.wal)]:
        assert disk.opened_with(disk.wal[:cut]) >= disk.acknowledged(cut), f"cut at {cut} of {len(disk.wal)}"


def test_a_wal_torn_behind_what_was_forced_opens_with_all_that_was_acknowledged(disk: Disk) -> None:
    """Behind the last fsync any sector may be there, be missing, or be anything."""
    choose = random.Random(2)
    for _ in range(60):
        forced = choose.choice(disk.forced[:-1])
        tail = bytearray(disk.wal[forced : forced + choose.randrange(len(disk.wal) - forced + 1)])
        for sector in range(0, len(tail), 512):
            size = len(tail[sector : sector + 512])
            match choose.randrange(3):
                case 0:
                    tail[sector : sector + size] = bytes(size)
                case 1:
                    tail[sector : sector + size] = choose.randbytes(size)
        assert disk.opened_with(disk.wal[:forced] + bytes(tail)) >= disk.acknowledged(forced), (
            f"torn behind {forced}"
        )
