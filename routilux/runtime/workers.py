"""The worker that a call is for: started or resumed by `exec`, found or made for a post."""

from __future__ import annotations

from routilux.core.names import check_name
from routilux.core.states import ENDED_WORKER, WorkerStatus
from routilux.core.worker_state import WorkerState
from routilux.engine.ids import new_id
from routilux.errors import WorkerEndedError, WorkerNotFoundError
from routilux.runtime.host import EngineHost
from routilux.store.reads import worker_reads
from routilux.store.reads.worker_reads import StoredWorker


def execute(host: EngineHost, flow_name: str, state: WorkerState | None, worker_id: str | None) -> str:
    """Start or resume a worker. Returns its id."""
    name = flow_name
    if worker_id is not None:
        check_name(worker_id, "worker_id")
    texts = _texts_of(state, name)
    handover, table = host.handover, host.parts.workers

    def work() -> str:
        known = None if worker_id is None else stored(host, worker_id)
        if known is not None:
            if known.flow != name:
                raise ValueError(f"worker {worker_id!r} belongs to flow {known.flow!r}, not {name!r}")
            handover.resume(known.worker_id, is_named=True)
            table.keep(known.worker_id)
            return known.worker_id
        new = worker_id or new_id()
        handover.start(name, new, is_named=worker_id is not None, state=texts)
        table.keep(new)
        return new

    return str(host.call(work))


def _texts_of(state: WorkerState | None, flow: str) -> dict[str, dict[str, str]]:
    if state is None:
        return {}
    if not isinstance(state, WorkerState):
        raise TypeError(f"worker_state must be a WorkerState, not {type(state).__name__}")
    if state.flow_id and state.flow_id != flow:
        raise ValueError(f"the worker state belongs to flow {state.flow_id!r}, not {flow!r}")
    return {routine: dict(state._port.read_state(routine) or {}) for routine in state._port.state_routines()}


def stored(host: EngineHost, worker_id: str) -> StoredWorker | None:
    """The row of a worker. Returns None if there is none."""
    with host.store.read() as connection:
        return worker_reads.worker_named(connection, worker_id)


def target(host: EngineHost, flow: str) -> str:
    """The newest live worker here, else one in the store, else a new one."""
    table = host.parts.workers
    newest = table.newest_of(flow)
    if newest is not None:
        return newest.worker_id

    def work() -> str:
        again = table.newest_of(flow)
        if again is not None:
            return again.worker_id
        with host.store.read() as connection:
            known = worker_reads.newest_live_worker(connection, flow)
        if known is not None:
            return known
        new = new_id()
        host.handover.start(flow, new, is_named=False, state={})
        table.keep(new)
        return new

    return str(host.call(work))


def check_worker(stored: StoredWorker | None, worker_id: str, flow: str) -> None:
    """Raises the error for a worker that a post to this flow cannot go to.

    One that has completed starts again.
    """
    if stored is None or stored.flow != flow:
        raise WorkerNotFoundError(worker_id)
    if stored.status in ENDED_WORKER and stored.status != WorkerStatus.COMPLETED:
        raise WorkerEndedError(worker_id, stored.status)


def resume(host: EngineHost, worker_id: str) -> bool:
    """Own a worker if no other runtime does. Returns whether this one does."""
    handover = host.handover
    return host.call(lambda: handover.resume(worker_id)) is not None


def fetch(host: EngineHost, worker_id: str, flow: str) -> bool:
    """As `resume`, for a post to this flow."""
    check_worker(stored(host, worker_id), worker_id, flow)
    return resume(host, worker_id)
