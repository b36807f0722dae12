"""Processes that are watched from outside.

This module imports nothing that the watched process does not need.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

from sqlalchemy import Engine, event

from routilux import Runtime
from tests.benchmarks import flows
from tests.benchmarks.flows import Item


def rest(database: str) -> None:
    """A runtime with one worker that has done one job; whenever it is asked it says how many
    statements it has sent and how many seconds of a processor it has used."""
    sent = 0

    def count(*_: object) -> None:
        nonlocal sent
        sent += 1

    with Runtime(database=database, registry=flows.registry(flows.three_stages())) as runtime:
        runtime.exec("three_stages")
        runtime.post("three_stages", "first", "input", flows.payload(0)).job.wait(10)
        event.listen(Engine, "before_cursor_execute", count)
        for _ in sys.stdin:
            print("sent", sent, time.process_time(), flush=True)


class Slow(flows.Sink):
    """Says when it starts and takes its time: the owner is killed in it."""

    def logic(self, slot_data: dict[str, list[Item]], policy_message: Any, worker_state: Any) -> None:
        print("activation", flush=True)
        threading.Event().wait(0.05)


def serve(database: str) -> None:
    """A process that owns, or waits to take over, the worker."""
    with Runtime(database=database, registry=flows.registry(flows.one_stage(Slow()))):
        print("ready", flush=True)
        threading.Event().wait()
