"""Threads for logic: one is woken at a time, and yet whatever can go on goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, cast

from routilux.core.run import Run
from routilux.execution.executors import ThreadExecutor

SIZE = 8


def executor(
    perform: Callable[[Any], None],
    size: int = SIZE,
    on_error: Callable[[Run, BaseException], None] = lambda run, error: None,
) -> ThreadExecutor:
    return ThreadExecutor(size, cast(Callable[[Run], None], perform), on_error)


def submit(threads: ThreadExecutor, run: object) -> None:
    threads.reserve()
    threads.submit(cast(Run, run))


def test_runs_that_wait_for_each_other_all_have_a_thread() -> None:
    everybody = threading.Barrier(SIZE + 1)
    threads = executor(lambda run: everybody.wait(10) and None)
    for _ in range(3):  # with threads that are to be started, and with some that are there
        for number in range(SIZE):
            submit(threads, number)
        everybody.wait(10)
        for _ in range(SIZE):
            threads.release()
    threads.stop(10)
    assert not everybody.broken


def test_more_runs_than_threads_are_all_done_each_once() -> None:
    done: list[int] = []
    is_over = threading.Event()

    def perform(number: int) -> None:
        done.append(number)
        if len(done) == 5_000:
            is_over.set()

    threads = executor(perform, 3)
    for number in range(5_000):
        submit(threads, number)
    assert is_over.wait(20)
    threads.stop(10)
    assert sorted(done) == list(range(5_000))
    assert len(threads._threads) <= 3


def test_a_thread_goes_on_after_a_run_that_broke_off_and_tells_of_it() -> None:
    second, error = threading.Event(), SystemExit()
    told: list[tuple[object, BaseException]] = []

    def perform(run: object) -> None:
        if run == 1:
            raise error
        second.set()

    threads = executor(perform, 1, lambda run, error: told.append((run, error)))
    submit(threads, 1)
    submit(threads, 2)
    assert second.wait(10)
    threads.stop(10)
    assert told == [(1, error)]


def test_what_has_not_begun_when_it_is_stopped_is_let_go_of() -> None:
    begun, go_on = threading.Event(), threading.Event()
    done: list[int] = []

    def perform(number: int) -> None:
        begun.set()
        go_on.wait(10)
        done.append(number)

    threads = executor(perform, 1)
    submit(threads, 1)
    submit(threads, 2)
    assert begun.wait(10)
    threads.stop(0)
    go_on.set()
    threads.stop(10)
    assert done == [1]
    assert not any(thread.is_alive() for thread in threads._threads)
