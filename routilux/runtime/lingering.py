"""Whether a commit of outcomes waits a moment for the next post.

Who posts one after another is back as soon as it has its answer, just when the outcome of that post is reported. If
the outcome went alone, the next post would wait for two commits instead of one. Nobody waits for an outcome that long:
the moment is short, and after a few times in which nobody came it is not waited for until somebody would have come.
"""

from __future__ import annotations

from collections.abc import Iterable

from routilux.runtime.inputs import Input, InputQueue, is_asked

LINGER_S = 0.0005
MOST_MISSES = 4


class Linger:
    """Kept by the engine's thread."""

    def __init__(self, inputs: InputQueue) -> None:
        self._inputs = inputs
        self._may_return = False  # the last commit answered a caller
        self._went_alone = False  # the last commit held outcomes only
        self._misses = 0

    def wait(self) -> None:
        """Before inputs are taken: wait, if it is worth it."""
        if self._went_alone and self._inputs.has_caller():
            self._misses = 0
        if self._may_return and self._misses < MOST_MISSES and not self._inputs.has_caller():
            came = self._inputs.wait_for_caller(LINGER_S)
            self._misses = 0 if came else self._misses + 1

    def after(self, inputs: Iterable[Input]) -> None:
        """A commit of these is in."""
        self._may_return = any(map(is_asked, inputs))
        self._went_alone = not self._may_return
