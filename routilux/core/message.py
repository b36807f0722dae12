"""What waits and what it belongs to: the live records that the engine keeps for the workers it owns.

Payloads, state and job data are kept as JSON text: frozen by nature, shared without copying, and just what the
database holds. Logic gets a freshly decoded copy each time it asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from routilux.core.states import JobStatus


class Job:
    """A live job. An ended one stays ended for ever: sending a dead letter again loads a new record."""

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
        self.active_us = 0  # at work, as far as that is measured: see `routilux.engine.job_timeouts`
        self.parked_count = 0  # so many of the open ones are parked
        self.is_new = True
        self.is_touched = False
        self.has_details = False  # data, a result, an error or the status of a routine was ever set

    @property
    def has_ended(self) -> bool:
        return self.ended_at is not None

    @property
    def ends_now(self) -> bool:
        """It ends with the commit in the making, which counts its messages out of their slots."""
        return self.ended_at is not None and self.is_touched


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
        self.deaths: int | None = None  # a number: it was in flight when an owner died, so it runs alone
        self.not_before = 0


@dataclass(slots=True)
class Rerun:
    """A batch that has come back into line (a retry, a dead letter sent again): same messages, same policy message."""

    key: int  # seq of its parked row
    line: int
    messages: Sequence[Message]
    attempt: int
    deaths: int
    policy_message: str | None
    not_before: int = 0


class Activation:
    """One run of logic that was decided: over which messages, for which job."""

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
    """The jobs among its messages, each once."""
    if len(activation.messages) == 1:
        return [activation.messages[0].job]
    return list({message.job.no: message.job for message in activation.messages}.values())
