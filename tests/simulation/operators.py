"""More engines that are broken on purpose: in what operators ask of workers."""

from __future__ import annotations

from typing import Any

import pytest

from routilux.core.states import WorkerStatus
from routilux.runtime import control, dispatching, keeping
from routilux.runtime.control import Body


def dispatches_though_paused(patch: pytest.MonkeyPatch) -> None:
    """What is ready runs, whether its worker is paused or not."""
    patch.setattr(
        dispatching,
        "_may_run",
        lambda cell: (
            not cell.worker.is_forgotten
            and cell.worker.status != WorkerStatus.CANCELLED
            and cell.can_run
            and len(cell.runs) < cell.compiled.concurrency
        ),
    )


def pause_is_forgotten_on_take_over(patch: pytest.MonkeyPatch) -> None:
    """A worker that is loaded runs."""
    load = keeping.load

    def running(*rest: Any) -> Any:
        cell = load(*rest)
        cell.status = WorkerStatus.RUNNING
        return cell

    patch.setattr(keeping, "load", running)


def runs_go_on_in_a_pause(patch: pytest.MonkeyPatch) -> None:
    """What was handed out before the pause runs to its end, one activation after another."""

    def pause(engine: Any, batch: Any, worker_id: Any, job_id: Any, body: Body) -> None:
        cell = control._worker(engine, worker_id)
        cell.status = WorkerStatus.PAUSED
        keeping.write_worker(batch, cell)

    patch.setitem(control._VERBS, "pause_worker", pause)


def resumes_what_is_ready_only(patch: pytest.MonkeyPatch) -> None:
    """A worker that is resumed waits for something to come in before it looks at what waits already."""

    def resume(engine: Any, batch: Any, worker_id: Any, job_id: Any, body: Body) -> None:
        cell = control._worker(engine, worker_id)
        cell.status = WorkerStatus.RUNNING
        keeping.write_worker(batch, cell)

    patch.setitem(control._VERBS, "resume_worker", resume)
