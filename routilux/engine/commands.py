"""Commands: what callers and operators ask of the owner of a worker.

Frozen records, and their rows in the inbox.

A command of this process travels as it is; one for another process is a row (kind, worker, job, body as
JSON). Older releases read these rows: the kinds and the fields of the bodies do not change.
`command_handlers` carries them out.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Command:
    """`worker_id`: whose owner carries it out. `job_id`: the job that it is about, or None."""

    kind: ClassVar[str]
    worker_id: str | None
    job_id: str | None

    @property
    def body(self) -> dict[str, Any]:
        """The rest of its fields, as the row has them."""
        names = [each.name for each in fields(self) if each.name not in ("worker_id", "job_id")]
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True)
class Signal(Command):
    """Add one message to a running job. `payload` is JSON text."""

    kind: ClassVar[str] = "signal"
    routine: str
    slot: str
    payload: str


@dataclass(frozen=True, slots=True)
class WithReason(Command):
    """A command for which an operator may give a reason."""

    reason: str | None


class PauseWorker(WithReason):
    """What runs finishes and commits; nothing new starts; posts are accepted."""

    __slots__ = ()
    kind = "pause_worker"


class ResumeWorker(WithReason):
    __slots__ = ()
    kind = "resume_worker"


class CancelWorker(WithReason):
    """The worker takes no more; its jobs are cancelled with it."""

    __slots__ = ()
    kind = "cancel_worker"


class PauseJob(WithReason):
    __slots__ = ()
    kind = "pause_job"


class ResumeJob(WithReason):
    """Its parked messages come back to the end of the line."""

    __slots__ = ()
    kind = "resume_job"


class CancelJob(WithReason):
    __slots__ = ()
    kind = "cancel_job"


@dataclass(frozen=True, slots=True)
class CompleteJob(Command):
    """End a job from outside logic. `result` is JSON text."""

    kind: ClassVar[str] = "complete_job"
    status: str
    error: str | None
    result: str | None


@dataclass(frozen=True, slots=True)
class SetJobData(Command):
    """Set one key of a job's data. `text` is JSON."""

    kind: ClassVar[str] = "change_data"
    key: str
    text: str


@dataclass(frozen=True, slots=True)
class IncrementJobData(Command):
    kind: ClassVar[str] = "change_data"
    key: str
    by: float


@dataclass(frozen=True, slots=True)
class ReplaceState(Command):
    """The state of a routine is now exactly this: key -> JSON text."""

    kind: ClassVar[str] = "replace_state"
    routine: str
    texts: dict[str, str]


@dataclass(frozen=True, slots=True)
class IncrementState(Command):
    kind: ClassVar[str] = "increment_state"
    routine: str
    key: str
    by: float


@dataclass(frozen=True, slots=True)
class RetryDeadLetter(Command):
    """Send a dead letter again; its attempt count is reset and its job is open again.

    `payload`: another one, as JSON.
    """

    kind: ClassVar[str] = "retry_dead"
    seq: int
    payload: str | None


@dataclass(frozen=True, slots=True)
class DropDeadLetter(Command):
    """Give a dead letter up: its messages are cancelled, its history stays."""

    kind: ClassVar[str] = "drop_dead"
    seq: int
    reason: str | None


_KINDS: dict[str, type[Command]] = {
    record.kind: record
    for record in (
        Signal,
        PauseWorker,
        ResumeWorker,
        CancelWorker,
        PauseJob,
        ResumeJob,
        CancelJob,
        CompleteJob,
        SetJobData,
        ReplaceState,
        IncrementState,
        RetryDeadLetter,
        DropDeadLetter,
    )
}


def command_of(kind: str, worker_id: str | None, job_id: str | None, body: dict[str, Any]) -> Command:
    """The command of an inbox row. Raises `KeyError` for an unknown kind or a missing field.

    Unknown fields are ignored: a newer release may write more.
    """
    record = IncrementJobData if kind == "change_data" and "by" in body else _KINDS[kind]
    names = [each.name for each in fields(record) if each.name not in ("worker_id", "job_id")]
    optional = {"reason", "error", "result", "payload"} if record is not Signal else {"reason"}
    values = {name: body.get(name) if name in optional else body[name] for name in names}
    return record(worker_id, job_id, **values)
