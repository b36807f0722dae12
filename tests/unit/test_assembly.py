"""A runtime is put together whatever happens meanwhile; what activations read of their surroundings follows
their worker.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from routilux.engine.engine import Engine
from routilux.engine.settings import Settings
from routilux.ownership.lease import Lease
from routilux.runtime import wiring
from routilux.runtime.wiring import readers_for
from routilux.store.writes import ownership
from routilux.testing.clock import ManualClock
from tests.flows.flows import Step, chain, running


def test_the_routines_with_state_are_those_of_the_worker_as_it_was_loaded_last() -> None:
    engine = cast(Any, SimpleNamespace(clock=ManualClock(), store=None, settings=Settings()))
    readers_of = readers_for(lambda: engine)
    for routines in (["a"], ["a", "b"]):
        worker = SimpleNamespace(worker_id="w", state=dict.fromkeys(routines))
        run = cast(Any, SimpleNamespace(cell=SimpleNamespace(worker=worker)))
        assert readers_of(run).state_routines() == routines
        assert readers_of(run) is readers_of(run)


def test_a_runtime_that_is_declared_dead_while_it_starts_comes_back_as_another(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    register, buried = wiring.register, []

    def registering(engine: Engine, lease: Lease) -> None:
        register(engine, lease)
        if len(buried) < 2:  # stopped here for longer than its lease, and then again
            with engine.store.database.write() as connection:
                ownership.mark_runtime_dead(connection, engine.runtime_key, engine.clock.now_us())
            buried.append(engine.runtime_key)

    monkeypatch.setattr(wiring, "register", registering)
    with running(database, chain(Step(lambda *_: None))) as runtime:
        runtime.post("f", "s0", "input", {})
        assert runtime.wait_until_all_jobs_finished(timeout=20.0)
        assert runtime._parts.engine.runtime_key not in buried
    assert len(buried) == 2
