"""The verbs that `Runtime` and `Client` share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from routilux.core.job_context import JobContext
from routilux.engine.commands import (
    CancelJob,
    CancelWorker,
    PauseJob,
    PauseWorker,
    ResumeJob,
    ResumeWorker,
    Signal,
)
from routilux.errors import JobNotFoundError
from routilux.runtime import queries
from routilux.runtime.dead_letter import DeadLetter
from routilux.runtime.host import Host
from routilux.store.reads import history
from routilux.store.records import JobRecord


class Operations:
    """Signal, read, pause, resume and cancel, on the database of a host."""

    _host: Host

    def signal(self, job_id: str, routine_name: str, slot_name: str, data: Mapping[str, Any]) -> None:
        """Add one message to a running job (an approval, an answer). Durable on return.

        Raises `JobNotFoundError`, `JobEndedError`, and what `post` raises for names and payload. Where
        another process owns the worker, its owner carries it out as soon as it looks.
        """
        self._host.check_usable()
        record = self._record(job_id)
        self._host.check_slot(record.flow_id, routine_name, slot_name)
        text = self._host.encode(record.flow_id, routine_name, slot_name, data)
        self._host.command(Signal(record.worker_id, job_id, routine_name, slot_name, text))

    # reading

    def get_job(self, job_id: str) -> JobContext | None:
        """The job of that id: live, ended or waiting in the inbox. Returns None if there is none."""
        return queries.get_job(self._host, job_id)

    def list_jobs(
        self,
        *,
        status: str | None = None,
        flow_name: str | None = None,
        worker_id: str | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> list[JobContext]:
        """Jobs, newest first; `before` (a job id) reads on."""
        return queries.list_jobs(self._host, status, flow_name, worker_id, limit, before)

    def dead_letters(
        self, *, flow_name: str | None = None, limit: int = 100, before: DeadLetter | None = None
    ) -> list[DeadLetter]:
        """Dead letters, newest first; `before` reads on."""
        return queries.dead_letters(self._host, flow_name, limit, before)

    # control

    def pause_worker(self, worker_id: str, reason: str = "") -> None:
        """What runs finishes and commits; nothing new starts; posts are accepted. Durable on return."""
        self._host.check_usable()
        self._host.command(PauseWorker(worker_id, None, reason))

    def resume_worker(self, worker_id: str, reason: str = "") -> None:
        """Go on after `pause_worker`."""
        self._host.check_usable()
        self._host.command(ResumeWorker(worker_id, None, reason))

    def cancel_worker(self, worker_id: str, reason: str = "") -> None:
        """End a worker and its jobs. Outcomes of logic that still runs are recorded as discarded."""
        self._host.check_usable()
        self._host.command(CancelWorker(worker_id, None, reason))

    def pause_job(self, job_id: str, reason: str = "") -> None:
        """Park the messages of a job. They come back to the end of the line with `resume_job`."""
        self._host.check_usable()
        self._host.command(PauseJob(self._record(job_id).worker_id, job_id, reason))

    def resume_job(self, job_id: str, reason: str = "") -> None:
        """Go on after `pause_job`."""
        self._host.check_usable()
        self._host.command(ResumeJob(self._record(job_id).worker_id, job_id, reason))

    def cancel_job(self, job_id: str, reason: str = "") -> None:
        """End a job; what waits for it is cancelled and kept."""
        self._host.check_usable()
        self._host.command(CancelJob(self._record(job_id).worker_id, job_id, reason))

    def _record(self, job_id: str) -> JobRecord:
        with self._host.store.read() as connection:
            record = history.job(connection, job_id)
        if record is None:
            raise JobNotFoundError(job_id)
        return record
