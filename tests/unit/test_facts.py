"""Facts are asked for by name, and a subscriber that raises costs nobody else anything."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from routilux.engine.facts import Fact, Facts
from routilux.runtime.log_lines import _LINES, log_facts, subscriber_failed
from tests.flows.flows import SeenNumbers, Step, chain, post, running
from tests.support.waiting import eventually


class Listens:
    """A topic that listens while it is told to."""

    def __init__(self) -> None:
        self.is_on = False
        self.heard: list[Fact] = []

    def __bool__(self) -> bool:
        return self.is_on

    def __call__(self, fact: Fact) -> None:
        self.heard.append(fact)


def raise_it(fact: Fact, error: Exception) -> None:
    raise error


def test_a_fact_is_told_to_those_who_asked_for_its_name_only() -> None:
    facts, heard = Facts(raise_it), []
    facts.subscribe("a", heard.append)
    facts.report("a", number=1)
    facts.report("b", number=2)
    assert heard == [Fact("a", {"number": 1})]
    assert (facts.wants("a"), facts.wants("b")) == (True, False)


def test_a_topic_is_told_while_it_listens() -> None:
    facts, topic = Facts(raise_it), Listens()
    facts.subscribe_at_times("a", topic)
    assert not facts.wants("a")
    facts.report("a", number=1)
    topic.is_on = True
    facts.report("a", number=2)
    assert [fact.fields["number"] for fact in topic.heard] == [2]


def test_a_subscriber_that_raises_is_logged_and_the_next_one_is_called(
    caplog: pytest.LogCaptureFixture,
) -> None:
    facts, heard = Facts(subscriber_failed), []

    def fails(fact: Fact) -> None:
        raise ValueError("mine")

    facts.subscribe("a", fails)
    facts.subscribe("a", heard.append)
    facts.report("a")
    assert len(heard) == 1
    assert "a subscriber of a raised" in caplog.text
    assert "ValueError: mine" in caplog.text


def test_every_log_line_can_be_worded(caplog: pytest.LogCaptureFixture) -> None:
    facts = Facts(raise_it)
    log_facts(facts)
    caplog.set_level(logging.DEBUG, "routilux")
    for name, (_, _, fields) in _LINES.items():
        facts.report(name, **dict.fromkeys(fields, 7))
    for name in ("engine.failed", "run.failed"):
        facts.report(name, routine_id="r", error=ValueError("worded"))
    facts.report("database.retried", attempt=1, error=ValueError("worded"))
    assert len(caplog.records) == len(_LINES) + 3
    assert not any("%" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("is_listening", [False, True])
def test_who_listens_changes_no_row(sqlite_database: str, is_listening: bool) -> None:
    """The bulk path of completed activations does not depend on subscribers."""
    from routilux.store.writes.commit_rows import Changes

    bulk: list[int] = []
    write = Changes.write

    def watched(self: Changes, *arguments: Any) -> None:
        bulk.append(len(self.completed))
        write(self, *arguments)

    heard: list[Fact] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Changes, "write", watched)
        with running(sqlite_database, chain(Step(lambda *_: None))) as runtime:
            if is_listening:
                runtime.on("activation.committed", heard.append)
            runtime.post_many("f", "s0", "input", [{"id": n} for n in range(20)])
            assert runtime.wait_until_all_jobs_finished(timeout=20.0)
    assert sum(bulk) == 20
    assert len(heard) == (20 if is_listening else 0)
    assert all(fact.fields["status"] == "completed" for fact in heard)


def test_a_subscriber_is_told_of_what_has_happened(database: str) -> None:
    told: list[Any] = []
    ends: list[Any] = []
    with running(database, chain(Step(SeenNumbers()))) as runtime:
        runtime.on("activation.committed", lambda fact: told.append(fact.fields["status"]))
        runtime.on("job.ended", lambda fact: ends.append((fact.fields["job_id"], fact.fields["status"])))
        runtime.on("job.ended", lambda fact: 1 / 0)  # its own trouble
        jobs = [post(runtime, {}), post(runtime, {})]
        assert all(job.wait(10) for job in jobs)
        eventually(lambda: ends == [(job.job_id, "completed") for job in jobs])
    assert told == ["completed", "completed"]
