"""`DeadLetter`: messages that were given up, with what can be done about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from routilux.core import payload
from routilux.engine.commands import Command, DropDeadLetter, RetryDeadLetter
from routilux.errors import DeadLetterGoneError
from routilux.runtime.host import Host
from routilux.store.reads import dead_letter_rows
from routilux.store.records import DeadLetterRecord


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Messages that were given up, with the error. They stay until they are sent again or dropped.

    It has the fields of its `DeadLetterRecord`: worker_id, flow_id, job_id, routine_id, messages, attempt,
    deaths, error_type, error, traceback, dead_since.
    """

    record: DeadLetterRecord
    _host: Host = field(repr=False, compare=False)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.record, name)

    @property
    def payloads(self) -> list[Any]:
        """A copy of the payload of each of its messages."""
        return [payload.decode(message.payload) for message in self.record.messages]

    def retry(self, payload: Mapping[str, Any] | None = None) -> None:
        """Send it again, with another payload if one is given.

        Its job is open again; the attempt count is reset.

        Raises `DeadLetterGoneError` if another operator was first, and what `post` raises for a payload.
        """
        record = self.record
        flow, routine, slot = record.flow_id, record.routine_id, record.messages[0].slot
        text = None if payload is None else self._host.encode(flow, routine, slot, payload, "payload")
        self._command(RetryDeadLetter(record.worker_id, record.job_id, record.key[1], text))

    def drop(self, reason: str) -> None:
        """Give it up for good: its messages are cancelled, history stays. Raises `DeadLetterGoneError`."""
        record = self.record
        self._command(DropDeadLetter(record.worker_id, record.job_id, record.key[1], reason))

    def _command(self, command: Command) -> None:
        with self._host.store.read() as connection:
            if dead_letter_rows.dead_letter(connection, *self.record.key) is None:
                raise DeadLetterGoneError(self.record.key[1])
        self._host.command(command)
