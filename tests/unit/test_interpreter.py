"""Settings of the process that a runtime changes."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from routilux.engine import interpreter


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = sys.getswitchinterval()
    yield
    sys.setswitchinterval(before)


def about(seconds: float) -> object:
    return pytest.approx(seconds, abs=1e-6)


def test_threads_take_turns_sooner_until_the_last_commit_is_over() -> None:
    sys.setswitchinterval(0.005)
    interpreter.tune()
    assert sys.getswitchinterval() == about(interpreter.SWITCH_INTERVAL_S)
    with interpreter.in_commit():
        with interpreter.in_commit():
            assert sys.getswitchinterval() == about(interpreter.COMMIT_INTERVAL_S)
        assert sys.getswitchinterval() == about(interpreter.COMMIT_INTERVAL_S)
    assert sys.getswitchinterval() == about(interpreter.SWITCH_INTERVAL_S)


def test_it_is_as_before_when_a_commit_fails() -> None:
    sys.setswitchinterval(0.004)
    with pytest.raises(OSError), interpreter.in_commit():
        raise OSError
    assert sys.getswitchinterval() == about(0.004)


def test_what_the_program_has_chosen_stays() -> None:
    sys.setswitchinterval(0.0001)
    interpreter.tune()
    with interpreter.in_commit():
        assert sys.getswitchinterval() == about(0.0001)
    assert sys.getswitchinterval() == about(0.0001)
    sys.setswitchinterval(0.005)
    with interpreter.in_commit():
        sys.setswitchinterval(0.003)
    assert sys.getswitchinterval() == about(0.003)
