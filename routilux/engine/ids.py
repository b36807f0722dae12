"""Ids that nobody chose: UUID version 7 (RFC 9562), so that new rows land side by side in their index.

A random id dirties a page of the index per row; an ordered one a page per hundred rows.
"""

from __future__ import annotations

import os
import random
import time

_last = 0
_random = (
    random.Random()
)  # seeded by the system; a call of the system for each id would cost more than the id
os.register_at_fork(after_in_child=_random.seed)


def new_id() -> str:
    """A UUIDv7 in text form; ids made later in this process sort later, but for a race of two threads."""
    global _last
    ticks = time.time_ns() // 256  # the 12 bits after the millisecond carry the time on
    _last = ticks = max(ticks, _last + 1)
    ms, rest = divmod(ticks * 256, 1_000_000)
    tail = 0x8000_0000_0000_0000 | _random.getrandbits(62)
    value = (ms << 80) | 0x7000 << 64 | (rest * 4096 // 1_000_000) << 64 | tail
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
