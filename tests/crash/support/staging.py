"""One group commit that holds every kind of row: the engine is held back until all of it waits in its queue.

a   its last part is at `store`: own row, state, job data, completion
b   its first part is at `work` and fails: a retry
c   is at `split`: two emits, state
d   is posted, with an id of the caller's
e   comes through the inbox, as from another process
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from routilux.engine.group_commit import GroupCommit
from routilux.engine.inputs import PostIn, RunEnded
from routilux.runtime import inbox_writer
from routilux.runtime.runtime import Runtime
from routilux.runtime.validation import make_post
from tests.crash.support import orders
from tests.support.inside_runtime import engine, parts

JOBS = 5
PATIENCE_S = 30.0


class Staging:
    """For one runtime with the flow of `orders`, whose jobs have all ended."""

    def __init__(self, runtime: Runtime, worker: str, first: int, acknowledge: Callable[..., None]) -> None:
        self._runtime = runtime
        self._worker = worker
        self._a, self._b, self._c, self._d, self._e = range(first, first + JOBS)
        self._acknowledge = acknowledge
        self._held = {("store", self._a, 1), ("work", self._b, 0), ("split", self._c, None)}
        self._there = threading.Semaphore(0)
        self._go = threading.Event()
        self._engine: HeldEngine | None = None
        self._poster: threading.Thread | None = None

    def set_up(self) -> None:
        """Everything waits for `commit`; nothing of it is in."""
        orders.is_flaky = False
        orders.gates.append(self._gate)
        for number in (self._a, self._b, self._c):
            self._post(number)
            expect(self._there.acquire(timeout=PATIENCE_S), "logic did not get there")
        self._engine = HeldEngine(self._runtime)
        self._go.set()
        self._engine.await_inputs(RunEnded, 3)
        self._post_by_inbox(self._e)
        self._poster = threading.Thread(target=self._post, args=(self._d,))
        self._poster.start()
        self._engine.await_inputs(PostIn, 1)

    def commit(self) -> None:
        """Let the engine go on, and the post come back."""
        assert self._engine is not None
        assert self._poster is not None
        self._engine.let_go()
        self._poster.join(PATIENCE_S)
        orders.gates.remove(self._gate)

    def _gate(self, routine: str, item: dict[str, Any]) -> None:
        place = (routine, item["number"], item.get("part"))
        if place in self._held:
            self._held.discard(place)
            self._there.release()
            expect(self._go.wait(PATIENCE_S), "nobody opened")
            if routine == "work":
                raise orders.FirstTryError(f"staged for {place}")

    def _post(self, number: int) -> None:
        self._runtime.post(
            orders.FLOW, "split", "input", {"number": number}, self._worker, orders.job_id_of(number)
        )
        self._acknowledge(orders.job_id_of(number))

    def _post_by_inbox(self, number: int) -> None:
        names = (orders.FLOW, "split", "input")
        post = make_post(names, f'{{"number":{number}}}', orders.job_id_of(number), None, None)
        inbox_writer.post_to_owner(self._runtime._host, names, [post], self._worker)
        self._acknowledge(orders.job_id_of(number))


def expect(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(what)


class HeldEngine:
    """It waits before it looks around and takes its inputs, so that one commit has all of them."""

    def __init__(self, runtime: Runtime) -> None:
        self._engine = engine(runtime)
        self._open = threading.Event()
        there, look = threading.Event(), self._engine.look

        def held() -> None:
            del self._engine.look  # type: ignore[method-assign]  # once
            there.set()
            expect(self._open.wait(PATIENCE_S), "the engine was not let go")
            self._engine.parts.inbox.look_soon()
            look()

        self._engine.look = held  # type: ignore[method-assign]
        expect(there.wait(PATIENCE_S), "the engine was not held")

    def let_go(self) -> None:
        self._open.set()

    def await_inputs(self, kind: type, count: int) -> None:
        """Until so many of this kind wait for it."""
        items = self._engine.parts.inputs.items
        for _ in range(3000):
            if sum(isinstance(item, kind) for item in list(items)) >= count:
                return
            threading.Event().wait(0.01)
        raise AssertionError(f"in the queue of the engine: {list(items)}")


def next_group(runtime: Runtime, around: Callable[[Callable[[], None]], None]) -> None:
    """`around` is called with the next group commit of this runtime, once."""
    run = GroupCommit.run

    def running(self: GroupCommit) -> None:
        if self._transactions is not parts(runtime).transactions:
            run(self)
            return
        GroupCommit.run = run  # type: ignore[method-assign]
        around(lambda: run(self))

    GroupCommit.run = running  # type: ignore[method-assign]
