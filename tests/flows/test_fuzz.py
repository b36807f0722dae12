"""Input from outside is accepted whole or refused by name, and no other work stops.

Few examples by default; `ROUTILUX_EXAMPLES=5000` tries more. What was found has a test of its own, in the
file of its subject.
"""

# ruff: noqa: PT017

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import BaseModel
from sqlalchemy import text

from routilux import Client, Flow, GiveUp, Post, RetryLater
from routilux.activation_policies import custom_policy, immediate_policy
from routilux.errors import LONGEST_DELAY_S, PayloadError, SlotModelError
from routilux.testing import ManualRuntime, RoutineTester, runtime
from tests.flows.flows import ignore, taking
from tests.support.anything import (
    ANY_TEXT,
    ANYTHING,
    JSON_LIKE,
    MOMENTS,
    NUMBERS,
    VALUES,
    fuzzing,
    refusal,
    shape,
)
from tests.support.inside_runtime import store


class Order(BaseModel):
    amount: int
    lines: list[str] = []
    paid_at: datetime | None = None


class Shop:
    """A runtime with the worker `w`: routine `r` keeps what it is given, `b` does nothing."""

    def __init__(self, rt: ManualRuntime, seen: list[Any]) -> None:
        self.rt = rt
        self.seen = seen

    def stored(self) -> dict[str, int]:
        names = ("messages", "jobs", "job_keys", "inbox", "parked", "workers")
        with store(self.rt).read() as connection:
            return {
                name: connection.execute(text(f"SELECT count(*) FROM routilux_{name}")).scalar_one()
                for name in names
            }

    def post(self, data: Any, slot: str = "in", **more: Any) -> Any:
        return self.rt.post("f", "r", slot, data, "w", **more).job

    def taken(self, call: Callable[[], Any]) -> bool:
        """Whether it is taken; what is refused leaves no row."""
        before = self.stored()
        if refusal(call) is None:
            return True
        assert self.stored() == before
        return False

    def take_inbox(self) -> None:
        """What others have written is taken in now, not in the middle of the next call."""
        for _ in range(100):
            if self.stored()["inbox"] == 0:
                return
            self.rt.clock.advance(1)
            self.rt.run_until_idle()
        raise AssertionError("rows stay in the inbox")

    def check_alive(self) -> None:
        """Work of others goes on."""
        job = self.rt.post("f", "b", "in", {}, "w").job
        self.rt.run_until_idle()
        assert job.status == "completed"


def _flow(seen: list[Any], policy: Any = None) -> Flow:
    def keep(slot_data: Any, policy_message: Any, worker_state: Any) -> None:
        seen.extend(item for items in slot_data.values() for item in items)

    flow = Flow("f")
    for name in ("r", "b"):
        routine = taking("in", logic=keep if name == "r" else ignore, policy=immediate_policy())
        if name == "r":
            routine.add_slot("order", model=Order)
            if policy is not None:
                routine.set_activation_policy(policy)
        flow.add_routine(routine, name)
    return flow


@contextmanager
def shop(database: str, policy: Any = None) -> Iterator[Shop]:
    seen: list[Any] = []
    with runtime(_flow(seen, policy), database=database) as rt:
        rt.exec("f", worker_id="w")
        yield Shop(rt, seen)


# payloads and metadata


def test_a_payload_comes_back_as_it_was_or_is_refused_with_its_path(database: str) -> None:
    with shop(database) as at:

        @fuzzing
        @given(ANYTHING | VALUES.map(lambda value: {"k": value}) | ANYTHING.map(lambda value: {"k": [value]}))
        def check(data: Any) -> None:
            before = at.stored()
            try:
                job = at.post(data)
            except PayloadError as refused:
                assert str(refused).startswith("data"), refused
                assert refused.path.startswith("data")
                str(refused).encode()
                assert at.stored() == before
                return
            at.seen.clear()
            at.rt.run_until_idle()
            assert job.status == "completed"
            assert [shape(item) for item in at.seen] == [shape(data)]

        check()
        at.check_alive()


def test_metadata_comes_back_as_it_was_or_is_refused_with_its_path(database: str) -> None:
    with shop(database) as at:

        @fuzzing
        @given(ANYTHING | VALUES.map(lambda value: {"k": value}))
        def check(metadata: Any) -> None:
            before = at.stored()
            try:
                job = at.post({}, metadata=metadata)
            except PayloadError as refused:
                assert str(refused).startswith("metadata"), refused
                assert at.stored() == before
                return
            assert shape(job.metadata) == shape(metadata or {})

        check()
        at.check_alive()


def test_a_slot_with_a_model_takes_what_fits_it(database: str) -> None:
    orders = st.fixed_dictionaries(
        {},
        optional={
            "amount": ANYTHING | st.integers(),
            "lines": ANYTHING | st.lists(ANY_TEXT),
            "paid_at": MOMENTS,
            "more": ANYTHING,
        },
    )
    with shop(database) as at:

        @fuzzing
        @given(orders | ANYTHING)
        def check(data: Any) -> None:
            before = at.stored()
            try:
                at.post(data, "order")
            except PayloadError as refused:
                assert isinstance(refused, SlotModelError) or refused.path
                assert at.stored() == before
                return
            at.seen.clear()
            at.rt.run_until_idle()
            (item,) = at.seen
            assert Order.model_validate(item).model_dump() == item

        check()
        at.check_alive()


def test_what_logic_emits_and_keeps_is_carried_or_refused() -> None:
    routine = taking("in")
    routine.add_event("out")

    def logic(slot_data: Any, policy_message: Any, worker_state: Any) -> None:
        value = values[-1]
        emitted = refusal(lambda: routine.emit("out", value=value)) is None
        kept = refusal(lambda: worker_state.update_routine_state("s", {"value": value})) is None
        assert emitted == kept

    routine.set_logic(logic)
    tester = RoutineTester(routine)
    values: list[Any] = []

    @fuzzing
    @given(ANYTHING)
    def check(value: Any) -> None:
        values.append(value)
        events = tester.capture_events()
        tester.call_slot("in")
        if events:
            assert shape(events["out"][0]["value"]) == shape(value)
            assert shape(tester.job_state.get_routine_state("s")["value"]) == shape(value)

    check()


# names, ids and times


def test_names_and_ids_are_known_or_refused(database: str) -> None:
    with shop(database) as at, Client(database) as client:

        @fuzzing
        @given(ANY_TEXT | JSON_LIKE, ANY_TEXT | JSON_LIKE)
        def check(name: Any, other: Any) -> None:
            for host in (at.rt, client):
                at.taken(lambda host=host: host.post(name, "r", "in", {}))
                at.taken(lambda host=host: host.post("f", name, "in", {}))
                at.taken(lambda host=host: host.post("f", "r", name, {}))
                at.taken(lambda host=host: host.post("f", "r", "in", {}, name if name is not None else 5))
                refusal(lambda host=host: host.get_job(name))
                refusal(
                    lambda host=host: host.list_jobs(
                        status=name, flow_name=other, worker_id=name, before=other
                    )
                )
                refusal(lambda host=host: host.dead_letters(flow_name=name))
                if name != "w":
                    at.taken(lambda host=host: host.pause_worker(name, "why"))
                    at.taken(lambda host=host: host.cancel_job(name, "why"))
                    at.taken(lambda host=host: host.signal(name, "r", "in", {}))
            at.take_inbox()
            if at.taken(lambda: at.post({"n": 1}, job_id=name)) and name is not None:
                assert at.post({"n": 1}, job_id=name).job_id == name
                found = at.rt.get_job(name)
                assert found is not None
                refusal(found.cancel)
            if name not in (None, "w") and at.taken(lambda: at.rt.exec("f", worker_id=name)):
                at.rt.cancel_worker(name)

        check()
        at.check_alive()


def test_what_is_kept_with_a_job_or_a_worker_is_carried_or_refused(database: str) -> None:
    with shop(database) as at, Client(database) as client:
        worker = at.rt.exec("f", worker_id="w")
        job = at.post({}, delay=3600)
        other = client.get_job(job.job_id)
        assert other is not None

        @fuzzing
        @given(ANY_TEXT | JSON_LIKE, VALUES | NUMBERS, ANY_TEXT | JSON_LIKE)
        def check(key: Any, value: Any, reason: Any) -> None:
            for handle in (job, other):
                refusal(lambda handle=handle: handle.set_data(key, value))
                refusal(lambda handle=handle: handle.increment(key, value))
            at.rt.run_until_idle()
            refusal(lambda: worker.update_routine_state(key, {"k": value}))
            if isinstance(key, str):
                refusal(lambda: worker.update_routine_state("r", {key: value}))
            refusal(lambda: worker.increment(key, key, value))
            for host in (at.rt, client):
                refusal(lambda host=host: host.pause_worker("w", reason))
                refusal(lambda host=host: host.resume_worker("w", reason))
                refusal(lambda host=host: host.pause_job(job.job_id, reason))
                refusal(lambda host=host: host.resume_job(job.job_id, reason))
            refusal(lambda: client.post("f", "r", "in", {}, worker_id="w").job.complete(key, reason, value))
            at.rt.run_until_idle()
            at.rt.resume_worker("w")

        check()
        at.check_alive()
        at.take_inbox()


def test_a_time_is_taken_or_refused_by_name(database: str) -> None:
    with shop(database) as at:

        @fuzzing
        @given(NUMBERS | st.timedeltas() | JSON_LIKE | MOMENTS)
        def check(moment: Any) -> None:
            now_s = at.rt.clock.now_us() / 1e6
            for post in (
                lambda: at.post({}, delay=moment),
                lambda: at.rt.post_many("f", "r", "in", [Post({}, delay=moment)]),
            ):
                if at.taken(post) and moment is not None:
                    with store(at.rt).read() as connection:
                        latest = connection.execute(
                            text("SELECT max(due_at) FROM routilux_parked")
                        ).scalar_one()
                    assert latest is None or latest / 1e6 <= now_s + LONGEST_DELAY_S + 1
                at.rt.cancel_all_jobs()
            at.taken(lambda: at.post({}, at=moment))
            at.rt.cancel_all_jobs()
            job = at.post({})
            refusal(lambda: job.wait(moment))
            refusal(lambda: at.rt.wait_until_all_workers_idle(moment))
            assume(at.rt.clock.now() < datetime(2100, 1, 1, tzinfo=UTC))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(at.rt.clock, "move_to", lambda us: None)  # else a wait of a century is over, too
            patch.setattr(at.rt, "wait_until_all_workers_idle", lambda timeout: None)
            check()
        at.check_alive()


# policies


def test_a_policy_may_answer_anything() -> None:
    answers: list[Any] = []

    def policy(slots: Any, worker_state: Any) -> Any:
        answer, takes, error = answers[-1]
        for slot in slots.values():
            for take in takes:
                if take == "all":
                    slot.consume_all_new()
                elif take == "one":
                    slot.consume_one_new()
                elif take == "twice":
                    slot.consumed.extend(list(slot.consumed))
                else:
                    slot.consumed.append(take)
        if error is not None:
            raise error
        return answer

    class Foreign:
        def __init__(self, seq: Any) -> None:
            self.seq = seq

    takes = st.lists(
        st.sampled_from(["all", "one", "twice"]) | st.builds(Foreign, JSON_LIKE | NUMBERS) | JSON_LIKE,
        max_size=3,
    )
    answer = (
        ANYTHING
        | st.booleans()
        | st.tuples(
            st.booleans(), st.dictionaries(st.sampled_from(["in", "x"]), ANYTHING, max_size=2), ANYTHING
        )
        | st.tuples(ANYTHING, ANYTHING, ANYTHING)
    )
    errors = st.none() | st.sampled_from(
        [
            ValueError("x"),
            SystemExit(1),
            KeyboardInterrupt(),
            RetryLater(1),
            GiveUp("x"),
            StopIteration(),
            BaseException(),
        ]
    )

    @fuzzing
    @given(answer, takes, errors)
    def check(answer: Any, taken: list[Any], error: BaseException | None) -> None:
        answers.append((answer, taken, error))
        with shop("sqlite://", custom_policy(policy)) as at:
            for n in range(3):
                at.post({"n": n})
            at.check_alive()
            with store(at.rt).read() as connection:
                query = "SELECT status, count(*) FROM routilux_messages WHERE routine = 'r' GROUP BY status"
                counts = dict(map(tuple, connection.execute(text(query)).all()))
                opened = connection.execute(text("SELECT status, open_count FROM routilux_jobs")).all()
            assert sum(counts.values()) == 3
            assert counts.keys() <= {"waiting", "consumed", "dead", "cancelled"}
            assert all(count == 0 for status, count in opened if status in ("completed", "failed"))
            assert all(count == 1 for status, count in opened if status == "pending")

    check()
