"""`Run`: the unit of work that the engine gives to an executor."""

from __future__ import annotations

from collections.abc import Iterator

from routilux.core.mailbox import RoutineCell
from routilux.core.message import Activation, Message


class Run:
    """Activations of one routine. An executor runs them one after another."""

    __slots__ = (
        "activations",
        "cell",
        "is_alone",
        "is_ask",
        "is_broken",
        "is_in_line",
        "running",
        "settled",
        "should_stop",
        "snapshot",
    )

    def __init__(
        self,
        cell: RoutineCell,
        activations: list[Activation],
        *,
        is_alone: bool = False,
        is_in_line: bool = False,
    ) -> None:
        self.cell = cell
        self.activations = activations
        self.is_in_line = is_in_line  # one message each, ordered by seq
        self.is_alone = is_alone
        self.is_ask = False  # its policy is user code: the executor calls it first
        self.snapshot: dict[str, list[Message]] = {}
        # the activation that the executor runs now, and its start (monotonic)
        self.running: tuple[Activation, float] | None = None
        self.settled = 0  # how many outcomes the engine has applied
        self.is_broken = False  # an outcome was not committed: the activations after it run again
        self.should_stop = False

    def stop(self) -> None:
        """End after the activation that runs now."""
        self.should_stop = True

    def break_off(self) -> None:
        """An outcome did not go in: drop those after it, which run again."""
        self.is_broken = self.should_stop = True

    def begin(self, activation: Activation, now_s: float) -> None:
        """Called by the executor before each activation. `now_s` is monotonic."""
        self.running = (activation, now_s)

    def ask(self, snapshot: dict[str, list[Message]]) -> None:
        """The executor asks a user's policy what to take of these messages."""
        self.is_ask = True
        self.snapshot = snapshot

    @property
    def unsettled(self) -> list[Activation]:
        return self.activations[self.settled :]

    def held_messages(self) -> Iterator[Message]:
        """All messages that it holds: of its activations, settled ones too, and those that it asks about."""
        for activation in self.activations:
            yield from activation.messages
        for items in self.snapshot.values():
            yield from items

    def in_flight(self) -> list[object]:
        """[worker, routine, first seq, last seq, alone, parked row]: the suspects if this process dies."""
        rest = self.unsettled
        if self.is_ask:
            seqs = [message.seq for items in self.snapshot.values() for message in items]
        elif self.is_in_line and rest:
            seqs = [rest[0].messages[0].seq, rest[-1].messages[0].seq]
        else:
            seqs = [message.seq for activation in rest for message in activation.messages]
        rerun = rest[0].rerun.key if len(rest) == 1 and rest[0].rerun is not None else None
        return [
            self.cell.worker.key,
            self.cell.routine_id,
            min(seqs, default=0),
            max(seqs, default=0),
            int(self.is_alone),
            rerun,
        ]
