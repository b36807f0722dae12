"""The commit window: how long the engine's thread waits for callers. The last commits decide it."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from routilux.engine.commit_window import LATELY, LINGER_S, MOST_LINGER_S, CommitWindow
from routilux.engine.inputs import Input, InputQueue, RunEnded, Task
from routilux.testing.clock import ManualClock


def caller() -> Task:
    return Task(lambda: None)


def outcome() -> Input:
    return RunEnded(cast(Any, SimpleNamespace()))


class Turns(InputQueue):
    """The engine's loop on a clock of its own.

    A commit takes `takes` seconds. A caller that is answered comes back after `away` seconds, several of them
    one after another. Logic that a post has started reports `logic` seconds after its commit.
    """

    def __init__(
        self, callers: int, *, takes: float = 0.001, away: float, logic: float | None = None
    ) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.takes, self.away, self.logic = takes, away, logic
        self.window = CommitWindow(self, self.clock, 0.05, 0.25)
        self.to_come: list[tuple[float, int, Input]] = [
            (0.1 * takes * n, n, caller()) for n in range(callers)
        ]
        self.begun = self.clock.monotonic()
        self.lingered: list[float] = []

    def go_on(self, seconds: float) -> None:
        self.clock.advance(seconds)
        now = self.clock.monotonic() - self.begun
        for entry in sorted(self.to_come, key=lambda entry: entry[:2]):
            if entry[0] <= now:
                self.to_come.remove(entry)
                self.put(entry[2])

    def wait_for_callers(self, wanted: int, timeout: float) -> bool:
        waited = 0.0
        while waited < timeout and self.callers < wanted:
            self.go_on(timeout / 100)
            waited += timeout / 100
        self.lingered.append(timeout)
        return self.callers >= wanted

    def turn(self) -> int:
        """One commit; how many callers were in it."""
        while not len(self):
            self.go_on(0.0001)
        self.window.linger()
        inputs = self.take(100)
        self.go_on(self.takes)
        self.window.after(inputs)
        now, answered = self.clock.monotonic() - self.begun, [i for i in inputs if isinstance(i, Task)]
        for n, _ in enumerate(answered):
            self.to_come.append((now + self.away * (1 + n / 20), n, caller()))
            if self.logic is not None:
                self.to_come.append((now + self.logic, n, outcome()))
        return len(answered)

    def turns(self, number: int) -> list[int]:
        return [self.turn() for _ in range(number)]


def test_callers_that_come_back_soon_share_one_commit() -> None:
    turns = Turns(8, away=0.0006)
    assert max(turns.turns(4)) < 8  # in two parts, each of which waits for the other's commit
    turns.turns(3 * LATELY)
    assert turns.turns(20) == [8] * 20


def test_who_posts_alone_does_not_meet_the_commit_of_the_outcome_of_its_last_post() -> None:
    turns = Turns(1, away=0.0003, logic=0.0001)
    assert turns.turns(4) == [1, 0, 1, 0]
    turns.turns(4 * LATELY)
    assert turns.turns(20) == [1] * 20


@pytest.mark.parametrize("callers", [1, 8])
def test_callers_that_come_now_and_then_are_not_waited_for(callers: int) -> None:
    turns = Turns(callers, away=0.0213, logic=0.0001)
    turns.turns(200)
    assert turns.lingered == []


def test_callers_that_stop_coming_back_are_not_waited_for_any_more() -> None:
    turns = Turns(8, away=0.0006)
    turns.turns(4 * LATELY)
    turns.lingered.clear()
    turns.away = 0.02
    turns.turns(100)
    assert 0 < len(turns.lingered) < LATELY


@pytest.mark.parametrize(("takes", "most"), [(0.0003, LINGER_S), (0.0015, 0.0015), (0.5, MOST_LINGER_S)])
def test_it_lingers_as_long_as_the_last_commit_took_within_bounds(takes: float, most: float) -> None:
    turns = Turns(8, takes=takes, away=takes * 0.6)
    turns.turns(4 * LATELY)
    assert turns.lingered
    assert max(turns.lingered) == pytest.approx(most, rel=0.01)


def test_a_quiet_runtime_looks_up_less_often() -> None:
    turns = Turns(1, away=60.0)
    turns.turn()
    assert turns.window.poll_s(is_running=False) == 0.05
    turns.go_on(10.0)
    assert turns.window.poll_s(is_running=False) == 0.25
    assert turns.window.poll_s(is_running=True) == 0.05


def test_the_last_caller_that_is_waited_for_wakes_and_outcomes_do_not() -> None:
    inputs, woken = InputQueue(), threading.Event()

    def wait() -> None:
        assert inputs.wait_for_callers(2, 60.0)
        woken.set()

    thread = threading.Thread(target=wait)
    thread.start()
    inputs.put(caller())
    inputs.put(outcome())
    assert not woken.wait(0.05)
    inputs.put(caller())
    thread.join(20.0)
    assert woken.is_set()


def test_whoever_wakes_ends_the_wait_for_callers_and_the_next_sleep() -> None:
    inputs = InputQueue()
    inputs.wake()
    assert not inputs.wait_for_callers(1, 60.0)
    assert inputs.wait(60.0)
    assert not inputs.wait(0.0)
