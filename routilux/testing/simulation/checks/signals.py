"""P1 and P3: each acknowledged signal is one message."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from routilux.testing.simulation.tables import Tables, Violation


class Signals:
    """How many signals each job was sent (`asked`), and how many were acknowledged (`told`)."""

    def __init__(self, tables: Tables) -> None:
        self.asked = Counter[str]()
        self.told = Counter[str]()
        self._tables = tables

    def refuse(self, job_id: str) -> None:
        """The client was told that its signal is not stored."""
        self.asked[job_id] -= 1

    def look(self, jobs: Collection[str]) -> None:
        """After a commit. `jobs`: the jobs that are stored."""
        for job_id, asked in self.asked.items():
            row = self._tables.one(
                "SELECT count(*) FROM routilux_jobs AS j"
                " JOIN routilux_messages AS m ON m.worker = j.worker AND m.job = j.job"
                " WHERE j.job_id = ? AND m.produced_by IS NULL",
                job_id,
            )
            count = row[0] - 1 if row is not None else 0  # one is the post
            if job_id in jobs and not self.told[job_id] <= count <= asked:
                text = f"job {job_id} has {count} of {asked} signals; {self.told[job_id]} were acknowledged"
                raise Violation("P1", text)
