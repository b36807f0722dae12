"""Where a process is, told to its black box; and its own death at a chosen pass through a phase.

It wraps functions of the engine from outside: the engine has no code for tests beside the two hooks of its
writer.
"""

from __future__ import annotations

import fcntl
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from routilux.core.context import required_activation
from routilux.engine import acceptance
from routilux.engine.engine import Engine
from routilux.engine.worker_table import WorkerTable
from routilux.execution.performer import Performer
from routilux.ownership import handover, takeover
from routilux.ownership.lease import Lease
from routilux.ownership.takeover import Takeover
from routilux.runtime.runtime import Runtime
from routilux.store.writes import ownership
from routilux.store.writes.store import Commit, Store
from tests.crash.support import orders
from tests.crash.support.black_box import DONE, OPEN, SENT, BlackBox
from tests.support.inside_runtime import identity, writer


class Death:
    """SIGKILL to itself at the n-th pass through a phase; in COMMIT a thread does it a moment after it was
    sent.
    """

    def __init__(self, box: BlackBox, phase: str | None, passes: int, delay_us: int) -> None:
        self._box = box
        self._phase = phase
        self._left = passes
        self._delay_s = delay_us / 1e6
        self._lock = threading.Lock()
        self._go = threading.Semaphore(0)
        if phase == "in COMMIT":
            threading.Thread(target=self._strike, daemon=True).start()

    def passing(self, phase: str) -> None:
        if phase != self._phase:
            return
        with self._lock:
            self._left -= 1
            if self._left != 0:
                return
            if phase == "in COMMIT":
                self._go.release()
                return
            self._box.plan(phase)
            die()

    def _strike(self) -> None:
        self._go.acquire()
        if self._delay_s:
            time.sleep(self._delay_s)
        die()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def install(box: BlackBox, death: Death) -> None:
    """Before a runtime is made."""
    _watch_logic(box, death)
    _watch_commits(box, death)
    _watch_posts(box, death)
    _watch_recovery(box, death)


def _watch_logic(box: BlackBox, death: Death) -> None:
    run_one = Performer._run_one

    def running(self: Performer, *arguments: Any) -> Any:
        box.logic(1)
        try:
            return run_one(self, *arguments)
        finally:
            box.logic(-1)

    Performer._run_one = running  # type: ignore[method-assign]
    orders.gates.append(lambda routine, item: death.passing("in logic"))


def _watch_commits(box: BlackBox, death: Death) -> None:
    begin, step = Store.commit, Engine.step

    @contextmanager
    def commit(self: Store, runtime: int) -> Iterator[Commit]:
        with begin(self, runtime) as current:
            box.commit(OPEN)
            yield current

    def stepping(self: Engine, inputs: Any) -> None:
        try:
            step(self, inputs)
        finally:
            box.commit(0)

    Store.commit = commit  # type: ignore[method-assign]
    Engine.step = stepping  # type: ignore[method-assign]
    start = Runtime.__init__

    def starting(self: Runtime, *arguments: Any, **options: Any) -> None:
        start(self, *arguments, **options)
        commits = writer(self)

        def before_commit(connection: Any) -> None:
            death.passing("before COMMIT")
            box.commit(SENT)
            death.passing("in COMMIT")

        def after_commit() -> None:
            box.commit(DONE)
            death.passing("after COMMIT")

        commits.before_commit, commits.after_commit = before_commit, after_commit

    Runtime.__init__ = starting  # type: ignore[method-assign]


def _watch_posts(box: BlackBox, death: Death) -> None:
    accept = acceptance.accept

    def accepting_one(*arguments: Any) -> None:
        box.posts()
        accept(*arguments)
        death.passing("posting")

    acceptance.accept = accepting_one


def _watch_recovery(box: BlackBox, death: Death) -> None:
    run_once, bury, take, load = (
        Takeover.run_once,
        ownership.mark_runtime_dead,
        ownership.take,
        WorkerTable.load,
    )

    def taking_over(self: Takeover) -> int:
        box.recovering(True)
        try:
            return run_once(self)
        finally:
            box.recovering(False)

    def burying(*arguments: Any) -> None:
        death.passing("recovering")
        bury(*arguments)
        death.passing("recovering")

    def taking(*arguments: Any) -> bool:
        taken = take(*arguments)
        death.passing("recovering")
        return taken

    def loading(*arguments: Any) -> Any:
        box.loading(True)
        cell = load(*arguments)
        death.passing("loading")
        box.loading(False)
        return cell

    Takeover.run_once = taking_over  # type: ignore[method-assign]
    WorkerTable.load = loading  # type: ignore[method-assign]
    ownership.mark_runtime_dead, ownership.take = burying, taking
    assert handover.ownership is takeover.ownership is ownership


class Stop:
    """SIGSTOP to itself, once, with no transaction of this process open: a stop inside one would stop a
    SQLite file.
    """

    def __init__(self, commits: int, where: str) -> None:
        self._left = commits
        self._where = where
        self._writing = threading.RLock()
        self.runtime_key = 0

    def install(self, runtime: Runtime) -> None:
        self.runtime_key = identity(runtime)
        _hold(self._writing, Lease, "renew")
        if self._where == "after COMMIT":
            writer(runtime).after_commit = self._after_commit
        else:
            _hold(self._writing, Engine, "step")
            orders.gates.append(self._in_logic)

    def _after_commit(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._now()

    def _in_logic(self, routine: str, item: Any) -> None:
        if routine == "store":
            self._left -= 1
            if self._left == 0:
                self._now()

    def _now(self) -> None:
        with self._writing:
            signal.pthread_kill(
                threading.get_ident(), signal.SIGSTOP
            )  # this thread does not go on; `kill` lets it


def _hold(lock: Any, owner: type, name: str) -> None:
    """The method runs under a lock."""
    method = getattr(owner, name)

    def held(*arguments: Any) -> Any:
        with lock:
            return method(*arguments)

    setattr(owner, name, held)


class OneProcess:
    """Logic of a worker marks it with a lock of its process; one that another process has is a promise
    broken.
    """

    def __init__(self, path: str, workers: list[str]) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT)
        self._workers = workers
        self._lock = threading.Lock()

    def entering(self, routine: str, item: Any) -> None:
        activation = required_activation("logic")
        byte = self._workers.index(str(activation.worker_state.worker_id))
        with self._lock:
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
            except OSError:
                print(f"{os.getpid()}: worker {self._workers[byte]} runs in two processes", flush=True)
                os._exit(9)
