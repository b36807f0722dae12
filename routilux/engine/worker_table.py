"""The workers that this runtime owns, in memory: loaded, found, read on, forgotten.

Loading a worker has consequences for other parts of the engine. They are kept until the turn asks for them
(`take_loaded`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from routilux.core.compiled import CompiledFlow
from routilux.core.mailbox import RoutineCell, WorkerCell
from routilux.core.message import Message
from routilux.core.outcome import Failure
from routilux.core.slot_queue import SlotQueue
from routilux.core.states import ENDED_WORKER, MessageStatus, ParkedReason
from routilux.engine import worker_loading
from routilux.engine.batch import Batch
from routilux.engine.death_pauses import DeathPauses
from routilux.engine.transactions import Transactions
from routilux.engine.worker_loading import MOST_RERUNS, Unroutable
from routilux.errors import WorkerNotFoundError
from routilux.store.reads import worker_reads
from routilux.store.reads.worker_reads import StoredWorker
from routilux.store.types import Connection


class Flows(Protocol):
    """The flow definitions that this runtime can run."""

    def has(self, name: str) -> bool: ...
    def names(self) -> list[str]: ...
    def get(self, name: str) -> CompiledFlow: ...
    def definition(self, name: str) -> tuple[str, str]: ...
    def prepare(self, name: str) -> str: ...
    def entry(self, name: str) -> tuple[str, str]: ...


@dataclass(slots=True)
class Loaded:
    """What loading and reading on mean for the scheduler, the counters and redelivery."""

    has_loaded: bool = False
    ready: list[RoutineCell] = field(default_factory=list)
    uncounted: dict[WorkerCell, None] = field(default_factory=dict)


class WorkerTable:
    """Owns the workers in memory. `by_id` is read by other threads too."""

    def __init__(
        self, transactions: Transactions, flows: Flows, window: int, death_pauses: DeathPauses
    ) -> None:
        self._transactions = transactions
        self.flows = flows
        self._window = window
        self.death_pauses = death_pauses
        self._by_key: dict[int, WorkerCell] = {}
        self.by_id: dict[str, WorkerCell] = {}
        self._newest: dict[str, WorkerCell] = {}
        self.kept: set[str] = set()  # workers that this runtime started: they stay while it lives
        self.low_windows: dict[tuple[RoutineCell, SlotQueue], None] = {}  # they must be read on
        self._unroutable: list[Unroutable] = []
        self._to_release: list[WorkerCell] = []
        self.loaded: Loaded | None = None  # what must be passed on

    # finding

    def get(self, worker_id: str) -> WorkerCell | None:
        return self.by_id.get(worker_id)

    def with_key(self, key: int) -> WorkerCell | None:
        return self._by_key.get(key)

    @property
    def keys(self) -> Collection[int]:
        return self._by_key.keys()

    def __iter__(self) -> Iterator[WorkerCell]:
        return iter(self._by_key.values())

    def newest_of(self, flow: str) -> WorkerCell | None:
        """The newest worker of a flow that takes posts."""
        cell = self._newest.get(flow)
        if cell is not None and not cell.is_forgotten and cell.status not in ENDED_WORKER:
            return cell
        live = [w for w in self if w.flow_name == flow and w.status not in ENDED_WORKER]
        return max(live, key=lambda w: w.key, default=None)

    def prefer(self, cell: WorkerCell) -> None:
        """Posts to its flow go to this worker from now on."""
        self._newest[cell.flow_name] = cell

    def keep(self, worker_id: str) -> None:
        """This runtime started it: do not close it when its work is done."""
        self.kept.add(worker_id)

    # loading

    def load(self, connection: Connection, stored: StoredWorker) -> WorkerCell:
        """Load a worker that this runtime owns, in place of what was in memory of it."""
        loaded = worker_loading.load_worker(
            connection, stored, self.flows.get(stored.flow), self._window, self.death_pauses
        )
        cell = loaded.cell
        before = self._by_key.get(cell.key)
        if before is not None:  # the read before this failed at its end; only one of the two may run
            self.forget(before)
        self._by_key[cell.key] = cell
        self.by_id[cell.worker_id] = cell
        if stored.status in ENDED_WORKER:  # only to refuse what arrives, or to let go of it again
            self._to_release.append(cell)
        self._unroutable += loaded.unroutable
        follow = self._loading()
        follow.has_loaded = True
        follow.ready += loaded.ready
        if loaded.is_uncounted:
            follow.uncounted[cell] = None
        return cell

    def load_named(self, worker_id: str) -> WorkerCell:
        """Raises `WorkerNotFoundError`."""

        def call() -> WorkerCell:
            with self._transactions.store.read() as connection:
                stored = worker_reads.worker_named(connection, worker_id)
                if stored is None:
                    raise WorkerNotFoundError(worker_id)
                return self.load(connection, stored)

        return self._transactions.retry_transient(call)

    def load_taken(self, key: int) -> None:
        """Load a worker that was just taken over, unless it has ended."""

        def call() -> None:
            with self._transactions.store.read() as connection:
                stored = worker_reads.worker_with_key(connection, key)
                if stored is not None and stored.status not in ENDED_WORKER and key not in self._by_key:
                    self.load(connection, stored)

        self._transactions.retry_transient(call)

    def reload(self, worker: WorkerCell) -> None:
        """Forget a worker and load it again as the database has it."""
        if worker.is_forgotten:
            return
        self.forget(worker)

        def again() -> None:
            with self._transactions.store.read() as connection:
                stored = worker_reads.worker_with_key(connection, worker.key)
                if stored is not None and stored.owner == self._transactions.runtime_key:
                    self.load(connection, stored)

        self._transactions.retry_transient(again)

    def take_loaded(self) -> Loaded:
        """What was loaded or read on since the last call means this for the other parts."""
        loaded = self.loaded or Loaded()
        self.loaded = None
        return loaded

    def _loading(self) -> Loaded:
        if self.loaded is None:
            self.loaded = Loaded()
        return self.loaded

    # forgetting

    def forget(self, worker: WorkerCell) -> None:
        """Its memory is void: its runs stop, and outcomes that still come are dropped."""
        if self._by_key.get(worker.key) is worker:
            del self._by_key[worker.key]
        if self.by_id.get(worker.worker_id) is worker:
            del self.by_id[worker.worker_id]
        worker.forget()

    def forget_all(self) -> None:
        for worker in list(self):
            self.forget(worker)

    def release_later(self, cell: WorkerCell) -> None:
        """It was cancelled: give it back when nothing of it runs."""
        self._to_release.append(cell)

    def take_released(self) -> list[WorkerCell]:
        """Cancelled workers to give back now."""
        waiting, self._to_release = self._to_release, []
        released = []
        for cell in waiting:
            if cell.run_count and not cell.is_forgotten:
                self._to_release.append(cell)  # what still runs must be recorded as discarded first
            else:
                released.append(cell)
        return released

    # windows

    def read_on_later(self, windows: dict[tuple[RoutineCell, SlotQueue], None]) -> None:
        """These windows run low."""
        self.low_windows |= windows

    def refill(self) -> None:
        """Read on in windows that run low. Call it between two commits."""
        if not self.low_windows:
            return
        with self._transactions.store.read() as connection:
            worker_reads.along_keys(connection)
            for routine, queue in self.low_windows:
                if not routine.worker.is_forgotten and queue.wants_more:
                    worker_loading.read_on(connection, routine, queue)
                    self._loading().ready.append(routine)
        self.low_windows = {}  # only after the read has ended well

    # messages whose slot is gone

    def park_unroutable(self, batch: Batch) -> None:
        """Park messages whose routine or slot is gone from the definition. They are never deleted."""
        work, self._unroutable = self._unroutable, []
        for key, low, routine, slot in work:
            cell = self._by_key.get(key)
            if cell is not None:
                self._park_unroutable(batch, cell, low, routine, slot)

    def _park_unroutable(self, batch: Batch, cell: WorkerCell, low: int, routine: str, slot: str) -> None:
        messages = self._transactions.read(partial(_unroutable, cell, low, routine, slot))
        for message in messages:
            batch.settle(cell, message.seq, MessageStatus.PARKED)
            cause = Failure.of(worker_loading.gone_from(cell, routine, slot))
            batch.park(cell, [message], routine, ParkedReason.UNROUTABLE, failure=cause)
        if len(messages) == MOST_RERUNS:
            self._unroutable.append((cell.key, messages[-1].seq + 1, routine, slot))
        else:  # without this row every start would look for them again
            nothing = (cell.key, routine, slot, 0, cell.next_seq, None, batch.now)
            batch.changes.slots[cell.key, routine, slot] = nothing


def _unroutable(cell: WorkerCell, low: int, routine: str, slot: str, connection: Connection) -> list[Message]:
    rows = worker_reads.unroutable(connection, cell.key, low, routine, slot, MOST_RERUNS)
    return worker_loading.messages_of(connection, cell, rows)
