"""P1 and P2: what a client is told is refused is not stored; a refusal fails at most one activation."""

from __future__ import annotations

from collections.abc import Mapping

from routilux.testing.simulation.recorded_runs import Wish
from routilux.testing.simulation.tables import Tables, Violation


class Refusals:
    """`told`: job id -> error of posts that were refused. `count`: how many commits the database refused."""

    def __init__(self, tables: Tables, wishes: Mapping[tuple[int, int], Wish]) -> None:
        self.told: dict[str, str] = {}
        self.count = 0
        self._charged = 0
        self._tables = tables
        self._wishes = wishes

    def rejects(self, worker: int, routine: str, messages: tuple[int, ...], status: str) -> bool:
        """Whether an activation may fail without running again.

        Its logic ran, but the database refuses its user statements or its commit. Messages that came since
        may be in the same batch now, and fail with it.
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
                raise Violation(
                    "P1", f"the client that posted job {job_id} was told {error}, but the job is stored"
                )
