"""What an activation may ask of its surroundings: the clock, the history of its worker, limits."""

from __future__ import annotations

from routilux.core.activation import Readers
from routilux.core.mailbox import WorkerCell
from routilux.core.run import Run
from routilux.engine.clock import Clock
from routilux.engine.settings import Settings
from routilux.engine.user_statements import refusal
from routilux.runtime.stored_history import execution_history, traces
from routilux.store.writes.store import Store


class ActivationReaders:
    """Called with a run, it returns the readers of its activations; one set for each loaded worker."""

    def __init__(self, store: Store, clock: Clock, settings: Settings) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._known: dict[str, tuple[WorkerCell, Readers]] = {}

    def __call__(self, run: Run) -> Readers:
        worker = run.cell.worker
        known, readers = self._known.get(worker.worker_id, (None, None))
        if known is not worker or readers is None:  # a worker that was loaded again is another cell
            store = self._store
            readers = Readers(
                now_us=self._clock.now_us,
                state_routines=lambda: list(worker.state),
                execution_history=lambda routine: execution_history(store, worker.worker_id, routine),
                job_traces=lambda job_id: traces(store, job_id),
                refuse_statement=refusal,
                max_payload_bytes=self._settings.max_payload_bytes,
            )
            self._known[worker.worker_id] = (worker, readers)
        return readers
