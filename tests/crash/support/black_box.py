"""What a process was doing when it died: a few bytes in a shared mapping, which outlive a SIGKILL."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

PHASES = ("posting", "in logic", "before COMMIT", "in COMMIT", "after COMMIT", "recovering", "loading")
COUNTED = PHASES[:-1]  # while it only reads, no activation runs and no commit is open

_IDLE, OPEN, SENT, DONE = range(4)
_FORMAT = struct.Struct(
    "<6q"
)  # planned phase + 1, commit state, logic running, recovering, posts accepted, loading
_PLANNED, _COMMIT, _LOGIC, _RECOVERING, _POSTS, _LOADING = range(6)


class BlackBox:
    """Written by the process, read by the test."""

    def __init__(self, path: Path | str, *, is_new: bool = False) -> None:
        path = Path(path)
        if is_new:
            path.write_bytes(bytes(_FORMAT.size))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _FORMAT.size)
        self._cells = memoryview(self._map).cast("q")

    def plan(self, phase: str) -> None:
        """This process is about to kill itself there."""
        self._cells[_PLANNED] = PHASES.index(phase) + 1

    def commit(self, state: int) -> None:
        self._cells[_COMMIT] = state
        if state in (_IDLE, OPEN):
            self._cells[_POSTS] = 0

    def posts(self) -> None:
        self._cells[_POSTS] += 1

    def logic(self, by: int) -> None:
        self._cells[_LOGIC] += by

    def recovering(self, value: bool) -> None:
        self._cells[_RECOVERING] = value

    def loading(self, value: bool) -> None:
        self._cells[_LOADING] = value

    def phase(self) -> str | None:
        """Where it died; None: neither an activation ran nor a commit was open."""
        cells = list(self._cells)
        state = cells[_COMMIT]
        if cells[_PLANNED] and PHASES[cells[_PLANNED] - 1] != "in COMMIT":
            return PHASES[cells[_PLANNED] - 1]
        if cells[_RECOVERING] and state:
            return "recovering"
        if state == SENT:
            return "in COMMIT"
        if state == DONE:
            return "after COMMIT"
        if state == OPEN:
            return "posting" if cells[_POSTS] else "before COMMIT"
        if cells[_LOGIC] > 0:
            return "in logic"
        return "loading" if cells[_LOADING] or cells[_RECOVERING] else None
