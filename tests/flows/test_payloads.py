"""Payloads: what cannot be stored is refused with its path; all other text is read back unchanged."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import BaseModel

from routilux import Client, PayloadError, PayloadTooLargeError, SlotModelError
from routilux.testing import runtime
from tests.flows.doors import doors
from tests.flows.flows import GOOD, Step, chain, count, post, running, with_slot
from tests.flows.two_routines import Mute, owner, still_serves, two_routines
from tests.support.looking import rows
from tests.support.postgres import PostgresServer


def _deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


BAD_PAYLOADS: list[tuple[Any, type[PayloadError], str]] = [
    (None, PayloadError, "must be a mapping, not NoneType"),
    (5, PayloadError, "must be a mapping, not int"),
    ([1], PayloadError, "must be a mapping, not list"),
    ("s", PayloadError, "must be a mapping, not str"),
    ({"items": [{"fn": len}]}, PayloadError, r"\.items\[0\]\.fn: builtin_function_or_method is not JSON"),
    ({"a": {1, 2}}, PayloadError, r"\.a: set"),
    ({"a": math.nan}, PayloadError, r"\.a"),
    ({"a": "x\x00y"}, PayloadError, r"\.a: contains U\+0000"),
    ({"a": "\ud800"}, PayloadError, r"\.a"),
    ({1: "a"}, PayloadError, "1"),
    (_deep(300), PayloadError, "deep"),
    ({"a": "é" * 524_288}, PayloadTooLargeError, "1048584 bytes of JSON, the limit is 1048576"),
]


@pytest.mark.parametrize(
    ("data", "error", "match"), BAD_PAYLOADS, ids=[str(n) for n in range(len(BAD_PAYLOADS))]
)
def test_a_payload_that_cannot_be_stored(
    sqlite_database: str, data: Any, error: type[PayloadError], match: str
) -> None:
    with doors(sqlite_database, chain(Step(count))) as at:
        job = post(at.all[0], {}, delay=3600)
        for door in at.all:
            with at.refusing(error, f"^data.*{match}"):
                door.post(*GOOD, data)
            with at.refusing(error, rf"^items\[1\].*{match}"):
                door.post_many(*GOOD, [{"good": 1}, data])
            with at.refusing(error, f"^data.*{match}"):
                door.signal(job.job_id, "s0", "input", data)
            if isinstance(data, dict):
                with at.refusing(error, f"^metadata.*{match}"):
                    door.post(*GOOD, {}, metadata=data)


def test_one_bad_item_among_thousands_stores_none(database: str) -> None:
    with doors(database, chain(Step(count))) as at:
        for door in at.all:
            with at.refusing(PayloadError, r"^items\[4999\]\.bad"):
                door.post_many(*GOOD, [*({"n": n} for n in range(4999)), {"bad": len}])
            assert door.post_many(*GOOD, []) == []


class Order(BaseModel):
    n: int


def test_data_that_does_not_fit_the_model_of_its_slot(database: str) -> None:
    with doors(database, with_slot(model=Order)) as at:
        runtime, client = at.all
        for data, field in (({"n": "many"}, r"data\.n: "), ({}, r"data\.n: Field required")):
            with at.refusing(SlotModelError, field):
                runtime.post(*GOOD, data)
        job = post(runtime, {"n": 1}, delay=3600)
        with at.refusing(SlotModelError, r"data\.n"):
            runtime.signal(job.job_id, "s0", "input", {"n": "many"})
        with at.refusing(SlotModelError, r"items\[1\]\.n"):
            runtime.post_many(*GOOD, [{"n": 1}, {"n": "many"}])
        # a client has no flow code: the owner refuses, and nothing is lost
        refused = client.post(*GOOD, {"n": "many"}, "w")
        assert refused.job.wait(10)
        assert refused.status == "failed"
        assert "input" in refused.error
        assert [letter.payloads for letter in client.dead_letters()] == [[{"n": "many"}]]
        fits = client.post(*GOOD, {"n": "7", "more": 1}, "w")
        assert fits.job.wait(10)
        assert fits.status == "completed"
    payloads = rows(database, "SELECT payload FROM routilux_messages WHERE status = 'consumed'")
    assert payloads == [('{"n":7}',)]


class BadMapping(dict[str, Any]):
    def items(self) -> Any:
        raise RuntimeError("no items")


class Liar:
    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return dict


class Unlooked:
    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise RuntimeError("do not look")


class Weird(str):
    def encode(self, *_: Any, **__: Any) -> bytes:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (lambda: {"a": [BadMapping(b=1)]}, r"data\.a\[0\]: BadMapping cannot be read: RuntimeError"),
        (lambda: {"a": Liar()}, r"data\.a: Liar cannot be read: AttributeError"),
        (lambda: {"a": Unlooked()}, r"data\.a: Unlooked cannot be read: RuntimeError"),
        (lambda: {"a": {"b": Weird("x")}}, r"data\.a\.b: Weird cannot be read: RuntimeError"),
        (lambda: {"a": {Mute("k"): 1}}, r"data\.a: "),
        (lambda: {"a": 10**5000}, r"data\.a: an int of 16610 bits is too large"),
        (lambda: Liar(), r"data: Liar cannot be read"),
        (lambda: Unlooked(), r"data: Unlooked cannot be read"),
    ],
)
def test_a_value_that_cannot_be_looked_at_is_refused_with_its_path(make: Any, path: str) -> None:
    with runtime(two_routines()) as rt:
        for slot in ("in", "mood") if path.startswith("data: ") else ("in",):
            with pytest.raises(PayloadError, match=path):
                rt.post("f", "a", slot, make())
        assert rt.list_jobs() == []


# texts


@pytest.mark.parametrize("key", ["\x00", "\ud800"])
def test_a_key_that_no_database_stores_is_refused_by_name(database: str, key: str) -> None:
    with owner(database) as rt:
        worker = rt.exec("f", worker_id="w")
        job = rt.post("f", "a", "in", {}, "w").job
        with pytest.raises(PayloadError, match="key: contains"):
            job.set_data(key, 1)
        with pytest.raises(PayloadError, match="key: contains"):
            job.increment(key)
        with pytest.raises(PayloadError, match="a key of state: contains"):
            worker.update_routine_state("a", {key: 1})
        with pytest.raises(PayloadError, match="routine_id: contains"):
            worker.update_routine_state(key, {})
        with pytest.raises(PayloadError, match="key: contains"):
            worker.increment("a", key)
        with pytest.raises(TypeError, match="key must be a string, not int"):
            job.set_data(5, 1)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="routine_id must be a string, not NoneType"):
            worker.increment(None, "k")  # type: ignore[arg-type]
        still_serves(rt)


def test_a_reason_is_kept_as_text_that_every_database_stores(database: str) -> None:
    with owner(database) as rt:
        jobs = [rt.post("f", "a", "in", {}, "w").job for _ in range(2)]
        jobs[0].cancel("a\x00b\ud800")
        jobs[1].complete("failed", "a\x00b\ud800")
        assert [job.error for job in jobs] == ["a\\x00b\\ud800"] * 2
        rt.pause_worker("w", "\x00")
        rt.resume_worker("w", "\ud800")
        still_serves(rt)


TEXT = "zażółć 日本語 🙂 \u0085 ÿ"


@pytest.fixture(params=["LATIN1", "WIN1250", "SQL_ASCII"])
def asking_for(
    request: pytest.FixtureRequest, postgres_database: str, postgres_server: PostgresServer
) -> str:
    """A database in UTF8 that asks its clients for another encoding."""
    name = postgres_database.rpartition("/")[2]
    postgres_server.execute(f"ALTER DATABASE {name} SET client_encoding = '{request.param}'")
    return postgres_database


@pytest.mark.parametrize("query", ["", "?client_encoding=latin1"], ids=["", "in the URL, too"])
def test_text_is_the_same_again(asking_for: str, query: str) -> None:
    seen: list[Any] = []

    def keep(step: Step, slot_data: Any, worker_state: Any) -> None:
        worker_state.update_routine_state("s0", {TEXT: TEXT})
        seen.append(slot_data["input"][0]["text"])

    url = asking_for + query
    with running(url, chain(Step(keep))) as runtime, Client(url) as client:
        mine = runtime.post("f", "s0", "input", {"text": TEXT}, "w", metadata={TEXT: TEXT}).job
        theirs = client.post("f", "s0", "input", {"text": TEXT}, "w", job_id="zażółć").job
        assert mine.wait(20)
        assert theirs.wait(20)
        assert mine.metadata == {TEXT: TEXT}
        assert client.get_job("zażółć").status == "completed"
    assert seen == [TEXT, TEXT]
    with running(url, chain(Step(keep))) as again:
        assert again.exec("f", worker_id="w").get_routine_state("s0") == {TEXT: TEXT}
