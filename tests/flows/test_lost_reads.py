"""A read of the engine that fails, at its first statement or at its very end, is as if it had been made
later.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from routilux import ErrorHandler, Runtime
from routilux.engine.settings import Settings
from tests.flows.flows import Step, chain
from tests.support.inside_runtime import store

JOBS = 7
READS = 24  # more than the engine makes for these


class Reads:
    """Of the engine's thread: the one with this number fails."""

    def __init__(self, runtime: Runtime, fails: int, *, at_end: bool) -> None:
        self._read = store(runtime).read
        self._left = fails
        self._at_end = at_end
        store(runtime).read = self.read  # type: ignore[method-assign]

    @contextmanager
    def read(self, **options: Any) -> Iterator[Connection]:
        is_engine = threading.current_thread().name == "routilux-engine"
        self._left -= is_engine
        is_last = is_engine and self._left == 0
        with self._read(**options) as connection:
            if is_last and not self._at_end:
                raise lost()
            yield connection
        if is_last:
            raise lost()


def lost() -> OperationalError:
    error = sqlite3.OperationalError("the connection is lost")
    error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
    return OperationalError("a read", {}, error)


@pytest.mark.parametrize("at_end", [False, True], ids=["at its first statement", "at its end"])
def test_whichever_read_fails_every_job_ends_and_counts_once(tmp_path: Path, at_end: bool) -> None:
    for number in range(1, READS + 1):
        database = f"sqlite:///{tmp_path / f'{number}.db'}"
        tried: set[int] = set()

        def logic(routine: Step, slot_data: Any, worker_state: Any, tried: set[int] = tried) -> None:
            n = slot_data["input"][0]["n"]
            worker_state.increment("s0", "runs")
            if n % 3 == 1 and n not in tried:
                tried.add(n)
                raise ValueError("once")

        registry = chain(Step(logic, handler=ErrorHandler("retry", max_retries=9, retry_delay=0.01)))
        with Runtime(2, database=database, registry=registry, settings=Settings(window=2)) as runtime:
            worker = runtime.exec("f", worker_id="w")
            Reads(runtime, number, at_end=at_end)
            runtime.pause_worker("w")
            held = runtime.post("f", "s0", "input", {"n": 0}, "w", "held").job
            runtime.pause_job("held")
            runtime.resume_worker("w")
            jobs = runtime.post_many("f", "s0", "input", [{"n": n} for n in range(1, JOBS)], worker_id="w")
            runtime.resume_job("held")
            assert runtime.wait_until_all_jobs_finished(timeout=30), f"read {number}"
            assert [job.status for job in (held, *jobs)] == ["completed"] * JOBS, f"read {number}"
            assert worker.get_routine_state("s0") == {"runs": JOBS}, f"read {number}"
            with store(runtime).read() as connection:
                left = connection.exec_driver_sql("SELECT count(*) FROM routilux_parked").scalar()
            assert left == 0, f"read {number}"
