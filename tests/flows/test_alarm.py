"""The alarm clock is only a hint: redelivery goes on when its thread is dead."""

from __future__ import annotations

from typing import Any

import pytest

from routilux import ErrorHandler
from tests.flows.flows import Step, chain, post, running
from tests.support.inside_runtime import alarm
from tests.support.waiting import eventually


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_redelivery_goes_on_when_the_alarm_clocks_thread_has_died(database: str) -> None:
    calls: list[int] = []

    def twice(step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
        calls.append(1)
        if len(calls) < 3:
            raise ValueError("again")

    registry = chain(Step(twice, handler=ErrorHandler("retry", retry_delay=0.3, retry_backoff=1.0)))
    with running(database, registry) as runtime:
        clock = alarm(runtime)
        thread = clock._scheduler._thread

        def explode(*_: Any) -> None:
            raise RuntimeError("the job store is broken")

        clock._scheduler._process_jobs = explode
        clock._scheduler.wakeup()
        eventually(lambda: not thread.is_alive())
        job = post(runtime, {})
        assert job.wait(20)
        assert job.status == "completed"
        eventually(lambda: clock.is_alive)
