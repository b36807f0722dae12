"""Records that the reads for people return: frozen, instants as aware datetimes, JSON columns as text."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

DeadLetterKey = tuple[int, int]  # worker key, seq
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job, or a post that still waits in the inbox (then `worker_id` may be None)."""

    job_id: str
    worker_id: str | None
    flow_id: str
    status: str
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    open_count: int = 1
    metadata: str | None = None
    data: str | None = None
    result: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    key: int
    worker_id: str
    flow_id: str
    status: str
    owner: int | None
    is_named: bool
    reason: str | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class ActivationRecord:
    """One attempt to run logic. `seqs` are the messages it consumed."""

    worker_id: str
    n: int
    job_id: str | None
    routine_id: str
    attempt: int
    status: str
    started_at: datetime
    ended_at: datetime
    seqs: tuple[int, ...]
    policy_message: str | None
    error_type: str | None
    error: str | None
    traceback: str | None


@dataclass(frozen=True, slots=True)
class TraceRecord:
    at: datetime
    kind: str
    routine_id: str
    action: str
    details: str | None
    activation: int


@dataclass(frozen=True, slots=True)
class DeadMessage:
    seq: int
    slot: str
    payload: str
    job_id: str | None


@dataclass(frozen=True, slots=True)
class DeadLetterRecord:
    """A batch that was given up.

    `key` identifies it. `job_id` is None if its messages belong to several jobs.
    """

    key: DeadLetterKey
    worker_id: str
    flow_id: str
    job_id: str | None
    routine_id: str
    messages: tuple[DeadMessage, ...]
    attempt: int
    deaths: int
    error_type: str | None
    error: str | None
    traceback: str | None
    dead_since: datetime


@dataclass(frozen=True, slots=True)
class QueueDepth:
    flow_id: str
    worker_id: str
    routine_id: str
    slot: str
    waiting: int
    oldest_waiting_at: datetime | None
    parked: int


def instant(us: int) -> datetime:
    """The datetime of a stored instant: µs since 1970 UTC."""
    return _EPOCH + timedelta(microseconds=us)


def maybe_instant(us: int | None) -> datetime | None:
    return None if us is None else instant(us)
