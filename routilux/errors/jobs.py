"""Jobs, workers and dead letters that are in the wrong state for a call."""

from __future__ import annotations

from routilux.errors.root import RoutiluxError


class ControlError(RoutiluxError, ValueError):
    """A pause, resume or cancel is not possible for its target."""


class StateError(RoutiluxError, ValueError):
    """State cannot be changed or read here."""


class JobFailedError(RoutiluxError, RuntimeError):
    """The result was requested, but the job failed or was cancelled. `error` is the job's error text."""

    def __init__(self, job_id: str, error: str) -> None:
        self.job_id = job_id
        self.error = error
        super().__init__(f"job {job_id!r} failed: {error}")


class JobEndedError(RoutiluxError, RuntimeError):
    """The job has ended and accepts nothing more."""

    def __init__(self, job_id: str, status: str) -> None:
        self.job_id = job_id
        self.status = status
        super().__init__(f"job {job_id!r} has ended ({status}); post a new one, or retry its dead letter")


class WorkerEndedError(RoutiluxError, RuntimeError):
    """The worker has ended and accepts nothing more."""

    def __init__(self, worker_id: str, status: str) -> None:
        self.worker_id = worker_id
        self.status = status
        super().__init__(f"worker {worker_id!r} has ended ({status}); start another with runtime.exec()")


class DeadLetterGoneError(RoutiluxError, RuntimeError):
    """The dead letter was already retried or dropped: another operator was first."""

    def __init__(self, letter: object) -> None:
        self.letter = letter
        super().__init__(
            f"dead letter {letter} is gone: it was already retried or dropped; call dead_letters() again"
        )


class ProcessDiedError(RoutiluxError, RuntimeError):
    """The process died each time this work ran alone. Stored as the error of a dead letter."""

    def __init__(self, deaths: int) -> None:
        self.deaths = deaths
        super().__init__(
            f"the process died {deaths} times while this ran; look for crashes or lack of memory,"
            " then retry the dead letter"
        )
