"""Workers that change hands: started, resumed, taken over, given back.

Everything here runs in the engine's thread between two commits, in fenced transactions of its own. Each can be
repeated: after a lost answer the same call finds what the first one did.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from routilux.core.mailbox import WorkerCell
from routilux.core.states import ENDED_WORKER, WorkerStatus
from routilux.engine import worker_loading
from routilux.engine.ids import new_id
from routilux.errors import RuntimeShutDownError, WorkerEndedError, WorkerNotFoundError
from routilux.store.errors import PASSING, Fenced, classify
from routilux.store.reads import worker_reads
from routilux.store.writes import ownership
from routilux.store.writes.store import Commit

if TYPE_CHECKING:
    from routilux.engine.engine import Engine

T = TypeVar("T")
_PAUSES_S = (0.01, 0.05, 0.2, 0.5, 1.0)
MOST = 100
CLOSE_AFTER_S = 5.0  # the next post may be on its way


def patiently(engine: Engine, call: Callable[[], T], *, drops: bool = True) -> T:
    """Repeat a call while its errors pass. `drops`: with a new connection for the engine's transactions."""
    attempt = 0
    while True:
        try:
            return call()
        except Fenced:
            raise
        except Exception as error:
            if classify(error) not in PASSING:
                raise
            attempt += 1
            if drops:
                engine.store.drop_connection()
            engine.report_trouble(error, attempt)
            if engine.gives_up(_PAUSES_S[min(attempt, len(_PAUSES_S)) - 1]):
                raise RuntimeShutDownError(
                    "Runtime is shut down: the database could not be reached"
                ) from error


def fenced(engine: Engine, work: Callable[[Commit], T]) -> T:
    """One transaction behind my fence."""

    def call() -> T:
        with engine.store.commit(engine.runtime_key) as commit:
            commit.fence()
            return work(commit)

    return patiently(engine, call)


def start(
    engine: Engine, flow: str, worker_id: str, *, is_named: bool, state: dict[str, dict[str, str]]
) -> WorkerCell | None:
    """A new worker of mine, with its first state. None: another runtime has just made it under that name."""
    digest, definition = engine.flows.definition(flow)
    now = engine.clock.now_us()

    def work(commit: Commit) -> bool:
        ownership.save_flow(commit.connection, flow, digest, definition, now)
        ownership.create_worker(
            commit.connection, worker_id, flow, digest, engine.runtime_key, now, is_named=is_named
        )
        stored = worker_reads.worker_named(commit.connection, worker_id)
        assert stored is not None
        if stored.owner != engine.runtime_key:  # lost the race for the name: running it is for its owner
            return False
        if not worker_reads.state_of(commit.connection, stored.key):
            ownership.save_state(commit.connection, stored.key, list(_state_rows(state)))
        return True

    cell = _load(engine, worker_id) if fenced(engine, work) else resume(engine, worker_id, is_named=is_named)
    if cell is not None:
        engine.newest[cell.flow_name] = cell
    return cell


def publish(engine: Engine) -> None:
    """Keep the definitions that are registered here: clients check their posts against them."""
    for name in engine.flows.names():
        digest, definition = engine.flows.definition(name)
        if engine.published.get(name) != digest:
            _save_flow(engine, name, digest, definition)
            engine.published[name] = digest


def _save_flow(engine: Engine, name: str, digest: str, definition: str) -> None:
    now = engine.clock.now_us()
    fenced(engine, lambda commit: ownership.save_flow(commit.connection, name, digest, definition, now))


def _state_rows(state: dict[str, dict[str, str]]) -> list[tuple[str, str, str]]:
    rows: list[tuple[str, str, str]] = []
    for routine, texts in state.items():
        rows.extend((routine, key, text) for key, text in texts.items())
        if not texts:
            rows.append((routine, "", ""))
    return rows


def _load(engine: Engine, worker_id: str) -> WorkerCell:
    def call() -> WorkerCell:
        with engine.store.read() as connection:
            stored = worker_reads.worker_named(connection, worker_id)
            if stored is None:
                raise WorkerNotFoundError(worker_id)
            return worker_loading.load(engine, connection, stored)

    return patiently(engine, call)


def resume(engine: Engine, worker_id: str, *, is_named: bool = False) -> WorkerCell | None:
    """Run a known worker again. None: it is alive in another runtime. Raises `WorkerEndedError` if it was cancelled.

    `is_named`: somebody started it by its name: it stays when its work is done, and is the newest of its flow.
    """
    cell = engine.by_id.get(worker_id) or _reopen(engine, worker_id)
    if cell is not None and is_named:
        engine.newest[cell.flow_name] = cell
        if not cell.is_named:
            key = cell.key
            fenced(engine, lambda commit: ownership.name_worker(commit.connection, key))
            cell.is_named = True
    return cell


def _reopen(engine: Engine, worker_id: str) -> WorkerCell | None:
    digest_of = engine.flows.definition

    def work(commit: Commit) -> bool:
        stored = worker_reads.worker_named(commit.connection, worker_id)
        if stored is None:
            raise WorkerNotFoundError(worker_id)
        if stored.status in (WorkerStatus.CANCELLED, WorkerStatus.FAILED):
            raise WorkerEndedError(worker_id, stored.status)
        if not ownership.take(commit.connection, stored.key, engine.runtime_key):
            return False
        digest, definition = digest_of(stored.flow)
        ownership.save_flow(commit.connection, stored.flow, digest, definition, engine.clock.now_us())
        ownership.reopen_worker(commit.connection, stored.key, digest)
        return True

    return _load(engine, worker_id) if fenced(engine, work) else None


def adopt(engine: Engine) -> int:
    """Take workers of my flows that nobody runs, a bounded batch; returns how many."""
    names = engine.flows.names()

    def call() -> list[int]:
        with engine.store.read() as connection:
            return ownership.ownerless(connection, names, engine.clock.now_us(), MOST)

    taken = [key for key in patiently(engine, call) if _take(engine, key)]
    for key in taken:
        _load_key(engine, key)
    return len(taken)


def _take(engine: Engine, key: int) -> bool:
    return fenced(engine, lambda commit: ownership.take(commit.connection, key, engine.runtime_key))


def _load_key(engine: Engine, key: int) -> None:
    def call() -> None:
        with engine.store.read() as connection:
            stored = worker_reads.worker_with_key(connection, key)
            if stored is not None and stored.status not in ENDED_WORKER and key not in engine.workers:
                worker_loading.load(engine, connection, stored)

    patiently(engine, call)


def serve_wanted(engine: Engine) -> None:
    """Inbox rows ask for workers that nobody runs: start or take them."""
    flows, engine.wanted_flows = engine.wanted_flows, set()
    for flow in sorted(flows):
        if engine.newest_worker(flow) is None:
            started = start(engine, flow, new_id(), is_named=False, state={})
            if started is not None:
                engine.mine.add(started.worker_id)
    wanted, engine.wanted_workers = engine.wanted_workers, set()
    for worker_id in sorted(wanted):
        if worker_id not in engine.by_id:
            try:
                resume(engine, worker_id)
            except WorkerEndedError:
                _receive(engine, worker_id)
            except WorkerNotFoundError as error:
                engine.report_trouble(error, 1)


def _receive(engine: Engine, worker_id: str) -> None:
    """Take a worker that has ended, to refuse what has arrived for it since: else that would stay in the inbox for ever."""

    def work(commit: Commit) -> bool:
        stored = worker_reads.worker_named(commit.connection, worker_id)
        return stored is not None and ownership.take(commit.connection, stored.key, engine.runtime_key)

    if fenced(engine, work):
        _load(engine, worker_id)


def close_finished(engine: Engine) -> None:
    """A recovered worker that nobody named is closed when its work is done; a cancelled one is let go."""
    released, engine.to_release = engine.to_release, []
    for cell in released:
        if cell.run_count and not cell.is_forgotten:
            engine.to_release.append(cell)  # not before what runs is recorded as discarded
        elif not cell.is_forgotten:
            release(engine, cell)
    now = engine.clock.monotonic()
    # with thousands of workers it would be most of an idle turn
    if now - engine.closed_at < CLOSE_AFTER_S / 4:
        return
    engine.closed_at = now
    for cell in list(engine.workers.values()):
        if cell.is_named or cell.worker_id in engine.mine or cell.status != WorkerStatus.RUNNING:
            continue
        if cell.has_work or cell.idle_since is None:
            cell.idle_since = now
        elif now - cell.idle_since >= CLOSE_AFTER_S:
            release(engine, cell)


def release(engine: Engine, cell: WorkerCell) -> None:
    """Give a worker back. Without work it is idle if somebody named it, else completed."""
    if cell.has_work or cell.status == WorkerStatus.PAUSED:
        status = WorkerStatus.PAUSED if cell.status == WorkerStatus.PAUSED else WorkerStatus.PENDING
    else:
        status = WorkerStatus.IDLE if cell.is_named else WorkerStatus.COMPLETED
    if cell.status in ENDED_WORKER:
        status = WorkerStatus(cell.status)
    worker_loading.forget(engine, cell)
    now, has_ended = engine.clock.now_us(), status == WorkerStatus.COMPLETED

    def give_back(commit: Commit) -> None:
        ownership.release(commit.connection, cell.key, engine.runtime_key, status, now, has_ended=has_ended)

    fenced(engine, give_back)
