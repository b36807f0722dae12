"""Messages and jobs: the live records that the engine keeps for the workers it owns.

Payloads, state and job data are JSON texts. A text cannot change, is shared without a copy, and is exactly
what the database stores. Each read by logic decodes a fresh copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from routilux.core.states import JobStatus


class Job:
    """A live job. An ended job stays ended: a retry of its dead letter loads a new record."""

    __slots__ = (
        "active_us",
        "created_at",
        "data",
        "ended_at",
        "error",
        "flow",
        "has_details",
        "is_new",
        "is_touched",
        "job_id",
        "metadata",
        "no",
        "open_count",
        "parked_count",
        "result",
        "routine_status",
        "started_at",
        "status",
        "stored_open_count",
        "worker_id",
    )

    def __init__(
        self, no: int, job_id: str, worker_id: str, flow: str, created_at: int, metadata: str | None = None
    ) -> None:
        self.no = no
        self.job_id = job_id
        self.worker_id = worker_id
        self.flow = flow
        self.created_at = created_at
        self.metadata = metadata
        self.status = JobStatus.PENDING
        self.open_count = 0
        self.stored_open_count = 0
        self.data: dict[str, str] = {}
        self.routine_status: dict[str, str] = {}
        self.result: str | None = None
        self.error: str | None = None
        self.started_at: int | None = None
        self.ended_at: int | None = None
        self.active_us = 0  # measured time at work; see `routilux.engine.job_timeouts`
        self.parked_count = 0  # how many of the open messages are parked
        self.is_new = True
        self.is_touched = False
        self.has_details = False  # data, a result, an error or a routine's status was ever set

    @classmethod
    def stored(
        cls,
        no: int,
        job_id: str,
        worker_id: str,
        flow: str,
        created_at: int,
        metadata: str | None,
        *,
        status: JobStatus,
        open_count: int,
        started_at: int | None,
        active_us: int,
    ) -> Job:
        """The live record of a job that has a row already."""
        job = cls(no, job_id, worker_id, flow, created_at, metadata)
        job.status = status
        job.open_count = job.stored_open_count = open_count
        job.started_at, job.active_us = started_at, active_us
        job.is_new = False
        return job

    def restore_details(
        self,
        data: dict[str, str],
        routine_status: dict[str, str],
        result: str | None,
        error: str | None,
        ended_at: int | None,
    ) -> None:
        """What most jobs do not have, as its row has it."""
        self.has_details = True
        self.data, self.routine_status = data, routine_status
        self.result, self.error, self.ended_at = result, error, ended_at

    @property
    def has_ended(self) -> bool:
        return self.ended_at is not None

    @property
    def ends_now(self) -> bool:
        """It ends with the current commit, which subtracts its messages from the counts of their slots."""
        return self.ended_at is not None and self.is_touched

    # what happens to a job; each verb leaves the row to be written

    def start(self, now: int) -> None:
        """Its first activation is in. A job that was paused meanwhile stays paused."""
        if self.started_at is None:
            self.started_at = now
            self.is_touched = True
        if self.status == JobStatus.PENDING:
            self.status = JobStatus.RUNNING

    def end(self, now: int, status: JobStatus, error: str | None, result: str | None) -> bool:
        """It ends. Returns whether messages of it are left, which its end sweeps."""
        self.status = status
        self.ended_at = now
        self.error, self.result = error, result
        if error is not None or result is not None:
            self.has_details = True
        self.is_touched = True
        has_rest = self.open_count > 0
        self.open_count = 0 if has_rest else self.open_count
        return has_rest

    def pause(self) -> None:
        self.status = JobStatus.PAUSED
        self.is_touched = True

    def resume(self) -> None:
        self.status = JobStatus.RUNNING if self.started_at else JobStatus.PENDING
        self.is_touched = True

    def reopen(self) -> None:
        """A dead letter of it is sent again. Its time limit starts over, or it could end before it runs."""
        self.status = JobStatus.RUNNING
        self.error = self.ended_at = None
        self.active_us = 0
        self.is_touched = self.has_details = True

    def add_message(self) -> None:
        """One more message of it is open."""
        self.open_count += 1

    def close_message(self) -> None:
        """A message of it was consumed or became a dead letter."""
        self.open_count -= 1

    def park_message(self, count: int = 1) -> None:
        """So many of its open messages are parked now."""
        self.parked_count += count

    def unpark_message(self) -> None:
        self.parked_count -= 1

    def set_data(self, key: str, text: str) -> None:
        self.data[key] = text
        self.is_touched = self.has_details = True

    def set_routine_status(self, routine: str, status: str) -> None:
        self.routine_status[routine] = status
        self.is_touched = self.has_details = True

    def clear_routine_status(self, routine: str) -> None:
        if self.routine_status and self.routine_status.pop(routine, None) is not None:
            self.is_touched = True

    def work(self, microseconds: int) -> None:
        """It was at work for so long."""
        self.active_us += microseconds


def mark_stored(jobs: Iterable[Job]) -> None:
    """The rows of the commit in the making hold all of these jobs."""
    for job in jobs:
        job.is_new = job.is_touched = False
        job.stored_open_count = job.open_count


class Message:
    """One item of a slot, in memory."""

    __slots__ = ("created_at", "deaths", "job", "not_before", "payload", "produced_by", "seq", "slot")

    def __init__(
        self, seq: int, job: Job, slot: str, payload: str, created_at: int, produced_by: int | None = None
    ) -> None:
        self.seq = seq
        self.job = job
        self.slot = slot
        self.payload = payload
        self.created_at = created_at
        self.produced_by = produced_by
        self.deaths: int | None = None  # if set: it was in flight when its owner died, so it runs alone
        self.not_before = 0


@dataclass(slots=True)
class Rerun:
    """A requeued batch (a retry, or a retried dead letter), with the same messages and policy message."""

    key: int  # seq of its parked row
    line: int
    messages: Sequence[Message]
    attempt: int
    deaths: int
    policy_message: str | None
    not_before: int = 0


class Activation:
    """One planned run of logic: which messages, for which job."""

    __slots__ = ("attempt", "job", "messages", "policy_message", "reason_text", "rerun")

    def __init__(
        self,
        messages: Sequence[Message],
        job: Job,
        attempt: int = 1,
        policy_message: object = None,
        rerun: Rerun | None = None,
        reason_text: str | None = None,  # the policy message as it is stored
    ) -> None:
        self.messages = messages
        self.job = job
        self.attempt = attempt
        self.policy_message = policy_message
        self.rerun = rerun
        self.reason_text = reason_text

    @property
    def seqs(self) -> list[int]:
        return [message.seq for message in self.messages]


def jobs_of(activation: Activation) -> list[Job]:
    """Return the jobs of its messages, each once."""
    if len(activation.messages) == 1:
        return [activation.messages[0].job]
    return list({message.job.no: message.job for message in activation.messages}.values())
