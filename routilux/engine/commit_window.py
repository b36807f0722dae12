"""How long the engine's thread waits for more before it goes on.

After a commit it lingers for the callers that it has just answered: who posts one after another is back soon, together with
those who came meanwhile, and one commit serves them all. Without that they part into two halves that wait for each other's
commits, and who posts alone meets the commit of the outcome of its last post. It waits no longer than the last commit took,
which is what coming too late would have cost, and only while callers do come back in that time as a rule: whether they would
have is seen as well when it does not wait.

A runtime with nothing to do looks up less often. It is woken by what its own process does and for what is due. On SQLite
looking up is how a post of another process is seen; on Postgres the reconciling, which wakes it, looks for those.
"""

from __future__ import annotations

from collections.abc import Iterable

from routilux.engine.clock import Clock
from routilux.engine.inputs import Input, InputQueue, is_asked

LINGER_S, MOST_LINGER_S = 0.0005, 0.002
WORTH_IT = 0.7  # so often must they come back, lately
LATELY = 8  # times
QUIET_AFTER_S = 5.0


class Pace:
    """Kept by the engine's thread. `poll_s`: how often to look up; `quiet_poll_s`: when nothing has come for a while."""

    def __init__(self, inputs: InputQueue, clock: Clock, poll_s: float, quiet_poll_s: float) -> None:
        self._inputs = inputs
        self._clock = clock
        self._poll_s = poll_s
        self.quiet_poll_s = max(poll_s, quiet_poll_s)
        self._busy_at = clock.monotonic()  # when something came in last
        self._taken_at = self._busy_at  # when it went on last
        self._wanted = 0  # callers that may come: answered by the last commit, or come meanwhile
        self._linger_s = 0.0
        self._missing = 0  # of those, when it went on without waiting
        self._hope = 0.0  # how often they came back lately, 0 to 1

    def poll_s(self, *, is_running: bool) -> float:
        """Seconds until it looks up again if nothing wakes it."""
        is_quiet = not is_running and self._clock.monotonic() - self._busy_at > QUIET_AFTER_S
        return self.quiet_poll_s if is_quiet else self._poll_s

    def linger(self) -> None:
        """Before inputs are taken: wait for callers, if it is worth it."""
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
