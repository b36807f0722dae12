"""A commit that the database refuses is as if it had not been tried; its inputs are tried one by one."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import ProgrammingError

from routilux import Flow, FlowRegistry, Routine, Runtime
from routilux.activation_policies import immediate_policy
from routilux.store.changes import Changes

TARGET = ("f", "first", "in")


def narrow() -> FlowRegistry:
    first = Routine()
    first.add_slot("in", max_queue_length=1)
    first.set_logic(lambda slot_data, policy_message, worker_state: None)
    first.set_activation_policy(immediate_policy())
    flow = Flow("f")
    flow.add_routine(first, "first")
    registry = FlowRegistry()
    registry.register_by_name("f", flow)
    return registry


def test_a_post_that_waits_for_room_is_there_once_after_a_commit_beside_it_was_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It was there twice, and the second one's commit was refused for ever, each time with twice as many."""
    write, must_refuse = Changes.write, [False]

    def refuse(changes: Changes, *rest: Any) -> None:
        if must_refuse[0] and changes.workers:
            must_refuse[0] = False
            raise ProgrammingError("a statement", None, Exception("no"))
        write(changes, *rest)

    monkeypatch.setattr(Changes, "write", refuse)
    jobs: list[Any] = []
    with Runtime(2, database=f"sqlite:///{tmp_path / 'db'}", registry=narrow()) as runtime:
        runtime.exec("f", worker_id="w")
        runtime.pause_worker("w")
        jobs.append(runtime.post(*TARGET, {}, "w").job)
        waits = threading.Thread(target=lambda: jobs.append(runtime.post(*TARGET, {}, "w", timeout=20).job))
        waits.start()
        while not runtime.engine.waiting_posts:
            waits.join(0.01)
        must_refuse[0] = True
        runtime.pause_worker("w")
        runtime.resume_worker("w")
        waits.join(20)
        assert runtime.wait_until_all_jobs_finished(timeout=20)
        assert [job.wait(10) and job.status for job in jobs] == ["completed", "completed"]
    told = [record for record in caplog.records if "the database refused a commit" in record.getMessage()]
    assert len(told) == 1, [(record.levelno, record.getMessage()) for record in told]
    assert told[0].levelno == logging.WARNING
