"""`RoutineTester`: one routine by itself, without a flow, a database or an engine.

Logic runs in the calling thread over items that have been through JSON as a message is, with a worker state and a
job of its own. What it emits and writes is collected; its exceptions reach the test. What a commit would keep is
kept for the next call, what a failed activation throws away is thrown away.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, SupportsIndex, overload

from routilux.core import context, payload
from routilux.core.activation import (
    ActivationContext,
    JobEnd,
    JobIncrement,
    JobSet,
    Outcome,
    Readers,
    Replace,
    Trace,
)
from routilux.core.compiled import CompiledRoutine
from routilux.core.flow import Flow
from routilux.core.job_context import JobContext, JobSnapshot, instant
from routilux.core.message import Activation, Job, Message
from routilux.core.overlay import Overlay, Scope
from routilux.core.routine import Routine
from routilux.core.states import JobStatus
from routilux.core.worker_state import DetachedState, WorkerState, added
from routilux.errors import DefinitionError, EventNotFoundError, JobEndedError
from routilux.runtime.door import encode_metadata, encode_payload
from routilux.runtime.owning import refusal
from routilux.runtime.settings import Settings
from routilux.testing.coroutines import PrivateLoop

FLOW_ID, WORKER_ID = "test_flow", "test_worker"


@dataclass(frozen=True, slots=True)
class CapturedEvent:
    """What was emitted: the event's name, and its data as the next routine would see it."""

    name: str
    data: dict[str, Any]


class CapturedEvents(list[CapturedEvent]):
    """Captured events in the order of the calls; `events["name"]` is the data of those of one name."""

    def __init__(self, names: Collection[str]) -> None:
        super().__init__()
        self._names = names

    @overload
    def __getitem__(self, key: str) -> list[dict[str, Any]]: ...
    @overload
    def __getitem__(self, key: SupportsIndex) -> CapturedEvent: ...
    @overload
    def __getitem__(self, key: slice) -> list[CapturedEvent]: ...

    def __getitem__(self, key: str | SupportsIndex | slice) -> Any:
        """Raises `KeyError` for an event that the routine does not have."""
        if not isinstance(key, str):
            return super().__getitem__(key)
        if key not in self._names:
            raise KeyError(f"no event {key!r}; the routine has {_listed(self._names)}")
        return [event.data for event in self if event.name == key]

    def __contains__(self, item: object) -> bool:
        """Whether such an event was captured; a string: any of that name."""
        if isinstance(item, str):
            return any(event.name == item for event in self)
        return super().__contains__(item)

    def get(self, name: str, default: Any = None) -> Any:
        """The data of the events of one name, or `default` if there is none."""
        return [event.data for event in self if event.name == name] or default


class RoutineTester:
    """Calls a routine's logic and shows what it did. Also a context manager, which cleans up.

    `routine`: what is tested; its activation policy and error handler play no part.
    `routine_id`: its id, default what `Flow.add_routine` would choose. `metadata`: of the job that logic sees.

    `tester.job_state` (also `worker_state`) is the worker's state, `tester.job` the job of the last call,
    `tester.writes` the `(statement, parameters)` that logic gave to `self.write()`.
    Raises `TypeError` for something that is no routine, `LogicSignatureError`.
    """

    def __init__(
        self, routine: Routine, *, routine_id: str | None = None, metadata: Mapping[str, Any] | None = None
    ) -> None:
        self.routine = routine
        flow = Flow(FLOW_ID)
        self.routine_id = flow.add_routine(routine, routine_id)
        self._flow = flow
        self._metadata = encode_metadata(metadata, Settings().max_payload_bytes)
        self._jobs = 0
        self._job: Job
        flow.compiled()
        self.cleanup()

    def __enter__(self) -> RoutineTester:
        return self

    def __exit__(self, *_: object) -> None:
        self.cleanup()

    def __repr__(self) -> str:
        return f"<RoutineTester of {self.routine!r}>"

    # calling

    def call_slot(self, slot_name: str, **data: Any) -> None:
        """Run the logic over one item, `data`, in one slot; the other slots are empty.

        Raises `ValueError` for a slot that the routine does not have, `PayloadError` for data that cannot be posted,
        and whatever logic raises.
        """
        self.call_slots({slot_name: [data]})

    def call_slots(
        self, slot_data: Mapping[str, Sequence[Mapping[str, Any]]], policy_message: Any = None
    ) -> None:
        """Run the logic once over `{slot: [item, …]}`, as a policy that gathers or joins would. Raises the same."""
        compiled = self._compiled()
        messages = [
            self._message(compiled, slot, index, item)
            for slot, items in slot_data.items()
            for index, item in enumerate(items)
        ]
        if self._job.has_ended:
            self._job = self._new_job()
        self._run(
            compiled,
            {
                name: [payload.decode(m.payload) for m in messages if m.slot == name]
                for name in compiled.slots
            },
            policy_message,
            messages,
        )

    def _compiled(self) -> CompiledRoutine:
        compiled = self._flow.compiled().routines[self.routine_id]
        if compiled.call is None:
            raise DefinitionError(
                f"routine {self.routine_id!r} has no logic: use set_logic(), or write a method logic"
            )
        return compiled

    def _message(self, compiled: CompiledRoutine, slot_name: str, index: int, item: Any) -> Message:
        if slot_name not in compiled.slots:
            raise ValueError(
                f"Slot {slot_name!r} not found in routine {self.routine_id!r}; it has {_listed(compiled.slots)}"
            )
        root = "data" if index == 0 else f"data[{index}]"
        text = encode_payload(compiled.slots[slot_name], item, Settings().max_payload_bytes, root)
        return Message(index + 1, self._job, slot_name, text, _now_us())

    def _run(
        self,
        compiled: CompiledRoutine,
        data: dict[str, list[Any]],
        policy_message: Any,
        messages: list[Message],
    ) -> None:
        around = _Capturing(
            compiled,
            FLOW_ID,
            WORKER_ID,
            Outcome(Activation(messages, self._job), _now_us()),
            Overlay(self._committed),
            self._readers(),
        )
        assert compiled.call is not None
        token = context.current.set(around)
        try:
            returned = compiled.call(data, policy_message, around.worker_state)
            if compiled.is_async:
                with PrivateLoop() as loop:
                    loop.run(returned)
        except BaseException:
            self._kept.add_traces(around.outcome.traces)
            raise
        finally:
            context.current.reset(token)
        self._commit(around)

    def _readers(self) -> Readers:
        return Readers(
            now_us=_now_us,
            state_routines=lambda: list(self._kept.states),
            execution_history=lambda routine: [],
            job_traces=self._kept.job_traces,
            refuse_statement=refusal,
            max_payload_bytes=Settings().max_payload_bytes,
        )

    def _committed(self, scope: Scope) -> dict[str, str] | None:
        kind, name = scope
        return self._kept.states.get(str(name)) if kind == "state" else self._job.data

    def _commit(self, around: _Capturing) -> None:
        """What a commit would keep."""
        kept, outcome = self._kept, around.outcome
        for change in outcome.state:
            if isinstance(change, Replace):
                kept.replace_state(change.routine, change.texts)
            else:
                kept.increment_state(change.routine, change.key, change.by)
        for edit in outcome.job:
            kept.edit_job(edit)
        kept.add_traces(outcome.traces)
        if outcome.job_end is not None:
            kept.end_job(outcome.job_end)
        elif self._job.started_at is None:
            self._job.status, self._job.started_at = JobStatus.RUNNING, outcome.started_at
        self.writes.extend(outcome.writes)
        self._events.extend(around.captured)

    # looking

    @property
    def job_state(self) -> WorkerState:
        """The state of the worker that logic sees as its last argument; may be set before a call."""
        return WorkerState(FLOW_ID, WORKER_ID, port=self._kept)

    @property
    def worker_state(self) -> WorkerState:
        """The same under its present name."""
        return self.job_state

    @property
    def job(self) -> JobContext:
        """The job that logic sees as `get_current_job()`; a new one after it was completed."""
        return JobContext(self._job.job_id, FLOW_ID, WORKER_ID, self._kept)

    def capture_events(self) -> CapturedEvents:
        """Begin anew: returns the list that fills with what is emitted from now on."""
        self._events = CapturedEvents(self.routine.events)
        return self._events

    def get_captured_events(self) -> CapturedEvents:
        """What was emitted since the last `capture_events`, `clear_captured_events` or `cleanup`, in order."""
        return self._events

    def clear_captured_events(self) -> None:
        """Forget what was captured; the list that `capture_events` returned is emptied."""
        self._events.clear()

    def cleanup(self) -> None:
        """Forget everything: events, state, job, writes. The tester can be used again."""
        self.writes: list[tuple[Any, Any]] = []
        self._job = self._new_job()
        self._kept = _Kept(self)
        self.capture_events()

    def _new_job(self) -> Job:
        self._jobs += 1
        return Job(self._jobs, f"test_job_{self._jobs}", WORKER_ID, FLOW_ID, _now_us(), self._metadata)


class _Capturing(ActivationContext):
    """Keeps what is emitted, connected or not."""

    __slots__ = ("captured",)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.captured: list[CapturedEvent] = []

    def emit(self, routine: Routine, event_name: str, data: dict[str, object]) -> None:
        if event_name not in self._routine.targets:
            raise EventNotFoundError(event_name, self.routine_id)
        text = payload.encode(data, root=f"emit({event_name!r})", limit=self._readers.max_payload_bytes)
        self.captured.append(CapturedEvent(event_name, payload.decode(text)))


class _Kept(DetachedState):
    """What the commits of a tester have left; the state port and the job port of what it shows."""

    def __init__(self, tester: RoutineTester) -> None:
        super().__init__()
        self._tester = tester
        self._traces: list[Trace] = []

    # StatePort

    def status(self) -> str:
        return "idle"

    # JobPort

    @property
    def _job(self) -> Job:
        return self._tester._job

    def job_snapshot(self, job_id: str) -> JobSnapshot | None:
        job = self._job
        if job.job_id != job_id:
            return None
        return JobSnapshot(
            job.job_id, WORKER_ID, FLOW_ID, job.status, instant(job.created_at), instant(job.started_at),
            instant(job.ended_at), job.metadata, job.data, job.error, job.result,
        )  # fmt: skip

    def add_traces(self, traces: Sequence[Trace]) -> None:
        self._traces.extend(traces)

    def job_traces(self, job_id: str) -> list[dict[str, Any]]:
        return [
            {
                "timestamp": trace.at / 1e6,
                "routine_id": trace.routine,
                "action": trace.action,
                "details": None if trace.details is None else payload.decode(trace.details),
            }
            for trace in self._traces
        ]

    def set_job_data(self, job_id: str, key: str, text: str) -> None:
        self.edit_job(JobSet(key, text))

    def increment_job_data(self, job_id: str, key: str, by: float) -> None:
        self.edit_job(JobIncrement(key, by))

    def edit_job(self, edit: JobSet | JobIncrement) -> None:
        before = self._job.data
        text = edit.text if isinstance(edit, JobSet) else added(before.get(edit.key), edit.by)
        self._job.data = {**before, edit.key: text}

    def trace_job(self, job_id: str, routine_id: str, action: str, details: Any) -> None:
        text = None if details is None else payload.encode(details, root="trace.details")
        self._traces.append(Trace("trace", routine_id, action, text, _now_us()))

    def complete_job(self, job_id: str, status: str, error: str | None, result: str | None) -> None:
        if self._job.has_ended:
            raise JobEndedError(job_id, str(self._job.status))
        self.end_job(JobEnd(status, error, result))

    def end_job(self, end: JobEnd) -> None:
        job = self._job
        job.status, job.error, job.result, job.ended_at = (
            JobStatus(end.status),
            end.error,
            end.result,
            _now_us(),
        )

    def cancel_job(self, job_id: str, reason: str) -> None:
        self.complete_job(job_id, "cancelled", reason or None, None)

    def wait_for_job(self, job_id: str, timeout: float | None) -> bool:
        """Nothing runs between two calls."""
        return self._job.has_ended


def _now_us() -> int:
    return time.time_ns() // 1000


def _listed(names: Collection[str]) -> str:
    return ", ".join(map(repr, names)) or "none"


__all__ = ["CapturedEvent", "CapturedEvents", "RoutineTester"]
