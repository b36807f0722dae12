"""Input that nobody should send: it is refused where it comes in, and nothing else stops for it.

`tests/flows/test_fuzz.py` looks for more of it; what it found is here, one test each.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, field_validator
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from routilux import Client, Flow, RetryLater, Routine, Runtime
from routilux.activation_policies import custom_policy, immediate_policy
from routilux.errors import (
    DatabaseUnavailableError,
    DefinitionError,
    JobNotFoundError,
    PayloadError,
    SlotModelError,
    WorkerNotFoundError,
)
from routilux.testing import ManualRuntime, runtime
from tests.flows.flows import flow_of, running, taking
from tests.support.looking import column
from tests.support.waiting import eventually


class Moody(BaseModel):
    """A model whose validator raises what a validator should not."""

    mood: object = None

    @field_validator("mood")
    @classmethod
    def _check(cls, value: object) -> object:
        if value == "bad":
            raise RuntimeError("in a bad mood")
        return value


def ignore(slot_data: Any, policy_message: Any, worker_state: Any) -> None:
    pass


def two_routines(policy: Any = None) -> Flow:
    flow = Flow("f")
    for name in ("a", "b"):
        routine = taking("in", logic=ignore, policy=policy if policy and name == "a" else immediate_policy())
        routine.add_slot("mood", model=Moody)
        flow.add_routine(routine, name)
    return flow


@contextmanager
def owner(database: str) -> Iterator[ManualRuntime]:
    with runtime(two_routines(), database=database) as rt:
        rt.exec("f", worker_id="w")
        yield rt


def still_serves(rt: ManualRuntime) -> None:
    job = rt.post("f", "b", "in", {}, "w").job
    rt.run_until_idle()
    assert job.status == "completed"


# requests of other processes


@pytest.mark.parametrize(
    "body",
    [
        '{"reason": {"a": 1}}',
        '{"reason": [1]}',
        '{"reason": "\\u0000"}',
        '{"key": "k", "by": "x"}',
        '{"key": ["k"], "text": 5}',
        '{"routine": "r", "key": "k", "by": null}',
        '{"status": "no such", "error": 5}',
        "[]",
        "null",
        "not JSON",
    ],
)
def test_a_row_of_the_inbox_that_cannot_be_applied_stops_nobody(database: str, body: str) -> None:
    kinds = [
        "cancel_job",
        "change_data",
        "increment_state",
        "complete_job",
        "pause_worker",
        "no such verb",
        "post",
    ]
    with owner(database) as rt:
        job_id = rt.post("f", "a", "in", {}, "w", delay=60).job.job_id
        insert_rows(database, [(kind, f"other-{kind}" if kind == "post" else job_id, body) for kind in kinds])
        with Client(database) as client:
            good = client.post("f", "a", "in", {}, worker_id="w").job
            rt.run_until_idle()
            rt.resume_worker("w")
            rt.run_until_idle()
            assert good.status == "completed"
        still_serves(rt)
    assert column(database, "SELECT count(*) FROM routilux_inbox") == [0]


def insert_rows(database: str, rows: list[tuple[str, str, str]]) -> None:
    statement = text(
        "INSERT INTO routilux_inbox (kind, flow, worker_id, job_id, body, created_at)"
        " VALUES (:kind, 'f', 'w', :job_id, :body, 0)"
    )
    with create_engine(database, poolclass=NullPool).begin() as connection:
        for kind, job_id, body in rows:
            connection.execute(statement, {"kind": kind, "job_id": job_id, "body": body})


def test_what_arrives_for_a_worker_after_its_end_stays_in_nobodys_way(database: str) -> None:
    """A post whose transaction was open while its worker was cancelled; and what a client asks of one that
    has ended.
    """
    body = '{"routine":"a","slot":"in","payload":"{}"}'
    with owner(database) as rt, Client(database) as client:
        rt.exec("f", worker_id="other")
        rt.cancel_worker("w")
        rt.run_until_idle()
        client.pause_worker("w")
        insert_rows(database, [("post", "late", body)])
        rt.run_until_idle()
        late = rt.get_job("late")
        assert late is not None
        assert (late.status, "cancelled" in str(late.error)) == ("failed", True)
        assert [letter.job_id for letter in rt.dead_letters()] == ["late"]
    assert column(database, "SELECT count(*) FROM routilux_inbox") == [0]
    assert column(database, "SELECT status FROM routilux_workers WHERE worker_id = 'w'") == ["cancelled"]
    assert column(database, "SELECT owner FROM routilux_workers WHERE worker_id = 'w'") == [None]


def test_a_post_that_a_validator_chokes_on_is_kept_as_a_failed_job(database: str) -> None:
    with owner(database) as rt, Client(database) as client:
        job = client.post("f", "a", "mood", {"mood": "bad"}, worker_id="w").job
        rt.run_until_idle()
        assert job.status == "failed"
        (letter,) = rt.dead_letters()
        assert letter.payloads == [{"mood": "bad"}]
        waiting = rt.post("f", "a", "in", {}, "w", delay=60).job
        client.signal(waiting.job_id, "a", "mood", {"mood": "bad"})
        with pytest.raises(SlotModelError, match="Moody of slot 'mood' raised RuntimeError"):
            rt.post("f", "a", "mood", {"mood": "bad"}, "w")
        still_serves(rt)


def test_adding_to_what_is_no_number_stops_nobody(database: str) -> None:
    with owner(database) as rt, Client(database) as client:
        job = client.get_job(rt.post("f", "a", "in", {}, "w", delay=60).job.job_id)
        assert job is not None
        job.set_data("k", "text")
        job.increment("k")
        rt.run_until_idle()
        assert job.data == {"k": "text"}
        still_serves(rt)


def test_what_a_client_asks_is_checked_before_it_is_stored(database: str) -> None:
    with owner(database) as rt, Client(database) as client:
        job = client.get_job(rt.post("f", "a", "in", {}, "w", delay=60).job.job_id)
        assert job is not None
        for by in ("x", None, [], 10**30):
            with pytest.raises(TypeError, match="by must be"):
                job.increment("k", by)  # type: ignore[arg-type]
        with pytest.raises(PayloadError, match="by: nan"):
            job.increment("k", float("nan"))
        for reason in (5, {}, [1], b"x"):
            with pytest.raises(TypeError, match="reason must be a string"):
                client.pause_worker("w", reason)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="error must be a string"):
            job.complete("failed", {"a": 1})  # type: ignore[arg-type]
    assert column(database, "SELECT count(*) FROM routilux_inbox") == [0]


# ids, names and keys


@pytest.mark.parametrize("name", ["\x00", "a\x00b", "\ud800", 5, ["w"]])
def test_an_id_that_no_database_stores_is_an_id_that_is_not_there(database: str, name: Any) -> None:
    with owner(database) as rt, Client(database) as client:
        for host in (rt, client):
            assert host.get_job(name) is None
            assert host.list_jobs(flow_name=name) == host.list_jobs(worker_id=name) == []
            with pytest.raises(JobNotFoundError):
                host.list_jobs(before=name)
            assert host.dead_letters(flow_name=name) == []
            with pytest.raises(JobNotFoundError):
                host.signal(name, "a", "in", {})
            with pytest.raises(JobNotFoundError):
                host.cancel_job(name)
            with pytest.raises(WorkerNotFoundError):
                host.pause_worker(name)
            with pytest.raises(WorkerNotFoundError):
                host.post("f", "a", "in", {}, worker_id=name)
        assert rt.exec("f", worker_id="w").get_execution_history(name) == []


@pytest.mark.parametrize("key", ["\x00", "\ud800"])
def test_a_key_that_no_database_stores_is_refused_by_name(database: str, key: str) -> None:
    with owner(database) as rt:
        worker = rt.exec("f", worker_id="w")
        job = rt.post("f", "a", "in", {}, "w").job
        with pytest.raises(PayloadError, match="key: contains"):
            job.set_data(key, 1)
        with pytest.raises(PayloadError, match="key: contains"):
            job.increment(key)
        with pytest.raises(PayloadError, match="a key of state: contains"):
            worker.update_routine_state("a", {key: 1})
        with pytest.raises(PayloadError, match="routine_id: contains"):
            worker.update_routine_state(key, {})
        with pytest.raises(PayloadError, match="key: contains"):
            worker.increment("a", key)
        with pytest.raises(TypeError, match="key must be a string, not int"):
            job.set_data(5, 1)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="routine_id must be a string, not NoneType"):
            worker.increment(None, "k")  # type: ignore[arg-type]
        still_serves(rt)


def test_a_reason_is_kept_as_text_that_every_database_stores(database: str) -> None:
    with owner(database) as rt:
        jobs = [rt.post("f", "a", "in", {}, "w").job for _ in range(2)]
        jobs[0].cancel("a\x00b\ud800")
        jobs[1].complete("failed", "a\x00b\ud800")
        assert [job.error for job in jobs] == ["a\\x00b\\ud800"] * 2
        rt.pause_worker("w", "\x00")
        rt.resume_worker("w", "\ud800")
        still_serves(rt)


def test_numbers_of_rows_and_seconds_are_checked(sqlite_database: str) -> None:
    with owner(sqlite_database) as rt, Client(sqlite_database) as client:
        for host in (rt, client):
            for read in (host.list_jobs, host.dead_letters):
                for limit in ("1", None, 1.5, True, [1]):
                    with pytest.raises(TypeError, match="limit must be a number"):
                        read(limit=limit)  # type: ignore[operator]
                with pytest.raises(ValueError, match="limit must not be negative"):
                    read(limit=-1)  # type: ignore[operator]
                assert read(limit=10**30) == read(limit=0) == []  # type: ignore[operator]
            with pytest.raises(ValueError, match="status must be one of pending, running"):
                host.list_jobs(status="nope")
            with pytest.raises(TypeError, match="before must be a DeadLetter"):
                host.dead_letters(before="x")  # type: ignore[arg-type]
        job = rt.post("f", "a", "in", {}, "w").job
        for timeout in ("1", float("nan"), 1e30, True, []):
            with pytest.raises(ValueError, match="timeout must be a number of seconds"):
                job.wait(timeout)  # type: ignore[arg-type]
            with pytest.raises(ValueError, match="timeout must be a number of seconds"):
                rt.wait_until_all_jobs_finished(timeout)  # type: ignore[arg-type]
            with pytest.raises(ValueError, match="timeout must be a number of seconds"):
                rt.shutdown(timeout=timeout)  # type: ignore[arg-type]
        assert not job.wait(-1)
        assert job.wait(timedelta(seconds=1))  # type: ignore[arg-type]
        assert job.wait(float("inf"))


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("thread_pool_size", "4", ValueError),
        ("thread_pool_size", -1, ValueError),
        ("lease", "9", ValueError),
        ("lease", float("nan"), ValueError),
        ("lease", float("inf"), ValueError),
        ("lease", 0, ValueError),
        ("durability", "none", ValueError),
        ("registry", {}, TypeError),
        ("settings", {"lease_s": 9}, TypeError),
    ],
)
def test_an_argument_of_a_runtime_is_named_when_it_is_wrong(
    name: str, value: Any, kind: type[Exception]
) -> None:
    with pytest.raises(kind, match=name):
        Runtime(**{"database": "sqlite://", name: value})


@pytest.mark.parametrize("delay", [10**4000, float("inf"), float("nan"), -1])
def test_logic_cannot_ask_for_a_delay_that_no_float_holds(delay: float) -> None:
    with pytest.raises(ValueError, match="RetryLater: delay must be"):
        RetryLater(delay)


def test_texts_of_definitions_are_checked_when_they_are_given() -> None:
    with pytest.raises(PayloadError, match="a name in output_params: contains a lone surrogate"):
        Routine().add_event("out", ["\ud800"])
    with pytest.raises(DefinitionError) as refused:
        Flow("f").connect("\ud800", "out", "b", "in")
    assert str(refused.value).encode()


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///a\x00b",
        "sqlite:///\ud800",
        "sqlite:///" + "x" * 5000,
        "postgresql://user:hunter2@host:port/x",
        "postgresql://user:hunter2@[::1/x",
        "postgresql://user:hunter2@a..b/x",
        "user:hunter2@host",
        "nothing://?password=hunter2",
        "",
    ],
)
def test_a_url_that_cannot_be_one_is_named_without_its_password(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatabaseUnavailableError) as refused:
        Runtime(database=url)
    assert "hunter2" not in str(refused.value)
    assert str(refused.value).encode()


# policies and logic that end threads


class Gone(BaseException):
    """Not an `Exception`, as the outcomes of pytest are not."""


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, Gone, Mute])
def test_a_policy_that_raises_anything_costs_its_own_messages_only(sqlite_database: str, error: Any) -> None:
    def policy(slots: Any, worker_state: Any) -> bool:
        raise error

    with running(sqlite_database, registry_of(two_routines(custom_policy(policy)))) as rt:
        # more of them than there are threads
        failed = [rt.post("f", "a", "in", {}, "w").job for _ in range(6)]
        assert all(job.wait(10) for job in failed)
        assert {job.status for job in failed} == {"failed"}
        assert rt.post("f", "b", "in", {}, "w").job.wait(10)
        assert len(rt.dead_letters()) >= 1


def registry_of(flow: Flow) -> Any:
    return flow_of(**flow.routines)


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, Gone, asyncio.CancelledError])
def test_logic_that_raises_anything_fails_its_own_job_only(
    sqlite_database: str, error: Any, is_async: bool
) -> None:
    def plain(slot_data: Any, policy_message: Any, worker_state: Any) -> None:
        if slot_data["in"][0]["bad"]:
            raise error

    async def later(slot_data: Any, policy_message: Any, worker_state: Any) -> None:
        plain(slot_data, policy_message, worker_state)

    logic: Callable[..., Any] = later if is_async else plain
    with running(sqlite_database, flow_of(r=taking("in", logic=logic, policy=immediate_policy()))) as rt:
        failed = [rt.post("f", "r", "in", {"bad": True}, "w").job for _ in range(6)]
        good = rt.post("f", "r", "in", {"bad": False}, "w").job
        assert good.wait(10)
        assert all(job.wait(10) for job in failed)
        assert {job.status for job in failed} == {"failed"}
        assert good.status == "completed"


def test_a_thread_of_the_pool_outlives_a_run_that_breaks_off(
    sqlite_database: str, caplog: pytest.LogCaptureFixture
) -> None:
    with running(sqlite_database, flow_of(r=taking("in", logic=ignore, policy=immediate_policy()))) as rt:
        performer = rt._host.running.pool._threads._perform.__self__  # type: ignore[attr-defined]
        readers, breaks = performer._readers, threading.Event()

        def broken(run: Any) -> Any:
            if not breaks.is_set():
                breaks.set()
                raise SystemExit("broken")
            return readers(run)

        performer._readers = broken
        assert rt.post("f", "r", "in", {}, "w").job.wait(10)
        eventually(lambda: "unexpected error while running routine 'r'" in caplog.text)


def test_a_policy_that_takes_an_item_twice_has_taken_it_once() -> None:
    def policy(slots: Any, worker_state: Any) -> Any:
        for slot in slots.values():
            slot.consume_all_new()
            slot.consumed.extend(list(slot.consumed))
        return True, {}, None

    with runtime(two_routines(custom_policy(policy))) as rt:
        jobs = rt.post_many("f", "a", "in", [{"n": n} for n in range(3)])
        rt.run_until_idle()
        assert {job.status for job in jobs} == {"completed"}


def test_a_policy_that_takes_only_what_it_was_not_shown_is_told() -> None:
    def policy(slots: Any, worker_state: Any) -> Any:
        for slot in slots.values():
            slot.consumed.append(Strange())
        return True, {}, None

    with runtime(two_routines(custom_policy(policy))) as rt:
        job = rt.post("f", "a", "in", {}).job
        rt.run_until_idle()
        assert job.error == "PolicyError: the policy of routine 'a' consumed only what it was not shown"


class Strange:
    seq = 10**9


# payloads


class BadMapping(dict[str, Any]):
    def items(self) -> Any:
        raise RuntimeError("no items")


class Liar:
    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return dict


class Unlooked:
    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise RuntimeError("do not look")


class Weird(str):
    def encode(self, *_: Any, **__: Any) -> bytes:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (lambda: {"a": [BadMapping(b=1)]}, r"data\.a\[0\]: BadMapping cannot be read: RuntimeError"),
        (lambda: {"a": Liar()}, r"data\.a: Liar cannot be read: AttributeError"),
        (lambda: {"a": Unlooked()}, r"data\.a: Unlooked cannot be read: RuntimeError"),
        (lambda: {"a": {"b": Weird("x")}}, r"data\.a\.b: Weird cannot be read: RuntimeError"),
        (lambda: {"a": {Mute("k"): 1}}, r"data\.a: "),
        (lambda: {"a": 10**5000}, r"data\.a: an int of 16610 bits is too large"),
        (lambda: Liar(), r"data: Liar cannot be read"),
        (lambda: Unlooked(), r"data: Unlooked cannot be read"),
    ],
)
def test_a_value_that_cannot_be_looked_at_is_refused_with_its_path(make: Any, path: str) -> None:
    with runtime(two_routines()) as rt:
        for slot in ("in", "mood") if path.startswith("data: ") else ("in",):
            with pytest.raises(PayloadError, match=path):
                rt.post("f", "a", slot, make())
        assert rt.list_jobs() == []
