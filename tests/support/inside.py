"""Calls that belong to logic, without an engine: the outcome they leave is looked at directly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from routilux.core import context
from routilux.core.activation import ActivationContext, Readers
from routilux.core.flow import Flow
from routilux.core.message import Activation, Job, Message
from routilux.core.outcome import Outcome
from routilux.core.run_overlay import Overlay


@contextmanager
def inside(
    flow: Flow,
    routine_id: str,
    *,
    job_id: str = "job-1",
    refuse: Callable[[object], str | None] = lambda statement: None,
) -> Iterator[Outcome]:
    """As if logic of that routine ran, for a job, over one message."""
    compiled = flow.compiled().routines[routine_id]
    job = Job(1, job_id, "worker-1", "flow", 0)
    message = Message(1, job, next(iter(compiled.slots), ""), "{}", 0)
    outcome = Outcome(Activation([message], job), 0)
    readers = Readers(
        now_us=lambda: 0,
        state_routines=list,
        execution_history=lambda routine: [],
        job_traces=lambda job: [],
        refuse_statement=refuse,
        max_payload_bytes=1000,
    )
    around = ActivationContext(compiled, "flow", "worker-1", outcome, Overlay(lambda scope: None), readers)
    token = context.current.set(around)
    try:
        yield outcome
    finally:
        context.current.reset(token)
