"""Jobs and dead letters, read for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from routilux.core import payload
from routilux.core.job_context import JobContext
from routilux.core.states import JobStatus
from routilux.errors import DeadLetterGoneError, JobEndedError
from routilux.runtime.handles import Host, JobHandle
from routilux.runtime.validation import count
from routilux.store.reads import dead_letter_rows, history
from routilux.store.records import DeadLetterRecord, JobRecord

if TYPE_CHECKING:
    from routilux.runtime.runtime import Runtime


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Messages that were given up, with the error; they stay until they are sent again or dropped.

    It has the fields of its `DeadLetterRecord`: worker_id, flow_id, job_id, routine_id, messages, attempt, deaths,
    error_type, error, traceback, dead_since.
    """

    record: DeadLetterRecord
    _host: Host = field(repr=False, compare=False)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.record, name)

    @property
    def payloads(self) -> list[Any]:
        """A copy of the payload of each of its messages."""
        return [payload.decode(message.payload) for message in self.record.messages]

    def retry(self, payload: Mapping[str, Any] | None = None) -> None:
        """Send it again, with another payload if one is given; its job is open again, attempts start anew.

        Raises `DeadLetterGoneError` if another operator was first, and what `post` raises for a payload.
        """
        flow, routine, slot = self.record.flow_id, self.record.routine_id, self.record.messages[0].slot
        text = None if payload is None else self._host.encode(flow, routine, slot, payload, "payload")
        self._ask("retry_dead", {"payload": text})

    def drop(self, reason: str) -> None:
        """Give it up for good: its messages are cancelled, history stays. Raises `DeadLetterGoneError`."""
        self._ask("drop_dead", {"reason": reason})

    def _ask(self, kind: str, body: dict[str, Any]) -> None:
        record = self.record
        with self._host.store.read() as connection:
            if dead_letter_rows.dead_letter(connection, *record.key) is None:
                raise DeadLetterGoneError(record.key[1])
        self._host.control(kind, record.worker_id, record.job_id, {"seq": record.key[1], **body})


def get_job(host: Host, job_id: str) -> JobContext | None:
    with host.store.read() as connection:
        record = history.job(connection, job_id)
    return None if record is None else _context(host, record)


def _context(host: Host, record: JobRecord) -> JobContext:
    return JobContext(record.job_id, record.flow_id, record.worker_id, JobHandle(host))


def list_jobs(
    host: Host, status: str | None, flow: str | None, worker_id: str | None, limit: int, before: str | None
) -> list[JobContext]:
    if status is not None and status not in list(JobStatus):
        raise ValueError(f"status must be one of {', '.join(JobStatus)}, not {status!r}")
    with host.store.read() as connection:
        records = history.jobs(
            connection, status=status, flow=flow, worker_id=worker_id, limit=count(limit), before=before
        )
    return [_context(host, record) for record in records]


def dead_letters(host: Host, flow: str | None, limit: int, before: DeadLetter | None) -> list[DeadLetter]:
    if before is not None and not isinstance(before, DeadLetter):
        raise TypeError(f"before must be a DeadLetter, not {type(before).__name__}")
    key = None if before is None else before.record.key
    with host.store.read() as connection:
        records = dead_letter_rows.dead_letters(connection, flow=flow, limit=count(limit), before=key)
    return [DeadLetter(record, host) for record in records]


def cancel_all(runtime: Runtime, reason: str) -> int:
    """Cancel every open job of this runtime's workers, batch by batch."""
    cancelled = 0
    for worker_id in list(runtime.engine.by_id):
        while True:
            with runtime.store.read() as connection:
                records = [
                    record
                    for status in (JobStatus.PENDING, JobStatus.RUNNING, JobStatus.PAUSED)
                    for record in history.jobs(
                        connection, status=status, flow=None, worker_id=worker_id, limit=500, before=None
                    )
                ]
            if not records:
                break
            for record in records:
                try:
                    runtime.control("cancel_job", worker_id, record.job_id, {"reason": reason})
                    cancelled += 1
                except JobEndedError:
                    continue
    return cancelled
