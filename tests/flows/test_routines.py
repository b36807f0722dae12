"""Routines: how their logic is called, what it may call, and what their state and configuration keep."""

from __future__ import annotations

from typing import Any

import pytest

import routilux
from routilux import (
    CalledInLogicError,
    ConfigReadOnlyError,
    Routine,
    WorkerState,
    get_current_job,
    get_current_job_id,
    get_current_worker_state,
    get_runtime_instance,
)
from routilux.activation_policies import immediate_policy
from tests.flows.flows import GOOD, Step, chain, flow_of, post, running, taking


@pytest.mark.settled_row(1)
def test_row_01_logic_takes_one_mapping(sqlite_database: str) -> None:
    """Logic gets one mapping, from every slot of the routine to the list of its items; one list per slot is
    served as well, as a method and as `async def` too.
    """
    seen: dict[str, Any] = {}

    def mapping(slot_data: Any, policy_message: Any, worker_state: Any) -> None:
        seen["mapping"] = slot_data

    def lists(left: Any, right: Any, policy_message: Any, worker_state: Any) -> None:
        seen["lists"] = (left, right)

    async def keywords(left_data: Any, right_data: Any, **context: Any) -> None:
        seen["keywords"] = (left_data, right_data, sorted(context))

    class Method(routilux.Routine):
        def __init__(self) -> None:
            super().__init__()
            self.add_slot("left")
            self.add_slot("right")
            self.set_activation_policy(immediate_policy())

        def logic(self, slot_data: Any, policy_message: Any, worker_state: Any) -> None:
            seen["method"] = slot_data

    forms = {
        logic.__name__: taking("left", "right", logic=logic, policy=immediate_policy())
        for logic in (mapping, lists, keywords)
    }
    with running(sqlite_database, flow_of(**forms, method=Method())) as runtime:
        for name in [*forms, "method"]:
            runtime.post("f", name, "right", {"n": 1}, "w")
        assert runtime.wait_until_all_jobs_finished(10)
    assert seen == {
        "mapping": {"left": [], "right": [{"n": 1}]},
        "lists": ([], [{"n": 1}]),
        "keywords": ([], [{"n": 1}], ["policy_message", "worker_state"]),
        "method": {"left": [], "right": [{"n": 1}]},
    }
    with pytest.raises(TypeError, match=r"(?s)slot_data, policy_message.*one list per slot"):
        taking("a", logic=lambda whatever: None)


@pytest.mark.settled_row(2)
@pytest.mark.parametrize("name", ["worker_state", "job_state"])
def test_row_02_the_last_argument_is_the_state_of_the_worker(sqlite_database: str, name: str) -> None:
    """The last argument of logic is the `WorkerState`, under the name `worker_state` or `job_state`."""
    seen: list[Any] = []

    def now(slot_data: Any, policy_message: Any, worker_state: Any) -> None:
        seen.append(worker_state)

    def before(slot_data: Any, policy_message: Any, job_state: Any) -> None:
        seen.append(job_state)

    logic = {"worker_state": now, "job_state": before}[name]
    with running(sqlite_database, flow_of(r=taking("in", logic=logic, policy=immediate_policy()))) as runtime:
        assert runtime.post("f", "r", "in", {}, "w").job.wait(10)
    (state,) = seen
    assert isinstance(state, WorkerState)
    assert state.worker_id == "w"
    assert state.get_routine_state("nobody", "default") == "default"


@pytest.mark.settled_row(11)
def test_row_11_emit_finds_its_place_by_itself(sqlite_database: str) -> None:
    """`emit` works anywhere inside logic without being told where it is; outside of it, it is a
    `RuntimeError`.
    """
    seen: list[Any] = []

    def send(step: Step, slot_data: Any, worker_state: Any) -> None:
        step.emit("output", n=1)
        step.emit("output", runtime=None, worker_state=worker_state, n=2)

    source = Step(send)
    sink = Step(lambda step, slot_data, worker_state: seen.extend(slot_data["input"]))
    with running(sqlite_database, chain(source, sink)) as runtime:
        assert post(runtime, {}).wait(10)
        with pytest.raises(RuntimeError, match="only inside logic"):
            source.emit("output", n=3)
    assert seen == [{"n": 1}, {"n": 2}]


@pytest.mark.old_bug(4)
def test_old_bug_04_emit_worked_in_the_first_routine_alone(sqlite_database: str) -> None:
    """`emit`, `get_current_job` and the state of the worker work in every routine of a chain."""
    seen: list[Any] = []

    def stage(step: Step, slot_data: Any, worker_state: WorkerState) -> None:
        job, state = get_current_job(), get_current_worker_state()
        assert job is not None
        assert state is not None
        job.increment("stages")
        state.increment("seen", "count")
        seen.append((slot_data["input"][0]["n"], job.job_id))
        step.emit("output", n=slot_data["input"][0]["n"] + 1)

    with running(sqlite_database, chain(Step(stage), Step(stage), Step(stage))) as runtime:
        worker, job = runtime.post("f", "s0", "input", {"n": 0}, "w", job_id="mine")
        assert job.wait(10)
        assert job.data == {"stages": 3}
        assert worker.get_routine_state("seen") == {"count": 3}
    assert seen == [(0, "mine"), (1, "mine"), (2, "mine")]


def test_calls_that_wait_for_the_engine_raise_inside_logic_and_others_work(database: str) -> None:
    told: dict[str, Any] = {}
    step = Step(lambda *_: None)
    step.set_config(unit="kg")

    def logic(slot_data: dict[str, list[Any]], policy_message: Any, worker_state: Any) -> None:
        job = get_current_job()
        assert job is not None
        assert runtime is get_runtime_instance()
        calls = {
            "shutdown": runtime.shutdown,
            "jobs": lambda: runtime.wait_until_all_jobs_finished(1),
            "idle": lambda: runtime.wait_until_all_workers_idle(1),
            "exec": lambda: runtime.exec("f"),
            "post": lambda: runtime.post(*GOOD, {}, timeout=1),
            "post_many": lambda: runtime.post_many(*GOOD, [{}], timeout=1),
            "wait": lambda: job.wait(1),
            "result": lambda: job.result(1),
            "other": lambda: runtime.get_job(job.job_id).wait(1),
            "config": lambda: step.set_config(unit="g"),
        }
        for name, call in calls.items():
            try:
                call()
            except (CalledInLogicError, ConfigReadOnlyError) as error:
                told[name] = type(error)
        context = step.get_execution_context()
        told["context"] = (context.flow_id, context.routine_id, context.job_context.job_id)
        told["ids"] = (get_current_job_id(), get_current_worker_state().worker_id, worker_state.status)
        if "more" in slot_data["input"][0]:
            told["posted"] = runtime.post(*GOOD, {}, "w").job_id

    step.set_logic(logic)
    with running(database, chain(step)) as runtime:
        job = post(runtime, {"more": True})
        assert job.wait(10)
        assert job.status == "completed", job.error
        assert runtime.wait_until_all_jobs_finished(10)
        assert runtime.get_job(told["posted"]).status == "completed"
        posted = told.pop("posted")
        assert told.pop("ids") == (posted, "w", "running")
        assert told.pop("context") == ("f", "s0", posted)
        assert told.pop("config") is ConfigReadOnlyError
        assert set(told.values()) == {CalledInLogicError}
        assert len(told) == 9
        assert step.get_config("unit") == "kg"
        step.set_config(unit="g")
    assert (get_current_job(), get_current_job_id(), get_current_worker_state()) == (None, None, None)


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


@pytest.mark.old_bug(12)
def test_old_bug_12_the_engine_overwrote_a_routine_s_own_state(sqlite_database: str) -> None:
    """What a routine keeps under its own id is its own: the engine writes nothing into it."""

    def process(step: Step, slot_data: Any, worker_state: WorkerState) -> None:
        before = worker_state.get_routine_state("s0", {})
        processed = {
            "processed_count": before.get("processed_count", 0) + 1,
            "last_value": slot_data["input"][0]["n"],
        }
        worker_state.update_routine_state("s0", processed)

    with running(sqlite_database, chain(Step(process))) as runtime:
        for n in range(5):
            post(runtime, {"n": n})
        assert runtime.wait_until_all_jobs_finished(10)
        worker = runtime.exec("f", worker_id="w")
        assert worker.routine_states == {"s0": {"processed_count": 5, "last_value": 4}}


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


@pytest.mark.old_bug(11)
def test_old_bug_11_configuration_was_frozen_by_the_first_exec(sqlite_database: str) -> None:
    """`set_config` works after `exec`; it is refused inside logic only."""
    seen: list[int] = []

    def read(step: Step, slot_data: Any, worker_state: Any) -> None:
        seen.append(step.get_config("n"))
        step.set_config(n=99)

    step = Step(read)
    with running(sqlite_database, chain(step)) as runtime:
        step.set_config(n=1)
        job = post(runtime, {})
        assert job.wait(10)
        assert "Cannot modify _config during execution" in str(job.error)
        step.set_config(n=2)
        assert post(runtime, {}).wait(10)
    assert seen == [1, 2]


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
