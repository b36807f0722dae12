"""`Runtime`: the facade. It checks, hands over to the engine, and words the answers; it decides nothing."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import Connection, Engine

from routilux.core.context import current_activation
from routilux.core.job_context import JobContext
from routilux.core.registry import FlowRegistry
from routilux.core.worker_state import WorkerState
from routilux.engine.batch import Fact
from routilux.engine.inputs import Input, Request, SignalIn, Task
from routilux.engine.settings import Settings
from routilux.errors import (
    CalledInLogicError,
    DatabaseUnavailableError,
    ForkedRuntimeError,
    RuntimeShutDownError,
)
from routilux.runtime import posting, queries, requests, validation, waiting, workers
from routilux.runtime.drive import Drive, Threads
from routilux.runtime.posting import Posted
from routilux.runtime.queries import DeadLetter
from routilux.runtime.validation import PostItem
from routilux.runtime.wiring import Parts, assemble

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

log = logging.getLogger("routilux")
Seconds = float | timedelta
Durability = Literal["power_loss", "process_crash"]
_default: weakref.ref[Runtime] | None = None


class Runtime:
    """Runs flows on a database, from construction until `shutdown` (or the end of the `with` block).

    `thread_pool_size`: threads for logic; 0: the pool of 100 that the runtimes of a process share.
    `database`: a SQLAlchemy URL or the caller's `Engine`; default `ROUTILUX_DATABASE_URL`, else
    `sqlite:///routilux.db` in the working directory.
    `durability`: what an acknowledged post survives. `power_loss` (default): `kill -9` and power loss;
    `process_crash`: `kill -9`; the last commits may go on power loss.
    `lease`: seconds after which another runtime may take over when this one gives no sign; renewed every third.
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
        database: str | Engine | None = None,
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
        self._pid = os.getpid()
        self._is_shut_down = False
        self._stopping = threading.RLock()
        self.posted_elsewhere: set[str] = set()
        self.most_elsewhere = waiting.MOST_ELSEWHERE
        self.ends = waiting.Ends()
        self._subscribers: dict[str, list[Callable[[Fact], None]]] = {}
        self._parts: Parts = assemble(
            thread_pool_size=thread_pool_size,
            database=database if database is not None else default_database(),
            durability=durability,
            lease_s=float(lease),
            registry=registry if registry is not None else FlowRegistry.get_instance(),
            is_recovering=recover,
            is_capturing=capture_output,
            settings=settings or Settings(lease_s=float(lease)),
            on_facts=self._tell,
            drive=self._make_drive(),
        )
        self.drive = self._parts.drive
        self._parts.engine.wants_ends = lambda: bool(self.ends) or bool(self._subscribers)
        self.store = self._parts.store
        self.engine = self._parts.engine
        self.settings = self._parts.settings
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

        `worker_state`: a state to start from (`WorkerState.load`). `entry_params`: also post them to the trigger
        slot of the first routine that has one. The worker is durable on return.
        Raises `FlowNotFoundError`, `WorkerEndedError` if the named worker was cancelled, `RuntimeShutDownError`.
        """
        self.check_usable("exec")
        return workers.execute(self, flow_name, worker_state, worker_id, entry_params)

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

        Without `worker_id` it goes to the newest live worker of the flow here, else to a live one in the store,
        else to a new one. `job_id` makes the post idempotent. `delay` (seconds or timedelta) or `at` (aware
        datetime): not before. `transaction`: the caller's own Core `Connection` or ORM `Session`; the message
        goes in, or not, with its commit. `timeout`: seconds to wait for room in a full slot.

        Returns `(worker_state, job_context)`; it also answers for the job (`.job_id`, `.status`, …).
        Raises, with nothing stored: `FlowNotFoundError`, `RoutineNotFoundError`, `SlotNotFoundError`,
        `WorkerNotFoundError`, `WorkerEndedError`, `PayloadError`, `SlotQueueFullError`, `NaiveDatetimeError`,
        `IdempotencyConflictError`. Raises `PostInDoubt` (with the job id) when it cannot be known.
        """
        self.check_usable("post" if timeout is not None else None)
        item = PostItem(data, job_id, delay, metadata)
        return posting.post(
            self,
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
        """A job for each item, thousands in one transaction. All items are checked before the first is stored.

        Raises what `post` raises, and `PostManyIncomplete` with the handles of what was stored when a later part
        could not go in.
        """
        self.check_usable("post_many" if timeout is not None else None)
        return posting.post_many(
            self,
            (flow_name, routine_name, slot_name),
            items,
            metadata,
            worker_id,
            transaction=transaction,
            timeout=timeout,
        )

    def signal(self, job_id: str, routine_name: str, slot_name: str, data: Mapping[str, Any]) -> None:
        """One more message into a running job (an approval, an answer). Durable on return.

        Raises `JobNotFoundError`, `JobEndedError`, and what `post` raises for names and payload.
        """
        self.check_usable(None)
        requests.signal(self, job_id, routine_name, slot_name, data)

    # reading

    def get_job(self, job_id: str) -> JobContext | None:
        """The job of that id, live or ended, or None."""
        return queries.get_job(self, job_id)

    def list_jobs(
        self,
        *,
        status: str | None = None,
        flow_name: str | None = None,
        worker_id: str | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> list[JobContext]:
        """Jobs, newest first; `before` (a job id) reads on."""
        return queries.list_jobs(self, status, flow_name, worker_id, limit, before)

    def dead_letters(
        self, *, flow_name: str | None = None, limit: int = 100, before: DeadLetter | None = None
    ) -> list[DeadLetter]:
        """Dead letters, newest first; `before` reads on."""
        return queries.dead_letters(self, flow_name, limit, before)

    # waiting

    def wait_until_all_jobs_finished(self, timeout: float | None = None) -> bool:
        """Until no job of this runtime's workers, and none that it posted, is waiting, parked or being handled.

        A worker that it started by name counts wherever it runs: after a crash its dead owner is found a little later.
        Policies that gather deliver what they have once nothing else can run here. False after `timeout` seconds.
        """
        self.check_usable("wait_until_all_jobs_finished")
        return waiting.all_jobs(self, timeout)

    def wait_until_all_workers_idle(self, timeout: float | None = None) -> bool:
        """Until nothing can run now; jobs may wait for more input or a due time. False after `timeout` seconds."""
        self.check_usable("wait_until_all_workers_idle")
        return waiting.workers_idle(self, timeout)

    def wait_for(self, job_id: str, timeout: float | None) -> bool:
        """What `JobContext.wait` does."""
        if current_activation() is not None:
            raise CalledInLogicError("job.wait()")
        return waiting.job(self, job_id, timeout)

    # control

    def pause_worker(self, worker_id: str, reason: str = "") -> None:
        """What runs finishes and commits; nothing new starts; posts are accepted. Durable on return."""
        self._worker_control("pause_worker", worker_id, reason)

    def resume_worker(self, worker_id: str, reason: str = "") -> None:
        """Go on after `pause_worker`."""
        self._worker_control("resume_worker", worker_id, reason)

    def cancel_worker(self, worker_id: str, reason: str = "") -> None:
        """End a worker and its jobs; outcomes of logic that still runs are recorded as discarded."""
        self._worker_control("cancel_worker", worker_id, reason)

    def pause_job(self, job_id: str, reason: str = "") -> None:
        """Its messages are parked; they come back to the end of the line with `resume_job`."""
        self._job_control("pause_job", job_id, reason)

    def resume_job(self, job_id: str, reason: str = "") -> None:
        self._job_control("resume_job", job_id, reason)

    def cancel_job(self, job_id: str, reason: str = "") -> None:
        """End a job; what waits for it is cancelled and kept."""
        self._job_control("cancel_job", job_id, reason)

    def cancel_all_jobs(self, reason: str = "") -> int:
        """Cancel every job of this runtime's workers that has not ended; returns how many."""
        self.check_usable(None)
        return queries.cancel_all(self, reason)

    def _worker_control(self, kind: str, worker_id: str, reason: str) -> None:
        self.check_usable(None)
        self.control(kind, worker_id, None, {"reason": reason})

    def _job_control(self, kind: str, job_id: str, reason: str) -> None:
        self.check_usable(None)
        requests.control_job(self, kind, job_id, {"reason": reason})

    def encode(self, flow: str, routine: str, slot: str, data: Any, root: str = "data") -> str:
        """A payload as JSON text, checked as `post` does; against the slot if the flow is registered here."""
        spec = None
        if self.engine.flows.has(flow):
            spec = validation.slot_of(self.engine.flows.get(flow), flow, routine, slot)
        return validation.encode_payload(spec, data, self.settings.max_payload_bytes, root)

    def control(self, kind: str, worker_id: str | None, job_id: str | None, body: dict[str, Any]) -> None:
        """A verb for the owner of a worker, here or through the inbox."""
        requests.control(self, kind, worker_id, job_id, body)

    def on(self, fact_name: str, callback: Callable[[Fact], None]) -> None:
        """Call back after each commit that holds a fact of this name (`activation.committed`, `job.ended`).

        Callbacks run in the engine's thread: be short; what they raise is logged.
        """
        self._subscribers.setdefault(fact_name, []).append(callback)
        self.engine.wants_facts = True

    def _tell(self, facts: list[Fact]) -> None:
        waiting.tell(self, facts)
        for fact in facts if self._subscribers else ():
            for callback in self._subscribers.get(fact.name, ()):
                self._parts.guarded(callback, fact)

    def live_status(self, worker_id: str) -> str | None:
        """The status of a worker of mine; None: it is not mine."""
        cell = self.engine.by_id.get(worker_id)
        if cell is None or cell.is_forgotten:
            return None
        if cell.status == "running":
            return "running" if cell.has_work else "idle"
        return str(cell.status)

    # lifetime

    def shutdown(self, wait: bool = True, timeout: float = 30.0) -> bool:
        """Take no more, finish, give leases back. Idempotent.

        `wait`: first wait until the jobs of this runtime have finished, as `wait_until_all_jobs_finished` does.
        False when the deadline passed first: what still runs is named in the log, the process can exit all the same,
        and unfinished work goes on at the next start.
        """
        if self._pid != os.getpid():
            return True
        if current_activation() is not None:
            raise CalledInLogicError("shutdown()")
        timeout = validation.seconds(timeout, "timeout")
        deadline = time.monotonic() + timeout
        finished = not wait or self._is_shut_down or self._finishes(timeout)
        if not self._stopping.acquire(timeout=max(0.0, deadline - time.monotonic())):
            return False  # another thread is at it
        try:
            # by another thread, or by a signal handler, which need not wait for this one
            return self._is_shut_down or (self._stop(deadline) and finished)
        finally:
            self._stopping.release()

    def _stop(self, deadline: float) -> bool:
        self._is_shut_down = True
        try:
            return self._parts.stop(max(0.5, deadline - time.monotonic()))
        except BaseException:  # broken off: it can be made again
            self._is_shut_down = False
            raise

    def _finishes(self, timeout: float) -> bool:
        try:
            return waiting.all_jobs(self, timeout)
        except (DatabaseUnavailableError, RuntimeShutDownError) as error:  # it stops all the same
            log.warning("stop: it is not known whether all jobs have finished: %s", error)
            return False

    def check_usable(self, waits: str | None) -> None:
        """Raises for a runtime that is shut down or forked, and for a call that would wait inside logic."""
        if self._pid != os.getpid():
            raise ForkedRuntimeError
        if self._is_shut_down:
            raise RuntimeShutDownError("Runtime is shut down")
        if waits is not None and current_activation() is not None:
            raise CalledInLogicError(f"{waits}()")

    @property
    def is_engine_gone(self) -> bool:
        return not self._parts.is_running

    def now_us(self) -> int:
        return self.engine.clock.now_us()

    def submit(self, entry: Input) -> None:
        self.engine.inputs.put(entry)

    def call(self, work: Callable[[], object]) -> Any:
        """Do something in the engine's thread, between two commits, and wait for its answer."""
        return self.answer_to(Task(work))

    def request(self, apply: Callable[[Any], object]) -> Any:
        """Do something inside the next group commit and wait until it is in."""
        return self.answer_to(Request(apply))

    def answer_to(self, entry: Task | Request | SignalIn) -> Any:
        """Give something to the engine and wait for what it says. Raises that, or `RuntimeShutDownError`."""
        receipt = entry.receipt
        self.submit(entry)
        while not self.drive.answer(receipt, 1.0):
            # it may have been answered just before the end
            if not self._parts.is_running and not receipt.is_done:
                was_begun = receipt.is_taken and not isinstance(entry, Task)
                doubt = "; it is not known whether this was stored" if was_begun else ""
                raise RuntimeShutDownError(f"Runtime is shut down{doubt}")
        return receipt.get()


def default_database() -> str:
    """`ROUTILUX_DATABASE_URL`, else a file in the working directory."""
    return os.environ.get("ROUTILUX_DATABASE_URL") or "sqlite:///routilux.db"


def _remember(runtime: Runtime) -> None:
    global _default
    _default = weakref.ref(runtime)


def get_runtime_instance() -> Runtime | None:
    """The runtime of this process that was made last, if it is still there."""
    return None if _default is None else _default()


__all__ = ["DeadLetter", "PostItem", "Posted", "Runtime", "get_runtime_instance"]
