"""A client's side: everything goes through the inbox, and definitions come from the database."""

from __future__ import annotations

import threading
import time
from datetime import datetime
from typing import Any

import orjson

from routilux.engine.clock import ServerClock, SystemClock
from routilux.engine.commands import Command
from routilux.engine.inputs import Post
from routilux.errors import (
    FlowNotFoundError,
    JobNotFoundError,
    RoutineNotFoundError,
    SlotNotFoundError,
    WorkerNotFoundError,
)
from routilux.runtime import inbox_writer, validation, waiting, workers
from routilux.runtime.validation import PostItem
from routilux.store import schema
from routilux.store.backends.database import Database
from routilux.store.reads import worker_reads
from routilux.store.types import SqlEngine
from routilux.store.writes import ownership
from routilux.store.writes.store import Store

PERIOD_S = 0.25
CLOCK_S = 10.0  # seconds until the server is asked for its clock again


class RemoteHost:
    """Owns the database of a client and what it knows of the server's clock."""

    def __init__(self, database: str | SqlEngine, max_payload_bytes: int) -> None:
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

    def close(self) -> None:
        self._database.close()

    def check_usable(self, waits: str | None = None) -> None:
        """A client is always usable."""

    def now_us(self) -> int:
        clock = self._clock
        if isinstance(clock, ServerClock) and clock.unasked_s > CLOCK_S:
            with self.store.read(is_single=True) as connection:
                clock.ask(lambda: self._database.now_us(connection))
        return clock.now_us()

    def live_status(self, worker_id: str) -> str | None:
        """None: it owns no worker."""
        return None

    def check_slot(self, flow: str, routine: str, slot: str) -> None:
        self.check_target((flow, routine, slot), None)

    def check_target(self, names: tuple[str, str, str], worker_id: str | None) -> int | None:
        """The limit of the slot that these names lead to, if it has one.

        Raises the error for a wrong name.
        """
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

    def encode(self, flow: str, routine: str, slot: str, data: Any, root: str = "data") -> str:
        """A payload as JSON text. The owner checks it against the slot's model."""
        return validation.encode_payload(None, data, self._max_payload_bytes, root)

    def encode_post(
        self, names: tuple[str, str, str], item: PostItem, at: datetime | None = None, root: str = "data"
    ) -> Post:
        text = validation.encode_payload(None, item.data, self._max_payload_bytes, root)
        metadata = validation.encode_metadata(item.metadata, self._max_payload_bytes)
        due_at = validation.due_at_us(self.now_us(), item.delay, at)
        return validation.make_post(names, text, item.job_id, metadata, due_at)

    def command(self, command: Command) -> None:
        """Give a command to the owner of a worker: durable on return, carried out when the owner looks."""
        if command.worker_id is None:
            raise JobNotFoundError(command.job_id)
        command = validation.checked_command(command)
        with self.store.read() as connection:
            stored = worker_reads.worker_named(connection, str(command.worker_id))
        if stored is None:
            raise WorkerNotFoundError(command.worker_id)
        inbox_writer.ask(self.store, command, stored.flow, self.now_us())

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
