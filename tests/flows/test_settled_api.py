"""What older documents said in more than one way: names, calls and what they return.

One test per row of docs/reference/settled.md, which is made from the names and docstrings here.
"""

from __future__ import annotations

import threading
from typing import Any

import pytest

import routilux
from routilux import Flow, FlowRegistry, Runtime, WorkerState
from routilux.activation_policies import immediate_policy
from tests.flows.flows import Step, chain, flow_of, post, running, taking
from tests.support.looking import stored


def count(step: Step, slot_data: dict[str, list[Any]], worker_state: WorkerState) -> None:
    worker_state.increment("seen", "count")


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


@pytest.mark.settled_row(3)
def test_row_03_exec_starts_a_worker_and_triggers_nothing(sqlite_database: str) -> None:
    """`exec` starts a worker and triggers nothing; with `entry_params` it also posts them, once, to the slot
    `trigger` of the first routine that has one.
    """
    seen: list[Any] = []
    routines = {
        name: taking(
            "trigger",
            logic=lambda slot_data, policy_message, worker_state: seen.append(slot_data["trigger"]),
            policy=immediate_policy(),
        )
        for name in ("first", "second")
    }
    with running(sqlite_database, flow_of(**routines)) as runtime:
        runtime.exec("f")
        assert runtime.wait_until_all_jobs_finished(10)
        assert stored(sqlite_database)["messages"] == 0
        runtime.exec("f", entry_params={"n": 1})
        assert runtime.wait_until_all_jobs_finished(10)
    assert seen == [[{"n": 1}]]


@pytest.mark.settled_row(4)
def test_row_04_exec_returns_the_state_of_a_worker(sqlite_database: str) -> None:
    """`exec` returns a `WorkerState`: with the status of the worker, not of a job,
    and nothing to wait for.
    """
    with running(sqlite_database, chain(Step(count))) as runtime:
        worker = runtime.exec("f", worker_id="mine")
        job = runtime.post("f", "s0", "input", {}, "mine").job
        assert runtime.wait_until_all_jobs_finished(10)
        assert isinstance(worker, WorkerState)
        assert worker.worker_id == "mine"
        assert (worker.status, job.status) == ("idle", "completed")
        assert not hasattr(worker, "wait")


@pytest.mark.settled_row(5)
def test_row_05_waiting_answers_with_a_bool(sqlite_database: str) -> None:
    """`wait_until_all_jobs_finished`, `wait_until_all_workers_idle` and `job.wait` return True, or False when
    their time is over; none of them raises.
    """
    gate = threading.Event()

    def hold(step: Step, slot_data: Any, worker_state: Any) -> None:
        assert gate.wait(20)

    with running(sqlite_database, chain(Step(hold))) as runtime:
        job = post(runtime, {})
        waits = (runtime.wait_until_all_jobs_finished, runtime.wait_until_all_workers_idle, job.wait)
        assert [wait(timeout=0.05) for wait in waits] == [False, False, False]
        gate.set()
        assert [wait(timeout=10) for wait in waits] == [True, True, True]
        delayed = post(runtime, {}, delay=3600)
        assert runtime.wait_until_all_workers_idle(timeout=10) is True
        assert runtime.wait_until_all_jobs_finished(timeout=0.05) is False
        delayed.cancel()


@pytest.mark.settled_row(6)
def test_row_06_documented_import_paths_lead_to_the_same_classes() -> None:
    """Each documented import path leads to the class that `routilux` exports; a name that is gone says what
    to use.
    """
    import routilux.activation_policies as policies
    import routilux.core as core
    import routilux.core.error as error
    import routilux.core.registry as old_registry
    import routilux.core.slot as slot
    import routilux.monitoring.flow_registry as flow_registry
    import routilux.runtime as runtime
    import routilux.testing as testing

    assert flow_registry.FlowRegistry is old_registry.FlowRegistry is routilux.FlowRegistry
    assert runtime.Runtime is routilux.Runtime
    assert testing.RoutineTester is routilux.RoutineTester
    assert runtime.get_runtime_instance is routilux.get_runtime_instance
    assert (error.ErrorHandler, error.ErrorStrategy) == (routilux.ErrorHandler, routilux.ErrorStrategy)
    assert slot.SlotQueueFullError is routilux.SlotQueueFullError
    for name in ("get_current_job", "get_current_job_id", "get_current_worker_state"):
        assert getattr(core, name) is getattr(routilux, name)
    for name in ("immediate", "all_slots_ready", "batch_size", "time_interval", "custom"):
        assert getattr(policies, f"{name}_policy") is getattr(routilux, f"{name}_policy")
    for module in ("routilux", "routilux.job_state"):
        with pytest.raises(ImportError, match=r"WorkerState.*JobContext"):
            exec(f"from {module} import JobState")


@pytest.mark.settled_row(7)
def test_row_07_a_flow_is_registered_before_it_is_used(sqlite_database: str) -> None:
    """A flow is found only if it was registered; the same flow again under its name is nothing new, another
    one is a `ValueError` unless `replace=True`.
    """
    known, other = Flow(), Flow("unregistered")
    registry = FlowRegistry()
    registry.register_by_name("f", known)
    registry.register_by_name("f", known)
    with pytest.raises(ValueError, match="'f' is already registered"):
        registry.register_by_name("f", other)
    assert registry.get_by_name("f") is known
    with running(sqlite_database, registry) as runtime:
        with pytest.raises(ValueError, match="Flow 'unregistered' not found in registry"):
            runtime.exec("unregistered")
        with pytest.raises(ValueError, match="Flow 'unregistered' not found in registry"):
            runtime.post("unregistered", "r", "in", {})
    registry.register_by_name("f", other, replace=True)
    assert registry.get_by_name("f") is other


@pytest.mark.settled_row(8)
def test_row_08_post_returns_a_worker_and_a_job(sqlite_database: str) -> None:
    """`post` returns the tuple `(worker_state, job)`, which also answers for the job itself."""
    with running(sqlite_database, chain(Step(count))) as runtime:
        posted = runtime.post("f", "s0", "input", {}, "w", metadata={"user": "ada"})
        worker, job = posted
        assert isinstance(worker, WorkerState)
        assert (worker.worker_id, job.worker_id) == ("w", "w")
        assert job.wait(10)
        assert (posted.job_id, posted.status, posted.error) == (job.job_id, "completed", None)
        assert posted.metadata == {"user": "ada"}


@pytest.mark.settled_row(9)
def test_row_09_a_post_goes_to_the_newest_worker_of_the_flow(sqlite_database: str) -> None:
    """Each `exec` is a worker of its own, and a post without `worker_id` goes to the newest one that lives:
    five posts count to five.
    """
    with running(sqlite_database, chain(Step(count))) as runtime:
        older, newer = runtime.exec("f"), runtime.exec("f")
        assert older.worker_id != newer.worker_id
        jobs = [runtime.post("f", "s0", "input", {}).job for _ in range(5)]
        assert runtime.wait_until_all_jobs_finished(10)
        assert {job.worker_id for job in jobs} == {newer.worker_id}
        assert newer.get_routine_state("seen") == {"count": 5}
        assert older.get_routine_state("seen") is None


@pytest.mark.settled_row(10)
def test_row_10_a_post_needs_no_exec_before_it(sqlite_database: str) -> None:
    """A post to a flow without a worker starts one, and the next post goes to the same."""
    with Runtime(2, database=sqlite_database, registry=chain(Step(count))) as runtime:
        workers = {runtime.post("f", "s0", "input", {}).worker_id for _ in range(2)}
        assert runtime.wait_until_all_jobs_finished(10)
    assert len(workers) == 1
    assert stored(sqlite_database)["workers"] == 1


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
