"""What reaches the engine: posts, outcomes, requests. Each that somebody waits for carries a receipt."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeGuard

from routilux.core.activation import Outcome
from routilux.core.mailbox import Run

if TYPE_CHECKING:
    from routilux.runtime.batch import Batch


class Receipt:
    """The answer to an input: set once, after the commit that holds it."""

    __slots__ = ("_done", "error", "is_taken", "value")

    def __init__(self) -> None:
        self._done = threading.Event()
        self.value: Any = None
        self.error: BaseException | None = None
        self.is_taken = False  # the engine has begun with it: whoever gives up now is in doubt

    def resolve(self, value: object) -> None:
        self.value = value
        self._done.set()

    def fail(self, error: BaseException) -> None:
        self.error = error
        self._done.set()

    @property
    def is_done(self) -> bool:
        return self._done.is_set()

    def wait(self, timeout: float | None) -> bool:
        return self._done.wait(timeout)

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


@dataclass(slots=True)
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


@dataclass(slots=True)
class SignalIn:
    """One more message into a running job."""

    worker_id: str
    job_id: str
    routine: str
    slot: str
    payload: str
    receipt: Receipt


@dataclass(slots=True)
class RunEnded:
    """The executor has let go of a run."""

    run: Run


@dataclass(slots=True)
class Request:
    """Something to be done by the engine's thread, inside the next group commit."""

    apply: Callable[[Batch], object]
    receipt: Receipt = field(default_factory=Receipt)


@dataclass(slots=True)
class Task:
    """Something to be done by the engine's thread between two commits, in transactions of its own."""

    run: Callable[[], object]
    receipt: Receipt = field(default_factory=Receipt)


Input = Outcome | RunEnded | PostIn | SignalIn | Request | Task


class InputQueue:
    """Many threads put, the engine's thread takes. `put` costs an append; it wakes only a sleeper."""

    def __init__(self) -> None:
        self._items: deque[Input] = deque()
        self._wake = threading.Event()
        self._is_waiting = False
        self._is_waiting_for_caller = False

    def put(self, item: Input) -> None:
        self._items.append(item)
        if self._is_waiting and (not self._is_waiting_for_caller or is_asked(item)):
            self._wake.set()

    def wake(self) -> None:
        self._wake.set()

    def take(self, most: int) -> list[Input]:
        items = self._items
        taken: list[Input] = []
        while items and len(taken) < most:
            taken.append(items.popleft())
        return taken

    def put_back(self, items: list[Input]) -> None:
        """They come first again, in their order."""
        self._items.extendleft(reversed(items))

    def withdraw(self, receipt: Receipt) -> bool:
        """Take an input back that the engine has not begun with. False: it has."""
        for item in list(self._items):
            if is_asked(item) and item.receipt is receipt:
                try:
                    self._items.remove(item)
                except ValueError:  # the engine was faster
                    return False
                return True
        return False

    def wait(self, timeout: float) -> bool:
        """Sleep until something is put, at most `timeout` seconds. False: nothing has come."""
        self._is_waiting = True
        came = bool(self._items) or self._wake.wait(timeout)
        self._is_waiting = False
        self._wake.clear()
        return came

    def wait_for_caller(self, timeout: float) -> bool:
        """The same until somebody is there who waits for an answer."""
        self._is_waiting_for_caller = True
        self._is_waiting = True
        came = self.has_caller() or self._wake.wait(timeout)
        self._is_waiting = self._is_waiting_for_caller = False
        self._wake.clear()
        return came

    def has_caller(self) -> bool:
        return any(is_asked(item) for item in tuple(self._items))

    def __len__(self) -> int:
        return len(self._items)


def is_asked(item: Input) -> TypeGuard[PostIn | SignalIn | Request | Task]:
    """Whether somebody waits for the answer to it, on its receipt."""
    return type(item) is not Outcome and type(item) is not RunEnded
