"""Waiting for what another thread or process brings about, with a bound and a message."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(predicate: Callable[[], T], *, timeout: float = 10.0, interval: float = 0.01) -> T:
    """The first true answer of `predicate`.

    Args:
        predicate: asked at once, then every `interval` seconds, and a last time when `timeout` is over.
        timeout: seconds.
        interval: seconds.

    Raises:
        AssertionError: there was no true answer; names the predicate and its last answer.
    """
    pause = threading.Event()
    ends_at = time.monotonic() + timeout
    while True:
        is_last = time.monotonic() >= ends_at
        answer = predicate()
        if answer:
            return answer
        if is_last:
            name = getattr(predicate, "__qualname__", repr(predicate))
            raise AssertionError(f"not within {timeout} s: {name}; its last answer was {answer!r}")
        pause.wait(interval)
