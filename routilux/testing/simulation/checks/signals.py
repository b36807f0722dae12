"""P1 and P3: each signal that was acknowledged is a message, and none is two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from routilux.testing.simulation.tables import Tables, Violation


class Signals:
    """How many each job was sent, and of how many the sender was told that they are in."""

    def __init__(self, tables: Tables) -> None:
        self.asked = Counter[str]()
        self.told = Counter[str]()
        self._tables = tables

    def refuse(self, job_id: str) -> None:
        """Whoever sent one was told that it is not in."""
        self.asked[job_id] -= 1

    def look(self, jobs: Collection[str]) -> None:
        """After a commit. `jobs`: those that are there."""
        for job_id, asked in self.asked.items():
            row = self._tables.one(
                "SELECT count(*) FROM routilux_jobs AS j JOIN routilux_messages AS m ON m.worker = j.worker AND m.job = j.job"
                " WHERE j.job_id = ? AND m.produced_by IS NULL",
                job_id,
            )
            count = row[0] - 1 if row is not None else 0  # one is the post
            if job_id in jobs and not self.told[job_id] <= count <= asked:
                raise Violation(
                    "P1", f"job {job_id} has {count} signals of {asked}, acknowledged are {self.told[job_id]}"
                )
