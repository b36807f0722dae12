"""What cancelling a worker promises: it takes no more, its jobs end with it, and it stays cancelled."""

from __future__ import annotations

from routilux.testing.simulation.tables import ENDED, Tables, Violation


class Cancels:
    """`ids`: id -> key of the workers that are cancelled after the last commit."""

    def __init__(self, tables: Tables) -> None:
        self.ids: dict[str, int] = {}
        self.asked: dict[str, None] = {}
        self._tables = tables
        self._jobs: dict[int, dict[str, None]] = {}  # of each cancelled worker: its jobs at that time

    def acknowledge(self, worker_id: str) -> None:
        """The operator was told that it is cancelled."""
        if worker_id not in self.ids:
            raise Violation(
                "cancel", f"the cancelling of worker {worker_id} was acknowledged, but it is not cancelled"
            )

    def check_activation(self, worker: int, status: str, what: str) -> None:
        """Call it before `look`: outcomes in the commit that cancels came first."""
        if worker in self._jobs and status != "discarded":
            raise Violation("cancel", f"{what} went in after its worker was cancelled")

    def look(self, worker: int, worker_id: str, status: str) -> None:
        """After a commit."""
        if status == "cancelled" and worker_id not in self.asked:
            raise Violation("cancel", f"worker {worker_id} is cancelled, but no operator asked for it")
        if worker_id in self.ids and status != "cancelled":
            raise Violation("cancel", f"worker {worker_id} was cancelled, but is {status}")
        if status == "cancelled":
            self._check_jobs(worker, worker_id)
            self.ids[worker_id] = worker

    def _check_jobs(self, worker: int, worker_id: str) -> None:
        """All have ended. A post that was on its way becomes a failed job."""
        jobs = self._tables.all("SELECT job_id, status FROM routilux_jobs WHERE worker = ?", worker)
        known = self._jobs.setdefault(worker, dict.fromkeys(job_id for job_id, _ in jobs))
        for job_id, status in jobs:
            if status not in ENDED or (job_id not in known and status != "failed"):
                raise Violation("cancel", f"job {job_id} of the cancelled worker {worker_id} is {status}")
