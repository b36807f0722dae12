"""What handles and verbs need of the process that they belong to: a running runtime, or a client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from routilux.engine.commands import Command
from routilux.engine.engine import Engine
from routilux.engine.parts import Parts
from routilux.engine.settings import Settings
from routilux.ownership.handover import Handover
from routilux.runtime.drive import Drive
from routilux.runtime.job_ends import JobEnds, PostedElsewhere
from routilux.store.writes.store import Store


class Host(Protocol):
    """`LocalHost` runs an engine; `RemoteHost` only writes to the inbox of those that do."""

    store: Store

    def check_usable(self, waits: str | None = None) -> None:
        """Raises for a runtime that is shut down or forked, and for a call that would wait inside logic."""

    def now_us(self) -> int:
        """The time by which messages are due, µs since 1970."""

    def live_status(self, worker_id: str) -> str | None:
        """The status of a worker that this process owns. Returns None for all others."""

    def command(self, command: Command) -> None:
        """Give a command to the owner of its worker. Durable on return."""

    def wait_for(self, job_id: str, timeout: float | None) -> bool:
        """Wait until a job has ended. Returns False after `timeout` seconds."""

    def check_slot(self, flow: str, routine: str, slot: str) -> None:
        """Raises the error for a routine or slot that the flow does not have.

        It is checked only as far as its definition is known.
        """

    def encode(self, flow: str, routine: str, slot: str, data: Any, root: str = "data") -> str:
        """A payload as JSON text, checked as far as this process knows the slot."""


class EngineHost(Host, Protocol):
    """A host with an engine of its own: a running runtime."""

    parts: Parts
    engine: Engine
    handover: Handover
    drive: Drive
    ends: JobEnds
    elsewhere: PostedElsewhere

    @property
    def settings(self) -> Settings: ...

    @property
    def is_running(self) -> bool:
        """False once its engine has stopped."""

    def call(self, work: Callable[[], object]) -> Any:
        """Do something in the engine's thread, between two commits, and wait for its answer."""
