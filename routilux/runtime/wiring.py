"""The one place where the parts of a runtime are made and connected.

Each part gets what it needs when it is made.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from routilux.core.registry import FlowRegistry
from routilux.engine import interpreter
from routilux.engine.clock import Clock, ServerClock
from routilux.engine.command_handlers import CommandHandlers
from routilux.engine.counters import Counters
from routilux.engine.death_pauses import DeathPauses
from routilux.engine.engine import Engine
from routilux.engine.facts import Facts
from routilux.engine.flow_catalog import FlowCatalog
from routilux.engine.inbox import Inbox
from routilux.engine.inputs import InputQueue
from routilux.engine.job_timeouts import JobTimeouts
from routilux.engine.parts import Parts
from routilux.engine.recovery import Recovery
from routilux.engine.redelivery import Redelivery
from routilux.engine.scheduler import Executor, Permission, Scheduler
from routilux.engine.settings import Settings
from routilux.engine.transactions import Transactions
from routilux.engine.worker_table import WorkerTable
from routilux.execution.performer import Performer
from routilux.output import install_routed_stdout
from routilux.ownership.alarm import Alarm
from routilux.ownership.handover import Handover
from routilux.ownership.lease import Lease
from routilux.ownership.maintenance import Maintenance
from routilux.ownership.reconciler import Reconciler
from routilux.ownership.takeover import Takeover
from routilux.runtime.activation_readers import ActivationReaders
from routilux.runtime.drive import Drive, Executors
from routilux.runtime.log_lines import log_facts, subscriber_failed
from routilux.store import schema
from routilux.store.backends.database import Database
from routilux.store.backends.database_url import check_named
from routilux.store.types import SqlEngine
from routilux.store.writes.store import Store


@dataclass(frozen=True, slots=True)
class Assembly:
    """The engine of one runtime, with the parts that take and give back workers."""

    parts: Parts
    engine: Engine
    handover: Handover
    reconciler: Reconciler

    def begin(self) -> None:
        """Register this runtime and publish its definitions. Durable on return."""
        self.handover.come_back()
        self.engine.again_if_fenced(self.handover.publish)
        self.reconciler.call()


@dataclass(frozen=True, slots=True)
class RunningParts:
    """A running runtime."""

    database: Database
    assembly: Assembly
    lease: Lease
    alarm: Alarm
    pool: Executors
    drive: Drive

    @property
    def parts(self) -> Parts:
        return self.assembly.parts

    @property
    def engine(self) -> Engine:
        return self.assembly.engine


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
    drive: Drive,
) -> RunningParts:
    """Open the database, register this process, start what drives it."""
    opened = Database.open(database, durability=durability)
    try:
        prepare_schema(opened)
        store = Store(opened)
        clock = ServerClock() if opened.is_postgres else drive.clock
        facts, inputs, alarm = Facts(subscriber_failed), InputQueue(), Alarm()
        log_facts(facts)
        lease = Lease(opened, clock, lease_s, own_version(), facts=facts, on_call=inputs.tell)
        performer = Performer(clock, inputs.put, ActivationReaders(store, clock, settings), facts)
        pool = drive.pool(thread_pool_size, performer)
        assembly = connect_parts(
            Transactions(store, facts),
            clock,
            settings,
            FlowCatalog(registry, facts),
            facts,
            inputs,
            executor=pool,
            permission=drive.permission(lease),
            lease=lease,
            alarm=alarm,
            recovers=is_recovering,
            is_real_time=drive.is_real_time,
            trusts_clock=not drive.is_real_time,
        )
        assembly.begin()
    except BaseException as error:
        opened.close()
        check_named(error, opened.url)
        raise
    if is_capturing:
        install_routed_stdout()
    interpreter.tune()
    running = RunningParts(opened, assembly, lease, alarm, pool, drive)
    drive.start(running)
    return running


def connect_parts(
    transactions: Transactions,
    clock: Clock,
    settings: Settings,
    flows: FlowCatalog,
    facts: Facts,
    inputs: InputQueue,
    *,
    executor: Executor,
    permission: Permission,
    lease: Lease,
    alarm: Alarm,
    recovers: bool,
    is_real_time: bool,
    trusts_clock: bool = False,
    prunes_history: bool = True,
    engine_class: type[Engine] = Engine,
) -> Assembly:
    """Make the parts of an engine.

    `is_real_time`: no test moves its clock; `trusts_clock`: see `JobTimeouts`.
    """
    pauses = DeathPauses(settings.death_pause_s, clock)
    workers = WorkerTable(transactions, flows, settings.window, pauses)
    handlers = CommandHandlers(transactions, workers)
    parts = Parts(
        clock=clock,
        settings=settings,
        facts=facts,
        inputs=inputs,
        transactions=transactions,
        workers=workers,
        scheduler=Scheduler(clock, settings, executor, permission),
        handlers=handlers,
        inbox=Inbox(transactions, workers, handlers, clock, facts),
        redelivery=Redelivery(transactions, workers, clock, asks_database=is_real_time),
        counters=Counters(transactions, workers),
        timeouts=JobTimeouts(clock, workers, trusts_clock=trusts_clock),
        recovery=Recovery(),
    )
    handover = Handover(transactions, workers, clock, lease)
    reconciler = Reconciler(
        transactions,
        flows,
        clock,
        settings,
        lease,
        alarm,
        handover,
        Takeover(transactions, handover, lease, clock, facts),
        Maintenance(transactions, clock, settings, prunes_history=prunes_history),
        recovers=recovers,
    )

    def ring() -> None:
        reconciler.call()
        inputs.wake()

    alarm.every(settings.reconcile_s, "reconcile", ring)
    return Assembly(parts, engine_class(parts, handover, reconciler), handover, reconciler)


def prepare_schema(database: Database) -> None:
    """Check that this code can serve the schema of the database.

    Raises `SchemaError`, which says what to do.
    """
    lock = database.lock_file
    url = database.url.render_as_string(hide_password=False)
    with contextlib.nullcontext() if lock is None else lock.upgrade(), database.read() as connection:
        schema.ensure(connection, url, is_exclusive=lambda: lock is None or lock.is_alone())


def own_version() -> str:
    try:
        return version("routilux")
    except PackageNotFoundError:
        return "0"


__all__ = ["Assembly", "RunningParts", "assemble", "connect_parts", "own_version", "prepare_schema"]
