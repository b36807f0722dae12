"""A commit that the database refuses is as if it had not been tried; its inputs are tried one by one."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import ProgrammingError

from routilux import Client, Flow, FlowRegistry, Routine, Runtime
from routilux.activation_policies import immediate_policy
from routilux.engine import inbox
from routilux.engine.inbox import Inbox
from routilux.store.writes.commit_rows import Changes
from tests.flows.flows import Step, chain
from tests.support.inside_runtime import parts, store
from tests.support.waiting import eventually

TARGET = ("f", "first", "in")
STEP = ("f", "s0", "input")


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


def test_an_acknowledged_post_that_can_neither_be_taken_nor_be_refused_stays_until_it_can(
    database: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The database takes no message for a while, nor a dead letter for it: a trigger, a right that is
    missing.
    """
    write, is_bad = Changes.write, [True]

    def refuse(changes: Changes, *rest: Any) -> None:
        if is_bad[0] and (changes.waiting or changes.messages):
            raise ProgrammingError("a statement", None, Exception("no"))
        write(changes, *rest)

    monkeypatch.setattr(Changes, "write", refuse)
    monkeypatch.setattr(inbox, "PAUSES_S", (0.02, 0.1))
    monkeypatch.setattr(inbox, "RETRY_S", 0.02)
    with Runtime(2, database=database, registry=narrow()) as runtime, Client(database) as client:
        runtime.exec("f", worker_id="w")
        job = client.post(*TARGET, {}, "w").job
        eventually(lambda: parts(runtime).inbox.postponed)
        eventually(lambda: [again.pause for again in parts(runtime).inbox.postponed.values()] == [0.1])
        assert job.status == "pending"
        is_bad[0] = False
        assert job.wait(20)
        assert job.status == "completed"
        assert not parts(runtime).inbox.postponed
    assert "could be neither applied nor dead-lettered" in caplog.text


def _refusing_bad_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a trigger that looks at the payload; a dead letter for it is refused as well."""
    write = Changes.write

    def refuse(changes: Changes, *rest: Any) -> None:
        if any('"bad"' in str(row) for row in (*changes.waiting, *changes.messages)):
            raise ProgrammingError("a statement", None, Exception("no"))
        write(changes, *rest)

    monkeypatch.setattr(Changes, "write", refuse)


def test_many_that_can_neither_be_taken_nor_be_refused_do_not_stop_those_behind_them(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _refusing_bad_ones(monkeypatch)
    monkeypatch.setattr(inbox, "PAUSES_S", (0.01, 0.01))  # they are always due again
    monkeypatch.setattr(inbox, "RETRY_S", 3.0)  # longer than a busy machine takes for one of them
    with (
        Runtime(2, database=database, registry=chain(Step(lambda *_: None))) as runtime,
        Client(database) as client,
    ):
        runtime.exec("f", worker_id="w")
        client.post_many(*STEP, [{"bad": n} for n in range(30)], worker_id="w")
        eventually(lambda: len(parts(runtime).inbox.postponed) == 30, timeout=60)
        for n in range(5):
            assert client.post(*STEP, {"n": n}, "w").job.wait(20)
        assert len(parts(runtime).inbox.postponed) == 30
        runtime.shutdown(wait=False)


def test_a_verdict_on_a_row_is_not_for_the_next_one_of_its_id(
    sqlite_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another runtime took the row; SQLite gives its id to the next post."""
    _refusing_bad_ones(monkeypatch)
    commit_refused, jobs = Inbox.commit_refused, list[Any]()
    with (
        Runtime(2, database=sqlite_database, registry=chain(Step(lambda *_: None))) as runtime,
        Client(sqlite_database) as client,
    ):

        def then_swap(self: Inbox, ids: tuple[int, ...], *rest: Any) -> None:
            commit_refused(self, ids, *rest)
            if ids[0] in self._rejected and not jobs:
                with store(runtime).database.write() as connection:
                    connection.exec_driver_sql("DELETE FROM routilux_inbox")
                jobs.append(client.post(*STEP, {"n": 1}, "w").job)

        monkeypatch.setattr(Inbox, "commit_refused", then_swap)
        runtime.exec("f", worker_id="w")
        client.post(*STEP, {"bad": 1}, "w")
        eventually(lambda: jobs)
        assert jobs[0].wait(20)
        assert jobs[0].status == "completed"
        runtime.shutdown(wait=False)


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
        while not parts(runtime).recovery.waiting_posts:
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
