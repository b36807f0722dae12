"""One run of logic: what it is given, and the outcome it leaves.

Logic touches no connection and no shared object. `emit`, state, job data, traces and own statements only collect
here; the engine turns the outcome into rows, in one transaction, and only then does anybody else see it.
"""

from __future__ import annotations

import traceback as tracebacks
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from routilux.core import payload
from routilux.core.compiled import CompiledRoutine
from routilux.core.job_context import JobContext, JobSnapshot, instant
from routilux.core.message import Activation, Job
from routilux.core.overlay import Overlay
from routilux.core.worker_state import WorkerState, added
from routilux.errors import CalledInLogicError, EventNotFoundError, JobEndedError, StateError, WriteError

if TYPE_CHECKING:
    from routilux.core.routine import Routine

MAX_ERROR_TEXT = 32_768


# Made once or more in most activations: frozen ones, which cost three times as much, are only what is rarer.
@dataclass(slots=True)
class Replace:
    """Routine state is now exactly this; the texts are shared, so nobody changes them."""

    routine: str
    texts: dict[str, str]


@dataclass(slots=True)
class Increment:
    """A number in routine state grows."""

    routine: str
    key: str
    by: float


@dataclass(frozen=True, slots=True)
class JobSet:
    key: str
    text: str


@dataclass(frozen=True, slots=True)
class JobIncrement:
    key: str
    by: float


@dataclass(frozen=True, slots=True)
class JobEnd:
    status: str
    error: str | None
    result: str | None


@dataclass(frozen=True, slots=True)
class Trace:
    kind: str
    routine: str
    action: str
    details: str | None
    at: int


@dataclass(frozen=True, slots=True)
class Failure:
    """A user exception, stored as data."""

    error: BaseException
    type: str
    text: str
    traceback: str

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        return cls(
            error,
            type(error).__name__,
            payload.escape_text(text_of(error), MAX_ERROR_TEXT),
            payload.escape_text(_traceback_of(error), MAX_ERROR_TEXT),
        )


def _traceback_of(error: BaseException) -> str:
    """As Python prints it, without the carets below the lines.

    Carets are placed with `ast.parse`, and CPython up to 3.12 counts the depth of that in one place for all threads
    (python/cpython#106905): logic that parses code in another thread would see a `SystemError` that is ours.
    """
    formatted = tracebacks.TracebackException.from_exception(error)
    chain = [formatted]
    while chain:
        link = chain.pop()
        for frame in link.stack:
            frame.colno = frame.end_colno = None
        chain += [each for each in (link.__cause__, link.__context__, *(link.exceptions or ())) if each]
    return "".join(formatted.format())


def text_of(error: BaseException) -> str:
    """What it says, or that it cannot."""
    try:
        return str(error)
    except Exception as broken:  # a user's __str__ may itself raise
        return f"<{type(error).__name__} whose text cannot be made: {type(broken).__name__}>"


# Most activations leave most of their lists empty, and a list costs more than the activation's row.
_NOTHING: Any = ()


class Outcome:
    """Everything one activation wants to write."""

    __slots__ = (
        "activation", "emits", "ended_at", "failure", "job", "job_end", "run", "started_at", "state", "traces", "writes",
    )  # fmt: skip

    def __init__(self, activation: Activation, started_at: int, ended_at: int = 0, run: Any = None) -> None:
        self.activation = activation
        self.started_at = started_at
        self.ended_at = ended_at
        self.run = run  # a `Run`; None: it failed without running
        self.failure: Failure | None = None
        self.emits: list[tuple[str, str, str]] = _NOTHING  # target routine, slot, JSON text
        self.state: list[Replace | Increment] = _NOTHING
        self.job: list[JobSet | JobIncrement] = _NOTHING
        self.job_end: JobEnd | None = None
        self.writes: list[tuple[Any, Any]] = _NOTHING
        self.traces: list[Trace] = _NOTHING

    def fail(self, error: BaseException) -> None:
        """Throw away what it wanted to write; its traces stay."""
        self.failure = Failure.of(error)
        self.emits = self.state = self.job = self.writes = _NOTHING
        self.job_end = None


class ActivationContext:
    """What the calls made by logic reach, for one activation. Serves as state port and job port of its views."""

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
        """The job that is being handled, as logic sees it."""
        return JobContext(self.job_record.job_id, self.flow_id, self.worker_state.worker_id, self)

    # what Routine calls

    def emit(self, routine: Routine, event_name: str, data: dict[str, object]) -> None:
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
        refusal = self._readers.refuse_statement(statement)
        if refusal is not None:
            raise WriteError(refusal)
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
                f"routine {self.routine_id!r} has concurrency {self._routine.concurrency}: replacing a whole state would"
                " lose the changes of its other activations; use worker_state.increment(), or keep a key per job in the job"
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

    # JobPort: only the job that is being handled can be changed here

    def job_snapshot(self, job_id: str) -> JobSnapshot | None:
        record = self.job_record
        status = record.status if record.has_ended else "running"
        data = self._overlay.read(("job", record.no))
        return JobSnapshot(
            record.job_id, self.worker_state.worker_id, self.flow_id, status, instant(record.created_at), instant(record.started_at),
            instant(record.ended_at), record.metadata, data, record.error, record.result,
        )  # fmt: skip

    def job_traces(self, job_id: str) -> list[dict[str, Any]]:
        mine = [
            {
                "timestamp": trace.at / 1e6,
                "routine_id": trace.routine,
                "action": trace.action,
                "details": None if trace.details is None else payload.decode(trace.details),
            }
            for trace in self.outcome.traces
            if trace.kind == "trace"
        ]
        return self._readers.job_traces(job_id) + mine

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
    """What an activation may ask of its surroundings, as plain functions: core knows no store and no clock."""

    now_us: Callable[[], int]
    state_routines: Callable[[], list[str]]
    execution_history: Callable[[str | None], list[dict[str, Any]]]
    job_traces: Callable[[str], list[dict[str, Any]]]
    refuse_statement: Callable[[object], str | None]
    max_payload_bytes: int


def slot_data(routine: CompiledRoutine, activation: Activation) -> dict[str, list[Any]]:
    """`{slot: [item, …]}` with every slot present; freshly decoded, so logic may change what it is given."""
    if len(activation.messages) == len(routine.slots) == 1:
        message = activation.messages[0]
        return {message.slot: [payload.decode(message.payload)]}
    data: dict[str, list[Any]] = {name: [] for name in routine.slots}
    for message in activation.messages:
        data[message.slot].append(payload.decode(message.payload))
    return data


def jobs_of(activation: Activation) -> list[Job]:
    """The jobs among its messages, each once."""
    if len(activation.messages) == 1:
        return [activation.messages[0].job]
    return list({message.job.no: message.job for message in activation.messages}.values())
