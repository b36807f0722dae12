"""The engine against a model of its promises, seed by seed. Engines broken on purpose must be caught.

`ROUTILUX_SEEDS` sets the number of seeds; `make simulate SEEDS=…` is for nightly runs. The first seeds of
each scene must also do what they did when `golden.json` was written.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from routilux import Flow, Routine
from routilux.activation_policies import all_slots_ready_policy, immediate_policy
from routilux.core.run_overlay import Overlay
from routilux.testing import End, Report, SimulationError, simulate
from routilux.testing.simulation import FAULTS
from routilux.testing.simulation.plan import plan_of
from tests.simulation import golden
from tests.simulation.broken import BROKEN
from tests.simulation.flows import SCENES
from tests.simulation.patching import Patch

USUAL = 2000
SEEDS = int(os.environ.get("ROUTILUX_SEEDS", str(USUAL)))
GOLDEN = golden.SEEDS if SEEDS >= USUAL else SEEDS // len(SCENES) + 1  # for each scene
OTHERS = 100  # at least so many more seeds, with all faults
MOST = 2000  # a broken engine must be caught by one of so many seeds
PIECE = 40


@pytest.mark.parametrize("scene", sorted(SCENES))
def test_every_promise_holds_and_each_seed_does_what_it_did(
    scene: str, record_property: pytest.RecordProperty
) -> None:
    report = golden.run(scene, range(GOLDEN))
    record_property("simulated", f"{scene}, golden: {report}")
    check_it_happened(report)
    differences = golden.differences(scene, report)
    if differences:
        pytest.fail(differences, pytrace=False)


@pytest.mark.parametrize("scene", sorted(SCENES))
def test_every_promise_holds_whatever_happens_on_the_way(
    scene: str, record_property: pytest.RecordProperty
) -> None:
    seeds = range(GOLDEN, max(GOLDEN + OTHERS, SEEDS // len(SCENES) + 1))
    report = simulate(**SCENES[scene], seeds=seeds, runtimes=4, processes=2)
    record_property("simulated", f"{scene}: {report}")
    check_it_happened(report)
    assert report.accidents["overlap"]


def check_it_happened(report: Report) -> None:
    assert report.jobs > report.seeds
    assert all(report.accidents[kind] for kind in ("crash", "lost_answer", "disk_full", "pause", "operate"))


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_broken_engine_is_caught(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, record_property: pytest.RecordProperty
) -> None:
    engine = BROKEN[name]
    promises = (engine.promise,) if isinstance(engine.promise, str) else engine.promise
    assert engine.sign or not {"P11", "flow"} & set(promises), "these stand for many things: a sign is needed"
    patch = Patch(monkeypatch, tmp_path / "slips")
    engine.breaks(patch)
    first = 0 if SEEDS > MOST else engine.start
    with pytest.raises(SimulationError) as caught:
        for start in range(first, MOST, PIECE):  # most are caught in the first piece
            simulate(
                **SCENES[engine.scene],
                seeds=range(start, start + PIECE),
                faults=engine.faults,
                shrink=False,
                processes=1 if start == first else 2,
            )
    assert not patch.slips(), "the patch itself fails"
    assert caught.value.promise in promises, f"caught for another reason: {caught.value}"
    assert engine.sign in str(caught.value).partition("\nafter\n")[0]
    record_property("simulated", f"{name}: caught at seed {caught.value.seed} by {caught.value.promise}")


def test_an_error_of_a_patch_is_no_consequence_of_what_it_breaks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An error in logic is data for the engine, so it would hide. Other processes record their errors too."""
    patch = Patch(monkeypatch, tmp_path / "slips")
    patch.setattr(Overlay, "replace", lambda self, scope, texts: self.no_such_thing)
    with pytest.raises(SimulationError):
        simulate(**SCENES["diamond"], seeds=2, faults=[], shrink=False, processes=2)
    assert "no_such_thing" in patch.slips()


def test_without_overlap_the_worlds_of_a_seed_are_what_they_are_with_it() -> None:
    others = [name for name in FAULTS if name != "overlap"]
    for seed in range(40):
        shape, plan = plan_of(seed, others, 4)
        same, mixed = plan_of(seed, list(FAULTS), 4)
        assert (shape, plan) == (same, [step for step in mixed if step[0] != "overlap"])


def test_a_seed_makes_the_same_world_again_and_its_trace_is_shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    BROKEN["retries_a_second_early"].breaks(monkeypatch)
    found = []
    for _ in range(2):
        with pytest.raises(SimulationError) as caught:
            simulate(**SCENES["diamond"], seeds=range(5, 200), faults=["logic_error"])
        found.append((caught.value.seed, str(caught.value)))
    assert found[0] == found[1]
    assert len(caught.value.steps) < 20
    with pytest.raises(SimulationError, match="P7"):
        simulate(**SCENES["diamond"], seeds=[caught.value.seed], faults=["logic_error"])


_DIGEST = """
import sys
from tests.simulation import golden
junk = [object() for _ in range(int(sys.argv[1]))]  # other addresses
for scene in sorted(golden.SCENES):
    print(scene, *golden.run(scene, range(8), processes=1).observed.values())
"""


def test_a_seed_makes_the_same_world_in_another_process() -> None:
    """Nothing depends on the order of a set or on an address."""
    others = [
        subprocess.Popen(
            [sys.executable, "-c", _DIGEST, number],
            env={**os.environ, "PYTHONHASHSEED": number, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in ("1", "77777")
    ]
    told = {other.communicate()[0] for other in others}
    assert [other.returncode for other in others] == [0, 0]
    assert told == {"".join(f"{' '.join([scene, *golden.read()[scene][:8]])}\n" for scene in sorted(SCENES))}


def flow_of(logic: Callable[..., None]) -> Flow:
    routine = Routine()
    routine.add_slot("in")
    routine.set_logic(logic)
    routine.set_activation_policy(immediate_policy())
    flow = Flow("users")
    flow.add_routine(routine, "charge")
    return flow


def test_it_finds_an_effect_that_happens_twice_in_a_users_flow() -> None:
    charged: list[int] = []

    def build() -> Flow:
        charged.clear()

        def charge(slot_data: Any, policy_message: Any, worker_state: Any) -> None:
            charged.append(slot_data["in"][0]["id"])  # not idempotent, and not stored by Routilux

        return flow_of(charge)

    def once(end: End) -> None:
        assert len(charged) == len(set(charged)), f"charged {charged}"

    with pytest.raises(SimulationError, match=r"flow: AssertionError: charged \[") as caught:
        simulate(build, entry=("charge", "in"), seeds=500, faults=["crash"], check=once)
    assert caught.value.promise == "flow"


def test_it_finds_a_join_that_waits_for_ever() -> None:
    flow = Flow("waits")
    first, join = Routine(), Routine()
    first.add_slot("in")
    for event in ("a", "b"):
        first.add_event(event)
    join.add_slot("x")
    join.add_slot("y")

    def logic(slot_data: Any, policy_message: Any, worker_state: Any) -> None:
        item = slot_data["in"][0]
        first.emit("a", id=item["id"])
        if item["id"] != 2:  # forgets the other half of one job
            first.emit("b", id=item["id"])

    first.set_logic(logic)
    first.set_activation_policy(immediate_policy())
    join.set_logic(lambda slot_data, policy_message, worker_state: None)
    join.set_activation_policy(all_slots_ready_policy(by_job=True))
    flow.add_routine(first, "first")
    flow.add_routine(join, "join")
    flow.connect("first", "a", "join", "x")
    flow.connect("first", "b", "join", "y")
    with pytest.raises(SimulationError, match=r"P11: job j2 never ends: .* waiting at join\.x"):
        simulate(flow, entry=("first", "in"), seeds=100, faults=[])


def test_what_is_asked_for_must_exist() -> None:
    flow = flow_of(lambda slot_data, policy_message, worker_state: None)
    with pytest.raises(ValueError, match=r"faults: \['earthquake'\] are not in"):
        simulate(flow, entry=("charge", "in"), faults=["earthquake"])
    with pytest.raises(ValueError, match="runtimes must be 1 to 4, not 9"):
        simulate(flow, entry=("charge", "in"), runtimes=9)
