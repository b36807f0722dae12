"""`routilux.testing`: the whole engine in the calling thread, its API, its documentation and its fixtures."""

from __future__ import annotations

import asyncio
import inspect
import re
import subprocess
import sys
import textwrap
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from routilux import ErrorHandler, Flow, FlowRegistry, GiveUp, Post, Runtime, get_job_output
from routilux.activation_policies import immediate_policy
from routilux.errors import CalledInLogicError, DefinitionError, RuntimeShutDownError, SlotQueueFullError
from routilux.testing import ManualRuntime, runtime
from tests.flows.flows import Step, chain, post_one, seeing, taking

# running


def test_a_post_stores_and_what_it_starts_runs_when_asked() -> None:
    seen: list[Any] = []
    with runtime(registry=chain(Step(seeing(seen)))) as rt:
        worker, job = rt.post("f", "s0", "input", {"n": 1})
        assert (seen, job.status) == ([], "pending")
        assert rt.run_until_idle() == 1
        assert (seen, job.status, worker.status) == ([{"n": 1}], "completed", "idle")
        assert rt.run_until_idle() == 0


def test_it_is_a_runtime_without_threads() -> None:
    before = set(threading.enumerate())
    names: list[str] = []
    steps = [Step(lambda step, slot_data, worker_state: names.append(threading.current_thread().name))]
    with runtime(registry=chain(*steps)) as rt:
        assert isinstance(rt, Runtime)
        post_all = rt.post_many("f", "s0", "input", [{"n": n} for n in range(20)])
        assert rt.wait_until_all_jobs_finished()
        assert {job.status for job in post_all} == {"completed"}
        assert set(threading.enumerate()) == before
    assert set(names) == {threading.current_thread().name}
    with pytest.raises(RuntimeShutDownError):
        rt.run_until_idle()


def test_the_order_of_things_is_the_same_every_time() -> None:
    def play() -> list[Any]:
        seen: list[Any] = []

        def fan(name: str) -> Any:
            def logic(step: Step, slot_data: Any, worker_state: Any) -> None:
                seen.append((name, slot_data["input"][0]["n"]))
                step.emit("output", n=slot_data["input"][0]["n"])

            return logic

        flow = Flow("f")
        for name in "abcd":
            flow.add_routine(Step(fan(name)), name)
        for target in "bcd":
            flow.connect("a", "output", target, "input")
        flow.connect("b", "output", "d", "input")
        with runtime(flow) as rt:
            for n in range(5):
                rt.post("f", "a", "input", {"n": n})
                if n % 2:
                    rt.run_until_idle()
            rt.run_until_idle()
        return seen

    first = play()
    assert len(first) == 5 * 5
    assert play() == first
    assert play() == first


def test_flows_are_looked_up_where_they_were_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    flow = Flow("mine")
    flow.add_routine(taking("in", logic=lambda slot_data, policy_message, worker_state: None), "r")
    with runtime(flow) as rt:
        assert rt.exec("mine").flow_id == "mine"
        assert rt.registry.names() == ["mine"]
    registry = FlowRegistry()
    with runtime(flow, registry=registry) as rt:
        assert (rt.registry, registry.names()) == (registry, ["mine"])
    with runtime() as rt:
        assert rt.registry is FlowRegistry.get_instance()
    with pytest.raises(DefinitionError, match="needs a flow_id"):
        runtime(Flow())


# the rest of the public API


def test_control_takes_effect_at_once() -> None:
    seen: list[Any] = []
    with runtime(registry=chain(Step(seeing(seen)))) as rt:
        worker, job = rt.post("f", "s0", "input", {"n": 1})
        rt.pause_worker(worker.worker_id)
        assert (rt.run_until_idle(), worker.status) == (0, "paused")
        rt.resume_worker(worker.worker_id)
        rt.pause_job(job.job_id)
        assert (rt.run_until_idle(), job.status) == (0, "paused")
        rt.resume_job(job.job_id)
        assert (rt.run_until_idle(), job.status) == (1, "completed")
        other = post_one(rt, 2)
        rt.cancel_job(other.job_id, "enough")
        assert (rt.run_until_idle(), other.status) == (0, "cancelled")
        third = post_one(rt, 3)
        assert (rt.cancel_all_jobs(), third.status) == (1, "cancelled")
        rt.cancel_worker(worker.worker_id)
        assert worker.status == "cancelled"
        assert seen == [{"n": 1}]


def test_dead_letters_are_sent_again() -> None:
    def picky(step: Step, slot_data: Any, worker_state: Any) -> None:
        if slot_data["input"][0]["n"] < 0:
            raise GiveUp("negative")

    with runtime(registry=chain(Step(picky))) as rt:
        job = post_one(rt, -1)
        rt.run_until_idle()
        (letter,) = rt.dead_letters()
        assert (job.status, letter.payloads) == ("failed", [{"n": -1}])
        letter.retry({"n": 1})
        rt.run_until_idle()
        assert (job.status, rt.dead_letters()) == ("completed", [])


def test_posts_ids_and_facts_are_as_in_production() -> None:
    facts: list[str] = []
    with runtime(registry=chain(Step(lambda *_: None))) as rt:
        rt.on("job.ended", lambda fact: facts.append(fact.fields["job_id"]))
        first = post_one(rt, 1, job_id="same")
        again = post_one(rt, 1, job_id="same")
        (third,) = rt.post_many("f", "s0", "input", [Post({"n": 2}, job_id="third", delay=1)])
        assert rt.run_until_idle(skip_time=True) == 2
        assert (first.job_id, again.job_id, third.status) == ("same", "same", "completed")
        assert facts == ["same", "third"]
        assert [job.job_id for job in rt.list_jobs()] == ["third", "same"]
        found = rt.get_job("third")
        assert found is not None
        assert found.status == "completed"


def test_a_post_to_a_full_slot_makes_room_while_it_waits() -> None:
    seen: list[Any] = []
    step = Step(seeing(seen))
    step.slots["input"].max_queue_length = 2
    with runtime(registry=chain(step)) as rt:
        worker = rt.exec("f").worker_id
        for n in range(2):
            post_one(rt, n)
        with pytest.raises(SlotQueueFullError):
            post_one(rt, 2)
        assert seen == []
        post_one(rt, 2, timeout=5)
        assert seen == [{"n": 0}, {"n": 1}, {"n": 2}]
        rt.pause_worker(str(worker))
        for n in (3, 4):
            post_one(rt, n)
        began = rt.clock.now()
        with pytest.raises(SlotQueueFullError):
            post_one(rt, 5, timeout=5)
        assert rt.clock.now() - began == timedelta(seconds=5)


def test_logic_may_post_and_may_not_wait() -> None:
    def more(step: Step, slot_data: Any, worker_state: Any) -> None:
        n = slot_data["input"][0]["n"]
        if n:
            job = post_one(rt, n - 1)
            with pytest.raises(CalledInLogicError):
                job.wait()
            with pytest.raises(CalledInLogicError):
                rt.run_until_idle()

    with runtime(registry=chain(Step(more))) as rt:
        post_one(rt, 3)
        assert rt.run_until_idle() == 4
        assert {job.status for job in rt.list_jobs()} == {"completed"}


def test_a_thread_of_logic_may_post_as_well() -> None:
    def helped(step: Step, slot_data: Any, worker_state: Any) -> None:
        if slot_data["input"][0]["n"]:
            helper = threading.Thread(target=post_one, args=(rt, 0))
            helper.start()
            helper.join(10)
            assert not helper.is_alive()

    with runtime(registry=chain(Step(helped))) as rt:
        post_one(rt, 1)
        assert rt.run_until_idle() == 2


def test_a_callback_that_would_wait_for_itself_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with runtime(registry=chain(Step(lambda *_: None))) as rt:
        rt.on("job.ended", lambda fact: rt.exec("f"))
        post_one(rt, 1)
        rt.run_until_idle()
    assert "waits for the engine, which waits for the callback" in caplog.text


def test_async_logic_runs_side_by_side_on_a_loop_of_its_own() -> None:
    def routines() -> tuple[Flow, list[str]]:
        seen: list[str] = []
        meeting = asyncio.Barrier(2)
        flow = Flow("f")
        for name in ("a", "b"):

            async def logic(slot_data: Any, policy_message: Any, worker_state: Any, name: str = name) -> None:
                await asyncio.wait_for(meeting.wait(), 10)
                seen.append(name)

            flow.add_routine(taking("in", logic=logic, policy=immediate_policy()), name)
        return flow, seen

    def play() -> list[str]:
        flow, seen = routines()
        with runtime(flow) as rt:
            for _ in range(2):
                for name in ("a", "b"):
                    rt.post("f", name, "in", {})
                assert rt.run_until_idle() == 2
        return sorted(seen)

    async def inside_a_loop() -> list[str]:
        return play()

    assert play() == ["a", "a", "b", "b"]
    assert asyncio.run(inside_a_loop()) == ["a", "a", "b", "b"]


def test_what_logic_prints_is_kept_with_its_job() -> None:
    from routilux import uninstall_routed_stdout

    try:
        with runtime(registry=chain(Step(lambda *_: print("hello"))), capture_output=True) as rt:
            job = post_one(rt, 1)
            rt.run_until_idle()
            assert get_job_output(job.job_id) == "hello\n"
    finally:
        uninstall_routed_stdout()


def test_state_is_what_the_jobs_left() -> None:
    def count(step: Step, slot_data: Any, worker_state: Any) -> None:
        worker_state.increment("s0", "count", 1)
        if slot_data["input"][0]["n"] == 1:
            raise ValueError("no trace of this one")

    with runtime(registry=chain(Step(count, handler=ErrorHandler("continue")))) as rt:
        worker = rt.exec("f")
        rt.post_many("f", "s0", "input", [{"n": n} for n in range(4)])
        rt.run_until_idle()
        assert worker.get_routine_state("s0") == {"count": 3}
        assert worker.status == "idle"


# the end


def test_what_has_not_run_by_the_end_of_the_block_does_not_run() -> None:
    seen: list[Any] = []
    with runtime(registry=chain(Step(seeing(seen)))) as rt:
        post_one(rt, 1)
    assert seen == []
    with runtime(registry=chain(Step(seeing(seen)))) as rt:
        job = post_one(rt, 1)
        assert post_one(rt, 2).wait()
        post_one(rt, 3, delay=10)
        assert rt.shutdown(timeout=60)
    assert (seen, job.job_id) == ([{"n": 1}, {"n": 2}, {"n": 3}], job.job_id)
    with runtime(registry=chain(Step(seeing(seen)))) as rt:
        post_one(rt, 4, delay=61)
        assert not rt.shutdown(timeout=60)


@pytest.mark.parametrize("has_begun", [False, True])
def test_another_runtime_on_the_same_file_goes_on(tmp_path: Path, has_begun: bool) -> None:
    seen: list[Any] = []
    registry = chain(Step(seeing(seen)))
    url = f"sqlite:///{tmp_path / 'r.db'}"
    with runtime(registry=registry, database=url) as rt:
        job = post_one(rt, 1, job_id="kept")
        post_one(rt, 2, delay=60)
        stopped_at = rt.clock.now()
        if has_begun:
            rt.exec("f", worker_id=job.worker_id)
    with runtime(registry=registry, database=url, start=stopped_at) as rt:
        assert rt.run_until_idle() == 1
        found = rt.get_job("kept")
        assert found is not None
        assert found.status == "completed"
        assert rt.run_until_idle(skip_time=True) == 1
        assert rt.clock.now() - stopped_at == timedelta(seconds=60)
    assert seen == [{"n": 1}, {"n": 2}]


# the documentation and pytest


def _programs_of_the_page() -> dict[str, Any]:
    page = Path(__file__).resolve().parents[2] / "docs" / "user_guide" / "testing.md"
    space: dict[str, Any] = {}
    for program in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        exec(compile(program, str(page), "exec"), space)
    return space


PAGE = _programs_of_the_page()


@pytest.mark.parametrize("name", [name for name in PAGE if name.startswith("test_")])
def test_an_example_of_the_user_guide_holds(name: str) -> None:
    example = PAGE[name]
    if not inspect.signature(example).parameters:
        example()
        return
    registry = FlowRegistry()
    with runtime(registry=registry) as rt:
        example(routilux_runtime=rt, routilux_registry=registry)


def test_the_fixtures_work_where_they_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["routilux.testing.pytest_plugin"]\n')
    (tmp_path / "test_it.py").write_text(
        textwrap.dedent(
            """
            import pytest
            from routilux import Flow, FlowRegistry, Routine
            from routilux.activation_policies import immediate_policy

            def flow():
                routine = Routine()
                routine.add_slot("in")
                routine.set_activation_policy(immediate_policy())
                routine.set_logic(lambda slot_data, policy_message, worker_state: None)
                made = Flow("f")
                made.add_routine(routine, "r")
                return made

            @pytest.mark.parametrize("again", [1, 2])
            def test_runtime(routilux_runtime, routilux_registry, again):
                routilux_registry.register_by_name("f", flow())
                job = routilux_runtime.post("f", "r", "in", {}).job
                assert routilux_runtime.run_until_idle() == 1
                assert job.status == "completed"

            class TestOverride:
                @pytest.fixture
                def routilux_registry(self):
                    return FlowRegistry.get_instance()

                def test_default(self, routilux_runtime):
                    assert routilux_runtime.registry is FlowRegistry.get_instance()
            """
        )
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", tmp_path],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


def test_nothing_of_it_needs_pytest() -> None:
    code = (
        "import sys; sys.modules['pytest'] = None; import routilux.testing;"
        " routilux.testing.runtime().shutdown()"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_type_of_the_runtime_is_public() -> None:
    with runtime() as rt:
        assert type(rt) is ManualRuntime
