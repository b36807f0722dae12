"""A small world for the engine: the real engine and the real store on SQLite, stepped by a seeded scheduler.

Nothing runs by itself: no threads, a manual clock. At every turn the seed chooses: post, let an executor run an
activation (which may fail), let the engine take a turn, crash before or after any statement of a commit, lose the
answer to a COMMIT, move the clock. What must hold is checked by `check`, which reads the database with plain SQL.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.exc import OperationalError

from routilux.activation_policies import all_slots_ready_policy, batch_size_policy, immediate_policy
from routilux.core.activation import Readers
from routilux.core.error_handler import ErrorHandler
from routilux.core.flow import Flow
from routilux.core.mailbox import RoutineCell, Run
from routilux.core.registry import FlowRegistry
from routilux.core.routine import Routine
from routilux.runtime import adopting, control, takeover
from routilux.runtime.accepting import fingerprint
from routilux.runtime.clock import ManualClock
from routilux.runtime.engine import Engine
from routilux.runtime.executors import Performer
from routilux.runtime.inputs import Input, Post, PostIn, Receipt, Request
from routilux.runtime.known_flows import KnownFlows
from routilux.runtime.owning import refusal
from routilux.runtime.settings import Settings
from routilux.store import ownership, schema
from routilux.store.database import Database
from routilux.store.store import Store


class Crash(BaseException):
    """The process is gone at this statement."""


class Unlucky(Exception):
    """What failing logic raises."""


@dataclass
class World:
    """One database, one runtime after another."""

    seed: int
    path: Path
    has_operator: bool = False  # somebody cancels, pauses and resumes jobs
    trace: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.clock = ManualClock()
        self.registry = FlowRegistry()
        self.fails: dict[tuple[str, int], int] = {}
        self.registry.register_by_name("f", self._flow())
        schema.upgrade(f"sqlite:///{self.path}")
        self.posted: dict[str, dict[str, Any]] = {}
        self.asked: list[tuple[str, str, Receipt]] = []
        self.cancelled: set[str] = set()  # acknowledged
        self.acknowledged: set[str] = set()
        self.receipts: list[tuple[str, Receipt]] = []
        self.crash_in: int | None = None
        self.lose_in: int | None = None
        self.dead_keys: set[int] = set()
        self.database = Database.open(f"sqlite:///{self.path}", durability="process_crash")
        self.statements = 0
        self._start()

    # the flow: fan-out, join, batch, retries, state

    def _flow(self) -> Flow:
        flow = Flow("f")
        flow.add_routine(self._routine("split", ["in"], ["a", "b"]), "split")
        flow.add_routine(self._routine("left", ["in"], ["out"], retry=True), "left")
        flow.add_routine(self._routine("right", ["in"], ["out"]), "right")
        flow.add_routine(
            self._routine("join", ["l", "r"], ["out"], policy=all_slots_ready_policy(by_job=True)), "join"
        )
        flow.add_routine(self._routine("batch", ["in"], [], policy=batch_size_policy(3)), "batch")
        flow.connect("split", "a", "left", "in")
        flow.connect("split", "b", "right", "in")
        flow.connect("left", "out", "join", "l")
        flow.connect("right", "out", "join", "r")
        flow.connect("join", "out", "batch", "in")
        return flow

    def _routine(
        self, name: str, slots: list[str], events: list[str], *, policy: Any = None, retry: bool = False
    ) -> Routine:
        routine = Routine()
        for slot in slots:
            routine.add_slot(slot)
        for event_name in events:
            routine.add_event(event_name)

        def logic(slot_data: dict[str, list[Any]], policy_message: Any, worker_state: Any) -> None:
            items = [item for taken in slot_data.values() for item in taken]
            state = worker_state.get_routine_state(name) or {"count": 0, "seen": []}
            state["count"] += 1
            state["seen"] = [*state["seen"], [item["id"] for item in items]]
            worker_state.update_routine_state(name, state)
            for event_name in events:
                routine.emit(event_name, id=items[0]["id"])
            if retry and self.fails.get((name, items[0]["id"]), 0) > 0:
                self.fails[name, items[0]["id"]] -= 1
                raise Unlucky(f"{name} {items[0]['id']}")

        routine.set_logic(logic)
        routine.set_activation_policy(policy or immediate_policy())
        if retry:
            routine.set_error_handler(
                ErrorHandler("retry", max_retries=10, retry_delay=5.0, retry_backoff=1.0)
            )
        return routine

    # a runtime

    def _start(self) -> None:
        self.store = Store(self.database)
        self.executor = _Executor()
        self.outbox: deque[Input] = deque()
        self.engine = Engine(
            self.store,
            self.clock,
            Settings(deaths=1000, death_pause_s=(0.0,)),
            self.executor,
            KnownFlows(self.registry),
            lambda _: None,
        )
        self.engine.clock_is_real = False
        self.engine.gives_up = lambda pause_s: False  # type: ignore[method-assign]
        with self.database.write() as connection:
            me = ownership.Identity(f"boot-{self.random.random()}", "h", "b", 1, "0", 9_000_000)
            self.engine.runtime_key = ownership.register(connection, me, 1 << 60, self.clock.now_us())
        self.performer = Performer(self.clock, self.engine.inputs.put, self._readers)
        takeover.run_once(self.engine, _Lease(self))  # type: ignore[arg-type]
        if "w" not in self.engine.by_id:
            with self.store.read() as connection:
                known = connection.exec_driver_sql("SELECT 1 FROM routilux_workers").first()
            if known is None:
                adopting.start(self.engine, "f", "w", is_named=True, state={})
            else:
                adopting.resume(self.engine, "w")
        self.engine.mine.add("w")

    def _readers(self, run: Run) -> Readers:
        worker = run.cell.worker
        return Readers(
            self.clock.now_us, lambda: list(worker.state), lambda _: [], lambda _: [], refusal, 1 << 20
        )

    def crash(self) -> None:
        """The process is gone; a new one starts."""
        self.trace.append("crash")
        self.dead_keys.add(self.engine.runtime_key)
        self.store.drop_connection()
        self.crash_in = self.lose_in = None
        self.receipts.clear()
        self.asked.clear()
        self._start()

    # turns

    def turn(self) -> None:
        kinds = ["post", "perform", "step", "clock", "crash", "crash_at", "lose"]
        weights = [3, 8, 8, 1, 0.3, 0.6, 0.3]
        if self.has_operator:
            kinds, weights = [*kinds, "operate"], [*weights, 2]
        kind = self.random.choices(kinds, weights)[0]
        getattr(self, f"_{kind}" if kind != "crash" else "crash")()

    def _post(self) -> None:
        number = len(self.posted)
        job_id = f"j{number}"
        self.posted[job_id] = {"id": number}
        if self.random.random() < 0.3:
            self.fails["left", number] = self.random.randint(1, 3)
        self._send(job_id)

    def _send(self, job_id: str) -> None:
        text = f'{{"id":{self.posted[job_id]["id"]}}}'
        receipt = Receipt()
        post = Post(job_id, text, fingerprint=fingerprint("f", "split", "in", text))
        self.engine.inputs.put(PostIn("f", "w", "split", "in", [post], receipt))
        self.receipts.append((job_id, receipt))
        self.trace.append(f"post {job_id}")

    def _operate(self) -> None:
        if self.posted:
            verb = self.random.choice(["cancel_job", "pause_job", "resume_job"])
            self._ask(verb, self.random.choice([*self.posted]))

    def _ask(self, verb: str, job_id: str) -> None:
        """What it is refused for (ended, not accepted yet) is as good as not asked."""
        receipt = Receipt()
        self.engine.inputs.put(Request(control.ask(self.engine, verb, "w", job_id, {}), receipt))
        self.asked.append((verb, job_id, receipt))
        self.trace.append(f"{verb} {job_id}")

    def _perform(self) -> None:
        """One thread runs a run, maybe stopped early."""
        if self.executor.queue:
            run = self.executor.queue.popleft()
            self.trace.append(f"perform {run.cell.routine_id} x{len(run.activations)}")
            if self.random.random() < 0.3:
                run.should_stop = True
            self.performer.perform(run)

    def _step(self) -> None:
        """The engine takes a turn with some of what has come in."""
        most = self.random.choice([1, 2, 5, 100])
        self.trace.append(f"step {most}")
        try:
            self.engine.look()
            self.engine.step(self.engine.inputs.take(most))
        except Crash:
            self.crash()
        for job_id, receipt in self.receipts:
            if receipt.is_done and receipt.error is None:
                self.acknowledged.add(job_id)
        for verb, job_id, receipt in self.asked:
            if verb == "cancel_job" and receipt.is_done and receipt.error is None:
                self.cancelled.add(job_id)

    def _clock(self) -> None:
        self.clock.advance(self.random.choice([0.1, 1.0, 6.0, 3600.0]))

    def _crash_at(self) -> None:
        self.crash_in = self.random.randint(1, 12)

    def _lose(self) -> None:
        self.lose_in = self.random.choice([0, 1])

    def finish(self) -> None:
        """No more accidents: everything that was posted is posted again, and all of it must come to its end."""
        self.crash_in = self.lose_in = None
        for job_id in self.posted:
            self._send(job_id)
            if self.has_operator:
                self._step()
                self._ask("resume_job", job_id)
        self.engine.flush_waiters = 1
        for _ in range(3000):
            self._step()
            while self.executor.queue:
                self._perform()
            if not len(self.engine.inputs) and not self.executor.queue:
                if not self.engine.has_work():
                    return
                self.clock.advance(6.0)
        raise AssertionError(f"it never ends: {self.engine.has_work()}")

    # accidents

    def before_statement(self) -> None:
        self.statements += 1
        if self.crash_in is not None:
            self.crash_in -= 1
            if self.crash_in == 0:
                raise Crash

    def commit_is_sent(self) -> None:
        if self.lose_in == 0:
            self.lose_in = None
            raise _lost()

    def commit_is_in(self) -> None:
        if self.lose_in == 1:
            self.lose_in = None
            raise _lost()

    def check(self, connection: Connection) -> None:
        """What must hold at the end, by plain SQL."""
        statuses = dict(connection.exec_driver_sql("SELECT job_id, status FROM routilux_jobs").all())  # type: ignore[arg-type]
        assert statuses.keys() == self.posted.keys()
        gone = {job_id for job_id, status in statuses.items() if status == "cancelled"}
        assert self.cancelled <= gone if self.has_operator else not gone, (self.cancelled, gone)
        assert set(statuses.values()) <= {"completed", "cancelled"}, statuses
        left = connection.exec_driver_sql(
            "SELECT count(*) FROM routilux_messages AS m JOIN routilux_jobs AS j ON j.worker = m.worker AND j.job = m.job"
            " WHERE m.status <> 'consumed' AND NOT (m.status = 'cancelled' AND j.status = 'cancelled')"
        ).scalar()
        assert left == 0, f"{left} messages are not consumed"
        assert connection.exec_driver_sql("SELECT count(*) FROM routilux_parked").scalar() == 0
        opened = connection.exec_driver_sql(
            "SELECT count(*) FROM routilux_jobs WHERE open_count <> 0"
        ).scalar()
        assert opened == 0
        for routine in ("split", "left", "right", "join", "batch"):
            self._check_state(connection, routine, gone)
        assert self.acknowledged <= set(
            connection.exec_driver_sql("SELECT job_id FROM routilux_jobs").scalars()
        )

    def _check_state(self, connection: Connection, routine: str, gone: set[str]) -> None:
        """State is what the completed activations of the routine left, in their order."""
        import orjson

        rows = connection.exec_driver_sql(
            "SELECT key, value FROM routilux_worker_state WHERE routine = ?", (routine,)
        ).all()
        state = {key: orjson.loads(value) for key, value in rows}
        done = connection.exec_driver_sql(
            "SELECT seqs FROM routilux_activations WHERE routine = ? AND status = 'completed' ORDER BY n",
            (routine,),
        ).all()
        if not self.posted:
            return
        assert state["count"] == len(done), (routine, state["count"], len(done))
        ids = dict(
            connection.exec_driver_sql(
                "SELECT seq, json_extract(payload, '$.id') FROM routilux_messages"
            ).all()
        )  # type: ignore[arg-type]
        consumed = [[ids[int(seq)] for seq in seqs.split(",")] for (seqs,) in done]
        assert [sorted(seen) for seen in state["seen"]] == [sorted(seen) for seen in consumed]
        if routine != "batch":
            each = Counter(seen[0] for seen in consumed)
            some = {self.posted[job_id]["id"] for job_id in gone}
            assert {post["id"] for post in self.posted.values()} - some <= set(each)
            assert set(each.values()) == {1}, f"{routine}: an effect counted twice"


class _Executor:
    def __init__(self) -> None:
        self.queue: deque[Run] = deque()
        self.taken = 0

    def has_room(self, cell: RoutineCell) -> bool:
        return self.taken < 3

    @property
    def is_full(self) -> bool:
        return self.taken >= 3

    def take(self, run: Run) -> None:
        self.taken += 1

    def give(self, run: Run) -> None:
        self.taken -= 1

    def submit(self, run: Run) -> None:
        self.queue.append(run)


class _Lease:
    """Dead is who crashed in this world."""

    def __init__(self, world: World) -> None:
        self._world = world

    def gone_backends(self, connection: Connection, me: int) -> set[int]:
        return set()

    def clock_us(self, connection: Connection) -> int:
        return self._world.clock.now_us()

    def is_over(self, row: Any, now: int) -> bool:
        return row.key in self._world.dead_keys


def _lost() -> OperationalError:
    import sqlite3

    error = sqlite3.OperationalError("the answer is lost")
    error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
    return OperationalError("COMMIT", {}, error)


def play(seed: int, path: Path, turns: int = 120, *, has_operator: bool = False) -> World:
    """One world from one seed, to its end, checked."""
    world = World(seed, path, has_operator)

    with world.store.commit() as commit:
        engine = commit.connection.engine

    def before(connection: Connection, *_: Any) -> None:
        world.before_statement()

    event.listen(engine, "before_cursor_execute", before)
    try:
        for _ in range(turns):
            world.store._writer.before_commit = lambda connection: world.commit_is_sent()
            world.store._writer.after_commit = world.commit_is_in
            world.turn()
        world.finish()
        with world.store.read() as connection:
            world.check(connection)
    except BaseException:
        print(f"seed {seed}: {world.trace[-40:]}")
        raise
    finally:
        event.remove(engine, "before_cursor_execute", before)
        world.store.drop_connection()
        world.database.close()
    return world


__all__ = ["World", "play"]
