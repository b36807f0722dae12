"""`Runtime`: the facade.

It checks arguments, hands over to the engine, and returns handles; it decides nothing.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from routilux.core.job_context import JobContext
from routilux.core.registry import FlowRegistry
from routilux.core.worker_state import WorkerState
from routilux.engine.commands import CancelJob
from routilux.engine.facts import Fact
from routilux.engine.settings import Settings
from routilux.errors import JobEndedError
from routilux.runtime import handles, posting, queries, validation, waiting, workers
from routilux.runtime.drive import Drive, Threads
from routilux.runtime.handles import Posted
from routilux.runtime.job_ends import JobEnds
from routilux.runtime.local_host import LocalHost
from routilux.runtime.operations import Operations
from routilux.runtime.validation import PostItem
from routilux.runtime.wiring import assemble
from routilux.store.types import Connection, SqlEngine

if TYPE_CHECKING:
    from routilux.store.types import Session

Seconds = float | timedelta
Durability = Literal["power_loss", "process_crash"]
USER_FACTS = ("activation.committed", "job.ended")
_default: weakref.ref[Runtime] | None = None


class Runtime(Operations):
    """Runs flows on a database, from construction until `shutdown` (or the end of the `with` block).

    `thread_pool_size`: threads for logic; 0: the pool of 100 that the runtimes of a process share.
    `database`: a SQLAlchemy URL or the caller's `Engine`; default `ROUTILUX_DATABASE_URL`, else
    `sqlite:///routilux.db` in the working directory.
    `durability`: what an acknowledged post survives. `power_loss` (default): `kill -9` and power loss;
    `process_crash`: `kill -9`; the last commits may go on power loss.
    `lease`: seconds after which another runtime may take over when this one gives no sign; renewed every
    third.
    `registry`: where flows are looked up; default the process-wide `FlowRegistry`.
    `recover`: take over workers with waiting work whose flow is registered here.
    `capture_output`: keep what logic prints with its job.

    Raises `SchemaError` or `DatabaseUnavailableError` when the database cannot serve. Start it after a fork,
    never before: a forked copy raises `ForkedRuntimeError`.
    """

    def __init__(
        self,
        thread_pool_size: int = 10,
        *,
        database: str | SqlEngine | None = None,
        durability: Durability = "power_loss",
        lease: float = 9.0,
        registry: FlowRegistry | None = None,
        recover: bool = True,
        capture_output: bool = False,
        settings: Settings | None = None,
    ) -> None:
        if (
            isinstance(thread_pool_size, bool)
            or not isinstance(thread_pool_size, int)
            or thread_pool_size < 0
        ):
            raise ValueError(
                f"thread_pool_size must be 0 (shared) or a number of threads, not {thread_pool_size!r}"
            )
        if not validation.seconds(lease, "lease") > 0:
            raise ValueError(f"lease must be a positive number of seconds, not {lease!r}")
        if settings is not None and not isinstance(settings, Settings):
            raise TypeError(f"settings must be a Settings, not {type(settings).__name__}")
        if registry is not None and not isinstance(registry, FlowRegistry):
            raise TypeError(f"registry must be a FlowRegistry, not {type(registry).__name__}")
        running = assemble(
            thread_pool_size=thread_pool_size,
            database=database if database is not None else default_database(),
            durability=durability,
            lease_s=float(lease),
            registry=registry if registry is not None else FlowRegistry.get_instance(),
            is_recovering=recover,
            is_capturing=capture_output,
            settings=settings or Settings(lease_s=float(lease)),
            drive=self._make_drive(),
        )
        ends = JobEnds()
        running.parts.facts.subscribe_at_times("job.ended", ends)
        self._host: LocalHost = LocalHost(running, ends)
        running.drive.keep_alive(self)
        _remember(self)

    def _make_drive(self) -> Drive:
        return Threads()

    def __enter__(self) -> Runtime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown(wait=kind is None)

    # workers

    def exec(
        self,
        flow_name: str,
        worker_state: WorkerState | None = None,
        *,
        worker_id: str | None = None,
        entry_params: Mapping[str, Any] | None = None,
    ) -> WorkerState:
        """Start a worker of a flow, or resume the one named `worker_id` with its state; triggers nothing.

        `worker_state`: a state to start from (`WorkerState.load`). `entry_params`: also post them to the
        trigger slot of the first routine that has one. The worker is durable on return.
        Raises `FlowNotFoundError`, `WorkerEndedError` if the named worker was cancelled,
        `RuntimeShutDownError`.
        """
        self._host.check_usable("exec")
        name = self._host.parts.workers.flows.prepare(flow_name)
        started = workers.execute(self._host, name, worker_state, worker_id)
        if entry_params is not None:
            routine, slot = self._host.parts.workers.flows.entry(name)
            self.post(name, routine, slot, entry_params, started)
        return handles.worker_state(self._host, name, started)

    def post(
        self,
        flow_name: str,
        routine_name: str,
        slot_name: str,
        data: Mapping[str, Any],
        worker_id: str | None = None,
        job_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        delay: Seconds | None = None,
        at: datetime | None = None,
        transaction: Connection | Session | None = None,
        timeout: float | None = None,
    ) -> Posted:
        """Start a job with one message. Durable on return: it survives whatever `durability` says.

        Without `worker_id` it goes to the newest live worker of the flow here, else to a live one in the
        store, else to a new one. `job_id` makes the post idempotent. `delay` (seconds or timedelta) or `at`
        (aware datetime): not before. `transaction`: the caller's own Core `Connection` or ORM `Session`; the
        message goes in, or not, with its commit. `timeout`: seconds to wait for room in a full slot.

        Returns `(worker_state, job_context)`; it also answers for the job (`.job_id`, `.status`, …).
        Raises, with nothing stored: `FlowNotFoundError`, `RoutineNotFoundError`, `SlotNotFoundError`,
        `WorkerNotFoundError`, `WorkerEndedError`, `PayloadError`, `SlotQueueFullError`, `NaiveDatetimeError`,
        `IdempotencyConflictError`. Raises `PostInDoubt` (with the job id) when it cannot be known.
        """
        self._host.check_usable("post" if timeout is not None else None)
        item = PostItem(data, job_id, delay, metadata)
        return posting.post(
            self._host,
            (flow_name, routine_name, slot_name),
            item,
            worker_id,
            at=at,
            transaction=transaction,
            timeout=timeout,
        )

    def post_many(
        self,
        flow_name: str,
        routine_name: str,
        slot_name: str,
        items: Iterable[Mapping[str, Any] | PostItem],
        *,
        metadata: Mapping[str, Any] | None = None,
        worker_id: str | None = None,
        transaction: Connection | Session | None = None,
        timeout: float | None = None,
    ) -> list[JobContext]:
        """A job for each item, thousands in one transaction.

        All items are checked before the first is stored.

        Raises what `post` raises, and `PostManyIncomplete` with the handles of what was stored when a later
        part could not go in.
        """
        self._host.check_usable("post_many" if timeout is not None else None)
        return posting.post_many(
            self._host,
            (flow_name, routine_name, slot_name),
            items,
            metadata,
            worker_id,
            transaction=transaction,
            timeout=timeout,
        )

    # waiting

    def wait_until_all_jobs_finished(self, timeout: float | None = None) -> bool:
        """Until no job of this runtime's workers, and none that it posted, is waiting, parked or running.

        A worker that it started by name counts wherever it runs: after a crash its dead owner is found a
        little later. Policies that gather deliver what they have once nothing else can run here. False after
        `timeout` seconds.
        """
        self._host.check_usable("wait_until_all_jobs_finished")
        return waiting.all_jobs(self._host, timeout)

    def wait_until_all_workers_idle(self, timeout: float | None = None) -> bool:
        """Until nothing can run now; jobs may wait for more input or a due time.

        False after `timeout` seconds.
        """
        self._host.check_usable("wait_until_all_workers_idle")
        return waiting.workers_idle(self._host, timeout)

    # control

    def cancel_all_jobs(self, reason: str = "") -> int:
        """Cancel every job of this runtime's workers that has not ended, batch by batch. Returns how many."""
        self._host.check_usable()
        cancelled = 0
        for worker_id in list(self._host.parts.workers.by_id):
            while records := queries.open_jobs(self._host, worker_id):
                for record in records:
                    try:
                        self._host.command(CancelJob(worker_id, record.job_id, reason))
                        cancelled += 1
                    except JobEndedError:
                        continue
        return cancelled

    def on(self, fact_name: str, callback: Callable[[Fact], None]) -> None:
        """Call back after each commit that holds a fact of this name (`activation.committed`, `job.ended`).

        Callbacks run in the engine's thread: be short; what they raise is logged.
        """
        if fact_name not in USER_FACTS:
            raise ValueError(f"there is no fact {fact_name!r}; the facts are {' and '.join(USER_FACTS)}")
        self._host.parts.facts.subscribe(fact_name, callback)

    # lifetime

    def shutdown(self, wait: bool = True, timeout: float = 30.0) -> bool:
        """Take no more, finish, give leases back. Idempotent.

        `wait`: first wait until the jobs of this runtime have finished, as `wait_until_all_jobs_finished`
        does. False when the deadline passed first: what still runs is named in the log, the process can exit
        all the same, and unfinished work goes on at the next start.
        """
        return self._host.shut_down(wait=wait, timeout=timeout)

    @property
    def is_running(self) -> bool:
        """False after `shutdown`, and when the engine has stopped by itself.

        Then nothing is accepted any more.
        """
        return self._host.is_running


def default_database() -> str:
    """`ROUTILUX_DATABASE_URL`, else a file in the working directory."""
    return os.environ.get("ROUTILUX_DATABASE_URL") or "sqlite:///routilux.db"


def _remember(runtime: Runtime) -> None:
    global _default
    _default = weakref.ref(runtime)


def get_runtime_instance() -> Runtime | None:
    """The runtime of this process that was made last, if it is still there."""
    return None if _default is None else _default()


__all__ = ["PostItem", "Posted", "Runtime", "get_runtime_instance"]
