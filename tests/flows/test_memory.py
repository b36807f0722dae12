"""Waiting messages cost disk, not memory: what is held of a backlog is a window of each slot."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from routilux import Flow, FlowRegistry, Routine, Runtime, WorkerState, immediate_policy, testing
from routilux.activation_policies import all_slots_ready_policy, batch_size_policy
from routilux.core import slot_queue
from routilux.core.mailbox import MOST_IDLE_JOBS
from routilux.core.message import Job, Message
from routilux.engine.settings import Settings

WINDOW = 4096
BACKLOG = 3 * WINDOW
SETTINGS = Settings(window=WINDOW)


class InOrder(Routine):
    """Fails when a message is not the next one."""

    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data: dict[str, list[dict[str, int]]], message: object, worker: WorkerState) -> None:
        n = slot_data["input"][0]["n"]
        assert n == self.get_state(worker, "next", 0)
        self.set_state(worker, "next", n + 1)


def _registry() -> FlowRegistry:
    flow = Flow("in_order")
    flow.add_routine(InOrder(), "only")
    registry = FlowRegistry()
    registry.register_by_name("in_order", flow)
    return registry


def _held() -> dict[type, int]:
    gc.collect()
    found = gc.get_objects()
    return {kind: sum(type(each) is kind for each in found) for kind in (Message, Job)}


def test_a_backlog_is_not_held_in_memory_before_and_after_a_restart_and_is_handled_in_order(
    database: str,
) -> None:
    before = _held()
    with Runtime(2, database=database, registry=_registry(), settings=SETTINGS) as runtime:
        runtime.exec("in_order", worker_id="w")
        runtime.pause_worker("w")
        for start in range(0, BACKLOG, WINDOW):
            items = [{"n": n} for n in range(start, start + WINDOW)]
            runtime.post_many("in_order", "only", "input", items, worker_id="w")
        posted = _held()
        runtime.shutdown(wait=False)
    del runtime
    with Runtime(2, database=database, registry=_registry(), settings=SETTINGS) as runtime:
        worker = runtime.exec("in_order", worker_id="w")
        started = _held()
        for kind, most in ((Message, WINDOW), (Job, WINDOW + MOST_IDLE_JOBS)):
            assert posted[kind] - before[kind] <= most
            assert started[kind] - before[kind] <= 2 * most  # the runtime that was may not be collected yet
        runtime.resume_worker("w")
        assert runtime.wait_until_all_jobs_finished(120)
        assert worker.get_routine_state("only") == {"next": BACKLOG}


def gathering(policy: Any, *slots: str) -> tuple[Flow, list[int]]:
    taken: list[int] = []
    routine = Routine()
    for slot in slots:
        routine.add_slot(slot)
    routine.set_activation_policy(policy)
    routine.set_logic(lambda slot_data, message, state: taken.append(sum(map(len, slot_data.values()))))
    flow = Flow("f")
    flow.add_routine(routine, "r")
    return flow, taken


def test_a_batch_that_is_not_whole_in_the_window_is_read_on() -> None:
    flow, taken = gathering(batch_size_policy(16), "input")
    with testing.runtime(flow, settings=Settings(window=8)) as runtime:
        jobs = runtime.post_many("f", "r", "input", [{"n": n} for n in range(81)])
        runtime.cancel_job(jobs[3].job_id)
        runtime.run_until_idle()
        assert taken == [16] * 5


def test_a_batch_of_more_bytes_than_a_window_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slot_queue, "WINDOW_BYTES", 1000)
    flow, taken = gathering(batch_size_policy(20), "input")
    with testing.runtime(flow) as runtime:
        runtime.post_many("f", "r", "input", [{"text": "x" * 100} for _ in range(60)])
        runtime.run_until_idle()
        assert taken == [20] * 3


def test_a_join_whose_partners_are_more_bytes_back_than_a_window_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(slot_queue, "WINDOW_BYTES", 1000)
    flow, taken = gathering(all_slots_ready_policy(by_job=True), "left", "right")
    with testing.runtime(flow) as runtime:
        jobs = runtime.post_many("f", "r", "left", [{"text": "x" * 100} for _ in range(60)])
        for job in jobs[-3:]:
            runtime.signal(job.job_id, "r", "right", {})
        runtime.run_until_idle()
        assert taken == [2] * 3
