"""A runtime is wired whatever happens at the same time; what activations read follows their worker."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from routilux.engine.settings import Settings
from routilux.ownership.lease import Lease
from routilux.runtime.activation_readers import ActivationReaders
from routilux.store.writes import ownership
from routilux.testing.clock import ManualClock
from tests.flows.flows import Step, chain, running
from tests.support.inside_runtime import identity


def test_the_routines_with_state_are_those_of_the_worker_as_it_was_loaded_last() -> None:
    readers_of = ActivationReaders(cast(Any, None), ManualClock(), Settings())
    for routines in (["a"], ["a", "b"]):
        worker = SimpleNamespace(worker_id="w", state=dict.fromkeys(routines))
        run = cast(Any, SimpleNamespace(cell=SimpleNamespace(worker=worker)))
        assert readers_of(run).state_routines() == routines
        assert readers_of(run) is readers_of(run)


def test_a_runtime_that_is_declared_dead_while_it_starts_comes_back_as_another(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    register, dead = Lease.register, list[int]()

    def registering(self: Lease) -> int:
        key = register(self)
        if len(dead) < 2:  # stopped here for longer than its lease, and then again
            with self._database.write() as connection:
                ownership.mark_runtime_dead(connection, key, self._clock.now_us())
            dead.append(key)
        return key

    monkeypatch.setattr(Lease, "register", registering)
    with running(database, chain(Step(lambda *_: None))) as runtime:
        runtime.post("f", "s0", "input", {})
        assert runtime.wait_until_all_jobs_finished(timeout=20.0)
        assert identity(runtime) not in dead
    assert len(dead) == 2
