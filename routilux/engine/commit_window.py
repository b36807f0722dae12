"""How long the engine's thread waits for more inputs before it goes on.

After a commit it waits a moment for the callers that it has just answered. A caller that posts one message
after another is back soon, together with those that came meanwhile, and one commit serves them all. Without
the wait they split into two halves that wait for each other's commits, and a single caller meets the commit
of its last post's outcome. The wait is no longer than the last commit took, which is what coming too late
would have cost; and it is made only while callers usually come back in that time. Whether they would have is
learnt without waiting too.

A runtime with nothing to do looks less often. Its own process wakes it, and so does what comes due. On SQLite
this look is how a post of another process is seen; on Postgres the reconciler, which wakes the engine, looks
for those.
"""

from __future__ import annotations

from collections.abc import Iterable

from routilux.engine.clock import Clock
from routilux.engine.inputs import Input, InputQueue, is_asked

LINGER_S, MOST_LINGER_S = 0.0005, 0.002
WORTH_IT = 0.7  # so often must they come back, lately
LATELY = 8  # times
QUIET_AFTER_S = 5.0


class CommitWindow:
    """Used by the engine's thread.

    `poll_s`: how often to look; `quiet_poll_s`: when nothing came for a while.
    """

    def __init__(self, inputs: InputQueue, clock: Clock, poll_s: float, quiet_poll_s: float) -> None:
        self._inputs = inputs
        self._clock = clock
        self._poll_s = poll_s
        self.quiet_poll_s = max(poll_s, quiet_poll_s)
        self._busy_at = clock.monotonic()  # when something came in last
        self._taken_at = self._busy_at  # when it went on last
        self._wanted = 0  # callers that may come: answered by the last commit, or come since
        self._linger_s = 0.0
        self._missing = 0  # of those, when it went on without waiting
        self._hope = 0.0  # how often they came back lately, 0 to 1

    def poll_s(self, *, is_running: bool) -> float:
        """Seconds until the engine looks again if nothing wakes it."""
        is_quiet = not is_running and self._clock.monotonic() - self._busy_at > QUIET_AFTER_S
        return self.quiet_poll_s if is_quiet else self._poll_s

    def linger(self) -> None:
        """Before inputs are taken: wait for callers, if that usually pays."""
        self._missing = max(0, self._wanted - self._inputs.callers)
        if self._missing and self._hope > WORTH_IT:
            self._learn(self._inputs.wait_for_callers(self._wanted, self._linger_s))
            self._missing = 0
        self._taken_at = self._clock.monotonic()

    def after(self, inputs: Iterable[Input]) -> None:
        """A commit of these is in."""
        if inputs:
            self._busy_at = self._clock.monotonic()
        answered, there = sum(map(is_asked, inputs)), self._inputs.callers
        if self._missing:
            self._learn(there >= self._missing)
        self._wanted = answered + there if answered else 0
        self._linger_s = min(MOST_LINGER_S, max(LINGER_S, self._busy_at - self._taken_at))

    def _learn(self, came: bool) -> None:
        self._hope += (came - self._hope) / LATELY
