"""The worker that a call is for, from the caller's side: started or resumed by `exec`, found or made for a post."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from routilux.core.names import check_name
from routilux.core.states import ENDED_WORKER, WorkerStatus
from routilux.core.worker_state import WorkerState
from routilux.engine.ids import new_id
from routilux.errors import WorkerEndedError, WorkerNotFoundError
from routilux.ownership import handover
from routilux.runtime.handles import WorkerHandle
from routilux.store.reads import worker_reads

if TYPE_CHECKING:
    from routilux.runtime.runtime import Runtime


def execute(
    runtime: Runtime,
    flow_name: str,
    state: WorkerState | None,
    worker_id: str | None,
    entry_params: Mapping[str, Any] | None,
) -> WorkerState:
    """Start or resume a worker."""
    name = runtime.engine.flows.prepare(flow_name)
    if worker_id is not None:
        check_name(worker_id, "worker_id")
    texts = _texts_of(state, name)
    engine = runtime.engine

    def work() -> str:
        known = None if worker_id is None else stored(runtime, worker_id)
        if known is not None:
            if known.flow != name:
                raise ValueError(f"worker {worker_id!r} belongs to flow {known.flow!r}, not {name!r}")
            handover.resume(engine, known.worker_id, is_named=True)
            engine.mine.add(known.worker_id)
            return known.worker_id
        new = worker_id or new_id()
        handover.start(engine, name, new, is_named=worker_id is not None, state=texts)
        engine.mine.add(new)
        return new

    started = str(runtime.call(work))
    if entry_params is not None:
        routine, slot = runtime.engine.flows.entry(name)
        runtime.post(name, routine, slot, entry_params, started)
    return WorkerState(name, started, port=WorkerHandle(runtime, started))


def _texts_of(state: WorkerState | None, flow: str) -> dict[str, dict[str, str]]:
    if state is None:
        return {}
    if not isinstance(state, WorkerState):
        raise TypeError(f"worker_state must be a WorkerState, not {type(state).__name__}")
    if state.flow_id and state.flow_id != flow:
        raise ValueError(f"the worker state belongs to flow {state.flow_id!r}, not {flow!r}")
    return {routine: dict(state._port.read_state(routine) or {}) for routine in state._port.state_routines()}


def stored(runtime: Runtime, worker_id: str) -> worker_reads.StoredWorker | None:
    with runtime.store.read() as connection:
        return worker_reads.worker_named(connection, worker_id)


def target(runtime: Runtime, flow: str) -> str:
    """The newest live worker here, else one in the store, else a new one."""
    newest = runtime.engine.newest_worker(flow)
    if newest is not None:
        return newest.worker_id

    def work() -> str:
        again = runtime.engine.newest_worker(flow)
        if again is not None:
            return again.worker_id
        with runtime.store.read() as connection:
            known = worker_reads.newest_live_worker(connection, flow)
        if known is not None:
            return known
        new = new_id()
        handover.start(runtime.engine, flow, new, is_named=False, state={})
        runtime.engine.mine.add(new)
        return new

    return str(runtime.call(work))


def check_worker(stored: worker_reads.StoredWorker | None, worker_id: str, flow: str) -> None:
    """Raises the error for a worker that a post to this flow cannot go to. One that has completed starts again."""
    if stored is None or stored.flow != flow:
        raise WorkerNotFoundError(worker_id)
    if stored.status in ENDED_WORKER and stored.status != WorkerStatus.COMPLETED:
        raise WorkerEndedError(worker_id, stored.status)


def fetch(runtime: Runtime, worker_id: str, flow: str) -> bool:
    """Make a worker mine if nobody else runs it. False: another runtime does."""
    check_worker(stored(runtime, worker_id), worker_id, flow)
    return runtime.call(lambda: handover.resume(runtime.engine, worker_id)) is not None
