"""Signals and control from the caller's side: to the engine here if it has the worker or can have it, else through the inbox."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from routilux.engine import commands as controls
from routilux.engine.inputs import Receipt, SignalIn
from routilux.errors import JobNotFoundError, WorkerNotFoundError
from routilux.ownership import handover
from routilux.runtime import inbox_writer, validation, workers
from routilux.store.reads import history
from routilux.store.records import JobRecord

if TYPE_CHECKING:
    from routilux.runtime.runtime import Runtime


def signal(runtime: Runtime, job_id: str, routine: str, slot: str, data: Mapping[str, Any]) -> None:
    """One more message into a running job."""
    record = _record(runtime, job_id)
    text = runtime.encode(record.flow_id, routine, slot, data)
    if record.worker_id in runtime.engine.by_id:
        runtime.answer_to(SignalIn(str(record.worker_id), job_id, routine, slot, text, Receipt()))
    else:
        control(
            runtime, "signal", record.worker_id, job_id, {"routine": routine, "slot": slot, "payload": text}
        )


def _record(runtime: Runtime, job_id: str) -> JobRecord:
    with runtime.store.read() as connection:
        record = history.job(connection, job_id)
    if record is None:
        raise JobNotFoundError(job_id)
    return record


def control_job(runtime: Runtime, kind: str, job_id: str, body: dict[str, Any]) -> None:
    control(runtime, kind, _record(runtime, job_id).worker_id, job_id, body)


def control(
    runtime: Runtime, kind: str, worker_id: str | None, job_id: str | None, body: dict[str, Any]
) -> None:
    """A verb for the owner of a worker: here, or through the inbox."""
    if worker_id is None:
        raise JobNotFoundError(job_id)
    if not isinstance(worker_id, str):
        raise WorkerNotFoundError(worker_id)
    body = validation.controls(body)
    engine = runtime.engine
    while True:
        if worker_id not in engine.by_id:
            stored = workers.stored(runtime, worker_id)
            if stored is None:
                raise WorkerNotFoundError(worker_id)
            can_serve = engine.flows.has(stored.flow)
            if not can_serve or runtime.call(lambda: handover.resume(engine, worker_id)) is None:
                inbox_writer.ask(
                    runtime.store, kind, stored.flow, worker_id, job_id, body, engine.clock.now_us()
                )
                return
        try:
            runtime.request(controls.ask(engine, kind, worker_id, job_id, body))
            return
        except WorkerNotFoundError:
            continue  # it was given back meanwhile
