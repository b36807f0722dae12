"""Postgres: what the driver is handed for one script is what `statements.txt` says, statement for statement.

The simulator runs on SQLite, so it never sees whole commits, COPY and prepared texts. After a change that is
meant: `ROUTILUX_WRITE_GOLDEN=1 pytest tests/golden`, and read the diff.
"""

from __future__ import annotations

import difflib
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, create_engine, insert
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from routilux import Client, ErrorHandler, Flow, FlowRegistry, Post, Routine, get_current_job
from routilux.activation_policies import all_slots_ready_policy, batch_size_policy, immediate_policy
from routilux.testing import ManualRuntime, runtime
from tests.golden.recording import Recorder, Time

FILE = Path(__file__).with_name("statements.txt")
tables = MetaData()
ledger = Table("ledger", tables, Column("entry", Integer, primary_key=True), Column("n", Integer))


class Script:
    """Orders: `start` → `charge`, which is retried → `pack` in pairs; `start` → `check`, which joins them by
    job.
    """

    def __init__(self, url: str, recorder: Recorder, time: Time) -> None:
        self.url, self.recorder, self.time = url, recorder, time
        self.hangs: list[int] = []
        self.failures = {"once": 1, "always": 1000}
        self.registry = FlowRegistry()
        self.registry.register_by_name("orders", self._flow())

    def _flow(self) -> Flow:
        flow = Flow("orders")
        for name, slots, events, policy in [
            ("start", ["in"], ["out"], immediate_policy()),
            ("charge", ["in"], ["out"], immediate_policy()),
            ("check", ["ordered", "charged"], [], all_slots_ready_policy(by_job=True)),
            ("pack", ["in"], [], batch_size_policy(2, max_wait=60.0)),
        ]:
            routine = Routine()
            for slot in slots:
                routine.add_slot(slot)
            for event in events:
                routine.add_event(event)
            routine.set_activation_policy(policy)
            routine.set_logic(self._logic(routine, name))
            flow.add_routine(routine, name)
        flow.routines["charge"].set_error_handler(
            ErrorHandler("retry", max_retries=1, retry_delay=5.0, retry_backoff=1.0)
        )
        flow.connect("start", "out", "charge", "in")
        flow.connect("start", "out", "check", "ordered")
        flow.connect("charge", "out", "check", "charged")
        flow.connect("charge", "out", "pack", "in")
        return flow

    def _logic(self, routine: Routine, name: str) -> Any:
        def logic(slot_data: dict[str, list[Any]], policy_message: Any, worker_state: Any) -> None:
            (item, *_), job = (item for items in slot_data.values() for item in items), get_current_job()
            assert job is not None
            worker_state.increment(name, "count")
            if name == "start":
                job.set_data("n", item["n"])
                job.trace("start", "began", {"n": item["n"]})
                if item.get("hangs"):
                    self._taken_over()
                if item["n"] == 7:
                    routine.write(insert(ledger).values(entry=7, n=7))
            fails = item.get("fails")
            if name == "charge" and fails is not None and self.failures[fails] > 0:
                self.failures[fails] -= 1
                raise ValueError(f"no money for {item['n']}")
            if name == "check" and item["n"] == 7:
                job.complete(result={"n": 7})
            if routine.events:
                routine.emit("out", **item)

        return logic

    def start(self, name: str) -> ManualRuntime:
        self.recorder.section(f"runtime {name} starts")
        return runtime(registry=self.registry, database=self.url)

    def play(self) -> None:
        with self.start("A") as a:
            self._run(a)
            with Client(self.url) as client:
                self._ask(a, client)
            self.recorder.section("A: a message in whose logic B starts, finds A dead and takes over")
            a.post("orders", "start", "in", {"n": 50, "hangs": True}, "w", "hanging")
            a.run_until_idle()
            self.recorder.section("A has found out, and is another runtime from now on")
            self.time.advance(1)
            self._reconcile(a)
            self.recorder.section("A stops")

    def _run(self, a: ManualRuntime) -> None:
        section = self.recorder.section
        section("A: a worker by name")
        a.exec("orders", worker_id="w")
        section("A: a post")
        a.post("orders", "start", "in", {"n": 1}, "w")
        section("A: it runs")
        a.run_until_idle()
        section("A: the same again, with an id, metadata and a quote; twice")
        for _ in range(2):
            a.post("orders", "start", "in", {"n": 2, "name": "O'Neil\t\\"}, "w", "two", {"by": "me"})
        a.run_until_idle()
        section("A: a post for later")
        a.post("orders", "start", "in", {"n": 3}, "w", "three", delay=20)
        section("A: forty posts at once")
        a.post_many("orders", "start", "in", [{"n": n} for n in range(5, 45)], worker_id="w")
        section("A: they run, one with rows of its own")
        a.run_until_idle()
        section("A: 2 s later, a turn")
        self.time.advance(2)
        a.run_until_idle()
        section("A: one that is retried, and one that becomes a dead letter")
        a.post("orders", "start", "in", {"n": 46, "fails": "once"}, "w", "retried")
        a.post("orders", "start", "in", {"n": 47, "fails": "always"}, "w", "dead")
        a.run_until_idle()
        section("A: 5 s later they are tried again")
        self.time.advance(5)
        self._reconcile(a)
        section("A: 15 s later the late post is due")
        self.time.advance(15)
        self._reconcile(a)
        section("A: signals and state from outside")
        a.post("orders", "check", "ordered", {"n": 48}, "w", "signalled")
        a.signal("signalled", "check", "charged", {"n": 48})
        a.run_until_idle()

    def _ask(self, a: ManualRuntime, client: Client) -> None:
        section = self.recorder.section
        section("client: posts, one of them for any worker")
        client.post("orders", "start", "in", {"n": 60}, "w", "outside")
        client.post("orders", "start", "in", {"n": 61}, metadata={"by": "client"})
        client.post_many(
            "orders", "start", "in", [{"n": 62}, Post({"n": 63}, "later", delay=600)], worker_id="w"
        )
        section("A: takes them")
        self.time.advance(1)
        self._reconcile(a)
        section("client: a pause, and posts meanwhile")
        client.pause_worker("w", "lunch")
        client.post("orders", "start", "in", {"n": 64}, "w", "in the pause")
        self.time.advance(1)
        self._reconcile(a)
        section("client: a job is paused, resumed, cancelled; the worker is resumed")
        client.pause_job("later")
        client.resume_job("later")
        client.cancel_job("later", "not wanted")
        client.resume_worker("w")
        self.time.advance(1)
        self._reconcile(a)
        section("client: the dead letter is sent again, becomes one again, and is dropped")
        (letter,) = client.dead_letters()
        letter.retry({"n": 47, "fails": "always"})
        for _ in range(3):
            self.time.advance(5)
            self._reconcile(a)
        (letter,) = client.dead_letters()
        letter.drop("enough")
        self.time.advance(1)
        self._reconcile(a)

    def _taken_over(self) -> None:
        """A stands still for longer than its lease."""
        if self.hangs:
            return
        self.hangs.append(1)
        other = threading.Thread(target=self._take_over)  # a context without logic
        other.start()
        other.join()

    def _take_over(self) -> None:
        self.time.advance(30)
        with self.start("B") as b:
            for _ in range(2):  # proof of a death is only for who has been there for a whole lease
                self.recorder.section("B: looks for dead ones, 10 s later")
                self.time.advance(10)
                self._reconcile(b)
            self.recorder.section("B: what A had in flight, and 60 s later the last of a batch")
            self.time.advance(60)
            self._reconcile(b)
            self.recorder.section("B stops")

    def _reconcile(self, who: ManualRuntime) -> None:
        """What an alarm brings in production."""
        who._host.running.assembly.reconciler.call()
        who.run_until_idle()


def record(url: str, patch: pytest.MonkeyPatch) -> str:
    """What the driver is handed for the script."""
    admin = create_engine(url, poolclass=NullPool)
    tables.create_all(admin)
    recorder = Recorder(patch, str(make_url(url).database))
    time = Time(patch, url, recorder)
    try:
        Script(url, recorder, time).play()
    finally:
        time.close()
    return "\n".join(recorder.lines).lstrip() + "\n"


def test_the_driver_is_handed_the_same_statements(postgres_database: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        found = record(postgres_database, patch)
    if os.environ.get("ROUTILUX_WRITE_GOLDEN"):
        FILE.write_text(found)
    golden = FILE.read_text()
    if found != golden:  # pytest's own comparison takes minutes
        lines = difflib.unified_diff(
            golden.splitlines(), found.splitlines(), "golden", "found", n=8, lineterm=""
        )
        pytest.fail("\n".join(list(lines)[:200]), pytrace=False)


def test_the_script_has_every_way_to_the_server() -> None:
    golden = FILE.read_text()
    for way in (
        "ClientCursor",
        ": copy",
        "PREPARE routilux_",
        "EXECUTE routilux_",
        "pg_notify",
        "LISTEN",
        "SAVEPOINT",
    ):
        assert way in golden, way
