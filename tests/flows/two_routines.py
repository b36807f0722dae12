"""A flow of two routines on the manual clock, for input that must not stop anything else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel, field_validator

from routilux import Flow
from routilux.activation_policies import immediate_policy
from routilux.testing import ManualRuntime, runtime
from tests.flows.flows import ignore, taking


class Moody(BaseModel):
    """A model whose validator raises what a validator should not."""

    mood: object = None

    @field_validator("mood")
    @classmethod
    def _check(cls, value: object) -> object:
        if value == "bad":
            raise RuntimeError("in a bad mood")
        return value


def two_routines(policy: Any = None) -> Flow:
    flow = Flow("f")
    for name in ("a", "b"):
        routine = taking("in", logic=ignore, policy=policy if policy and name == "a" else immediate_policy())
        routine.add_slot("mood", model=Moody)
        flow.add_routine(routine, name)
    return flow


@contextmanager
def owner(database: str) -> Iterator[ManualRuntime]:
    with runtime(two_routines(), database=database) as rt:
        rt.exec("f", worker_id="w")
        yield rt


def still_serves(rt: ManualRuntime) -> None:
    job = rt.post("f", "b", "in", {}, "w").job
    rt.run_until_idle()
    assert job.status == "completed"


class Gone(BaseException):
    """Not an `Exception`, as the outcomes of pytest are not."""


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")
