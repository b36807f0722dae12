"""The clock of a database server, as one of its clients knows it."""

from __future__ import annotations

import pytest

from routilux.engine import clock
from routilux.engine.clock import PROMPT_US, TRUSTED_US, ServerClock


class Host:
    """Its boot was a second ago, and its wall clock is anywhere."""

    def __init__(self) -> None:
        self.us = 1_000_000

    def answer(self, said: int | None, after_us: int) -> int | None:
        self.us += after_us
        return said


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host()
    monkeypatch.setattr(clock, "boot_time_us", lambda: host.us)
    return host


def test_it_goes_on_from_what_the_server_said_and_is_not_behind_it(host: Host) -> None:
    server = ServerClock()
    assert server.ask(lambda: host.answer(5_000_000, 300))
    assert server.now_us() == 5_000_300  # said at some time within these 300 µs
    host.us += 1_000
    assert server.now_us() == 5_001_300


def test_a_slow_answer_counts_only_where_there_is_no_newer_one(host: Host) -> None:
    server = ServerClock()
    server.ask(lambda: host.answer(5_000_000, 2 * PROMPT_US))
    assert (
        server.now_us() == 5_000_000 + 2 * PROMPT_US
    )  # better than none, even on a host that has just booted
    server.ask(lambda: host.answer(9_000_000, 2 * PROMPT_US))
    assert server.now_us() == 5_000_000 + 4 * PROMPT_US
    host.us += TRUSTED_US
    server.ask(lambda: host.answer(90_000_000, 2 * PROMPT_US))
    assert server.now_us() == 90_000_000 + 2 * PROMPT_US


def test_whoever_asks_now_and_then_need_not_ask_again_after_a_slow_answer(host: Host) -> None:
    server = ServerClock()
    assert server.unasked_s == float("inf")
    server.ask(lambda: host.answer(5_000_000, 0))
    host.us += 20_000_000
    server.ask(lambda: host.answer(25_000_000, 2 * PROMPT_US))
    assert server.unasked_s < 1


def test_no_answer_changes_nothing(host: Host) -> None:
    server = ServerClock()
    server.ask(lambda: host.answer(5_000_000, 0))
    assert not server.ask(lambda: None)
    assert server.now_us() == 5_000_000
