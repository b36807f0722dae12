"""Ownership and its loss, step by step in one process: who runs a worker, and what is left of a runtime that
is fenced.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine as SqlEngine
from sqlalchemy import event

from routilux.activation_policies import immediate_policy
from routilux.core.flow import Flow
from routilux.core.registry import FlowRegistry
from routilux.core.routine import Routine
from routilux.engine.inputs import PostIn, RunEnded, Task
from routilux.errors import SlotQueueFullError
from routilux.runtime import Runtime, inbox_writer
from routilux.runtime.validation import make_post
from tests.crash.support import checker, orders, program
from tests.crash.support.staging import HeldEngine, Staging, next_group
from tests.crash.support.zygote import until
from tests.support.inside_runtime import between_commits, handover, identity, owns, parts, worker, writer


def test_a_worker_that_another_has_just_made_under_my_name_is_not_mine(shop: str) -> None:
    """Both have looked, neither has found it; the other is first."""
    with program.start(shop) as first, program.start(shop) as second:
        first.exec(orders.FLOW, worker_id="w")
        state = {"split": {"n": "7"}}
        found = between_commits(
            second, lambda: handover(second).start(orders.FLOW, "w", is_named=True, state=state)
        )
        assert found is None
        assert owns(first, "w")
        assert not owns(second, "w")
        assert second.exec(orders.FLOW, worker_id="w").get_routine_state("split") is None


@pytest.fixture
def ending(shop: str) -> Iterator[tuple[Runtime, HeldEngine]]:
    """A runtime whose engine is held while the end of a run waits for it."""
    reached, go = threading.Event(), threading.Event()

    def wait(routine: str, item: dict[str, Any]) -> None:
        if not reached.is_set():
            reached.set()
            go.wait(30)

    orders.gates.append(wait)
    with program.start(shop) as runtime:
        runtime.exec(orders.FLOW, worker_id="w")
        runtime.post(orders.FLOW, "split", "input", {"number": 0}, "w", orders.job_id_of(0))
        assert reached.wait(30)
        engine = HeldEngine(runtime)
        go.set()
        engine.await_inputs(RunEnded, 1)
        yield runtime, engine
    orders.gates.remove(wait)


def _assert_room(runtime: Runtime) -> None:
    """All is done, and every thread is free, no more and no less."""
    assert runtime.wait_until_all_jobs_finished(30)
    scheduler = parts(runtime).scheduler
    threads = scheduler.executor._threads
    assert between_commits(runtime, lambda: threads.free) == threads.size
    assert between_commits(runtime, lambda: set(scheduler.runs)) == set()


def test_what_a_runtime_has_in_hand_when_it_is_declared_dead_does_not_go_in(
    shop: str, ending: tuple[Runtime, HeldEngine]
) -> None:
    """Nobody has run the worker since, so that no key of a row is in the way:
    the fence alone keeps it out.
    """
    runtime, engine = ending
    before = identity(runtime)
    with closing(checker.connect(shop)) as connection:
        connection.execute("UPDATE routilux_runtimes SET state = 'dead'")
        connection.execute(f"UPDATE routilux_workers SET owner = NULL, takeover_at = {1 << 60}")
        connection.commit()
    engine.let_go()
    until(lambda: between_commits(runtime, lambda: identity(runtime)) != before, "it keeps its identity")
    with closing(checker.connect(shop)) as connection:
        assert connection.execute("SELECT * FROM routilux_activations").fetchall() == []
        assert connection.execute("SELECT status FROM routilux_messages").fetchall() == [("waiting",)]
        connection.execute("UPDATE routilux_workers SET takeover_at = NULL")  # now it may be taken and end
        connection.commit()


def test_nobody_can_be_declared_dead_between_its_fence_and_its_commit(shop: str, tmp_path: Path) -> None:
    """At each statement of a commit a take-over that begins there has to wait."""
    waits: dict[str, bool] = {}
    with program.start(shop) as runtime:
        runtime.exec(orders.FLOW, worker_id="w")
        acknowledged = tmp_path / "acknowledged"
        staging = Staging(runtime, "w", 0, program.Acknowledged(acknowledged).add)
        staging.set_up()

        def around(run: Callable[[], None]) -> None:
            thread = threading.get_ident()

            def before(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
                if threading.get_ident() == thread:
                    waits[statement] = _must_wait(shop, identity(runtime))

            event.listen(SqlEngine, "before_cursor_execute", before)
            try:
                run()
            finally:
                event.remove(SqlEngine, "before_cursor_execute", before)

        next_group(runtime, around)
        staging.commit()
        program.finish(runtime, str(acknowledged))
    statements = list(waits)
    fence = next(i for i, text in enumerate(statements) if "routilux_runtimes" in text)
    assert len(statements) - fence > 10
    assert [text for text in statements[fence + 1 :] if not waits[text]] == []


def _must_wait(url: str, key: int) -> bool:
    """Whether a take-over of this runtime would have to wait now."""
    with closing(checker.connect(url)) as connection:
        try:
            if url.startswith("sqlite"):
                connection.execute("PRAGMA busy_timeout = 0")
                connection.execute("BEGIN IMMEDIATE")
            else:
                connection.execute(f"SELECT 1 FROM routilux_runtimes WHERE key = {key} FOR UPDATE NOWAIT")
        except (sqlite3.OperationalError, psycopg.errors.LockNotAvailable):
            return True
        connection.rollback()
        return False


def test_a_run_that_ends_while_its_runtime_is_fenced_gives_its_room_back(
    shop: str, ending: tuple[Runtime, HeldEngine]
) -> None:
    runtime, engine = ending
    before = identity(runtime)
    post = threading.Thread(
        target=runtime.post,
        args=(orders.FLOW, "split", "input", {"number": 1}, "w", orders.job_id_of(1)),
    )
    # an id of the caller's is asked for inside the transaction, so the fence falls before any decision
    post.start()
    engine.await_inputs(PostIn, 1)
    with closing(checker.connect(shop)) as connection:
        connection.execute("UPDATE routilux_runtimes SET state = 'dead'")
        connection.commit()
    engine.let_go()
    post.join(30)
    for number in (0, 1):
        assert runtime.get_job(orders.job_id_of(number)).wait(30)
    _assert_room(runtime)
    assert identity(runtime) != before
    assert checker.faults(shop, set(map(orders.job_id_of, (0, 1))), orders.PARTS) == []


def test_a_run_whose_last_commit_is_refused_gives_its_room_back_once(
    shop: str, ending: tuple[Runtime, HeldEngine]
) -> None:
    runtime, engine = ending
    commits = writer(runtime)

    def refuse(connection: object) -> None:
        commits.before_commit = None
        raise RuntimeError("an error that does not pass")

    commits.before_commit = refuse
    engine.let_go()
    assert runtime.get_job(orders.job_id_of(0)).wait(30)
    _assert_room(runtime)
    assert checker.faults(shop, {orders.job_id_of(0)}, orders.PARTS) == []


def test_a_post_that_is_refused_leaves_its_id_free(shop: str) -> None:
    """Else the second try is taken for a repeat of the first, acknowledged, and stored by nobody."""
    flow, registry, go = Flow("narrow"), FlowRegistry(), threading.Event()
    routine = Routine()
    routine.add_slot("input", max_queue_length=1)
    routine.set_activation_policy(immediate_policy())
    routine.set_logic(lambda slot_data, policy_message, worker_state: go.wait(30))
    flow.add_routine(routine, "r")
    registry.register_by_name("narrow", flow)
    with Runtime(1, database=shop, registry=registry) as runtime:
        runtime.post("narrow", "r", "input", {}, job_id="first")
        for _ in range(2):
            with pytest.raises(SlotQueueFullError):
                runtime.post("narrow", "r", "input", {}, job_id="second")
        assert runtime.get_job("second") is None
        go.set()
        assert runtime.get_job("first").wait(30)
        runtime.post("narrow", "r", "input", {}, job_id="second")
        assert runtime.get_job("second").wait(30)


def test_two_processes_that_post_one_id_with_different_data_at_once_make_one_job(shop: str) -> None:
    """Neither saw the other's inbox row.

    The owner takes the first; the second is refused, and stops nothing.
    """
    with program.start(shop) as runtime:
        runtime.exec(orders.FLOW, worker_id="w")
        engine = HeldEngine(runtime)
        with closing(checker.connect(shop)) as connection:
            for number in (0, 1):
                connection.execute(
                    "INSERT INTO routilux_inbox (kind, flow, worker_id, job_id, body, created_at) VALUES"
                    " ('post',"
                    f" 'orders', 'w', '{orders.job_id_of(0)}', '{_body(number)}', 0)"
                )
            connection.commit()
        engine.let_go()
        runtime.post(orders.FLOW, "split", "input", {"number": 2}, "w", orders.job_id_of(2))
        for number in (0, 2):
            assert runtime.get_job(orders.job_id_of(number)).wait(30)
            assert runtime.get_job(orders.job_id_of(number)).status == "completed"
        (refused,) = runtime.dead_letters()
        assert refused.error_type == "IdempotencyConflictError"
        assert refused.payloads == [{"number": 1}]


def _body(number: int) -> str:
    body = {
        "routine": "split",
        "slot": "input",
        "payload": f'{{"number":{number}}}',
        "fingerprint": f"print {number}",
    }
    return json.dumps(body)


def test_an_inbox_row_that_arrives_while_its_worker_is_given_back_is_left_for_the_next(shop: str) -> None:
    """Found by the engine, which lets go of the worker before it takes the row, as at a clean stop."""
    with program.start(shop) as runtime:
        runtime.exec(orders.FLOW, worker_id="w")
        engine = HeldEngine(runtime)
        names = (orders.FLOW, "split", "input")
        post = make_post(names, '{"number":0}', orders.job_id_of(0), None, None)
        inbox_writer.post_to_owner(runtime._host, names, [post], "w")
        release = Task(lambda: handover(runtime).release(worker(runtime, "w")))
        parts(runtime).inputs.put(release)
        engine.let_go()
        assert release.receipt.wait(30)
        runtime.exec(orders.FLOW, worker_id="w")
        job = runtime.get_job(orders.job_id_of(0))
        assert job.wait(30)
        assert job.status == "completed"
