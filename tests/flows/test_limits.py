"""Full slots: a post is refused and leaves nothing, and emitted messages are never dropped."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest

from routilux import Client, PolicyError, Runtime, SlotQueueFullError
from routilux.activation_policies import batch_size_policy, immediate_policy
from tests.flows.doors import doors
from tests.flows.flows import GOOD, Step, chain, count, flow_of, post, running, taking, with_slot
from tests.support.looking import column, rows, stored
from tests.support.waiting import eventually


@pytest.mark.settled_row(30)
def test_row_30_a_full_slot_refuses_posts_and_takes_what_is_emitted(sqlite_database: str) -> None:
    """A post to a slot at its limit raises `SlotQueueFullError` and stores nothing; `emit` never raises for
    it, and nothing is dropped; without `max_queue_length` there is no limit.
    """
    got: list[int] = []

    def spread(slot_data: Any, policy_message: Any, worker_state: Any) -> None:
        for n in range(5):
            source.emit("out", n=n)

    source, sink = (
        taking("in", logic=spread, policy=immediate_policy()),
        taking(policy=immediate_policy()),
    )
    source.add_event("out")
    sink.add_slot("in", max_queue_length=2)
    sink.set_logic(lambda slot_data, policy_message, worker_state: got.append(slot_data["in"][0]["n"]))
    registry = flow_of(source=source, sink=sink)
    registry.resolve("f").connect("source", "out", "sink", "in")
    with running(sqlite_database, registry) as runtime:
        runtime.pause_worker("w")
        for n in (10, 11):
            runtime.post("f", "sink", "in", {"n": n}, "w")
        with pytest.raises(SlotQueueFullError, match="max=2"):
            runtime.post("f", "sink", "in", {"n": 12}, "w")
        assert column(sqlite_database, "SELECT count(*) FROM routilux_jobs") == [2]
        runtime.post_many("f", "source", "in", [{} for _ in range(1200)], worker_id="w")
        runtime.resume_worker("w")
        assert runtime.wait_until_all_jobs_finished(30)
    assert Counter(got) == {10: 1, 11: 1} | dict.fromkeys(range(5), 1200)


@pytest.mark.settled_row(31)
def test_row_31_the_watermark_is_a_mark_on_the_limit(sqlite_database: str) -> None:
    """The watermark is a share of the limit, 0.8 by default, and tells how full a slot is; above it a slot
    still takes messages, and nothing is taken out of it.
    """
    got: list[int] = []
    sink = taking(logic=None, policy=immediate_policy())
    slot = sink.add_slot("in", max_queue_length=10)
    sink.set_logic(lambda slot_data, policy_message, worker_state: got.append(slot_data["in"][0]["n"]))
    assert (slot.watermark, slot.watermark_threshold) == (0.8, 8)
    view = slot.view([])
    levels = []
    for n in range(10):
        view.enqueue({"n": n})
        levels.append(view.get_queue_status()["pressure_level"])
    assert levels == ["low"] * 5 + ["medium"] * 2 + ["high"] * 2 + ["critical"]
    with running(sqlite_database, flow_of(sink=sink)) as runtime:
        runtime.pause_worker("w")
        for n in range(10):
            runtime.post("f", "sink", "in", {"n": n}, "w")
        runtime.resume_worker("w")
        assert runtime.wait_until_all_jobs_finished(10)
    assert got == list(range(10))


@pytest.mark.old_bug(3)
def test_old_bug_03_messages_to_a_full_slot_were_dropped(sqlite_database: str) -> None:
    """What was accepted is kept: a post that finds the slot full is refused, what is emitted into it goes in,
    and every job ends.
    """
    got: list[int] = []

    def spread(step: Step, slot_data: Any, worker_state: Any) -> None:
        for n in range(4):
            step.emit("output", n=n)

    source, sink = Step(spread), Step(lambda step, slot_data, worker_state: got.append(1))
    sink.slots.clear()
    sink.add_slot("input", max_queue_length=1)
    with running(sqlite_database, chain(source, sink)) as runtime:
        runtime.pause_worker("w")
        jobs = [post(runtime, {}) for _ in range(3)]
        jobs.append(runtime.post("f", "s1", "input", {}, "w").job)
        before = stored(sqlite_database)
        with pytest.raises(SlotQueueFullError):
            runtime.post("f", "s1", "input", {}, "w")
        assert stored(sqlite_database) == before
        runtime.resume_worker("w")
        assert runtime.wait_until_all_jobs_finished(20)
        assert {job.status for job in jobs} == {"completed"}
    assert len(got) == 3 * 4 + 1


def test_a_slot_at_its_limit(database: str) -> None:
    with doors(database, with_slot(max_queue_length=3)) as at:
        runtime = at.all[0]
        runtime.pause_worker("w")
        for _ in range(2):
            post(runtime, {})
        with at.refusing(SlotQueueFullError, r"'input' queue is full \(max=3\); nothing was stored"):
            runtime.post_many(*GOOD, [{}, {}], worker_id="w")
        post(runtime, {}, job_id="mine")
        for _ in range(2):
            with at.refusing(SlotQueueFullError, "max=3"):
                post(runtime, {}, job_id="other")
            with at.refusing(SlotQueueFullError, "max=3"):
                post(runtime, {}, timeout=0.05)
            assert post(runtime, {}, job_id="mine").status == "pending"  # not one more
        late = post(runtime, {}, delay=3600)  # waits for its time, not in the slot
        waiting: list[Any] = []
        thread = threading.Thread(target=lambda: waiting.append(post(runtime, {}, timeout=20)))
        thread.start()
        runtime.resume_worker("w")
        thread.join(20)
        assert waiting[0].wait(10)
        late.cancel()


def test_a_slot_at_its_limit_for_another_process(database: str) -> None:
    registry = with_slot(max_queue_length=3)
    with running(database, registry):
        pass
    with Client(database) as client:
        jobs = client.post_many(*GOOD, [{"n": 1}, {"n": 2}], worker_id="w")
        before = stored(database)
        with pytest.raises(SlotQueueFullError, match="max=3"):
            client.post_many(*GOOD, [{}, {}], worker_id="w")
        jobs.append(client.post(*GOOD, {"n": 3}, job_id="mine").job)
        with pytest.raises(SlotQueueFullError, match="max=3"):
            client.post(*GOOD, {})
        assert stored(database) == before | {"inbox": 3}
        assert client.post(*GOOD, {"n": 3}, job_id="mine").status == "pending"
        with running(database, registry):
            assert all(job.wait(10) for job in jobs)
            assert {job.status for job in jobs} == {"completed"}


def test_a_slot_that_was_full_has_room_again_for_another_process(database: str) -> None:
    """Its counters are written once more after the last message has left, though nothing happens then."""
    counted = "SELECT waiting FROM routilux_slots WHERE slot = 'input'"
    with running(database, with_slot(max_queue_length=3)) as runtime, Client(database) as client:
        runtime.pause_worker("w")
        for _ in range(3):
            post(runtime, {})
        eventually(lambda: rows(database, counted) == [(3,)])
        runtime.resume_worker("w")
        eventually(lambda: rows(database, counted) == [(0,)])
        assert client.post(*GOOD, {}, "w").job.wait(10)


def test_a_policy_that_wants_more_than_its_slot_holds(database: str) -> None:
    step = Step(count, policy=batch_size_policy(10))
    step.slots.clear()
    step.add_slot("input", max_queue_length=5)
    registry = chain(step)
    assert any("waits for 10 messages" in finding for finding in registry.resolve("f").validate())
    with Runtime(1, database=database, registry=registry) as runtime:
        before = stored(database)
        for refused in (lambda: runtime.exec("f"), lambda: runtime.post(*GOOD, {})):
            with pytest.raises(PolicyError, match="raise max_queue_length or take a smaller batch"):
                refused()
        assert stored(database) == before
