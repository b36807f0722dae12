"""P1 and P2: who was told that something is refused may rely on it, and a refusal is charged to one activation at most."""

from __future__ import annotations

from collections.abc import Mapping

from routilux.testing.simulation.recorded_runs import Wish
from routilux.testing.simulation.tables import Tables, Violation


class Refusals:
    """`told`: posts whose sender was told an error, and who does not post again. `count`: commits that the database refused."""

    def __init__(self, tables: Tables, wishes: Mapping[tuple[int, int], Wish]) -> None:
        self.told: dict[str, str] = {}  # job id -> the error
        self.count = 0
        self._charged = 0
        self._tables = tables
        self._wishes = wishes

    def convict(self, worker: int, routine: str, messages: tuple[int, ...], status: str) -> bool:
        """It failed without running again: logic ran, and the database refuses what that wrote, or its commit.

        What has come meanwhile may be in the same batch now, and fails with it.
        """
        ran = [
            wish
            for wish in self._wishes.values()
            if wish.n is None and (wish.worker, wish.routine) == (worker, routine)
        ]
        if status != "failed" and any(wish.writes and wish.seqs == messages for wish in ran):
            return True
        has_run = any(set(wish.seqs) & set(messages) for wish in ran)
        self._charged += has_run
        return has_run and self._charged <= self.count

    def look(self) -> None:
        """After a commit."""
        for job_id, error in self.told.items():
            if self._tables.one("SELECT 1 FROM routilux_jobs WHERE job_id = ?", job_id):
                raise Violation("P1", f"whoever posted job {job_id} was told {error}, and it is there")
