"""P6 and P7: what is retried, how often, when, and with which messages."""

from __future__ import annotations

import json
from collections.abc import Sequence

from routilux.core.compiled import CompiledFlow
from routilux.core.error_handler import ErrorHandler, ErrorStrategy
from routilux.testing.simulation.tables import ENDED, Tables, Violation

Messages = tuple[int, ...]


class Attempts:
    """`ended`: the jobs that have ended; the model keeps them."""

    def __init__(self, tables: Tables, flows: Sequence[CompiledFlow], ended: set[tuple[int, int]]) -> None:
        self.parked: set[tuple[int, int]] = set()  # messages that were parked: they have left the line
        self._tables = tables
        self._flows = flows
        self._ended = ended
        self._last: dict[tuple[int, Messages], tuple[int, str]] = {}
        self._retried: set[tuple[int, Messages]] = set()  # tried, to be retried
        self._due: dict[tuple[int, int], int] = {}

    def start_again(self, worker: int, messages: Messages) -> None:
        """An operator sends a dead letter again: its attempt count is reset, its messages stay together."""
        self._last[worker, messages] = (0, "retrying")
        self._retried.add((worker, messages))

    def check(
        self, worker: int, routine: str, messages: tuple[int, ...], attempt: int, status: str, what: str
    ) -> None:
        """P7: each retry happens once, and there are no more than the handler allows."""
        before, last = self._last.get((worker, messages)) or self._attempt_of_more(worker, messages)
        if attempt != before + 1 or last != "retrying":
            raise Violation("P7", f"{what} of messages {messages} follows attempt {before} ({last})")
        handler = self._handler(routine)
        if handler is not None and attempt > handler.max_retries + 1:
            raise Violation("P7", f"{what}: only {handler.max_retries} retries are allowed")
        self._last[worker, messages] = (attempt, status)
        self._retried = {key for key in self._retried if key != (worker, messages)}
        if status == "retrying":
            self._retried.add((worker, messages))

    def _attempt_of_more(self, worker: int, messages: tuple[int, ...]) -> tuple[int, str]:
        """The last attempt with these messages and others of jobs that ended since, or (0, "retrying")."""
        for (owner, earlier), attempt in self._last.items():
            if owner == worker and attempt[1] == "retrying" and set(messages) < set(earlier):
                gone = set(earlier) - set(messages)
                jobs = [
                    self._tables.one(
                        "SELECT job FROM routilux_messages WHERE worker = ? AND seq = ?", worker, seq
                    )
                    for seq in gone
                ]
                if all(job is not None and (worker, job[0]) in self._ended for job in jobs):
                    return attempt
        return 0, "retrying"

    def check_places(self) -> None:
        """P7: a batch that is retried keeps its messages and their places."""
        if self._retried:
            places = set(self._tables.all("SELECT worker, seq FROM routilux_messages"))
            for worker, messages in self._retried:
                for seq in messages:
                    if (worker, seq) not in places:
                        raise Violation("P7", f"message {seq} of {messages} is to be retried, but has moved")

    def _handler(self, routine: str) -> ErrorHandler | None:
        for flow in self._flows:
            handler = flow.routines[routine].error_handler if routine in flow.routines else None
            if handler is not None and handler.strategy == ErrorStrategy.RETRY:
                return handler
        return None

    def look(self, began_us: int, latest_us: int) -> None:
        """P7: what is parked until a time is not requeued earlier."""
        due = {}
        for worker, seq, reason, due_at, seqs, attempt, routine in self._tables.all(
            "SELECT worker, seq, reason, due_at, seqs, attempt, routine FROM routilux_parked"
        ):
            if reason != "suspect":
                self.parked.update((worker, each) for each in json.loads(seqs))
            if due_at is not None:
                due[worker, seq] = due_at
                handler = self._handler(routine)
                if reason == "retry" and (worker, seq) not in self._due and handler is not None:
                    delay = handler.retry_delay * handler.retry_backoff ** (attempt - 1)
                    if handler.max_retry_delay is not None:
                        delay = min(delay, handler.max_retry_delay)
                    if due_at < began_us + delay * 1e6 - 1:
                        found_s = (due_at - began_us) / 1e6
                        text = (
                            f"the retry of message {seq} is due {found_s} s after its failure, not {delay} s"
                        )
                        raise Violation("P7", text)
        for (worker, seq), due_at in self._due.items():
            if (worker, seq) not in due and due_at > latest_us and self._is_alive(worker, seq):
                raise Violation("P7", f"message {seq} was requeued {(due_at - latest_us) / 1e6} s early")
        self._due = due
        self.parked.update(
            self._tables.all("SELECT worker, seq FROM routilux_messages WHERE status = 'parked'")
        )

    def _is_alive(self, worker: int, seq: int) -> bool:
        """Its job lives, and no operator holds it. A message without a row has a new place in line."""
        row = self._tables.one(
            "SELECT j.status, p.reason FROM routilux_messages AS m"
            " JOIN routilux_jobs AS j ON j.worker = m.worker AND j.job = m.job"
            " LEFT JOIN routilux_parked AS p ON p.worker = m.worker AND p.seq = m.seq"
            " WHERE m.worker = ? AND m.seq = ?",
            worker,
            seq,
        )
        return row is None or (row[0] not in ENDED and row[1] != "paused")
