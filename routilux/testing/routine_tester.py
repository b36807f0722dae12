"""`RoutineTester`: one routine by itself, without a flow, a database or an engine.

Logic runs in the calling thread over items that have been through JSON as a message is, with a worker state
and a job of its own. What it emits and writes is collected; its exceptions reach the test. What a commit
would keep is kept for the next call, what a failed activation throws away is thrown away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from routilux.core import context, payload
from routilux.core.activation import ActivationContext, Readers
from routilux.core.compiled import CompiledRoutine
from routilux.core.flow import Flow
from routilux.core.job_context import JobContext
from routilux.core.message import Activation, Job, Message
from routilux.core.outcome import Outcome, Replace
from routilux.core.routine import Routine
from routilux.core.run_overlay import Overlay, Scope
from routilux.core.states import JobStatus
from routilux.core.worker_state import WorkerState
from routilux.engine.settings import Settings
from routilux.engine.user_statements import refusal
from routilux.errors import DefinitionError, EventNotFoundError
from routilux.runtime.validation import encode_metadata, encode_payload
from routilux.testing.captured import CapturedEvent, CapturedEvents, listed
from routilux.testing.coroutines import PrivateLoop
from routilux.testing.kept import Kept, now_us

FLOW_ID, WORKER_ID = "test_flow", "test_worker"


class RoutineTester:
    """Calls a routine's logic and shows what it did. Also a context manager, which cleans up.

    `routine`: what is tested; its activation policy and error handler play no part.
    `routine_id`: its id, default what `Flow.add_routine` would choose. `metadata`: of the job that logic
    sees.

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

        Raises `ValueError` for a slot that the routine does not have, `PayloadError` for data that cannot be
        posted, and whatever logic raises.
        """
        self.call_slots({slot_name: [data]})

    def call_slots(
        self, slot_data: Mapping[str, Sequence[Mapping[str, Any]]], policy_message: Any = None
    ) -> None:
        """Run the logic once over `{slot: [item, …]}`, as a policy that gathers or joins would.

        Raises the same.
        """
        compiled = self._compiled()
        messages = [
            self._message(compiled, slot, index, item)
            for slot, items in slot_data.items()
            for index, item in enumerate(items)
        ]
        if self._kept.job.has_ended:
            self._kept.job = self._new_job()
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
                f"Slot {slot_name!r} not found in routine {self.routine_id!r};"
                f" it has {listed(compiled.slots)}"
            )
        root = "data" if index == 0 else f"data[{index}]"
        text = encode_payload(compiled.slots[slot_name], item, Settings().max_payload_bytes, root)
        return Message(index + 1, self._kept.job, slot_name, text, now_us())

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
            Outcome(Activation(messages, self._kept.job), now_us()),
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
            now_us=now_us,
            state_routines=lambda: list(self._kept.states),
            execution_history=lambda routine: [],
            job_traces=self._kept.job_traces,
            refuse_statement=refusal,
            max_payload_bytes=Settings().max_payload_bytes,
        )

    def _committed(self, scope: Scope) -> dict[str, str] | None:
        kind, name = scope
        return self._kept.states.get(str(name)) if kind == "state" else self._kept.job.data

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
        elif self._kept.job.started_at is None:
            self._kept.job.status, self._kept.job.started_at = JobStatus.RUNNING, outcome.started_at
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
        return JobContext(self._kept.job.job_id, FLOW_ID, WORKER_ID, self._kept)

    def capture_events(self) -> CapturedEvents:
        """Start over. Returns a list that fills with what is emitted from now on."""
        self._events = CapturedEvents(self.routine.events)
        return self._events

    def get_captured_events(self) -> CapturedEvents:
        """What was emitted since the last `capture_events`, `clear_captured_events` or `cleanup`."""
        return self._events

    def clear_captured_events(self) -> None:
        """Forget what was captured; the list that `capture_events` returned is emptied."""
        self._events.clear()

    def cleanup(self) -> None:
        """Forget everything: events, state, job, writes. The tester can be used again."""
        self.writes: list[tuple[Any, Any]] = []
        self._kept = Kept(self._new_job())
        self.capture_events()

    def _new_job(self) -> Job:
        self._jobs += 1
        return Job(self._jobs, f"test_job_{self._jobs}", WORKER_ID, FLOW_ID, now_us(), self._metadata)


class _Capturing(ActivationContext):
    """Keeps what is emitted, connected or not."""

    __slots__ = ("captured",)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.captured: list[CapturedEvent] = []

    def emit(self, event_name: str, data: dict[str, object]) -> None:
        if event_name not in self._routine.targets:
            raise EventNotFoundError(event_name, self.routine_id)
        text = payload.encode(data, root=f"emit({event_name!r})", limit=self._readers.max_payload_bytes)
        self.captured.append(CapturedEvent(event_name, payload.decode(text)))
