"""A running runtime, from the side of its callers: give something to its engine, wait for the answer."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

from routilux.core.context import current_activation
from routilux.engine.commands import Command
from routilux.engine.inputs import CommandIn, Task
from routilux.engine.settings import Settings
from routilux.errors import (
    CalledInLogicError,
    DatabaseUnavailableError,
    ForkedRuntimeError,
    JobNotFoundError,
    RuntimeShutDownError,
    WorkerNotFoundError,
)
from routilux.runtime import inbox_writer, shutdown, validation, waiting, workers
from routilux.runtime.job_ends import JobEnds, PostedElsewhere
from routilux.runtime.wiring import RunningParts


class LocalHost:
    """Owns whether the runtime may be used, who waits for which job, and what it posted to other runtimes."""

    def __init__(self, running: RunningParts, ends: JobEnds) -> None:
        self.running = running
        self.parts = running.parts
        self.engine = running.engine
        self.handover = running.assembly.handover
        self.drive = running.drive
        self.store = running.parts.transactions.store
        self.ends = ends
        self.elsewhere = PostedElsewhere(self.store)
        self._pid = os.getpid()
        self._is_shut_down = False
        self._stopping = threading.RLock()

    @property
    def settings(self) -> Settings:
        return self.parts.settings

    # whether it may be used

    def check_usable(self, waits: str | None = None) -> None:
        """Raises for a runtime that is shut down or forked, and for a call that would wait inside logic."""
        if self._pid != os.getpid():
            raise ForkedRuntimeError
        if self._is_shut_down:
            raise RuntimeShutDownError("Runtime is shut down")
        if waits is not None and current_activation() is not None:
            raise CalledInLogicError(f"{waits}()")

    @property
    def is_running(self) -> bool:
        """False once its engine has stopped."""
        return self.drive.is_running

    # what the engine's thread does for a caller

    def call(self, work: Callable[[], object]) -> Any:
        """Do something in the engine's thread, between two commits, and wait for its answer."""
        return self._answer_to(Task(work))

    def _answer_to(self, entry: Task | CommandIn) -> Any:
        """Give something to the engine and wait for its answer. Raises that, or `RuntimeShutDownError`."""
        receipt = entry.receipt
        self.parts.inputs.put(entry)
        while not self.drive.wait_reply(receipt, 1.0):
            # it may have been answered just before the end
            if not self.is_running and not receipt.is_done:
                was_begun = receipt.is_taken and not isinstance(entry, Task)
                doubt = "; it is not known whether this was stored" if was_begun else ""
                raise RuntimeShutDownError(f"Runtime is shut down{doubt}")
        return receipt.get()

    def command(self, command: Command) -> None:
        """Run a command here if this runtime owns or can take the worker; else send it to the owner."""
        worker_id = command.worker_id
        if worker_id is None:
            raise JobNotFoundError(command.job_id)
        if not isinstance(worker_id, str):
            raise WorkerNotFoundError(worker_id)
        command = validation.checked_command(command)
        while True:
            if self.parts.workers.get(worker_id) is None:
                stored = workers.stored(self, worker_id)
                if stored is None:
                    raise WorkerNotFoundError(worker_id)
                can_serve = self.parts.workers.flows.has(stored.flow)
                if not can_serve or not workers.resume(self, worker_id):
                    inbox_writer.ask(self.store, command, stored.flow, self.now_us())
                    return
            try:
                self._answer_to(CommandIn(command))
                return
            except WorkerNotFoundError:
                continue  # another runtime owns it now

    # what handles ask

    def now_us(self) -> int:
        return self.parts.clock.now_us()

    def live_status(self, worker_id: str) -> str | None:
        """The status of a worker that this runtime owns. Returns None for all others."""
        cell = self.parts.workers.get(worker_id)
        if cell is None or cell.is_forgotten:
            return None
        if cell.status == "running":
            return "running" if cell.has_work else "idle"
        return str(cell.status)

    def wait_for(self, job_id: str, timeout: float | None) -> bool:
        """What `JobContext.wait` does."""
        if current_activation() is not None:
            raise CalledInLogicError("job.wait()")
        return waiting.job(self, job_id, timeout)

    def check_slot(self, flow: str, routine: str, slot: str) -> None:
        if self.parts.workers.flows.has(flow):
            validation.slot_of(self.parts.workers.flows.get(flow), flow, routine, slot)

    def encode(self, flow: str, routine: str, slot: str, data: Any, root: str = "data") -> str:
        """A payload as JSON text, checked as `post` does; against the slot if the flow is registered here."""
        spec = None
        if self.parts.workers.flows.has(flow):
            spec = validation.slot_of(self.parts.workers.flows.get(flow), flow, routine, slot)
        return validation.encode_payload(spec, data, self.settings.max_payload_bytes, root)

    # the end

    def shut_down(self, *, wait: bool, timeout: float) -> bool:
        """What `Runtime.shutdown` does."""
        if self._pid != os.getpid():
            return True
        if current_activation() is not None:
            raise CalledInLogicError("shutdown()")
        timeout = validation.seconds(timeout, "timeout")
        deadline = time.monotonic() + timeout
        finished = not wait or self._is_shut_down or self._finishes(timeout)
        if not self._stopping.acquire(timeout=max(0.0, deadline - time.monotonic())):
            return False  # another thread shuts it down
        try:
            # perhaps another thread did, or a signal handler, which need not wait for this one
            return self._is_shut_down or (self._stop(deadline) and finished)
        finally:
            self._stopping.release()

    def _stop(self, deadline: float) -> bool:
        self._is_shut_down = True
        try:
            return shutdown.stop(self.running, max(0.5, deadline - time.monotonic()))
        except BaseException:  # interrupted: it can be called again
            self._is_shut_down = False
            raise

    def _finishes(self, timeout: float) -> bool:
        try:
            return waiting.all_jobs(self, timeout)
        except (DatabaseUnavailableError, RuntimeShutDownError) as error:  # it stops all the same
            self.parts.facts.report("shutdown.unknown_jobs", error=error)
            return False
