"""What one run of logic wanted to write, recorded before the engine saw it."""

from __future__ import annotations

from dataclasses import dataclass

from routilux.core.message import Activation
from routilux.core.outcome import Increment, JobIncrement, JobSet, Outcome, Replace
from routilux.testing.simulation.process import Injected


@dataclass(slots=True)
class Wish:
    """One run of logic."""

    worker: int
    routine: str
    seqs: tuple[int, ...]
    error: str | None
    is_injected: bool
    emits: list[tuple[str, str, str]]
    state: list[Replace | Increment]
    job: list[JobSet | JobIncrement]
    ends_job: bool
    writes: bool  # user statements, which may fail
    in_pause: bool  # it began while its worker was paused
    n: int | None = None  # the number of the activation that stored it

    @staticmethod
    def of(worker: int, routine: str, activation: Activation, outcome: Outcome, *, in_pause: bool) -> Wish:
        failure = outcome.failure
        return Wish(
            worker,
            routine,
            tuple(sorted(message.seq for message in activation.messages)),
            error=None if failure is None else f"{failure.type}: {failure.text}",
            is_injected=failure is not None and isinstance(failure.error, Injected),
            emits=list(outcome.emits),
            state=list(outcome.state),
            job=list(outcome.job),
            ends_job=outcome.job_end is not None,
            writes=bool(outcome.writes),
            in_pause=in_pause,
        )
