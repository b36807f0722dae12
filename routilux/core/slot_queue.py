"""The waiting messages of one slot of one worker, in memory.

It keeps a *window*: the first waiting messages by seq, as many as fit. The other messages stay on disk.
When the window runs low, the next messages are read, a quarter of a window at a time. So ten million
waiting messages cost disk, not memory. `waiting` counts all of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

from routilux.core.message import Job, Message

if TYPE_CHECKING:
    from routilux.core.slot import Slot

WINDOW = 16_384
WINDOW_BYTES = 16 * 1024 * 1024


class SlotQueue:
    """One slot of one worker."""

    __slots__ = (
        "has_more",
        "held_bytes",
        "items",
        "loaded_to",
        "name",
        "spec",
        "waiting",
        "window",
        "window_bytes",
    )

    def __init__(self, spec: Slot, window: int = WINDOW) -> None:
        self.name = spec.name
        self.spec = spec
        self.window = window
        self.window_bytes = WINDOW_BYTES
        self.items: deque[Message] = deque()
        self.held_bytes = 0
        self.waiting = 0  # in the window, on disk and in runs: everything not yet consumed
        self.has_more = False
        self.loaded_to = 0  # every waiting message up to this seq is or was in the window

    def push(self, seq: int, job: Job, text: str, now: int, produced_by: int | None) -> None:
        """Add a message to the end. If it does not fit into the window, it stays on disk."""
        self.waiting += 1
        if self.has_more or len(self.items) >= self.window or self.held_bytes > self.window_bytes:
            self.has_more = True
            return
        self.items.append(Message(seq, job, self.name, text, now, produced_by))
        self.held_bytes += len(text)
        self.loaded_to = seq

    def leave(self, count: int = 1) -> None:
        """So many messages wait no more."""
        self.waiting -= count

    def start_at(self, waiting: int, low_seq: int) -> None:
        """Before the first read: so many wait, none of them below `low_seq`."""
        self.waiting = waiting
        self.has_more = waiting > 0
        self.loaded_to = low_seq - 1

    def end_of_read(self, *, is_full: bool) -> None:
        """After a read: whether there may be more on disk."""
        self.has_more = is_full

    def take_first(self, most: int) -> list[Message]:
        """Up to `most` messages from the head of the line."""
        take = self.items.popleft
        taken = [take() for _ in range(min(most, len(self.items)))]
        self.held_bytes -= sum([len(message.payload) for message in taken])
        return taken

    def load(self, message: Message) -> None:
        """Add a message to the window. It is already counted."""
        self.items.append(message)
        self.held_bytes += len(message.payload)
        self.loaded_to = message.seq

    def pop(self) -> Message:
        message = self.items.popleft()
        self.held_bytes -= len(message.payload)
        return message

    def give_back(self, messages: Iterable[Message]) -> None:
        """Put unused messages back to their places in the queue."""
        returned = sorted(messages, key=lambda message: message.seq)
        self.held_bytes += sum(len(message.payload) for message in returned)
        if returned and self.items and returned[-1].seq > self.items[0].seq:
            # A join takes from the middle of the queue. The head must keep the smallest seq.
            self.items = deque(sorted([*returned, *self.items], key=lambda message: message.seq))
        else:
            self.items.extendleft(reversed(returned))

    def remove(self, seqs: set[int]) -> None:
        kept = [message for message in self.items if message.seq not in seqs]
        self.held_bytes = sum(len(message.payload) for message in kept)
        self.items = deque(kept)

    @property
    def wants_more(self) -> bool:
        is_low = len(self.items) <= self.window // 4 and self.held_bytes <= self.window_bytes // 4
        return self.has_more and is_low

    @property
    def room(self) -> tuple[int, int]:
        """How many messages and bytes the next read may bring."""
        return max(1, self.window // 4), max(1, self.window_bytes - self.held_bytes)

    def widen(self, by: int) -> None:
        """Make the window larger: a join still needs a partner, or a batch is larger than the window."""
        if self.has_more:
            self.window = 4 * len(self.items) + by
            self.window_bytes = 4 * self.held_bytes + WINDOW_BYTES

    @property
    def is_full(self) -> bool:
        limit = self.spec.max_queue_length
        return limit is not None and self.waiting >= limit
