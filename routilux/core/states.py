"""All states, with the words that the database and the API use."""

from __future__ import annotations

from enum import StrEnum


class WorkerStatus(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    IDLE = "idle"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class JobStatus(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class MessageStatus(StrEnum):
    WAITING = "waiting"
    PARKED = "parked"
    CONSUMED = "consumed"
    CANCELLED = "cancelled"
    DEAD = "dead"


class ActivationStatus(StrEnum):
    COMPLETED = "completed"
    FAILED = "failed"
    ERROR_CONTINUED = "error_continued"
    SKIPPED = "skipped"
    RETRYING = "retrying"
    DISCARDED = "discarded"


class ParkedReason(StrEnum):
    DELAY = "delay"
    RETRY = "retry"
    PAUSED = "paused"
    SUSPECT = "suspect"
    DEAD = "dead"
    UNROUTABLE = "unroutable"


ENDED_JOB = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED})
ENDED_WORKER = frozenset({WorkerStatus.COMPLETED, WorkerStatus.FAILED, WorkerStatus.CANCELLED})
