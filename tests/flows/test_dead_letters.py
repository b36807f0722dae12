"""Dead letters: list them, read the error, send one again, drop one; and two operators who do it at once."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import pytest
from pydantic import BaseModel

from routilux import (
    Client,
    DeadLetterGoneError,
    ErrorHandler,
    PayloadError,
    PayloadTooLargeError,
    SlotModelError,
    WorkerEndedError,
)
from routilux.activation_policies import batch_size_policy
from tests.flows.flows import Step, chain, post, running
from tests.support.looking import column, rows
from tests.support.waiting import eventually


def picky(step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
    worker_state.increment("s0", "seen")
    for item in slot_data["input"]:
        if item.get("bad"):
            raise ValueError(f"bad is {item['bad']}")
    worker_state.increment("s0", "done")


def fan_out(step: Step, slot_data: dict[str, list[Any]], worker_state: Any) -> None:
    for item in slot_data["input"][0]["items"]:
        step.emit("output", **item)


def fail_one(runtime: Any, **data: Any) -> Any:
    job = post(runtime, {"bad": 1, **data})
    assert job.wait(10)
    assert job.status == "failed"
    return job


def test_dead_letters_are_listed_newest_first_with_their_error(database: str) -> None:
    registry = chain(Step(picky))
    with running(database, registry) as runtime:
        jobs = [fail_one(runtime, n=n) for n in range(3)]
    with running(database, registry) as runtime, Client(database) as client:
        for host in (runtime, client):
            letters = host.dead_letters()
            assert [letter.job_id for letter in letters] == [job.job_id for job in reversed(jobs)]
            assert [letter.job_id for letter in host.dead_letters(limit=1)] == [jobs[2].job_id]
            rest = host.dead_letters(limit=5, before=letters[0])
            assert [letter.job_id for letter in rest] == [jobs[1].job_id, jobs[0].job_id]
            assert len(host.dead_letters(flow_name="f")) == 3
            assert host.dead_letters(flow_name="g") == []
        letter = letters[0]
        assert (letter.worker_id, letter.flow_id, letter.routine_id) == ("w", "f", "s0")
        assert (letter.error_type, letter.error, letter.attempt) == ("ValueError", "bad is 1", 1)
        assert 'raise ValueError(f"bad is' in letter.traceback
        assert letter.payloads == [{"bad": 1, "n": 2}]
        assert letter.dead_since is not None


def test_sent_again_with_another_payload_it_reopens_its_job_which_completes(database: str) -> None:
    registry = chain(Step(fan_out), Step(picky))
    with running(database, registry) as runtime:
        job_id = post(runtime, {"items": [{"bad": 1}, {"n": 2}]}).job_id
        assert runtime.get_job(job_id).wait(10)
    with running(database, registry) as runtime:
        (letter,) = runtime.dead_letters()
        runtime.pause_worker("w")
        letter.retry({"bad": 0, "mended": True})
        job = runtime.get_job(job_id)
        assert (job.status, job.error, job.completed_at) == ("running", None, None)
        assert runtime.dead_letters() == []
    with running(database, registry) as runtime:  # sent again and not yet handled: that survives too
        runtime.resume_worker("w")
        job = runtime.get_job(job_id)
        assert job.wait(10)
        assert (job.status, job.error) == ("completed", None)
        assert job.result(5) is None
    history = (
        "SELECT attempt, status FROM routilux_activations WHERE routine = 's1' AND status <> 'discarded'"
        " ORDER BY n"
    )
    assert rows(database, history) == [(1, "failed"), (1, "completed")]
    payloads = dict(rows(database, "SELECT status, payload FROM routilux_messages WHERE routine = 's1'"))
    assert payloads == {"consumed": '{"bad":0,"mended":true}', "cancelled": '{"n":2}'}


def test_sent_again_as_it_was_it_fails_again_with_its_attempts_anew(database: str) -> None:
    handler = ErrorHandler("retry", max_retries=1, retry_delay=0.05)
    with running(database, chain(Step(picky, handler=handler))) as runtime:
        job = fail_one(runtime)
        (letter,) = runtime.dead_letters()
        assert letter.attempt == 2
        letter.retry()
        with pytest.raises(DeadLetterGoneError):
            letter.retry()
        assert job.wait(10)
        assert job.status == "failed"
        (again,) = runtime.dead_letters()
        assert (again.attempt, again.payloads) == (2, [{"bad": 1}])
    attempts = column(database, "SELECT attempt FROM routilux_activations ORDER BY n")
    assert attempts == [1, 2, 1, 2]


def test_a_dropped_one_is_cancelled_and_its_job_stays_failed(database: str) -> None:
    registry = chain(Step(picky))
    with running(database, registry) as runtime:
        job = fail_one(runtime)
        (letter,) = runtime.dead_letters()
        letter.drop("not worth it")
        assert runtime.dead_letters() == []
        for verb in (letter.retry, lambda: letter.drop("again")):
            with pytest.raises(DeadLetterGoneError):
                verb()
    with running(database, registry) as runtime:
        assert runtime.dead_letters() == []
        assert runtime.get_job(job.job_id).status == "failed"
    assert rows(database, "SELECT status FROM routilux_messages") == [("cancelled",)]
    assert rows(database, "SELECT status, error FROM routilux_activations") == [("failed", "bad is 1")]


def test_a_batch_of_several_jobs_comes_back_as_one_and_reopens_all_of_them(database: str) -> None:
    registry = chain(Step(picky, policy=batch_size_policy(3)))
    with running(database, registry) as runtime:
        items = [{"bad": 1}, {"n": 2}, {"n": 3}]
        jobs = runtime.post_many("f", "s0", "input", items, worker_id="w")
        assert all(job.wait(10) for job in jobs)
    with running(database, registry) as runtime:
        (letter,) = runtime.dead_letters()
        assert letter.payloads == items
        letter.retry({"n": 1})
        assert all(runtime.get_job(job.job_id).wait(10) for job in jobs)
        assert {runtime.get_job(job.job_id).status for job in jobs} == {"completed"}
        assert runtime.exec("f", worker_id="w").get_routine_state("s0") == {"seen": 1, "done": 1}


def test_of_two_operators_in_one_process_one_wins_and_the_other_is_told(database: str) -> None:
    with running(database, chain(Step(picky))) as runtime:
        for verb in ("retry", "drop"):
            fail_one(runtime)
            first, second = runtime.dead_letters()[0], runtime.dead_letters()[0]
            # sent again as it was, it could fail and be a dead letter once more before the other asks
            other = partial(second.drop, "") if verb == "drop" else partial(second.retry, {"n": 2})
            gone = _at_once(partial(first.retry, {"n": 1}), other)
            assert len(gone) == 1
            assert runtime.wait_until_all_jobs_finished(10)
            for letter in runtime.dead_letters():
                letter.drop("clean")


def test_of_two_operators_in_other_processes_one_wins_and_the_other_is_told(database: str) -> None:
    registry = chain(Step(picky))
    with running(database, registry) as runtime:
        fail_one(runtime)
    with Client(database) as one, Client(database) as two:
        (first,), (second,) = one.dead_letters(), two.dead_letters()
        gone = _at_once(lambda: first.retry({"n": 1}), lambda: second.retry({"n": 2}))
        assert len(gone) == 1
        with running(database, registry) as runtime:
            eventually(lambda: not runtime.dead_letters())
            with pytest.raises(DeadLetterGoneError):
                first.drop("too late")
            assert runtime.wait_until_all_jobs_finished(10)
    history = "SELECT status FROM routilux_activations ORDER BY n"
    assert column(database, history) == ["failed", "completed"]


def _at_once(*verbs: Any) -> list[DeadLetterGoneError]:
    """The errors of those who were told."""
    together = threading.Barrier(len(verbs), timeout=20)
    gone: list[DeadLetterGoneError] = []

    def act(verb: Any) -> None:
        together.wait()
        try:
            verb()
        except DeadLetterGoneError as error:
            gone.append(error)

    threads = [threading.Thread(target=act, args=(verb,)) for verb in verbs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    return gone


def test_an_edited_payload_is_checked_like_a_post(database: str) -> None:
    class Order(BaseModel):
        n: int
        bad: Any = 0

    step = Step(picky)
    step.slots.clear()
    step.add_slot("input", model=Order)
    with running(database, chain(step)) as runtime:
        fail_one(runtime, n=1)
        (letter,) = runtime.dead_letters()
        with pytest.raises(PayloadError, match=r"payload\.bad: builtin_function"):
            letter.retry({"n": 1, "bad": print})
        with pytest.raises(PayloadError, match="must be a mapping"):
            letter.retry([1])
        with pytest.raises(SlotModelError, match=r"payload\.n"):
            letter.retry({"n": "many"})
        with pytest.raises(PayloadTooLargeError), Client(database) as client:
            client.dead_letters()[0].retry({"n": 1, "bad": "x" * 1_100_000})
        assert len(runtime.dead_letters()) == 1


def test_one_of_a_cancelled_worker_cannot_be_sent_again(database: str) -> None:
    with running(database, chain(Step(picky))) as runtime:
        fail_one(runtime)
        runtime.cancel_worker("w")
        (letter,) = runtime.dead_letters()
        with pytest.raises(WorkerEndedError):
            letter.retry()
        assert len(runtime.dead_letters()) == 1
