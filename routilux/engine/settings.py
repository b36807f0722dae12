"""What can be set about a runtime.

The defaults hold unless a test or an operator says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

from routilux.core.slot_queue import WINDOW

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Settings:
    """Durations in seconds, sizes in bytes."""

    lease_s: float = 9.0
    poll_s: float = 0.05  # how often the engine looks up when nothing wakes it
    reconcile_s: float = 1.0  # how often it looks for dead runtimes, ownerless workers, due rows
    max_payload_bytes: int = MIB
    window: int = WINDOW  # so many waiting messages of a slot are held in memory
    post_timeout_s: float = 30.0  # a post that is not acknowledged by then is in doubt
    deaths: int = 3  # so many deaths while running alone make a dead letter
    death_pause_s: tuple[float, ...] = (0.0, 5.0, 20.0)  # before a suspect runs again, by deaths while alone
    keep_completed_s: float = 7 * 86_400.0
    keep_failed_s: float = 30 * 86_400.0
    keep_keys_s: float = 30 * 86_400.0
    prune_batch: int = 200
