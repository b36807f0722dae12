"""How long a message waits that was in flight when its owner died."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from routilux.engine.clock import Clock


@dataclass(frozen=True, slots=True)
class DeathPauses:
    """`pauses_s`: seconds by deaths, the last one for all that follow; see `Settings.death_pause_s`."""

    pauses_s: Sequence[float]
    clock: Clock

    def us(self, deaths: int) -> int:
        return round(self.pauses_s[min(deaths, len(self.pauses_s) - 1)] * 1e6)

    def not_before(self, deaths: int) -> int:
        """When it may run, µs since 1970; 0: at once.

        The wall clock may be set back, so no pause is no time.
        """
        return self.clock.now_us() + self.us(deaths) if deaths else 0
