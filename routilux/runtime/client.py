"""`Client`: posts, signals, reads and controls from a process that runs nothing and has no flow code.

Posts are checked against the newest definition that a runtime has registered in the database; slot models are
checked by the owner.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any

import orjson
from sqlalchemy import Connection, Engine

from routilux.core.job_context import JobContext
from routilux.engine.clock import ServerClock, SystemClock
from routilux.engine.inputs import Post
from routilux.engine.settings import MIB
from routilux.errors import (
    FlowNotFoundError,
    JobNotFoundError,
    RoutineNotFoundError,
    SlotNotFoundError,
    WorkerNotFoundError,
)
from routilux.runtime import inbox_writer, queries, validation, waiting, workers
from routilux.runtime.handles import JobHandle
from routilux.runtime.posting import Posted
from routilux.runtime.queries import DeadLetter
from routilux.runtime.validation import PostItem, Seconds
from routilux.store import schema
from routilux.store.backends.database import Database
from routilux.store.reads import history, worker_reads
from routilux.store.records import JobRecord
from routilux.store.writes import ownership
from routilux.store.writes.store import Store

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

PERIOD_S = 0.25
CLOCK_S = 10.0  # so long it is not asked again for its clock


class Client:
    """A door to the database of runtimes that live elsewhere.

    `database`: a SQLAlchemy URL or the caller's `Engine`. `max_payload_bytes`: as the runtimes have it.
    Raises `SchemaError` or `DatabaseUnavailableError` when the database cannot serve.
    """

    def __init__(self, database: str | Engine, *, max_payload_bytes: int = MIB) -> None:
        self._database = Database.open(database)
        self._clock = ServerClock() if self._database.is_postgres else SystemClock()
        self._max_payload_bytes = max_payload_bytes
        url = self._database.url.render_as_string(hide_password=False)
        self.store = Store(self._database)
        try:
            with self.store.read() as connection:
                schema.ensure(connection, url, is_exclusive=lambda: False)
        except BaseException:
            self._database.close()
            raise

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the database. Idempotent."""
        self._database.close()

    def now_us(self) -> int:
        clock = self._clock
        if isinstance(clock, ServerClock) and clock.unasked_s > CLOCK_S:
            with self.store.read(is_single=True) as connection:
                clock.ask(lambda: self._database.now_us(connection))
        return clock.now_us()

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
    ) -> Posted:
        """As `Runtime.post`: durable on return, accepted as soon as a runtime with the flow looks.

        Without `worker_id` the runtime that accepts it chooses the worker.
        """
        names = (flow_name, routine_name, slot_name)
        limit = self._check(names, worker_id)
        post = self._encode(names, PostItem(data, job_id, delay, metadata), at)
        if transaction is not None:
            return inbox_writer.post_in(transaction, self, names, post, worker_id, limit)
        inbox_writer.post_to_owner(self, names, [post], worker_id, limit)
        return Posted((None, JobContext(post.job_id, flow_name, worker_id, JobHandle(self))))

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
    ) -> list[JobContext]:
        """A job for each item, all in one transaction: all of them go in, or none."""
        names = (flow_name, routine_name, slot_name)
        limit = self._check(names, worker_id)
        posts = [
            self._encode(
                names,
                item if isinstance(item, PostItem) else PostItem(item, metadata=metadata),
                root=f"items[{i}]",
            )
            for i, item in enumerate(items)
        ]
        validation.check_ids(posts)
        if transaction is not None:
            return [
                inbox_writer.post_in(transaction, self, names, post, worker_id, limit).job for post in posts
            ]
        inbox_writer.post_to_owner(self, names, posts, worker_id, limit)
        return [JobContext(post.job_id, flow_name, worker_id, JobHandle(self)) for post in posts]

    def _encode(
        self, names: tuple[str, str, str], item: PostItem, at: datetime | None = None, root: str = "data"
    ) -> Post:
        text = validation.encode_payload(None, item.data, self._max_payload_bytes, root)
        metadata = validation.encode_metadata(item.metadata, self._max_payload_bytes)
        return validation.make_post(
            names, text, item.job_id, metadata, validation.due_at_us(self.now_us(), item.delay, at)
        )

    def _check(self, names: tuple[str, str, str], worker_id: str | None) -> int | None:
        """The limit of the slot that these names lead to, if it has one; else the error that says what there is not."""
        flow, routine, slot = names
        with self.store.read() as connection:
            definition = ownership.newest_definition(connection, flow)
            if definition is None:
                raise FlowNotFoundError(flow)
            if worker_id is not None:
                workers.check_worker(worker_reads.worker_named(connection, worker_id), worker_id, flow)
        routines = orjson.loads(definition)["routines"]
        if not isinstance(routine, str) or routine not in routines:
            raise RoutineNotFoundError(routine, flow)
        if not isinstance(slot, str) or slot not in routines[routine]["slots"]:
            raise SlotNotFoundError(slot, routine)
        limit: int | None = routines[routine]["slots"][slot]["max_queue_length"]
        return limit

    def signal(self, job_id: str, routine_name: str, slot_name: str, data: Mapping[str, Any]) -> None:
        """One more message into a running job."""
        record = self._record(job_id)
        self._check((record.flow_id, routine_name, slot_name), None)
        text = validation.encode_payload(None, data, self._max_payload_bytes)
        self.control(
            "signal", record.worker_id, job_id, {"routine": routine_name, "slot": slot_name, "payload": text}
        )

    def _record(self, job_id: str) -> JobRecord:
        with self.store.read() as connection:
            record = history.job(connection, job_id)
        if record is None:
            raise JobNotFoundError(job_id)
        return record

    def get_job(self, job_id: str) -> JobContext | None:
        """The job of that id, live, ended or waiting in the inbox, or None."""
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

    def pause_worker(self, worker_id: str, reason: str = "") -> None:
        self.control("pause_worker", worker_id, None, {"reason": reason})

    def resume_worker(self, worker_id: str, reason: str = "") -> None:
        self.control("resume_worker", worker_id, None, {"reason": reason})

    def cancel_worker(self, worker_id: str, reason: str = "") -> None:
        self.control("cancel_worker", worker_id, None, {"reason": reason})

    def pause_job(self, job_id: str, reason: str = "") -> None:
        self.control("pause_job", self._record(job_id).worker_id, job_id, {"reason": reason})

    def resume_job(self, job_id: str, reason: str = "") -> None:
        self.control("resume_job", self._record(job_id).worker_id, job_id, {"reason": reason})

    def cancel_job(self, job_id: str, reason: str = "") -> None:
        self.control("cancel_job", self._record(job_id).worker_id, job_id, {"reason": reason})

    def control(self, kind: str, worker_id: str | None, job_id: str | None, body: dict[str, Any]) -> None:
        """A verb for the owner of a worker, through the inbox: durable on return, carried out when the owner looks."""
        if worker_id is None:
            raise JobNotFoundError(job_id)
        body = validation.controls(body)
        with self.store.read() as connection:
            stored = worker_reads.worker_named(connection, worker_id)
        if stored is None:
            raise WorkerNotFoundError(worker_id)
        inbox_writer.ask(self.store, kind, stored.flow, worker_id, job_id, body, self.now_us())

    def encode(self, flow: str, routine: str, slot: str, data: Any, root: str = "data") -> str:
        """A payload as JSON text; the owner checks it against the slot's model."""
        return validation.encode_payload(None, data, self._max_payload_bytes, root)

    def live_status(self, worker_id: str) -> str | None:
        return None

    def wait_for(self, job_id: str, timeout: float | None) -> bool:
        """What `JobContext.wait` does."""
        wait_s = validation.timeout_s(timeout)
        deadline = None if wait_s is None else time.monotonic() + wait_s
        while True:
            left = PERIOD_S if deadline is None else deadline - time.monotonic()
            if waiting.has_ended(self.store, job_id, is_last=left <= 0):
                return True
            if left <= 0:
                return False
            threading.Event().wait(min(PERIOD_S, left))
