"""Whoever waits is broken off: by Ctrl-C, by a signal handler that stops the runtime, by another thread."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import pytest

from routilux import Runtime
from tests.crash.support.staging import HeldEngine
from tests.flows.flows import Step, chain, post, running
from tests.support.inside_runtime import parts
from tests.support.waiting import eventually


@contextmanager
def on_signal(handler: signal.Handlers | object) -> Iterator[None]:
    before = signal.signal(signal.SIGUSR1, handler)  # type: ignore[arg-type]
    yield
    signal.signal(signal.SIGUSR1, before)


def _signal_when_posted(runtime: Runtime) -> threading.Thread:
    def strike() -> None:
        eventually(lambda: parts(runtime).inputs.callers)
        os.kill(os.getpid(), signal.SIGUSR1)

    thread = threading.Thread(target=strike)
    thread.start()
    return thread


def test_a_post_that_is_broken_off_before_the_engine_has_begun_with_it_is_not_there(database: str) -> None:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with running(database, chain(Step(lambda *_: None))) as runtime, on_signal(interrupt):
        engine = HeldEngine(runtime)
        striking = _signal_when_posted(runtime)
        with pytest.raises(KeyboardInterrupt):
            post(runtime, {"n": 0}, job_id="broken off")
        striking.join()
        engine.let_go()
        assert post(runtime, {"n": 1}).wait(20)
        assert runtime.get_job("broken off") is None


def test_a_signal_handler_stops_a_runtime_whose_jobs_are_waited_for(database: str) -> None:
    """As a `with` block that ends does, in the very thread that runs the handler."""
    runtime = Runtime(2, database=database, registry=chain(Step(lambda *_: None)))
    runtime.exec("f", worker_id="w")
    post(runtime, {"n": 0}, delay=3600)
    stopped: list[bool] = []
    with on_signal(lambda *_: stopped.append(runtime.shutdown(wait=False))):
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        assert runtime.shutdown(wait=True, timeout=600)
        timer.join()
    assert stopped == [True]
    assert not runtime.is_running


def test_another_thread_stops_a_runtime_whose_jobs_are_waited_for(database: str) -> None:
    runtime = Runtime(2, database=database, registry=chain(Step(lambda *_: None)))
    runtime.exec("f", worker_id="w")
    post(runtime, {"n": 0}, delay=3600)
    waiting = threading.Thread(target=runtime.shutdown, kwargs={"timeout": 600})
    waiting.start()
    eventually(lambda: parts(runtime).scheduler.flush_waiters)
    assert runtime.shutdown(wait=False)
    waiting.join(60)
    assert not waiting.is_alive()


def test_a_stop_that_is_broken_off_can_be_made_again(database: str) -> None:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    go = threading.Event()
    runtime = Runtime(2, database=database, registry=chain(Step(lambda *_: go.wait(30))))
    runtime.exec("f", worker_id="w")
    post(runtime, {"n": 0})
    eventually(lambda: parts(runtime).scheduler.runs)

    def strike() -> None:
        eventually(lambda: parts(runtime).scheduler.is_stopping)
        os.kill(os.getpid(), signal.SIGUSR1)

    with on_signal(interrupt):
        striking = threading.Thread(target=strike)
        striking.start()
        with pytest.raises(KeyboardInterrupt):
            runtime.shutdown(wait=False, timeout=600)
        striking.join()
    go.set()
    assert runtime.shutdown(wait=False)
    assert not runtime.is_running


def test_a_second_stop_keeps_to_its_timeout(database: str) -> None:
    go = threading.Event()
    runtime = Runtime(2, database=database, registry=chain(Step(lambda *_: go.wait(30))))
    runtime.exec("f", worker_id="w")
    post(runtime, {"n": 0})
    eventually(lambda: parts(runtime).scheduler.runs)
    first = threading.Thread(target=runtime.shutdown, kwargs={"wait": False, "timeout": 600})
    first.start()
    eventually(lambda: parts(runtime).scheduler.is_stopping)
    assert not runtime.shutdown(wait=False, timeout=0.1)
    go.set()
    first.join(60)
    assert not runtime.is_running
