"""What a runtime remembers of jobs that its callers wait for, or that others run for it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence

from routilux.engine.facts import Fact
from routilux.errors import DatabaseUnavailableError
from routilux.store.reads import history
from routilux.store.writes.store import Store

MOST_ELSEWHERE = 10_000


class JobEnds:
    """Which callers of this process wait for the end of a job.

    True while one does; it takes `job.ended` facts.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, list[threading.Event]] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __call__(self, fact: Fact) -> None:
        for event in self._waiting.get(fact.fields["job_id"], ()):
            event.set()

    def add(self, job_id: str) -> threading.Event:
        event = threading.Event()
        with self._lock:
            self._waiting.setdefault(job_id, []).append(event)
        return event

    def remove(self, job_id: str, event: threading.Event) -> None:
        with self._lock:
            events = self._waiting.get(job_id, [])
            if event in events:
                events.remove(event)
            if not events:
                self._waiting.pop(job_id, None)


class PostedElsewhere:
    """Jobs that other runtimes run for this one, until they are known to have ended."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._most = MOST_ELSEWHERE
        self.job_ids: set[str] = set()

    def add(self, job_ids: Sequence[str]) -> None:
        """Remember them. Those that have ended are dropped when somebody waits, or when there are many."""
        if len(self.job_ids) > self._most:
            with contextlib.suppress(DatabaseUnavailableError):  # next time
                self.drop_ended()
            self._most = 2 * len(self.job_ids) + MOST_ELSEWHERE
        self.job_ids.update(job_ids)

    def drop_ended(self) -> None:
        known = set(self.job_ids)  # other threads post meanwhile
        with self._store.read() as connection:
            self.job_ids -= known - history.open_job_ids_among(connection, known)
