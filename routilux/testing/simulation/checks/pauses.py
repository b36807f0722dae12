"""What a pause of a worker promises: what runs may end, nothing new starts until an operator resumes it."""

from __future__ import annotations

from collections import Counter

from routilux.testing.simulation.tables import Violation


class Pauses:
    """`paused`: key -> id of the workers that are paused after the last commit."""

    def __init__(self) -> None:
        self.paused: dict[int, str] = {}
        self.asked_to_pause: Counter[str] = Counter()
        self.asked_to_resume: Counter[str] = Counter()
        self._began: Counter[str] = Counter()  # pauses that began and ended
        self._ended: Counter[str] = Counter()

    def ask(self, verb: str, worker_id: str) -> None:
        """A command is asked for; the engine does not know it yet."""
        if verb == "pause_worker":
            self.asked_to_pause[worker_id] += 1
        elif verb == "resume_worker":
            self.asked_to_resume[worker_id] += 1

    def acknowledge(self, worker_id: str) -> None:
        """The operator was told that it is paused."""
        if worker_id not in self.paused.values() and not self.asked_to_resume[worker_id]:
            raise Violation(
                "pause", f"the pause of worker {worker_id} was acknowledged, but it is not paused"
            )

    def look(self, worker: int, worker_id: str, status: str) -> None:
        """After a commit. One command begins or ends at most one pause."""
        was_paused, is_paused = worker in self.paused, status == "paused"
        if is_paused and not was_paused:
            self.paused[worker] = worker_id
            self._check(self._began, self.asked_to_pause, worker_id, "paused")
        elif was_paused and not is_paused:
            del self.paused[worker]
            if status != "cancelled":
                self._check(self._ended, self.asked_to_resume, worker_id, "resumed")

    def _check(self, seen: Counter[str], asked: Counter[str], worker_id: str, what: str) -> None:
        seen[worker_id] += 1
        if seen[worker_id] > asked[worker_id]:
            raise Violation("pause", f"worker {worker_id} is {what}, but no operator asked for it")
