"""A flow that changes while work of it is in flight: what waits for a part that is gone is kept,
and found.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from routilux import Client, FlowRegistry
from routilux.activation_policies import batch_size_policy, immediate_policy
from routilux.engine import counters
from routilux.store.reads import worker_reads
from tests.flows.flows import GOOD, Step, chain, count, flow_of, running, taking


def keep(slot_data: Any, policy_message: Any, worker_state: Any) -> None:
    """Logic that does nothing."""


def flow(*names: str) -> FlowRegistry:
    """`quick` runs at once; the others gather 100 messages, so what they are sent waits."""
    policies = {"quick": immediate_policy()}
    return flow_of(
        **{
            name: taking("input", logic=keep, policy=policies.get(name, batch_size_policy(100)))
            for name in names
        }
    )


def counted_from(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seqs from which messages are counted when a worker is loaded."""
    seen: list[int] = []
    counts: Callable[..., Any] = worker_reads.waiting_counts

    def counting(connection: Any, worker: int, low_seq: int) -> Any:
        seen.append(low_seq)
        return counts(connection, worker, low_seq)

    monkeypatch.setattr(worker_reads, "waiting_counts", counting)
    return seen


def test_messages_for_a_routine_that_is_gone_are_dead_letters_until_it_is_back(database: str) -> None:
    with running(database, flow("quick", "slow")) as runtime:
        waits = runtime.post("f", "slow", "input", {"n": 1}, "w").job
        for n in range(20):  # it lies far behind what the other slots have seen
            assert runtime.post("f", "quick", "input", {"n": n}, "w").job.wait(10)
    with running(database, flow("quick")) as runtime:
        assert runtime.post("f", "quick", "input", {"n": 21}, "w").job.wait(10)
        (letter,) = runtime.dead_letters()
        assert (letter.routine_id, letter.payloads, letter.job_id) == ("slow", [{"n": 1}], waits.job_id)
        assert letter.error_type == "RoutineNotFoundError"
        job = runtime.get_job(str(waits.job_id))
        assert job is not None
        assert job.status == "pending"
    with running(database, flow("quick", "slow")) as runtime:
        (letter,) = runtime.dead_letters()
        letter.retry()
        assert runtime.wait_until_all_jobs_finished(10)  # which flushes what gathers
        job = runtime.get_job(str(waits.job_id))
        assert job is not None
        assert job.status == "completed"


def test_what_is_gone_is_looked_for_once(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(database, flow("quick", "slow")) as runtime:
        runtime.post("f", "slow", "input", {"n": 1}, "w")
        for n in range(20):
            assert runtime.post("f", "quick", "input", {"n": n}, "w").job.wait(10)
    for _ in range(2):
        seen = counted_from(monkeypatch)
        with running(database, flow("quick")) as runtime:
            assert runtime.post("f", "quick", "input", {"n": 21}, "w").job.wait(10)
            assert len(runtime.dead_letters()) == 1
    assert min(seen) > 20


def test_a_new_routine_does_not_make_a_start_read_the_history(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counters, "SLOTS_EVERY_US", 0)
    with running(database, flow("quick")) as runtime:
        for n in range(20):
            assert runtime.post("f", "quick", "input", {"n": n}, "w").job.wait(10)
    seen = counted_from(monkeypatch)
    with running(database, flow("quick", "new")) as runtime:
        assert runtime.post("f", "new", "input", {"n": 1}, "w")
    assert min(seen) > 10


def test_a_post_for_a_routine_that_the_definition_has_lost_is_kept(database: str) -> None:
    with running(database, chain(Step(count), Step(count))):
        pass
    with Client(database) as client:
        job = client.post("f", "s1", "input", {"n": 1}, "w").job
        good = client.post(*GOOD, {"n": 2}, "w").job
        with running(database, chain(Step(count))):
            assert good.wait(10)
            assert job.wait(10)
            assert (good.status, job.status) == ("completed", "failed")
            assert "'s1' not found" in str(job.error)
            assert [letter.payloads for letter in client.dead_letters()] == [[{"n": 1}]]
