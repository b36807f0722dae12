"""Settings of the whole process that a runtime changes; a program's own choice stays.

Why: docs/decisions/0004.

Every statement releases the GIL; taking it back costs up to one switch interval per busy thread. So the
interval is short while a group commit is under way, and moderate otherwise.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Python looks for cycles after so many new containers; messages in the windows are long-lived and have
# none, and looking at them again and again took a fifth of the time.
PYTHONS_YOUNG, YOUNG_OBJECTS = 2_000, 10_000
SWITCH_INTERVAL_S = 0.002
COMMIT_INTERVAL_S = 0.0002

_lock = threading.Lock()
_commits = 0  # under way in this process
_usual_s = 0.0


def tune() -> None:
    """For a process with a runtime in it."""
    with _lock:
        if not _commits and sys.getswitchinterval() > SWITCH_INTERVAL_S:
            sys.setswitchinterval(SWITCH_INTERVAL_S)
    young, *older = gc.get_threshold()
    if 0 < young <= PYTHONS_YOUNG:
        gc.set_threshold(YOUNG_OBJECTS, *older)


@contextmanager
def in_commit() -> Iterator[None]:
    """The short interval until the last of the commits that are under way is over."""
    global _commits, _usual_s
    with _lock:
        _commits += 1
        if _commits == 1:
            _usual_s = sys.getswitchinterval()
            if _usual_s > COMMIT_INTERVAL_S:
                sys.setswitchinterval(COMMIT_INTERVAL_S)
    try:
        yield
    finally:
        with _lock:
            _commits -= 1
            # if it is another by now, the program has set it meanwhile
            if not _commits and abs(sys.getswitchinterval() - COMMIT_INTERVAL_S) < 1e-6:
                sys.setswitchinterval(_usual_s)
