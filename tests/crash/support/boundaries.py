"""Dies between two statements of one group commit that holds every kind of row: before the n-th of them.

That is after the one before it: between the two only memory changes. COMMIT counts as one more, and so does
its answer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

from routilux.engine import counters
from tests.crash.support import hooks, orders, program
from tests.crash.support.staging import JOBS, Staging, next_group
from tests.support.inside_runtime import writer


class Boundaries:
    """Counts the statements of one thread while it is told to, and dies at the n-th boundary (from 0)."""

    def __init__(self, fatal: int) -> None:
        self.passed: list[str] = []
        self._fatal = fatal
        self._thread: int | None = None
        event.listen(Engine, "before_cursor_execute", self._before)

    def count(self, run: Callable[[], None]) -> None:
        self._thread = threading.get_ident()
        try:
            run()
        finally:
            self._thread = None

    def passing(self, where: str) -> None:
        if self._thread != threading.get_ident():
            return
        if len(self.passed) == self._fatal:
            hooks.die()
        self.passed.append(where)

    def _before(self, connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        self.passing(f"before {statement}")


def live(url: str, acknowledged: str, life: int, passed: str) -> None:
    """Finish what the last life left, then die at boundary `life`; past the last one, write them all to
    `passed`.
    """
    orders.is_flaky = False
    counters.SLOTS_EVERY_US = 0  # else a commit has counters in it or not, by the second that it falls in
    boundaries = Boundaries(life)
    with program.start(url) as runtime:
        commits = writer(runtime)
        commits.before_commit = lambda connection: boundaries.passing("before COMMIT")
        commits.after_commit = lambda: boundaries.passing("after COMMIT")
        program.post(runtime, acknowledged, ["w"], range(max(0, life - 1) * JOBS, life * JOBS), 1)
        program.finish(runtime, acknowledged)
        staging = Staging(runtime, "w", life * JOBS, program.Acknowledged(acknowledged).add)
        staging.set_up()
        next_group(runtime, boundaries.count)
        staging.commit()
        Path(passed).write_text("\n".join(" ".join(where.split()) for where in boundaries.passed))
        program.finish(runtime, acknowledged)
