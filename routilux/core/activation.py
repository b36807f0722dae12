"""One run of logic: its input data, and the object behind the calls that it makes.

Logic touches no connection and no shared object. `emit`, state, job data, traces and user statements are only
collected in the outcome. The engine writes the outcome in one transaction. Only then can others see it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from routilux.core import payload
from routilux.core.compiled import CompiledRoutine
from routilux.core.job_context import JobContext, JobSnapshot, instant
from routilux.core.message import Activation
from routilux.core.outcome import Increment, JobEnd, JobIncrement, JobSet, Outcome, Replace, Trace
from routilux.core.run_overlay import Overlay
from routilux.core.worker_state import WorkerState, added
from routilux.errors import CalledInLogicError, EventNotFoundError, JobEndedError, StateError, WriteError


class ActivationContext:
    """Serves the calls that logic makes, for one activation. Its views use it as state port and job port."""

    __slots__ = (
        "_overlay",
        "_readers",
        "_routine",
        "flow_id",
        "job_record",
        "outcome",
        "routine_id",
        "worker_state",
    )

    def __init__(
        self,
        routine: CompiledRoutine,
        flow_id: str,
        worker_id: str,
        outcome: Outcome,
        overlay: Overlay,
        readers: Readers,
    ) -> None:
        self._routine = routine
        self._overlay = overlay
        self._readers = readers
        self.outcome = outcome
        self.routine_id = routine.routine_id
        self.flow_id = flow_id
        self.job_record = outcome.activation.job
        self.worker_state = WorkerState(flow_id, worker_id, port=self)

    @property
    def job(self) -> JobContext:
        """The current job, as logic sees it."""
        return JobContext(self.job_record.job_id, self.flow_id, self.worker_state.worker_id, self)

    def fail(self, error: BaseException) -> None:
        """Logic raised: nothing that it wrote counts."""
        self._overlay.undo()
        self.outcome.fail(error)

    # called by Routine

    def emit(self, event_name: str, data: dict[str, object]) -> None:
        targets = self._routine.targets.get(event_name)
        if targets is None:
            raise EventNotFoundError(event_name, self.routine_id)
        root, limit = f"emit({event_name!r})", self._readers.max_payload_bytes
        text = payload.encode(data, root=root, limit=limit)
        emits = self.outcome.emits = self.outcome.emits or []
        for target, slot_name, slot in targets:
            if slot.model is None:
                emits.append((target, slot_name, text))
            else:
                checked = slot.check(data, root=root)
                emits.append((target, slot_name, payload.encode(checked, root=root, limit=limit)))

    def write(self, statement: object, parameters: object | None) -> None:
        reason = self._readers.refuse_statement(statement)
        if reason is not None:
            raise WriteError(reason)
        self.outcome.writes = self.outcome.writes or []
        self.outcome.writes.append((statement, parameters))

    # StatePort

    def status(self) -> str:
        return "running"

    def read_state(self, routine_id: str) -> Mapping[str, str] | None:
        return self._overlay.read(("state", routine_id))

    def state_routines(self) -> list[str]:
        return self._readers.state_routines()

    def replace_state(self, routine_id: str, texts: dict[str, str]) -> None:
        if self._routine.concurrency > 1:
            raise StateError(
                f"routine {self.routine_id!r} has concurrency {self._routine.concurrency}:"
                " replacing a whole state would lose the changes of its other activations;"
                " use worker_state.increment(), or keep one key per job in the job data"
            )
        self._overlay.replace(("state", routine_id), texts)
        self._change_state(Replace(routine_id, texts))

    def increment_state(self, routine_id: str, key: str, by: float) -> None:
        texts = self._overlay.read(("state", routine_id)) or {}
        self._overlay.set(("state", routine_id), key, added(texts.get(key), by))
        self._change_state(Increment(routine_id, key, by))

    def _change_state(self, change: Replace | Increment) -> None:
        self.outcome.state = self.outcome.state or []
        self.outcome.state.append(change)

    def execution_history(self, routine_id: str | None) -> list[dict[str, Any]]:
        return self._readers.execution_history(routine_id)

    # JobPort: only the current job can be changed here

    def job_snapshot(self, job_id: str) -> JobSnapshot | None:
        record = self.job_record
        status = record.status if record.has_ended else "running"
        data = self._overlay.read(("job", record.no))
        return JobSnapshot(
            job_id=record.job_id,
            worker_id=self.worker_state.worker_id,
            flow_id=self.flow_id,
            status=status,
            created_at=instant(record.created_at),
            started_at=instant(record.started_at),
            ended_at=instant(record.ended_at),
            metadata=record.metadata,
            data=data,
            error=record.error,
            result=record.result,
        )

    def job_traces(self, job_id: str) -> list[dict[str, Any]]:
        new = [trace.shown() for trace in self.outcome.traces if trace.kind == "trace"]
        return self._readers.job_traces(job_id) + new

    def set_job_data(self, job_id: str, key: str, text: str) -> None:
        self._overlay.set(("job", self.job_record.no), key, text)
        self._change_job(JobSet(key, text))

    def increment_job_data(self, job_id: str, key: str, by: float) -> None:
        texts = self._overlay.read(("job", self.job_record.no)) or {}
        self._overlay.set(("job", self.job_record.no), key, added(texts.get(key), by))
        self._change_job(JobIncrement(key, by))

    def _change_job(self, edit: JobSet | JobIncrement) -> None:
        self.outcome.job = self.outcome.job or []
        self.outcome.job.append(edit)

    def trace_job(self, job_id: str, routine_id: str, action: str, details: Any) -> None:
        text = None if details is None else payload.encode(details, root="trace.details")
        self.outcome.traces = self.outcome.traces or []
        self.outcome.traces.append(
            Trace(
                "trace",
                payload.escape_text(routine_id),
                payload.escape_text(action),
                text,
                self._readers.now_us(),
            )
        )

    def complete_job(self, job_id: str, status: str, error: str | None, result: str | None) -> None:
        if self.outcome.job_end is not None:
            raise JobEndedError(job_id, self.outcome.job_end.status)
        self.outcome.job_end = JobEnd(status, None if error is None else payload.escape_text(error), result)

    def cancel_job(self, job_id: str, reason: str) -> None:
        self.complete_job(job_id, "cancelled", reason or None, None)

    def wait_for_job(self, job_id: str, timeout: float | None) -> bool:
        raise CalledInLogicError("job.wait()")


@dataclass(slots=True)
class Readers:
    """What an activation may read from outside, as plain functions: core knows no store and no clock."""

    now_us: Callable[[], int]
    state_routines: Callable[[], list[str]]
    execution_history: Callable[[str | None], list[dict[str, Any]]]
    job_traces: Callable[[str], list[dict[str, Any]]]
    refuse_statement: Callable[[object], str | None]
    max_payload_bytes: int


def slot_data(routine: CompiledRoutine, activation: Activation) -> dict[str, list[Any]]:
    """Return `{slot: [item, …]}` with every slot present. Items are fresh copies that logic may change."""
    if len(activation.messages) == len(routine.slots) == 1:
        message = activation.messages[0]
        return {message.slot: [payload.decode(message.payload)]}
    data: dict[str, list[Any]] = {name: [] for name in routine.slots}
    for message in activation.messages:
        data[message.slot].append(payload.decode(message.payload))
    return data
