"""What is wrong is refused at the door: with the named error, and nothing stored."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pydantic import BaseModel
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.pool import NullPool

from routilux import (
    Client,
    DatabaseReadOnlyError,
    DatabaseUnavailableError,
    DefinitionError,
    Flow,
    FlowNotFoundError,
    FlowRegistry,
    ForkedRuntimeError,
    JobNotFoundError,
    NaiveDatetimeError,
    PayloadError,
    PayloadTooLargeError,
    PolicyError,
    Post,
    RoutineNotFoundError,
    Runtime,
    SchemaForeignError,
    SchemaMissingError,
    SchemaTooNewError,
    SlotModelError,
    SlotNotFoundError,
    SlotQueueFullError,
    WorkerEndedError,
    WorkerNotFoundError,
)
from routilux.activation_policies import batch_size_policy
from tests.flows.flows import Step, chain, post, running
from tests.support.fresh import empty_database
from tests.support.looking import rows, stored
from tests.support.waiting import eventually

GOOD = ("f", "s0", "input")


def count(step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
    worker_state.increment("s0", "seen")


class Order(BaseModel):
    n: int


def with_slot(**settings: Any) -> FlowRegistry:
    """The flow `f` of one routine whose slot has these settings."""
    step = Step(count)
    step.slots.clear()
    step.add_slot("input", **settings)
    return chain(step)


class Doors:
    """A runtime and a client on one database, and what must not change while they refuse."""

    def __init__(self, database: str, runtime: Runtime, client: Client) -> None:
        self.database = database
        self.all: list[Any] = [runtime, client]

    @contextlib.contextmanager
    def refusing(self, error: type[BaseException], match: str) -> Iterator[None]:
        before = stored(self.database)
        with pytest.raises(error, match=match) as refused:
            yield
        assert type(refused.value) is error
        assert stored(self.database) == before


@contextlib.contextmanager
def doors(database: str, registry: FlowRegistry) -> Iterator[Doors]:
    with running(database, registry) as runtime, Client(database) as client:
        yield Doors(database, runtime, client)


def test_an_unknown_flow_routine_slot_worker_or_job(database: str) -> None:
    with doors(database, chain(Step(count))) as at:
        for door in at.all:
            for many in (False, True):

                def send(*names: Any, worker_id: Any = None, door: Any = door, many: bool = many) -> None:
                    if many:
                        door.post_many(*names, [{}, {}], worker_id=worker_id)
                    else:
                        door.post(*names, {}, worker_id)

                for unknown in ("g", "", "a\x00b", "\ud800", None, 5, ["f"]):
                    with at.refusing(FlowNotFoundError, "not found in registry; register it first"):
                        send(unknown, "s0", "input")
                for unknown in ("s9", None, 5, ["s0"]):
                    with at.refusing(RoutineNotFoundError, "not found in flow 'f'"):
                        send("f", unknown, "input")
                    with at.refusing(SlotNotFoundError, "not found in routine 's0'"):
                        send("f", "s0", unknown)
                for unknown in ("nobody", "a\x00b", "\ud800", 5):
                    with at.refusing(WorkerNotFoundError, "start it with runtime.exec"):
                        send(*GOOD, worker_id=unknown)
            for unknown in ("nobody", "a\x00b", "\ud800", 5):
                assert door.get_job(unknown) is None
                with at.refusing(JobNotFoundError, "never stored, or its history has been pruned"):
                    door.signal(unknown, "s0", "input", {})
                for verb in (door.pause_job, door.resume_job, door.cancel_job):
                    with at.refusing(JobNotFoundError, "not found"):
                        verb(unknown)
                for verb in (door.pause_worker, door.resume_worker, door.cancel_worker):
                    with at.refusing(WorkerNotFoundError, "not found"):
                        verb(unknown)
        runtime = at.all[0]
        with at.refusing(FlowNotFoundError, "'g' not found"):
            runtime.exec("g")
        with at.refusing(DefinitionError, "worker_id must not be empty"):
            runtime.exec("f", worker_id="")
        with at.refusing(TypeError, "worker_id must be a string"):
            runtime.exec("f", worker_id=5)
        with at.refusing(DefinitionError, "U\\+0000"):
            runtime.exec("f", worker_id="a\x00b")
        with at.refusing(TypeError, "must be a WorkerState"):
            runtime.exec("f", 5)


def test_a_worker_of_another_flow_or_one_that_has_ended(database: str) -> None:
    registry = chain(Step(count))
    other = Flow("g")
    other.add_routine(Step(count), "s0")
    registry.register_by_name("g", other)
    with doors(database, registry) as at:
        runtime = at.all[0]
        runtime.exec("g", worker_id="of g")
        with at.refusing(ValueError, "belongs to flow 'g', not 'f'"):
            runtime.exec("f", worker_id="of g")
        runtime.exec("f", worker_id="ended")
        runtime.cancel_worker("ended")
        with at.refusing(WorkerEndedError, r"has ended \(cancelled\)"):
            runtime.exec("f", worker_id="ended")
        for door in at.all:
            with at.refusing(WorkerNotFoundError, "'of g' not found"):
                door.post(*GOOD, {}, "of g")
            with at.refusing(WorkerEndedError, r"has ended \(cancelled\)"):
                door.post(*GOOD, {}, "ended")


def _deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


BAD_PAYLOADS: list[tuple[Any, type[PayloadError], str]] = [
    (None, PayloadError, "must be a mapping, not NoneType"),
    (5, PayloadError, "must be a mapping, not int"),
    ([1], PayloadError, "must be a mapping, not list"),
    ("s", PayloadError, "must be a mapping, not str"),
    ({"items": [{"fn": len}]}, PayloadError, r"\.items\[0\]\.fn: builtin_function_or_method is not JSON"),
    ({"a": {1, 2}}, PayloadError, r"\.a: set"),
    ({"a": math.nan}, PayloadError, r"\.a"),
    ({"a": "x\x00y"}, PayloadError, r"\.a: contains U\+0000"),
    ({"a": "\ud800"}, PayloadError, r"\.a"),
    ({1: "a"}, PayloadError, "1"),
    (_deep(300), PayloadError, "deep"),
    ({"a": "é" * 524_288}, PayloadTooLargeError, "1048584 bytes of JSON, the limit is 1048576"),
]


@pytest.mark.parametrize(
    ("data", "error", "match"), BAD_PAYLOADS, ids=[str(n) for n in range(len(BAD_PAYLOADS))]
)
def test_a_payload_that_cannot_be_stored(
    sqlite_database: str, data: Any, error: type[PayloadError], match: str
) -> None:
    with doors(sqlite_database, chain(Step(count))) as at:
        job = post(at.all[0], {}, delay=3600)
        for door in at.all:
            with at.refusing(error, f"^data.*{match}"):
                door.post(*GOOD, data)
            with at.refusing(error, rf"^items\[1\].*{match}"):
                door.post_many(*GOOD, [{"good": 1}, data])
            with at.refusing(error, f"^data.*{match}"):
                door.signal(job.job_id, "s0", "input", data)
            if isinstance(data, dict):
                with at.refusing(error, f"^metadata.*{match}"):
                    door.post(*GOOD, {}, metadata=data)


def test_one_bad_item_among_thousands_stores_none(database: str) -> None:
    with doors(database, chain(Step(count))) as at:
        for door in at.all:
            with at.refusing(PayloadError, r"^items\[4999\]\.bad"):
                door.post_many(*GOOD, [*({"n": n} for n in range(4999)), {"bad": len}])
            assert door.post_many(*GOOD, []) == []


def test_data_that_does_not_fit_the_model_of_its_slot(database: str) -> None:
    with doors(database, with_slot(model=Order)) as at:
        runtime, client = at.all
        for data, field in (({"n": "many"}, r"data\.n: "), ({}, r"data\.n: Field required")):
            with at.refusing(SlotModelError, field):
                runtime.post(*GOOD, data)
        job = post(runtime, {"n": 1}, delay=3600)
        with at.refusing(SlotModelError, r"data\.n"):
            runtime.signal(job.job_id, "s0", "input", {"n": "many"})
        with at.refusing(SlotModelError, r"items\[1\]\.n"):
            runtime.post_many(*GOOD, [{"n": 1}, {"n": "many"}])
        # a client has no flow code: the owner refuses, and nothing is lost
        refused = client.post(*GOOD, {"n": "many"}, "w")
        assert refused.job.wait(10)
        assert refused.status == "failed"
        assert "input" in refused.error
        assert [letter.payloads for letter in client.dead_letters()] == [[{"n": "many"}]]
        fits = client.post(*GOOD, {"n": "7", "more": 1}, "w")
        assert fits.job.wait(10)
        assert fits.status == "completed"
    payloads = rows(database, "SELECT payload FROM routilux_messages WHERE status = 'consumed'")
    assert payloads == [('{"n":7}',)]


def test_a_slot_at_its_limit(database: str) -> None:
    with doors(database, with_slot(max_queue_length=3)) as at:
        runtime = at.all[0]
        runtime.pause_worker("w")
        for _ in range(2):
            post(runtime, {})
        with at.refusing(SlotQueueFullError, r"'input' queue is full \(max=3\); nothing was stored"):
            runtime.post_many(*GOOD, [{}, {}], worker_id="w")
        post(runtime, {}, job_id="mine")
        for _ in range(2):
            with at.refusing(SlotQueueFullError, "max=3"):
                post(runtime, {}, job_id="other")
            with at.refusing(SlotQueueFullError, "max=3"):
                post(runtime, {}, timeout=0.05)
            assert post(runtime, {}, job_id="mine").status == "pending"  # not one more
        late = post(runtime, {}, delay=3600)  # waits for its time, not in the slot
        waiting: list[Any] = []
        thread = threading.Thread(target=lambda: waiting.append(post(runtime, {}, timeout=20)))
        thread.start()
        runtime.resume_worker("w")
        thread.join(20)
        assert waiting[0].wait(10)
        late.cancel()


def test_a_slot_at_its_limit_for_another_process(database: str) -> None:
    registry = with_slot(max_queue_length=3)
    with running(database, registry):
        pass
    with Client(database) as client:
        jobs = client.post_many(*GOOD, [{"n": 1}, {"n": 2}], worker_id="w")
        before = stored(database)
        with pytest.raises(SlotQueueFullError, match="max=3"):
            client.post_many(*GOOD, [{}, {}], worker_id="w")
        jobs.append(client.post(*GOOD, {"n": 3}, job_id="mine").job)
        with pytest.raises(SlotQueueFullError, match="max=3"):
            client.post(*GOOD, {})
        assert stored(database) == before | {"inbox": 3}
        assert client.post(*GOOD, {"n": 3}, job_id="mine").status == "pending"
        with running(database, registry):
            assert all(job.wait(10) for job in jobs)
            assert {job.status for job in jobs} == {"completed"}


def test_a_slot_that_was_full_has_room_again_for_another_process(database: str) -> None:
    """Its counters are written once more after the last message has left, though nothing happens then."""
    counted = "SELECT waiting FROM routilux_slots WHERE slot = 'input'"
    with running(database, with_slot(max_queue_length=3)) as runtime, Client(database) as client:
        runtime.pause_worker("w")
        for _ in range(3):
            post(runtime, {})
        eventually(lambda: rows(database, counted) == [(3,)])
        runtime.resume_worker("w")
        eventually(lambda: rows(database, counted) == [(0,)])
        assert client.post(*GOOD, {}, "w").job.wait(10)


def test_a_policy_that_wants_more_than_its_slot_holds(database: str) -> None:
    step = Step(count, policy=batch_size_policy(10))
    step.slots.clear()
    step.add_slot("input", max_queue_length=5)
    registry = chain(step)
    assert any("waits for 10 messages" in finding for finding in registry.resolve("f").validate())
    with Runtime(1, database=database, registry=registry) as runtime:
        before = stored(database)
        for refused in (lambda: runtime.exec("f"), lambda: runtime.post(*GOOD, {})):
            with pytest.raises(PolicyError, match="raise max_queue_length or take a smaller batch"):
                refused()
        assert stored(database) == before


def test_a_connection_to_what_there_is_not() -> None:
    flow = Flow("f")
    for name in ("a", "b"):
        flow.add_routine(Step(count), name)
    for wire, said in {
        ("c", "output", "b", "input"): "Source routine 'c' not found in flow",
        ("a", "out", "b", "input"): "Event 'out' not found in routine 'a'",
        ("a", "output", "c", "input"): "Target routine 'c' not found in flow",
        ("a", "output", "b", "in"): "Slot 'in' not found in routine 'b'",
    }.items():
        with pytest.raises(DefinitionError, match=said) as refused:
            flow.connect(*wire)
        assert isinstance(refused.value, ValueError)
    assert flow.connections == []


def test_times_ids_and_other_arguments_of_a_post(database: str) -> None:
    bad: list[tuple[dict[str, Any], type[BaseException], str]] = [
        ({"at": datetime(2030, 1, 1)}, NaiveDatetimeError, "at needs a time zone"),  # noqa: DTZ001
        ({"at": "2030-01-01"}, TypeError, "at must be a datetime"),
        ({"at": date(2030, 1, 1)}, TypeError, "at must be a datetime"),
        ({"delay": math.nan}, ValueError, "delay must be a number of seconds"),
        ({"delay": math.inf}, ValueError, "delay must be"),
        ({"delay": 1e300}, ValueError, "delay must be"),
        ({"delay": timedelta.max}, ValueError, "delay must be"),
        ({"delay": "5"}, ValueError, "delay must be"),
        ({"delay": True}, ValueError, "delay must be"),
        ({"job_id": ""}, ValueError, "job_id must be a non-empty string"),
        ({"job_id": 5}, ValueError, "job_id must be a non-empty string"),
        ({"job_id": "a\x00b"}, PayloadError, r"job_id: contains U\+0000"),
        ({"job_id": "a" * 600}, PayloadTooLargeError, "job_id"),
        ({"metadata": [1]}, PayloadError, "metadata: must be a mapping"),
        ({"transaction": "mine"}, TypeError, "takes a SQLAlchemy Core Connection or an ORM Session"),
    ]
    with doors(database, chain(Step(count))) as at:
        for door in at.all:
            for arguments, error, match in bad:
                with at.refusing(error, match):
                    door.post(*GOOD, {}, **arguments)
            with at.refusing(ValueError, "delay must be"):
                door.post_many(*GOOD, [{}, Post({}, delay=1e300)])
        far = post(at.all[0], {}, at=datetime.max.replace(tzinfo=UTC))
        assert far.status == "pending"


def test_a_post_for_a_routine_that_the_definition_has_lost_is_kept(database: str) -> None:
    with running(database, chain(Step(count), Step(count))):
        pass
    with Client(database) as client:
        job = client.post("f", "s1", "input", {"n": 1}, "w").job
        good = client.post(*GOOD, {"n": 2}, "w").job
        with running(database, chain(Step(count))):
            assert good.wait(10)
            assert job.wait(10)
            assert (good.status, job.status) == ("completed", "failed")
            assert "'s1' not found" in str(job.error)
            assert [letter.payloads for letter in client.dead_letters()] == [[{"n": 1}]]


# a runtime after a fork


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_runtime_in_a_forked_child(database: str, tmp_path: Path) -> None:
    with running(database, chain(Step(count))) as runtime:
        before = stored(database)
        calls: list[Callable[[], Any]] = [
            lambda: runtime.post(*GOOD, {}),
            lambda: runtime.post_many(*GOOD, [{}]),
            lambda: runtime.exec("f"),
            lambda: runtime.get_job("x"),
            lambda: runtime.list_jobs(),
            lambda: runtime.dead_letters(),
            lambda: runtime.signal("x", "s0", "input", {}),
            lambda: runtime.pause_worker("w"),
            lambda: runtime.wait_until_all_jobs_finished(1),
            lambda: runtime.wait_until_all_workers_idle(1),
            lambda: runtime.cancel_all_jobs(),
        ]
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            refused = 0
            for call in calls:
                try:
                    call()
                except ForkedRuntimeError as error:
                    refused += "spawn" in str(error)
                except BaseException:
                    pass
            os._exit(refused if runtime.shutdown(wait=True) else 99)  # which does nothing here
        deadline = time.monotonic() + 30
        while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
            assert time.monotonic() < deadline
            threading.Event().wait(0.01)
        assert os.waitstatus_to_exitcode(ended[1]) == len(calls)
        assert stored(database) == before
        assert post(runtime, {}).wait(10)  # the parent goes on


# databases that cannot serve


def test_a_database_that_is_missing(database: str, tmp_path: Path, postgres_server: Any) -> None:
    if database.startswith("sqlite"):
        missing = f"sqlite:///{tmp_path / 'no' / 'such' / 'folder' / 'r.db'}"
    else:
        missing = postgres_server.url("nowhere")
    for door in (lambda: Runtime(1, database=missing), lambda: Client(missing)):
        with pytest.raises(DatabaseUnavailableError):
            door()


def test_a_database_without_a_schema(database: str, tmp_path: Path) -> None:
    with empty_database(database, tmp_path) as empty:
        if database.startswith("postgres"):  # a SQLite file gets its tables at the start of a runtime
            with pytest.raises(SchemaMissingError, match="run `routilux db upgrade`"):
                Runtime(1, database=empty, registry=FlowRegistry())
            with pytest.raises(SchemaMissingError, match="run `routilux db upgrade`"):
                Client(empty)
        else:
            with Runtime(1, database=empty, registry=FlowRegistry()):
                pass
            with Client(empty) as client:
                assert client.list_jobs() == []


@pytest.mark.parametrize(
    ("statement", "error", "match"),
    [
        (
            "UPDATE routilux_alembic_version SET version_num = '9999'",
            SchemaTooNewError,
            "install the version that made it",
        ),
        ("DROP TABLE routilux_alembic_version", SchemaForeignError, "use another database or schema"),
    ],
)
def test_a_schema_that_this_code_cannot_serve(
    database: str, statement: str, error: type[Exception], match: str
) -> None:
    with create_engine(database, poolclass=NullPool).begin() as connection:
        connection.execute(text(statement))
    for door in (lambda: Runtime(1, database=database, registry=FlowRegistry()), lambda: Client(database)):
        with pytest.raises(error, match=match):
            door()
    assert rows(database, "SELECT count(*) FROM routilux_runtimes") == [(0,)]


def test_a_postgres_in_which_this_user_may_only_read(postgres_database: str) -> None:
    with running(postgres_database, chain(Step(count))):
        pass
    reader = f"reader_{uuid4().hex}"
    admin = create_engine(postgres_database, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {reader} LOGIN IN ROLE pg_read_all_data")
    url = make_url(postgres_database).set(username=reader).render_as_string()
    before = stored(postgres_database)
    try:
        with pytest.raises(DatabaseReadOnlyError):
            Runtime(1, database=url, registry=FlowRegistry())
        with Client(url) as client:
            assert client.list_jobs() == []
            with pytest.raises(DatabaseReadOnlyError):
                client.post(*GOOD, {})
        assert stored(postgres_database) == before
    finally:
        with admin.connect() as connection:
            connection.exec_driver_sql(f"DROP ROLE {reader}")
