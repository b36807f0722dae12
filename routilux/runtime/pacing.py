"""How long the engine's thread waits for more before it goes on.

A commit of outcomes only lingers for the next post. Who posts one after another is back as soon as it has its answer, just
when the outcome of that post is reported; if the outcome went alone, the next post would wait for two commits instead of
one. Nobody waits for an outcome that long: the moment is short, and after a few times in which nobody came it is left
out until somebody would have come.

A runtime with nothing to do looks up less often. It is woken by what its own process does and for what is due. On SQLite
looking up is how a post of another process is seen; on Postgres the reconciling, which wakes it, looks for those.
"""

from __future__ import annotations

from collections.abc import Iterable

from routilux.runtime.clock import Clock
from routilux.runtime.inputs import Input, InputQueue, is_asked

LINGER_S = 0.0005
MOST_MISSES = 4
QUIET_AFTER_S = 5.0


class Pace:
    """Kept by the engine's thread. `poll_s`: how often to look up; `quiet_poll_s`: when nothing has come for a while."""

    def __init__(self, inputs: InputQueue, clock: Clock, poll_s: float, quiet_poll_s: float) -> None:
        self._inputs = inputs
        self._clock = clock
        self._poll_s = poll_s
        self.quiet_poll_s = max(poll_s, quiet_poll_s)
        self._busy_at = clock.monotonic()  # when something came in last
        self._may_return = False  # the last commit answered a caller
        self._went_alone = False  # the last commit held outcomes only
        self._misses = 0

    def poll_s(self, *, is_running: bool) -> float:
        """Seconds until it looks up again if nothing wakes it."""
        is_quiet = not is_running and self._clock.monotonic() - self._busy_at > QUIET_AFTER_S
        return self.quiet_poll_s if is_quiet else self._poll_s

    def linger(self) -> None:
        """Before inputs are taken: wait for a caller, if it is worth it."""
        if self._went_alone and self._inputs.has_caller():
            self._misses = 0
        if self._may_return and self._misses < MOST_MISSES and not self._inputs.has_caller():
            came = self._inputs.wait_for_caller(LINGER_S)
            self._misses = 0 if came else self._misses + 1

    def after(self, inputs: Iterable[Input]) -> None:
        """A commit of these is in."""
        if inputs:
            self._busy_at = self._clock.monotonic()
        self._may_return = any(map(is_asked, inputs))
        self._went_alone = not self._may_return
