"""The inside of a runtime: for tests that look at its engine, hold it back, or disturb its database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from routilux.core.mailbox import WorkerCell
from routilux.engine.engine import Engine
from routilux.engine.turn import Parts
from routilux.ownership.alarm import Alarm
from routilux.ownership.handover import Handover
from routilux.ownership.lease import Lease
from routilux.runtime import Client, Runtime
from routilux.store.writes.store import Store


def parts(runtime: Runtime) -> Parts:
    return runtime._host.parts


def engine(runtime: Runtime) -> Engine:
    return runtime._host.engine


def store(process: Runtime | Client) -> Store:
    return process._host.store


def writer(runtime: Runtime) -> Any:
    """Who writes the commits; its hooks `before_commit` and `after_commit` are for tests."""
    return store(runtime)._writer


def handover(runtime: Runtime) -> Handover:
    return runtime._host.running.assembly.handover


def lease(runtime: Runtime) -> Lease:
    return runtime._host.running.lease


def alarm(runtime: Runtime) -> Alarm:
    return runtime._host.running.alarm


def identity(runtime: Runtime) -> int:
    """The key under which it is registered now."""
    return parts(runtime).transactions.runtime_key


def looks(runtime: Runtime) -> int:
    """How often it has looked at the whole database."""
    return runtime._host.running.assembly.reconciler.runs


def owns(runtime: Runtime, worker_id: str) -> bool:
    return parts(runtime).workers.get(worker_id) is not None


def worker(runtime: Runtime, worker_id: str) -> WorkerCell:
    """A worker that it owns."""
    return parts(runtime).workers.by_id[worker_id]


def between_commits(runtime: Runtime, work: Callable[[], Any]) -> Any:
    """Do something in the engine's thread, between two commits. Returns the answer."""
    return runtime._host.call(work)


def posted_elsewhere(runtime: Runtime) -> set[str]:
    """Ids of the jobs that others run for it, as far as it remembers."""
    return runtime._host.elsewhere.job_ids
