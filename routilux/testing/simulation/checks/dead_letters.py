"""P8: what fails finally is a dead letter, until an operator sends it again or drops it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import NamedTuple

from routilux.testing.simulation.checks.attempts import Attempts
from routilux.testing.simulation.tables import Tables, Violation


class Letter(NamedTuple):
    """A dead letter. `seq`: of its first message."""

    worker_id: str
    worker: int
    seq: int


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in a dead letter."""

    messages: tuple[int, ...]
    payload: str  # of the first message that is left


class DeadLetters:
    """`dead`: the dead letters after the last commit. `asked_to_end`: (job, status); the model keeps them."""

    def __init__(self, tables: Tables, attempts: Attempts, asked_to_end: set[tuple[str, str]]) -> None:
        self.dead: dict[Letter, Contents] = {}
        self.asked_to_send: set[Letter] = set()
        self.asked_to_drop: set[Letter] = set()
        self.reopened: set[str] = set()  # jobs that the last commit has opened again
        self.ever_reopened: set[str] = set()
        self._tables = tables
        self._attempts = attempts
        self._asked_to_end = asked_to_end

    def look(self) -> None:
        """After a commit."""
        before, self.dead = self.dead, self._read()
        self.reopened.clear()
        for letter in sorted(before.keys() - self.dead.keys()):
            self._check_gone(letter, before[letter].messages)
        self.ever_reopened |= self.reopened

    def check_failed(self, worker: int, messages: tuple[int, ...], what: str) -> None:
        """An activation has failed: its messages are in a dead letter, except those of cancelled jobs."""
        kept = {
            seq for letter, found in self.dead.items() if letter.worker == worker for seq in found.messages
        }
        for seq in messages:
            status = self._status(worker, seq)
            if (status != "dead" or seq not in kept) and status != "cancelled":
                raise Violation(
                    "P8", f"{what} failed, but its message {seq} is {status} and in no dead letter"
                )

    def _read(self) -> dict[Letter, Contents]:
        found = {}
        for worker_id, worker, seq, seqs in self._tables.all(
            "SELECT w.worker_id, p.worker, p.seq, p.seqs FROM routilux_parked AS p JOIN routilux_workers AS w"
            " ON w.key = p.worker WHERE p.reason = 'dead'"
        ):
            messages = tuple(sorted(json.loads(seqs)))
            payload = self._tables.one(
                "SELECT payload FROM routilux_messages WHERE worker = ? AND status = 'dead' AND seq IN"
                " (SELECT value FROM json_each(?)) ORDER BY seq",
                worker,
                seqs,
            )
            if payload is None:
                raise Violation("P8", f"the dead letter {seq} of worker {worker} has no message")
            found[Letter(worker_id, worker, seq)] = Contents(messages, payload[0])
        return found

    def _check_gone(self, letter: Letter, messages: tuple[int, ...]) -> None:
        _, worker, seq = letter
        row = self._tables.one(
            "SELECT reason, line FROM routilux_parked WHERE worker = ? AND seq = ?", worker, seq
        )
        back = tuple(each for each in messages if self._status(worker, each) == "parked")
        if row is not None and row[1] is not None and back and letter in self.asked_to_send:
            self._attempts.start_again(worker, back)
            self.reopened.update(self._jobs_of(worker, back))
        elif row is not None or back or not self._may_be_dropped(letter, messages):
            raise Violation(
                "P8", f"dead letter {seq} of worker {worker} is gone, but no operator asked: {row}, {back}"
            )
        elif letter not in self.asked_to_drop:
            self.reopened.update(self._jobs_of(worker, messages))
        if not back and not all(self._status(worker, each) == "cancelled" for each in messages):
            raise Violation(
                "P8",
                f"dead letter {seq} of worker {worker} was dropped, but its messages {messages} were not",
            )

    def _may_be_dropped(self, letter: Letter, messages: tuple[int, ...]) -> bool:
        """An operator asked for it; or it was sent again by a commit that also ended its jobs."""
        if letter in self.asked_to_drop or letter not in self.asked_to_send:
            return letter in self.asked_to_drop
        status = self._tables.one("SELECT status FROM routilux_workers WHERE key = ?", letter.worker)
        ends = self._jobs_of(letter.worker, messages).items()
        return status == ("cancelled",) or all(end in self._asked_to_end for end in ends)

    def _status(self, worker: int, seq: int) -> str | None:
        row = self._tables.one(
            "SELECT status FROM routilux_messages WHERE worker = ? AND seq = ?", worker, seq
        )
        return None if row is None else row[0]

    def _jobs_of(self, worker: int, messages: tuple[int, ...]) -> dict[str, str]:
        """Returns job id -> status."""
        rows = self._tables.all(
            "SELECT j.job_id, j.status FROM routilux_messages AS m"
            " JOIN routilux_jobs AS j ON j.worker = m.worker AND j.job = m.job"
            " WHERE m.worker = ? AND m.seq IN (SELECT value FROM json_each(?))",
            worker,
            json.dumps(messages),
        )
        return dict(rows)
