"""A digest of what each seed does. It shows whether a change has changed behaviour.

    python -m tests.simulation.golden --seeds 100              compare the first seeds of each scene
    python -m tests.simulation.golden --scene grown --seed 17  print a log, to diff it with another checkout's
    python -m tests.simulation.golden --write                  write `golden.json`, for a new behaviour

The log has what a world does (steps, acts of processes, logic, commands and their answers), each statement
(its verb and tables, not its text), and after each commit the rows that it changed. It leaves out sentences,
names of Python modules and functions, and columns that differ from run to run.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import re
import sqlite3
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path

from routilux.testing import Report, simulate
from routilux.testing.simulation import FAULTS, Observer
from tests.simulation.flows import SCENES

FILE = Path(__file__).with_name("golden.json")
SEEDS = 500
BLOCK = 50
# each has its own random stream: without them the worlds are as before these faults existed
LATER_FAULTS = {"overlap"}
GOLDEN_FAULTS = [fault for fault in FAULTS if fault not in LATER_FAULTS]

# Columns that differ from run to run, and sentences: of these only whether there is one.
_LEFT_OUT = {"boot_id", "host_boot", "backend_pid", "backend_start", "host", "pid", "version", "hash"}
_SENTENCES = {"error", "traceback", "reason"}
_SPECIAL = {
    # of a release: the class of a routine is named with its module, and so is the hash
    ("routilux_flows", "definition"): "json_extract(definition, '$.connections')",
    ("routilux_workers", "definition"): (
        "(SELECT json_array_length(definition, '$.connections')"
        " FROM routilux_flows WHERE hash = t.definition)"
    ),
    ("routilux_parked", "reason"): "reason",  # one of a few words
}
_KEYS = {"routilux_flows": ["name", "definition"]}
_IDS = {"job_id", "worker_id"}  # 36 characters: a generated one
_VERB = re.compile(
    r"\s*(?:WITH\b.*?\)\s*)?(INSERT|UPDATE|DELETE|SELECT|BEGIN|COMMIT|ROLLBACK|PRAGMA|\w+)", re.S
)
_TABLES = re.compile(r"\b(?:INTO|FROM|JOIN|UPDATE)\s+\"?(?!SET\b)(\w+)")


@functools.cache
def _parts(statement: str) -> tuple[str, tuple[str, ...], bool]:
    """The line for a statement, its tables, and whether it may write."""
    verb, tables = _VERB.match(statement), tuple(_TABLES.findall(statement))
    name = verb.group(1) if verb else ""
    return f"  {name} {' '.join(tables)}", tables, name not in ("SELECT", "PRAGMA", "BEGIN")


class _Table:
    """One table, as it was at the last look."""

    def __init__(self, name: str, database: sqlite3.Connection) -> None:
        info = database.execute(f'PRAGMA table_info("{name}")').fetchall()
        keys = _KEYS.get(name) or [row[1] for row in sorted(info, key=lambda row: row[5]) if row[5]]
        columns = [*keys, *(row[1] for row in info if row[1] not in keys and row[1] not in _LEFT_OUT)]
        shown = ", ".join(_expression(name, column) for column in columns)
        order = ", ".join(str(place + 1) for place in range(len(keys)))
        self._query = f'SELECT {shown} FROM "{name}" AS t ORDER BY {order}'
        self._keys = len(keys)
        short = name.removeprefix("routilux_")
        self._row = f"+ {short}: " + " ".join(f"{column}=%r" for column in columns)
        self._gone = f"- {short}: " + " ".join(f"{key}=%r" for key in keys)
        self._rows: list[tuple[object, ...]] = []

    def changes(self, database: sqlite3.Connection) -> list[str]:
        """What has changed since the last look."""
        before, rows = self._rows, database.execute(self._query).fetchall()
        if rows == before:
            return []
        self._rows = rows
        new, old = set(rows), set(before)
        lines = [self._row % row for row in rows if row not in old]
        if not old <= new:
            kept = {row[: self._keys] for row in rows}
            keys = (row[: self._keys] for row in before if row not in new)
            lines += [self._gone % key for key in keys if key not in kept]
        return lines


def _expression(table: str, column: str) -> str:
    if (table, column) in _SPECIAL:
        return _SPECIAL[table, column]
    if column in _SENTENCES:
        return f"{column} IS NOT NULL"
    if column in _IDS:
        return f"CASE WHEN length({column}) = 36 THEN '…' ELSE {column} END"
    return column


@functools.cache
def _names(database: sqlite3.Connection) -> list[str]:
    found = database.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
    return [name for (name,) in found if not name.startswith("sqlite_") and "version" not in name]


class Log(Observer):
    """The log of one world."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._tables: dict[str, _Table] = {}
        self._written: set[str] = set()
        self._statements = 0

    def event(self, kind: str, *facts: object) -> None:
        self.lines.append(f"{kind} {' '.join(map(repr, facts))}")

    def statement(self, text: str, rows: int) -> None:
        line, tables, may_write = _parts(text)
        self._statements += 1
        self.lines.append(line if rows == 1 else f"{line} *{rows}")
        if may_write:
            self._written.update(tables)

    def committed(self, database: sqlite3.Connection) -> None:
        self.lines.append(f"commit, {self._statements} statements")
        if not self._tables:
            self._tables = {name: _Table(name, database) for name in _names(database)}
        for name in sorted(self._written):
            if name in self._tables:
                self.lines += self._tables[name].changes(database)
        self._written.clear()

    def end(self, database: sqlite3.Connection) -> object:
        """Look at all tables: was there a change without a statement?"""
        for table in self._tables.values():
            self.lines += table.changes(database)
        return self.lines


class Digest(Log):
    """The digest of the log."""

    def end(self, database: sqlite3.Connection) -> str:
        super().end(database)
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()[:8]


def run(
    scene: str, seeds: Iterable[int], observe: Callable[[], Observer] = Digest, processes: int = 2
) -> Report:
    """Golden worlds of a scene."""
    return simulate(
        **SCENES[scene], seeds=seeds, faults=GOLDEN_FAULTS, runtimes=4, observe=observe, processes=processes
    )


def differences(scene: str, report: Report) -> str:
    """Which seeds differ from `golden.json`. Returns an empty text if none does."""
    golden = read()[scene]
    others = sorted(seed for seed, digest in report.observed.items() if golden[seed] != digest)
    if not others:
        return ""
    blocks = {first: list(seeds) for first, seeds in groupby(others, lambda seed: seed // BLOCK * BLOCK)}
    told = ", ".join(f"{len(seeds)} from {first} to {first + BLOCK - 1}" for first, seeds in blocks.items())
    return (
        f"{scene}: {len(others)} of {len(report.observed)} seeds differ ({told}); the first: {others[:5]}."
        " Compare with the checkout before:"
        f" python -m tests.simulation.golden --scene {scene} --seed {others[0]}"
    )


def read() -> dict[str, list[str]]:
    """Scene -> the digest of each seed."""
    blocks = json.loads(FILE.read_text())
    return {scene: " ".join(lines.values()).split() for scene, lines in blocks.items()}


def write(digests: dict[str, Sequence[str]]) -> None:
    blocks = {
        scene: {
            f"{first}-{first + BLOCK - 1}": " ".join(found[first : first + BLOCK])
            for first in range(0, len(found), BLOCK)
        }
        for scene, found in digests.items()
    }
    FILE.write_text(json.dumps(blocks, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.golden", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--scene", choices=sorted(SCENES), help="only this one")
    parser.add_argument("--seed", type=int, help="print the log of this seed")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"so many of each scene, at most {SEEDS}")
    parser.add_argument("--write", action="store_true", help="write golden.json again")
    parser.add_argument("--processes", type=int, default=2)
    chosen = parser.parse_args()
    scenes = [chosen.scene] if chosen.scene else sorted(SCENES)
    if chosen.seed is not None:
        for scene in scenes:
            (lines,) = run(scene, [chosen.seed], Log, processes=1).observed.values()
            assert isinstance(lines, list)
            print("\n".join(lines))
        return
    digests: dict[str, Sequence[str]] = dict(read()) if chosen.write and FILE.exists() else {}
    has_failed = False
    seeds = range(SEEDS if chosen.write else min(SEEDS, chosen.seeds))
    for scene in scenes:
        report = run(scene, seeds, processes=chosen.processes)
        digests[scene] = [str(report.observed[seed]) for seed in seeds]
        told = "" if chosen.write else differences(scene, report)
        has_failed = has_failed or bool(told)
        print(told or f"{scene}: {report.seeds} seeds in {report.seconds:.0f} s", flush=True)
    if chosen.write:
        write(dict(sorted(digests.items())))
    sys.exit(has_failed)


if __name__ == "__main__":
    main()
