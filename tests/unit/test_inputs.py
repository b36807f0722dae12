"""The queue between callers and the engine's thread: no input is lost, whatever the threads do. A wake-up and
the receipt of a caller.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Iterator

import pytest

from routilux.core.outcome import Outcome
from routilux.engine.inputs import CommandIn, Input, InputQueue, Post, PostIn, Receipt, RunEnded, Task, WakeUp

ROUNDS = 30_000


@pytest.fixture
def hasty_switches() -> Iterator[None]:
    """Threads change at almost every chance."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(usual)


def post() -> PostIn:
    return PostIn("flow", "worker", "routine", "slot", [Post("job", "{}")], Receipt())


@pytest.mark.parametrize("kind", [Outcome, RunEnded, PostIn, CommandIn, Task])
def test_inputs_are_compared_by_identity(kind: type) -> None:
    """`deque.remove` compares: in Python, others would change the queue meanwhile."""
    assert kind.__eq__ is object.__eq__


@pytest.mark.usefixtures("hasty_switches")
def test_each_post_is_withdrawn_or_taken_and_nobody_gets_an_error() -> None:
    inputs, errors = InputQueue(), list[BaseException]()
    withdrawn, taken = [0, 0], list[Input]()
    posting = threading.Event()

    def give_up(number: int) -> None:
        try:
            for _ in range(ROUNDS):
                entry = post()
                inputs.put(entry)
                withdrawn[number] += inputs.withdraw(entry.receipt)
        except BaseException as error:
            errors.append(error)

    def take() -> None:
        try:
            while not posting.is_set():
                taken.extend(inputs.take(4096))
        except BaseException as error:
            errors.append(error)

    posters = [threading.Thread(target=give_up, args=(number,)) for number in range(2)]
    taker = threading.Thread(target=take)
    for thread in (*posters, taker):
        thread.start()
    for thread in posters:
        thread.join()
    posting.set()
    taker.join()
    taken.extend(inputs.take(4096))
    assert errors == []
    assert sum(withdrawn) + len(taken) == 2 * ROUNDS
    assert (len(inputs), inputs.callers) == (0, 0)


def test_what_was_taken_before_the_last_was_withdrawn_is_not_lost() -> None:
    class SaysThereIsOneMore(deque[Input]):
        def __bool__(self) -> bool:
            return True

    inputs, entry = InputQueue(), post()
    inputs.items = SaysThereIsOneMore()
    inputs.put(entry)
    assert inputs.take(10) == [entry]


def test_a_wake_up_just_as_the_sleep_ends_by_itself_is_noticed() -> None:
    inputs = InputQueue()

    class Late(WakeUp):
        def wait(self, timeout: float | None) -> bool:
            inputs.wake()
            return False

    inputs._wake_up = Late()
    assert inputs.wait(0.0)


def test_a_wake_up_before_somebody_waits_counts_once() -> None:
    wake_up = WakeUp()
    wake_up.set()
    wake_up.set()
    assert wake_up.wait(60.0)
    wake_up.clear()
    assert not wake_up.wait(0.0)
    assert not wake_up.wait(-1.0)


def test_a_receipt_says_whether_it_is_set_and_stays_so() -> None:
    receipt = Receipt()
    assert not receipt.wait(0.0)
    threading.Thread(target=receipt.resolve, args=(7,)).start()
    assert receipt.wait(20.0)
    assert receipt.wait(0.0)
    assert receipt.get() == 7
    refused = Receipt()
    refused.fail(KeyError("x"))
    assert refused.wait(None)
    with pytest.raises(KeyError):
        refused.get()
