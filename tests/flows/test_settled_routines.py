"""What older documents said in more than one way: what a routine, a worker and a job keep.

One test per row of docs/reference/settled.md, which is made from the names and docstrings here.
"""

from __future__ import annotations

from typing import Any

import pytest

from routilux import JobEndedError, Post, Routine, WorkerState, get_current_job
from routilux.activation_policies import immediate_policy
from tests.flows.flows import Step, chain, flow_of, post, running


@pytest.mark.settled_row(19)
def test_row_19_a_new_state_replaces_the_old_one(sqlite_database: str) -> None:
    """`update_routine_state` replaces all that was kept under that routine's id."""

    def keep(step: Step, slot_data: Any, worker_state: WorkerState) -> None:
        worker_state.update_routine_state("mine", slot_data["input"][0])

    with running(sqlite_database, chain(Step(keep))) as runtime:
        for state in ({"a": 1, "b": 2}, {"b": 3}):
            worker, job = runtime.post("f", "s0", "input", state, "w")
            assert job.wait(10)
        assert worker.get_routine_state("mine") == {"b": 3}
        worker.update_routine_state("mine", {"c": 4})
        assert worker.routine_states == {"mine": {"c": 4}}


@pytest.mark.settled_row(20)
def test_row_20_a_constructor_with_parameters_is_taken(sqlite_database: str) -> None:
    """A routine whose constructor takes parameters can be added and runs in threads."""
    seen: list[str] = []

    class Named(Routine):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name
            self.add_slot("in")
            self.set_activation_policy(immediate_policy())

        def logic(self, slot_data: Any, policy_message: Any, worker_state: Any) -> None:
            seen.append(self.name)

    with running(sqlite_database, flow_of(a=Named("ada"), b=Named("bob"))) as runtime:
        for routine in ("a", "b"):
            assert runtime.post("f", routine, "in", {}, "w").job.wait(10)
    assert seen == ["ada", "bob"]


@pytest.mark.settled_row(21)
def test_row_21_configuration_is_read_only_inside_logic_alone(sqlite_database: str) -> None:
    """`set_config` raises `RuntimeError` inside logic and works everywhere else, after `exec` too."""
    seen: list[Any] = []

    def read(step: Step, slot_data: Any, worker_state: Any) -> None:
        with pytest.raises(RuntimeError, match="Cannot modify _config during execution"):
            step.set_config(factor=99)
        seen.append(step.get_config("factor"))

    step = Step(read)
    step.set_config(factor=1)
    with running(sqlite_database, chain(step)) as runtime:
        for factor in (2, 3):
            step.set_config(factor=factor)
            assert post(runtime, {}).wait(10)
    assert seen == [2, 3]


@pytest.mark.settled_row(22)
def test_row_22_a_job_stays_on_record_after_its_end(sqlite_database: str) -> None:
    """After its end a job is still found, with its status, data and metadata, also by the next runtime; it
    takes no more.
    """

    def keep(step: Step, slot_data: Any, worker_state: Any) -> None:
        job = get_current_job()
        assert job is not None
        job.set_data("answer", 42)

    registry = chain(Step(keep))
    with running(sqlite_database, registry) as runtime:
        (job,) = runtime.post_many(
            "f", "s0", "input", [Post({}, job_id="mine", metadata={"k": 1})], worker_id="w"
        )
        assert job.wait(10)
    with running(sqlite_database, registry) as runtime:
        found = runtime.get_job("mine")
        assert found is not None
        assert (found.status, found.data, found.metadata) == ("completed", {"answer": 42}, {"k": 1})
        with pytest.raises(JobEndedError):
            found.set_data("answer", 43)


@pytest.mark.settled_row(23)
def test_row_23_setup_is_a_name_like_any_other(sqlite_database: str) -> None:
    """A method `setup` of a routine is never called by the library."""
    called: list[str] = []

    class WithSetup(Routine):
        def __init__(self) -> None:
            super().__init__()
            self.add_slot("in")
            self.set_activation_policy(immediate_policy())

        def setup(self, *_: Any) -> None:
            called.append("setup")

        def logic(self, slot_data: Any, policy_message: Any, worker_state: Any) -> None:
            called.append("logic")

    with running(sqlite_database, flow_of(r=WithSetup())) as runtime:
        assert runtime.post("f", "r", "in", {}, "w").job.wait(10)
    assert called == ["logic"]
