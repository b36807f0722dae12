"""What keeps a runtime alive, and what it does when a part of it fails for a moment."""

from __future__ import annotations

import gc
import threading
from typing import Any

import pytest

from routilux import Runtime, get_runtime_instance
from routilux.engine.facts import Fact
from routilux.ownership.alarm import Alarm
from tests.flows.flows import Step, chain, running
from tests.support.inside_runtime import engine, parts
from tests.support.waiting import eventually


def test_a_runtime_that_the_program_does_not_hold_lives_while_its_engine_works(sqlite_database: str) -> None:
    def start() -> None:
        Runtime(2, database=sqlite_database)

    start()
    gc.collect()
    runtime = get_runtime_instance()
    assert runtime is not None
    assert runtime.is_running
    assert runtime.shutdown(timeout=10)


def test_a_runtime_that_is_shut_down_can_be_collected(sqlite_database: str) -> None:
    def start() -> None:
        with Runtime(2, database=sqlite_database):
            pass

    start()
    gc.collect()
    assert get_runtime_instance() is None


def test_an_alarm_clock_that_could_not_be_rebuilt_is_rebuilt_later(monkeypatch: pytest.MonkeyPatch) -> None:
    alarm, build, failures = Alarm(), Alarm._build, [RuntimeError("can't start new thread")]
    alarm.every(60, "nothing", lambda: None)
    alarm.start()

    def flaky(self: Alarm) -> Any:
        if failures:
            raise failures.pop()
        return build(self)

    monkeypatch.setattr(Alarm, "_build", flaky)
    alarm._scheduler.shutdown()
    with pytest.raises(RuntimeError, match="can't start"):
        alarm.ensure_alive()
    alarm.ensure_alive()
    assert alarm.is_alive
    alarm.stop()
    alarm.ensure_alive()
    assert not alarm.is_alive


def test_a_watch_may_be_ended_by_both_sides(sqlite_database: str) -> None:
    with running(sqlite_database, chain(Step(lambda *_: None))) as runtime:
        event = threading.Event()
        end = engine(runtime).watch(lambda: True, event)
        assert event.wait(10)
        end()
        end()


def test_a_caller_that_waits_for_a_job_is_told_before_subscribers(sqlite_database: str) -> None:
    order: list[str] = []

    class Waiter:
        def __bool__(self) -> bool:
            return True

        def __call__(self, fact: Fact) -> None:
            order.append("waiter")

    with running(sqlite_database, chain(Step(lambda *_: None))) as runtime:
        runtime.on("activation.committed", lambda fact: order.append("subscriber"))
        parts(runtime).facts.subscribe_at_times("job.ended", Waiter())
        runtime.post("f", "s0", "input", {})
        eventually(lambda: len(order) == 2)
    assert order == ["waiter", "subscriber"]


def test_what_was_loaded_again_after_an_unexpected_error_runs_at_once(
    sqlite_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(sqlite_database, chain(Step(lambda *_: None))) as runtime:
        seen: list[bool] = []
        recover = type(engine(runtime)).recover

        def watched(self: Any, error: BaseException, failures: int) -> None:
            recover(self, error, failures)
            seen.append(self.parts.workers.loaded is None)

        monkeypatch.setattr(type(engine(runtime)), "recover", watched)
        errors = [ZeroDivisionError("planted")]

        def recount() -> None:
            if errors:
                raise errors.pop()

        monkeypatch.setattr(parts(runtime).counters, "recount", recount)
        runtime.post("f", "s0", "input", {})
        assert runtime.wait_until_all_jobs_finished(timeout=20)
        assert seen == [True]


@pytest.mark.parametrize("name", ["job.finished", "runtime.fenced", 3])
def test_a_name_that_is_no_fact_of_the_users_is_refused(sqlite_database: str, name: Any) -> None:
    with (
        running(sqlite_database, chain(Step(lambda *_: None))) as runtime,
        pytest.raises(
            ValueError, match=r"there is no fact .*; the facts are activation.committed and job.ended"
        ),
    ):
        runtime.on(name, lambda fact: None)
