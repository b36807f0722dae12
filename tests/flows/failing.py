"""Logic that fails as often as a list says, and what its attempts left."""

from __future__ import annotations

from typing import Any

from routilux import Runtime
from routilux.store.reads import routine_progress
from tests.flows.flows import Step
from tests.support.inside_runtime import store

ATTEMPTS = "SELECT attempt, status FROM routilux_activations WHERE routine = 's0' ORDER BY n"
SOON = {"retry_delay": 0.1, "retry_backoff": 1.0}
LATER = {"retry_delay": 0.4, "retry_backoff": 1.0}


class Calls:
    """Logic that raises what the list says, one after another, then succeeds; counts its calls."""

    def __init__(self, *errors: BaseException | None) -> None:
        self.errors = list(errors)
        self.seen: list[list[Any]] = []

    def __call__(self, step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
        self.seen.append(slot_data["input"])
        worker_state.increment("s0", "calls")
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error

    @property
    def count(self) -> int:
        return len(self.seen)


def routine_status(runtime: Runtime, job_id: str) -> dict[str, str]:
    with store(runtime).read() as connection:
        return routine_progress.routine_status(connection, job_id)
