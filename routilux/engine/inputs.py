"""What reaches the engine: posts, outcomes, requests. Each that somebody waits for carries a receipt."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeGuard

from routilux.core.outcome import Outcome
from routilux.core.run import Run

if TYPE_CHECKING:
    from routilux.engine.batch import Batch


class Bell:
    """Wakes one thread that waits; what rings before stays heard. An `Event` does the same in Python, at twice the cost."""

    __slots__ = ("_rung",)

    def __init__(self) -> None:
        self._rung: SimpleQueue[None] = SimpleQueue()

    def ring(self) -> None:
        self._rung.put(None)

    def wait(self, timeout: float | None) -> bool:
        """At most `timeout` seconds. False: nothing rang."""
        try:
            self._rung.get(timeout=None if timeout is None else max(0.0, timeout))
        except Empty:
            return False
        return True

    def hush(self) -> None:
        """Forget what rang; called by the thread that waits."""
        while not self._rung.empty():
            self._rung.get()


class Receipt:
    """The answer to an input: set once, after the commit that holds it. One thread waits for it."""

    __slots__ = ("_bell", "error", "is_done", "is_taken", "value")

    def __init__(self) -> None:
        self._bell = Bell()
        self.is_done = False
        self.value: Any = None
        self.error: BaseException | None = None
        self.is_taken = False  # the engine has begun with it: whoever gives up now is in doubt

    def resolve(self, value: object) -> None:
        self.value = value
        self._answer()

    def fail(self, error: BaseException) -> None:
        self.error = error
        self._answer()

    def _answer(self) -> None:
        self.is_done = True
        self._bell.ring()

    def wait(self, timeout: float | None) -> bool:
        """Until it is set, at most `timeout` seconds. False: it is not."""
        return self.is_done or self._bell.wait(timeout)

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
class SignalIn:
    """One more message into a running job."""

    worker_id: str
    job_id: str
    routine: str
    slot: str
    payload: str
    receipt: Receipt


@dataclass(slots=True, eq=False)
class RunEnded:
    """The executor has let go of a run."""

    run: Run


@dataclass(slots=True, eq=False)
class Request:
    """Something to be done by the engine's thread, inside the next group commit."""

    apply: Callable[[Batch], object]
    receipt: Receipt = field(default_factory=Receipt)


@dataclass(slots=True, eq=False)
class Task:
    """Something to be done by the engine's thread between two commits, in transactions of its own."""

    run: Callable[[], object]
    receipt: Receipt = field(default_factory=Receipt)


Input = Outcome | RunEnded | PostIn | SignalIn | Request | Task


class InputQueue:
    """Many threads put, the engine's thread takes. `put` costs an append; it wakes only a sleeper.

    Inputs are compared by identity: a comparison in Python would let other threads change the queue in the middle of a removal.
    """

    def __init__(self) -> None:
        self._items: deque[Input] = deque()
        self._callers: deque[None] = deque()  # one for each of them: counted by all threads, without a lock
        self._bell = Bell()
        self._is_waiting = False
        self._is_woken = False  # by somebody who put nothing, and not noticed yet
        self._wanted = 0  # so many callers are waited for; 0: for anything

    def put(self, item: Input) -> None:
        if is_asked(item):
            self._callers.append(None)
        self._items.append(item)
        if self._is_waiting and len(self._callers) >= self._wanted:
            self._bell.ring()

    def wake(self) -> None:
        """There is something to look at. What it is must be there before."""
        self._is_woken = True
        self._bell.ring()

    def take(self, most: int) -> list[Input]:
        items = self._items
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
        self._items.extendleft(reversed(items))

    def withdraw(self, receipt: Receipt) -> bool:
        """Take an input back that the engine has not begun with. False: it has."""
        for item in list(self._items):
            if is_asked(item) and item.receipt is receipt:
                try:
                    self._items.remove(item)
                except ValueError:  # the engine was faster
                    return False
                self._count_out([item])
                return True
        return False

    def _count_out(self, items: list[Input]) -> None:
        for _ in filter(is_asked, items):
            self._callers.pop()

    def wait(self, timeout: float) -> bool:
        """Sleep until something is put or somebody wakes, at most `timeout` seconds. False: neither."""
        self._is_waiting = True
        came = bool(self._items) or self._is_woken or self._bell.wait(timeout)
        self._is_waiting = False
        self._bell.hush()
        if self._is_woken:  # only what was seen is cleared: a wake-up after this look ends the next sleep
            self._is_woken = False
            return True
        return came

    def wait_for_callers(self, wanted: int, timeout: float) -> bool:
        """Sleep until so many are there who wait for an answer, or somebody wakes. False: they are not there."""
        self._wanted = wanted
        self._is_waiting = True
        if self.callers < wanted and not self._is_woken:
            self._bell.wait(timeout)
        self._is_waiting = False
        self._wanted = 0
        self._bell.hush()
        return self.callers >= wanted

    @property
    def callers(self) -> int:
        """So many of those who put something wait for an answer."""
        return len(self._callers)

    def __len__(self) -> int:
        return len(self._items)


def is_asked(item: Input) -> TypeGuard[PostIn | SignalIn | Request | Task]:
    """Whether somebody waits for the answer to it, on its receipt."""
    return type(item) is not Outcome and type(item) is not RunEnded
