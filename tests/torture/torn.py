"""What a power cut leaves of a SQLite database: the file, and the WAL up to a random byte.

All processes stand still while it is copied, so the copy is what the kernel had. Of that, a power cut may
lose what was not forced: frames behind the last commit that was acknowledged. The rig tears harder, anywhere
behind what a checkpoint may have moved into the file (https://www.sqlite.org/walformat.html, offsets of the
WAL-index): a prefix of the commits must be there whole, and nothing of a later one.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
import struct
import subprocess
from contextlib import closing
from pathlib import Path

from tests.torture import checker

HEADER, FRAME_HEADER = 32, 24
_ATTEMPTED = 128  # nBackfillAttempted in the WAL-index


class Snapshot:
    """Taken while nobody writes, by a process of its own.

    This one has the file open in SQLite: to close a second descriptor of it would drop the locks of the
    first, and that is a way to corrupt a database (https://www.sqlite.org/howtocorrupt.html, 2.2).
    """

    def __init__(self, path: Path, acknowledged: set[str], scratch: Path) -> None:
        copy = scratch / "snapshot"
        parts = [part for part in (path, Path(f"{path}-wal"), Path(f"{path}-shm")) if part.exists()]
        copy.mkdir()
        subprocess.run(["cp", *map(str, parts), str(copy)], check=True)
        self._database, self._wal, index = (
            part.read_bytes() if part.exists() else b""
            for part in (copy / path.name, copy / f"{path.name}-wal", copy / f"{path.name}-shm")
        )
        shutil.rmtree(copy)
        moved = struct.unpack_from("=I", index, _ATTEMPTED)[0] if len(index) > _ATTEMPTED else 0
        page = struct.unpack_from(">I", self._wal, 8)[0] if len(self._wal) >= HEADER else 0
        self._least = min(len(self._wal), HEADER + moved * (FRAME_HEADER + page))
        self._acknowledged = acknowledged

    def torn(self, choose: random.Random, into: Path) -> tuple[str, set[str]]:
        """URL of a copy with a torn WAL, and the jobs that must be in it."""
        cut = choose.choice((choose.randint(self._least, len(self._wal)), len(self._wal)))
        into.write_bytes(self._database)
        Path(f"{into}-wal").write_bytes(self._wal[:cut])
        Path(f"{into}-shm").unlink(missing_ok=True)
        return f"sqlite:///{into}", self._acknowledged if cut == len(self._wal) else set()


def faults_of(url: str, acknowledged: set[str], *, judges_early: bool) -> checker.Faults:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        whole = connection.execute("PRAGMA integrity_check").fetchall()
    found = checker.check(url, acknowledged, is_at_rest=False, judges_early=judges_early)
    if whole != [("ok",)]:
        found.add("lost", f"integrity_check: {whole[:3]}")
    return found
