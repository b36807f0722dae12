"""The final checks of `routilux demo`: plain SQL on the public views and the user's own table.

The demo runs and prints the same SQL, so anyone can run it again.
"""

from __future__ import annotations

import ast
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import Connection, text

JOBS = "SELECT count(*) FROM routilux_job_history WHERE worker_id = '{run}'"
ENDED = f"{JOBS} AND status IN ('completed', 'failed')"
COMPLETED = f"{JOBS} AND status = 'completed'"
FAILED = f"{JOBS} AND status = 'failed'"
DEAD = "SELECT count(*) FROM routilux_dead_letters WHERE worker_id = '{run}'"
DEAD_OF_THE_DEMO = f"{DEAD} AND payload LIKE '%{{broken}}%'"
ROWS = "SELECT count(*) FROM indexed_modules WHERE run = '{run}'"
DUPLICATES = "SELECT count(*) - count(DISTINCT path) FROM indexed_modules WHERE run = '{run}'"
ORPHANS = (
    f"{ROWS} AND job_id NOT IN"
    " (SELECT job_id FROM routilux_job_history WHERE worker_id = '{run}' AND status = 'completed')"
)
LINES = "SELECT coalesce(sum(lines), 0) FROM indexed_modules WHERE run = '{run}'"

ERRORS = """
SELECT j.metadata, d.error_type, d.error
FROM routilux_dead_letters AS d JOIN routilux_job_history AS j ON j.job_id = d.job_id
WHERE d.worker_id = '{run}' ORDER BY d.message
"""


@dataclass(frozen=True, slots=True)
class Check:
    """A number and its expected value. `sql` is empty if the number does not come from the database."""

    title: str
    found: object
    expected: object
    sql: str = ""

    @property
    def is_met(self) -> bool:
        return self.found == self.expected


@dataclass(frozen=True, slots=True)
class DeadFile:
    path: Path
    error: str

    def can_be_parsed(self) -> bool:
        """Return whether the file is valid Python. Then it should not be a dead letter."""
        try:
            with tokenize.open(self.path) as source:
                ast.parse(source.read())
        except Exception:  # the same errors as in the flow
            return False
        return True


def checks(
    connection: Connection, run: str, *, posted: int, unparsable: int, broken: Path, planted: int, lines: int
) -> Iterator[Check]:
    """Query the database.

    `unparsable`: how many files failed as expected. `broken`: the folder of the bad files that the demo
    wrote. `planted`: how many those are. `lines`: the total in the worker's state.
    """

    def check(title: str, sql: str, expected: object) -> Check:
        sql = sql.format(run=run, broken=str(broken).replace("'", "''"))
        return Check(title, number(connection, sql), expected, sql)

    completed = number(connection, COMPLETED.format(run=run))
    yield check("jobs posted", JOBS, posted)
    yield check("… completed or failed", ENDED, posted)
    yield check("… failed = files that cannot be parsed", FAILED, unparsable)
    yield check("dead letters", DEAD, unparsable)
    yield check("… the bad files of this demo", DEAD_OF_THE_DEMO, planted)
    yield check("rows in indexed_modules = jobs completed", ROWS, completed)
    yield check("… files with more than one row", DUPLICATES, 0)
    yield check("… rows without a completed job", ORPHANS, 0)
    yield check("lines in all rows = lines in worker state", LINES, lines)


def dead_letters(connection: Connection, run: str) -> list[DeadFile]:
    """Return the files whose jobs failed, each with its error."""
    return [
        DeadFile(Path(orjson.loads(metadata)["file"]), f"{error_type}: {error}")
        for metadata, error_type, error in rows(connection, ERRORS.format(run=run))
    ]


def number(connection: Connection, sql: str) -> int:
    """Return the single number of a query."""
    return int(rows(connection, sql)[0][0])


def rows(connection: Connection, sql: str) -> list[Any]:
    """Return all rows of a query."""
    return list(connection.execute(text(sql.replace(":", r"\:"))))  # a colon in a path is not a parameter
