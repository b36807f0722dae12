"""What activations read of their surroundings follows a worker that is loaded again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from routilux.runtime.assembly import readers_for
from routilux.runtime.clock import ManualClock
from routilux.runtime.settings import Settings


def test_the_routines_with_state_are_those_of_the_worker_as_it_was_loaded_last() -> None:
    engine = cast(Any, SimpleNamespace(clock=ManualClock(), store=None, settings=Settings()))
    readers_of = readers_for(lambda: engine)
    for routines in (["a"], ["a", "b"]):
        worker = SimpleNamespace(worker_id="w", state=dict.fromkeys(routines))
        run = cast(Any, SimpleNamespace(cell=SimpleNamespace(worker=worker)))
        assert readers_of(run).state_routines() == routines
        assert readers_of(run) is readers_of(run)
