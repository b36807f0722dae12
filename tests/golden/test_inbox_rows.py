"""Rows of the inbox, byte for byte: a release that is older or newer writes them, and this one carries them
out.

What `Client` writes is the recorded row; and the recorded row, put there as it is, takes effect.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import create_engine

from routilux import Client, Flow, Post, Routine, sqlite_engine
from routilux.activation_policies import all_slots_ready_policy, immediate_policy
from routilux.core.worker_state import WorkerState
from routilux.testing import ManualRuntime, runtime
from tests.support.inside_runtime import store
from tests.support.looking import rows

JOB = "018c0000-0000-7000-8000-000000000000"  # for one that is generated
DUE = datetime(2033, 1, 1, tzinfo=UTC)
DUE_US = 1_988_150_400_000_000
PRINT = "6395d3f95f604cdb548ae4c989c07dd781e67039fbd09ffa7945ae73923889ec"


def flow() -> Flow:
    """`step` fails if it is told to; `join` waits for both halves."""
    made = Flow("f")
    step, join = Routine(), Routine()
    step.add_slot("in")
    join.add_slot("a")
    join.add_slot("b")

    def logic(slot_data: dict[str, list[Any]], policy_message: Any, worker_state: Any) -> None:
        if slot_data["in"][0].get("fails"):
            raise ValueError("as told")

    step.set_logic(logic)
    step.set_activation_policy(immediate_policy())
    join.set_logic(lambda slot_data, policy_message, worker_state: None)
    join.set_activation_policy(all_slots_ready_policy(by_job=True))
    made.add_routine(step, "step")
    made.add_routine(join, "join")
    return made


def begin(url: str) -> ManualRuntime:
    """The worker `w` with the job `half`, which waits for its other half, and `dead`, whose letter is message
    2.
    """
    rt = runtime(flow(), database=url)
    state = rt.exec("f", worker_id="w")
    state.update_routine_state("step", {"old": 1, "count": 1})
    rt.post("f", "join", "a", {"n": 1}, "w", "half").job.increment("count", 1)
    rt.post("f", "step", "in", {"fails": True}, "w", "dead")
    rt.run_until_idle()
    return rt


def outside(client: Client, url: str) -> tuple[WorkerState, Any]:
    """The worker as one who posts in a transaction of his own gets it; his post is taken back.

    And the job `half`.
    """
    engine = sqlite_engine(url) if url.startswith("sqlite") else create_engine(url)
    with engine.connect() as connection:
        worker = client.post("f", "step", "in", {}, "w", transaction=connection).worker
        connection.rollback()
    engine.dispose()
    assert worker is not None
    return worker, client.get_job("half")


@dataclass(frozen=True)
class Kind:
    """One kind of row.

    `row`: kind, flow, worker_id, job_id, metadata, body. `effect`: what a query says afterwards.
    """

    write: Callable[[Client, WorkerState, Any], object]
    row: tuple[str | None, ...]
    query: str
    effect: list[tuple[Any, ...]]
    before: Callable[[ManualRuntime], object] = lambda rt: None


WORKER = "SELECT status, reason FROM routilux_workers"
HALF = "SELECT status, error, result, data FROM routilux_jobs WHERE job_id = 'half'"
LETTER = (
    "SELECT m.status, m.payload, j.status FROM routilux_messages m JOIN routilux_jobs j USING (worker, job)"
    " WHERE m.seq = 2"
)
STATE = "SELECT key, value FROM routilux_worker_state WHERE routine = 'step' ORDER BY key"
NEW = (
    "SELECT j.job_id, j.status, j.metadata, m.payload, m.slot, m.status FROM routilux_jobs j"
    " JOIN routilux_messages m USING (worker, job) WHERE job > 2"
)
KINDS = {
    "post": Kind(
        lambda client, worker, half: client.post("f", "step", "in", {"n": "ü\n"}, "w"),
        ("post", "f", "w", JOB, None, r'{"routine":"step","slot":"in","payload":"{\"n\":\"ü\\n\"}"}'),
        NEW,
        [(JOB, "completed", None, '{"n":"ü\\n"}', "in", "consumed")],
    ),
    "post with an id, for any worker": Kind(
        lambda client, worker, half: client.post(
            "f", "step", "in", {"n": 1}, job_id="mine", metadata={"by": "me"}
        ),
        (
            "post",
            "f",
            None,
            "mine",
            '{"by":"me"}',
            r'{"routine":"step","slot":"in","payload":"{\"n\":1}","fingerprint":"' + PRINT + '"}',
        ),
        NEW,
        [("mine", "completed", '{"by":"me"}', '{"n":1}', "in", "consumed")],
    ),
    "post for later": Kind(
        lambda client, worker, half: client.post("f", "step", "in", {"n": 1}, "w", at=DUE),
        (
            "post",
            "f",
            "w",
            JOB,
            None,
            r'{"routine":"step","slot":"in","payload":"{\"n\":1}","due_at":1988150400000000}',
        ),
        f"SELECT m.status, p.reason, p.due_at - {DUE_US} FROM routilux_parked p JOIN routilux_messages m"
        " USING (worker, seq) WHERE p.seq > 2",
        [("parked", "delay", 0)],
    ),
    "post of many": Kind(
        lambda client, worker, half: client.post_many(
            "f", "step", "in", [Post({"n": 1}, "mine")], worker_id="w"
        ),
        (
            "post",
            "f",
            "w",
            "mine",
            None,
            r'{"routine":"step","slot":"in","payload":"{\"n\":1}","fingerprint":"' + PRINT + '"}',
        ),
        "SELECT job_id, fingerprint FROM routilux_job_keys WHERE job_id = 'mine'",
        [("mine", PRINT)],
    ),
    "signal": Kind(
        lambda client, worker, half: client.signal("half", "join", "b", {"n": 1}),
        ("signal", "f", "w", "half", None, r'{"routine":"join","slot":"b","payload":"{\"n\":1}"}'),
        HALF,
        [("completed", None, None, '{"count":1}')],
    ),
    "pause_worker": Kind(
        lambda client, worker, half: client.pause_worker("w", "lunch"),
        ("pause_worker", "f", "w", None, None, '{"reason":"lunch"}'),
        WORKER,
        [("paused", "lunch")],
    ),
    "resume_worker": Kind(
        lambda client, worker, half: client.resume_worker("w"),
        ("resume_worker", "f", "w", None, None, '{"reason":""}'),
        WORKER,
        [("running", None)],
        before=lambda rt: rt.pause_worker("w", "lunch"),
    ),
    "cancel_worker": Kind(
        lambda client, worker, half: client.cancel_worker("w", "enough"),
        ("cancel_worker", "f", "w", None, None, '{"reason":"enough"}'),
        "SELECT w.status, w.reason, j.status, j.error FROM routilux_workers w JOIN routilux_jobs j ON"
        " j.worker = w.key WHERE j.job = 1",
        [("cancelled", "enough", "cancelled", "enough")],
    ),
    "pause_job": Kind(
        lambda client, worker, half: client.pause_job("half", "wait"),
        ("pause_job", "f", "w", "half", None, '{"reason":"wait"}'),
        HALF,
        [("paused", None, None, '{"count":1}')],
    ),
    "resume_job": Kind(
        lambda client, worker, half: client.resume_job("half"),
        ("resume_job", "f", "w", "half", None, '{"reason":""}'),
        HALF,
        [("pending", None, None, '{"count":1}')],
        before=lambda rt: rt.pause_job("half"),
    ),
    "cancel_job": Kind(
        lambda client, worker, half: client.cancel_job("half", "not wanted"),
        ("cancel_job", "f", "w", "half", None, '{"reason":"not wanted"}'),
        HALF,
        [("cancelled", "not wanted", None, '{"count":1}')],
    ),
    "cancel_job, of the job": Kind(
        lambda client, worker, half: half.cancel(),
        ("cancel_job", "f", "w", "half", None, '{"reason":""}'),
        HALF,
        [("cancelled", None, None, '{"count":1}')],
    ),
    "complete_job": Kind(
        lambda client, worker, half: half.complete(result={"n": 1}),
        ("complete_job", "f", "w", "half", None, r'{"status":"completed","error":null,"result":"{\"n\":1}"}'),
        HALF,
        [("completed", None, '{"n":1}', '{"count":1}')],
    ),
    "complete_job, failed": Kind(
        lambda client, worker, half: half.complete("failed", "no money"),
        ("complete_job", "f", "w", "half", None, '{"status":"failed","error":"no money","result":null}'),
        HALF,
        [("failed", "no money", None, '{"count":1}')],
    ),
    "change_data": Kind(
        lambda client, worker, half: half.set_data("k", [1, "a"]),
        ("change_data", "f", "w", "half", None, r'{"key":"k","text":"[1,\"a\"]"}'),
        HALF,
        [("pending", None, None, '{"count":1,"k":[1,"a"]}')],
    ),
    "change_data, a number": Kind(
        lambda client, worker, half: half.increment("count", 2.5),
        ("change_data", "f", "w", "half", None, '{"key":"count","by":2.5}'),
        HALF,
        [("pending", None, None, '{"count":3.5}')],
    ),
    "replace_state": Kind(
        lambda client, worker, half: worker.update_routine_state("step", {"new": [1]}),
        ("replace_state", "f", "w", None, None, '{"routine":"step","texts":{"new":"[1]"}}'),
        STATE,
        [("new", "[1]")],
    ),
    "increment_state": Kind(
        lambda client, worker, half: worker.increment("step", "count", 2),
        ("increment_state", "f", "w", None, None, '{"routine":"step","key":"count","by":2}'),
        STATE,
        [("count", "3"), ("old", "1")],
    ),
    "retry_dead": Kind(
        lambda client, worker, half: client.dead_letters()[0].retry({"n": 1}),
        ("retry_dead", "f", "w", "dead", None, r'{"seq":2,"payload":"{\"n\":1}"}'),
        LETTER,
        [("consumed", '{"n":1}', "completed")],
    ),
    "retry_dead, as it is": Kind(
        lambda client, worker, half: client.dead_letters()[0].retry(),
        ("retry_dead", "f", "w", "dead", None, '{"seq":2,"payload":null}'),
        "SELECT n, attempt, status FROM routilux_activations WHERE job = 2 ORDER BY n",
        [(1, 1, "failed"), (2, 1, "failed")],
    ),
    "drop_dead": Kind(
        lambda client, worker, half: client.dead_letters()[0].drop("not needed"),
        ("drop_dead", "f", "w", "dead", None, '{"seq":2,"reason":"not needed"}'),
        LETTER,
        [("cancelled", '{"fails":true}', "failed")],
    ),
}
COLUMNS = "kind, flow, worker_id, job_id, metadata, body"
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")


def test_a_client_writes_the_recorded_rows(database: str) -> None:
    """Nobody carries them out here."""
    with begin(database), Client(database) as client:
        worker, half = outside(client, database)
        for name, kind in KINDS.items():
            kind.write(client, worker, half)
            (found,) = rows(database, f"SELECT {COLUMNS} FROM routilux_inbox")
            assert tuple(text and _ID.sub(JOB, text) for text in found) == kind.row, name
            with store(client).database.write() as connection:
                connection.exec_driver_sql("DELETE FROM routilux_inbox")


@pytest.mark.parametrize("name", KINDS)
def test_a_runtime_carries_the_recorded_row_out(name: str, sqlite_database: str) -> None:
    with begin(sqlite_database) as rt:
        KINDS[name].before(rt)
        with sqlite3.connect(sqlite_database.removeprefix("sqlite:///")) as inbox:
            inbox.execute(
                f"INSERT INTO routilux_inbox ({COLUMNS}, created_at) VALUES (?, ?, ?, ?, ?, ?,"
                " 1704067200000000)",
                KINDS[name].row,
            )
        inbox.close()
        rt.run_until_idle()
        assert rows(sqlite_database, "SELECT id FROM routilux_inbox") == []
        assert rows(sqlite_database, KINDS[name].query) == KINDS[name].effect


def test_every_verb_of_the_inbox_is_recorded() -> None:
    from routilux.engine import commands

    assert {kind.row[0] for kind in KINDS.values()} == {"post", *commands._KINDS}
