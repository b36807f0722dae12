"""Wrong arguments raise the named error, and nothing is stored."""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from routilux import (
    Client,
    DefinitionError,
    Flow,
    FlowNotFoundError,
    ForkedRuntimeError,
    JobNotFoundError,
    NaiveDatetimeError,
    PayloadError,
    PayloadTooLargeError,
    Post,
    RoutineNotFoundError,
    Runtime,
    SlotNotFoundError,
    WorkerEndedError,
    WorkerNotFoundError,
)
from tests.flows.doors import doors
from tests.flows.flows import GOOD, Step, chain, count, post, running
from tests.flows.two_routines import owner
from tests.support.looking import column, stored


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


@pytest.mark.old_bug(5)
def test_old_bug_05_a_refused_post_left_a_worker_and_a_job(sqlite_database: str) -> None:
    """A post that is refused leaves nothing behind; its data is a mapping, anything else is refused."""
    refused: list[tuple[Any, ...]] = [("f", "s9", "input", {}), ("f", "s0", "no slot", {})]
    refused += [("f", "s0", "input", data) for data in (None, 5, [1], "s")]
    with Runtime(2, database=sqlite_database, registry=chain(Step(count))) as runtime:
        for arguments in refused:
            with pytest.raises(ValueError, match=r"not found|data"):
                runtime.post(*arguments)
        assert runtime.list_jobs() == []
    assert set(stored(sqlite_database).values()) == {0}


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
