"""What reaches the engine: posts, outcomes, commands, tasks.

An input that a caller waits for carries a receipt.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, TypeGuard

from routilux.core.outcome import Outcome
from routilux.core.run import Run
from routilux.engine.commands import Command


class WakeUp:
    """Wakes one thread that waits.

    A wake-up before the wait counts. An `Event` does the same at twice the cost.
    """

    __slots__ = ("_calls",)

    def __init__(self) -> None:
        self._calls: SimpleQueue[None] = SimpleQueue()

    def set(self) -> None:
        self._calls.put(None)

    def wait(self, timeout: float | None) -> bool:
        """Wait at most `timeout` seconds. Returns False if no wake-up came."""
        try:
            self._calls.get(timeout=None if timeout is None else max(0.0, timeout))
        except Empty:
            return False
        return True

    def clear(self) -> None:
        """Forget the wake-ups so far; called by the thread that waits."""
        while not self._calls.empty():
            self._calls.get()


class Receipt:
    """The answer to an input: set once, after the commit that holds it. One thread waits for it."""

    __slots__ = ("_wake_up", "error", "is_done", "is_taken", "value")

    def __init__(self) -> None:
        self._wake_up = WakeUp()
        self.is_done = False
        self.value: Any = None
        self.error: BaseException | None = None
        self.is_taken = False  # the engine has begun with it: a caller that gives up now is in doubt

    def resolve(self, value: object) -> None:
        self.value = value
        self._answer()

    def fail(self, error: BaseException) -> None:
        self.error = error
        self._answer()

    def _answer(self) -> None:
        self.is_done = True
        self._wake_up.set()

    def wait(self, timeout: float | None) -> bool:
        """Wait at most `timeout` seconds. Returns whether the answer is there."""
        return self.is_done or self._wake_up.wait(timeout)

    def get(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.value


@dataclass(slots=True)
class Post:
    """One message to be accepted, checked and encoded already."""

    job_id: str
    payload: str
    metadata: str | None = None
    due_at: int | None = None
    fingerprint: str | None = None  # set: the caller chose the id, so it is an idempotency key


@dataclass(slots=True, eq=False)
class PostIn:
    """Messages for one slot of one worker; all of them go in, or none."""

    flow_name: str
    worker_id: str
    routine: str
    slot: str
    posts: list[Post]
    receipt: Receipt
    deadline: float | None = None  # monotonic: how long to wait for room in a full slot
    inbox_id: int | None = None


@dataclass(slots=True, eq=False)
class RunEnded:
    """The executor has let go of a run."""

    run: Run


@dataclass(slots=True, eq=False)
class CommandIn:
    """A command that the next group commit carries out."""

    command: Command
    receipt: Receipt = field(default_factory=Receipt)


@dataclass(slots=True, eq=False)
class Task:
    """Something to be done by the engine's thread between two commits, in transactions of its own."""

    run: Callable[[], object]
    receipt: Receipt = field(default_factory=Receipt)


Input = Outcome | RunEnded | PostIn | CommandIn | Task


class InputQueue:
    """Many threads put, the engine's thread takes. `put` costs an append; it wakes only a sleeper.

    Inputs are compared by identity. A comparison in Python would let other threads change the queue during a
    removal.
    """

    def __init__(self) -> None:
        self.items: deque[Input] = deque()  # others only look whether there are any
        self._callers: deque[None] = deque()  # one for each caller: all threads count, without a lock
        self._wake_up = WakeUp()
        self._is_waiting = False
        self._is_woken = False  # without an input, and not noticed yet
        self.is_told = False  # another process has told of a row in the inbox
        self._wanted = 0  # wait for so many callers; 0: for anything

    def put(self, item: Input) -> None:
        if is_asked(item):
            self._callers.append(None)
        self.items.append(item)
        if self._is_waiting and len(self._callers) >= self._wanted:
            self._wake_up.set()

    def wake(self) -> None:
        """Wake the engine to look at something. It must be there before this call."""
        self._is_woken = True
        self._wake_up.set()

    def tell(self) -> None:
        """Another process has told of a row in the inbox. Wakes the engine."""
        self.is_told = True
        self.wake()

    def take_told(self) -> bool:
        """Whether `tell` was called since the last time."""
        is_told, self.is_told = self.is_told, False
        return is_told

    def take(self, most: int) -> list[Input]:
        items = self.items
        taken: list[Input] = []
        while items and len(taken) < most:
            try:
                taken.append(items.popleft())
            except IndexError:  # the last one was withdrawn meanwhile
                break
        self._count_out(taken)
        return taken

    def put_back(self, items: list[Input]) -> None:
        """They come first again, in their order."""
        self._callers.extend(None for item in items if is_asked(item))
        self.items.extendleft(reversed(items))

    def withdraw(self, receipt: Receipt) -> bool:
        """Take an input back. Returns False if the engine has begun with it."""
        for item in list(self.items):
            if is_asked(item) and item.receipt is receipt:
                try:
                    self.items.remove(item)
                except ValueError:  # the engine was faster
                    return False
                self._count_out([item])
                return True
        return False

    def _count_out(self, items: list[Input]) -> None:
        for _ in filter(is_asked, items):
            self._callers.pop()

    def wait(self, timeout: float) -> bool:
        """Sleep until something is put or `wake` is called, at most `timeout` seconds.

        Returns whether it was.
        """
        self._is_waiting = True
        came = bool(self.items) or self._is_woken or self._wake_up.wait(timeout)
        self._is_waiting = False
        self._wake_up.clear()
        if self._is_woken:  # a wake-up after this look ends the next sleep
            self._is_woken = False
            return True
        return came

    def wait_for_callers(self, wanted: int, timeout: float) -> bool:
        """Sleep until so many callers wait for an answer, or `wake` is called.

        Returns whether they are there.
        """
        self._wanted = wanted
        self._is_waiting = True
        if self.callers < wanted and not self._is_woken:
            self._wake_up.wait(timeout)
        self._is_waiting = False
        self._wanted = 0
        self._wake_up.clear()
        return self.callers >= wanted

    @property
    def callers(self) -> int:
        """How many inputs have a caller that waits for the answer."""
        return len(self._callers)

    def __len__(self) -> int:
        return len(self.items)


def is_asked(item: Input) -> TypeGuard[PostIn | CommandIn | Task]:
    """Whether a caller waits for the answer to it, on its receipt."""
    return type(item) is not Outcome and type(item) is not RunEnded
