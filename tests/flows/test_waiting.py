"""Waits cover everything that was accepted, and return True, or False after their timeout."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from routilux import WorkerState
from tests.flows.flows import Gate, SeenNumbers, Step, chain, count, post, running


def test_waits_end_at_the_end_or_at_their_timeout(database: str) -> None:
    gate = Gate()
    with running(database, chain(Step(gate))) as runtime:
        assert runtime.wait_until_all_jobs_finished(5)
        assert runtime.wait_until_all_workers_idle(5)
        job = post(runtime, {})
        assert gate.begun.wait(10)
        for wait in (job.wait, runtime.wait_until_all_jobs_finished, runtime.wait_until_all_workers_idle):
            began = time.monotonic()
            assert wait(0.1) is False
            assert time.monotonic() - began >= 0.1
        assert job.wait(0) is False
        with pytest.raises(TimeoutError, match=r"has not ended after 0\.05 s"):
            job.result(0.05)
        gate.go.set()
        assert runtime.wait_until_all_jobs_finished() is True
        assert (job.wait(0), job.result(0)) == (True, None)
        late = post(runtime, {}, delay=3600)
        assert runtime.wait_until_all_workers_idle(5) is True
        assert runtime.wait_until_all_jobs_finished(0.05) is False
        late.cancel()


def test_a_wait_covers_what_was_accepted_just_before(database: str) -> None:
    seen = SeenNumbers()
    with running(
        database, chain(Step(lambda step, data, state: step.emit("output", n=1)), Step(seen))
    ) as runtime:
        for n in range(1, 11):
            post(runtime, {})
            assert runtime.wait_until_all_jobs_finished(10)
            assert len(seen.items) == n


@pytest.mark.settled_row(5)
def test_row_05_waiting_answers_with_a_bool(sqlite_database: str) -> None:
    """`wait_until_all_jobs_finished`, `wait_until_all_workers_idle` and `job.wait` return True, or False when
    their time is over; none of them raises.
    """
    gate = threading.Event()

    def hold(step: Step, slot_data: Any, worker_state: Any) -> None:
        assert gate.wait(20)

    with running(sqlite_database, chain(Step(hold))) as runtime:
        job = post(runtime, {})
        waits = (runtime.wait_until_all_jobs_finished, runtime.wait_until_all_workers_idle, job.wait)
        assert [wait(timeout=0.05) for wait in waits] == [False, False, False]
        gate.set()
        assert [wait(timeout=10) for wait in waits] == [True, True, True]
        delayed = post(runtime, {}, delay=3600)
        assert runtime.wait_until_all_workers_idle(timeout=10) is True
        assert runtime.wait_until_all_jobs_finished(timeout=0.05) is False
        delayed.cancel()


@pytest.mark.old_bug(10)
def test_old_bug_10_waiting_ended_before_accepted_work_began(sqlite_database: str) -> None:
    """Waiting for all jobs waits for what was accepted and has not begun."""
    gate, begun = threading.Event(), threading.Event()

    def hold(step: Step, slot_data: Any, worker_state: WorkerState) -> None:
        begun.set()
        assert gate.wait(20)
        step.emit("output")

    with running(sqlite_database, chain(Step(hold), Step(count))) as runtime:
        jobs = [post(runtime, {}) for _ in range(20)]
        assert begun.wait(10)
        assert not runtime.wait_until_all_jobs_finished(0.1)
        gate.set()
        assert runtime.wait_until_all_jobs_finished(20)
        assert {job.status for job in jobs} == {"completed"}
        assert runtime.exec("f", worker_id="w").get_routine_state("seen") == {"count": 20}
