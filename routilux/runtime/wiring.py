"""The one place where the parts of a runtime are wired together, started and stopped."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from sqlalchemy import Engine as SqlEngine

from routilux.core.activation import Readers
from routilux.core.mailbox import WorkerCell
from routilux.core.registry import FlowRegistry
from routilux.core.run import Run
from routilux.engine import interpreter, recovery
from routilux.engine.batch import Fact
from routilux.engine.clock import ServerClock
from routilux.engine.engine import Engine
from routilux.engine.flow_catalog import KnownFlows
from routilux.engine.settings import Settings
from routilux.engine.user_statements import refusal
from routilux.execution.performer import Performer
from routilux.output import install_routed_stdout
from routilux.ownership import handover, maintenance, takeover
from routilux.ownership.alarm import Alarm
from routilux.ownership.lease import Lease
from routilux.runtime import shutdown
from routilux.runtime.drive import Drive, Executors
from routilux.runtime.handles import execution_history, traces
from routilux.store import schema
from routilux.store.backends.database import Database
from routilux.store.backends.database_url import check_named
from routilux.store.writes import ownership
from routilux.store.writes.store import Store

log = logging.getLogger("routilux")
THOROUGH_EVERY = 30  # times that it is reconciled
TOLD_GLANCE_S = 2.5


@dataclass(slots=True)
class Parts:
    """A running runtime."""

    database: Database
    store: Store
    engine: Engine
    lease: Lease
    alarm: Alarm
    pool: Executors
    settings: Settings
    drive: Drive

    @property
    def is_running(self) -> bool:
        return self.drive.is_running

    def guarded(self, callback: Callable[[Fact], None], fact: Fact) -> None:
        """A subscriber's error is logged; it costs nobody else anything."""
        try:
            callback(fact)
        except Exception:
            log.exception("a subscriber of %s raised", fact.name)

    def stop(self, timeout_s: float) -> bool:
        """Drain and give back. False: logic still ran at the deadline."""
        return shutdown.stop(self, timeout_s)


def assemble(
    *,
    thread_pool_size: int,
    database: str | SqlEngine,
    durability: Literal["power_loss", "process_crash"],
    lease_s: float,
    registry: FlowRegistry,
    is_recovering: bool,
    is_capturing: bool,
    settings: Settings,
    on_facts: Callable[[list[Fact]], None],
    drive: Drive,
) -> Parts:
    """Open the database, register this process, start what drives it."""
    opened = Database.open(database, durability=durability)
    try:
        prepare_schema(opened)
        store = Store(opened)
        clock = ServerClock() if opened.is_postgres else drive.clock
        lease = Lease(opened, clock, lease_s, own_version())
        engine: Engine
        performer = Performer(clock, lambda entry: engine.inputs.put(entry), readers_for(lambda: engine))
        pool = drive.pool(thread_pool_size, performer)
        engine = Engine(store, clock, settings, pool, KnownFlows(registry), on_facts)
        engine.reidentify = lambda: register(engine, lease)
        engine.reconcile = lambda: reconcile(engine, lease, is_recovering)
        lease.on_call = lambda: _called(engine)
        alarm = Alarm(_duties(engine, settings))
        register(engine, lease)
        engine.again_if_fenced(lambda: handover.publish(engine))
    except BaseException as error:
        opened.close()
        check_named(error, opened.url)
        raise
    if is_capturing:
        install_routed_stdout()
    interpreter.tune()
    engine.must_reconcile = True
    drive.start(engine, lease, alarm)
    return Parts(opened, store, engine, lease, alarm, pool, settings, drive)


def prepare_schema(database: Database) -> None:
    """The database has a schema that this code can serve, or `SchemaError` says what to do."""
    lock = database.lock_file
    url = database.url.render_as_string(hide_password=False)
    with contextlib.nullcontext() if lock is None else lock.upgrade(), database.read() as connection:
        schema.ensure(connection, url, is_exclusive=lambda: lock is None or lock.is_alone())


def own_version() -> str:
    try:
        return version("routilux")
    except PackageNotFoundError:
        return "0"


def register(engine: Engine, lease: Lease) -> None:
    """A new identity for this runtime. Durable on return."""
    lease.drop_sign()
    engine.runtime_key = lease.register()
    engine.commit_n = 0


def _called(engine: Engine) -> None:
    """Another process has told of a row in the inbox. Called by the thread of the lease."""
    engine.inbox.was_called = True
    engine.inputs.wake()


def reconcile(engine: Engine, lease: Lease, is_recovering: bool) -> None:
    """What must be looked at now and then, whatever has been heard: due rows, the inbox, dead runtimes, chores.

    One question tells whether there is anything to see; now and then all is looked at without asking.
    """
    engine.watch_alarm()
    is_thorough = engine.reconciled % THOROUGH_EVERY == 0
    engine.reconciled += 1
    has_inbox, has_others, has_ownerless = _glance(engine, is_thorough=is_thorough, is_told=lease.listens)
    if is_thorough:
        engine.due.expect_soon()
        has_inbox = True
    engine.inbox.must_look = engine.inbox.must_look or has_inbox
    if lease.is_dead:
        recovery.lose_identity(engine)
    elif not engine.is_draining:
        handover.publish(engine)
        if is_recovering and (has_others or has_ownerless):
            takeover.run_once(engine, lease)
    maintenance.run_once(engine)


def _glance(engine: Engine, *, is_thorough: bool, is_told: bool) -> tuple[bool, bool, bool]:
    """As `ownership.glance`. That there is nothing holds until another flow is known and, on SQLite, until somebody writes;
    on Postgres for a few seconds, if whoever writes tells."""
    last, now = engine.glance, engine.clock.monotonic()
    names = engine.flows.names()
    token, has_changed = engine.store.database.changed_since(last.token)
    if is_told and now - last.at < TOLD_GLANCE_S:
        has_changed = False
    asked = (engine.runtime_key, engine.store.commits, names)
    if is_thorough or has_changed or any(last.found) or asked != last.asked:
        with engine.store.read(is_single=True) as connection:
            last.found = ownership.glance(connection, engine.runtime_key, names, engine.clock.now_us())
        last.asked, last.at = asked, now
    last.token = token
    return last.found


def _duties(engine: Engine, settings: Settings) -> dict[str, tuple[float, Callable[[], None]]]:
    def look() -> None:
        engine.must_reconcile = True
        engine.inputs.wake()

    return {"reconcile": (settings.reconcile_s, look)}


def readers_for(engine: Callable[[], Engine]) -> Callable[[Run], Readers]:
    """What the activations of each worker may ask of its surroundings. `engine` may be made later."""
    cache: dict[str, tuple[WorkerCell, Readers]] = {}

    def readers_of(run: Run) -> Readers:
        worker = run.cell.worker
        known, readers = cache.get(worker.worker_id, (None, None))
        if known is not worker or readers is None:  # a worker that was loaded again has another cell
            mine = engine()
            readers = Readers(
                now_us=mine.clock.now_us,
                state_routines=lambda: list(worker.state),
                execution_history=lambda routine: execution_history(mine.store, worker.worker_id, routine),
                job_traces=lambda job_id: traces(mine.store, job_id),
                refuse_statement=refusal,
                max_payload_bytes=mine.settings.max_payload_bytes,
            )
            cache[worker.worker_id] = (worker, readers)
        return readers

    return readers_of


__all__ = ["Parts", "assemble", "own_version", "prepare_schema", "readers_for", "reconcile", "register"]
