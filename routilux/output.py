"""Printed text of logic, stored per job.

While a `RoutedStdout` is installed as `sys.stdout`, text written inside logic goes to the current job
(`get_current_job_id`). All other text goes to the real stdout. Job texts are in memory only, and limited: the
end of each text, of the jobs that wrote last. Threads started by logic have no job: their text is not
routed.
"""

from __future__ import annotations

import io
import sys
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, TextIO

from routilux.core.context import get_current_job_id

MAX_JOBS = 1000


@dataclass(slots=True)
class _Tail:
    """The last `max_chars` characters of a growing text."""

    max_chars: int
    parts: deque[str] = field(default_factory=deque)
    length: int = 0

    def add(self, text: str) -> None:
        self.parts.append(text)
        self.length += len(text)
        while (excess := self.length - self.max_chars) > 0:
            first = self.parts.popleft()
            if len(first) > excess:
                self.parts.appendleft(first[excess:])
            self.length -= min(len(first), excess)

    def take(self) -> list[str]:
        taken = list(self.parts)
        self.parts.clear()
        self.length = 0
        return taken


@dataclass(slots=True)
class _JobText:
    all: _Tail
    unread: _Tail


class RoutedStdout(io.TextIOBase):
    """A stdout with a separate text for each job. Thread-safe.

    `real_stdout`: where text outside jobs goes; default the current `sys.stdout`. `keep_default`: False drops
    that text. `max_buffer_chars`: how many characters to keep of the end of a job's text.
    """

    def __init__(
        self, real_stdout: TextIO | None = None, keep_default: bool = True, max_buffer_chars: int = 200_000
    ) -> None:
        if type(max_buffer_chars) is not int or max_buffer_chars < 1:
            raise ValueError(f"max_buffer_chars must be an integer, 1 or more, not {max_buffer_chars!r}")
        self.real_stdout: TextIO = real_stdout if real_stdout is not None else sys.stdout
        self.keep_default = keep_default
        self.max_buffer_chars = max_buffer_chars
        self._is_routing = True
        self._lock = Lock()
        self._jobs: OrderedDict[str, _JobText] = OrderedDict()

    def __getattr__(self, name: str) -> Any:
        if name == "real_stdout":  # not set yet; this avoids recursion
            raise AttributeError(name)
        return getattr(self.real_stdout, name)

    @property
    def encoding(self) -> str:  # type: ignore[override]  # the base has a plain attribute
        return getattr(self.real_stdout, "encoding", None) or "utf-8"

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        return self.real_stdout.fileno()

    def flush(self) -> None:
        self.real_stdout.flush()

    def write(self, text: str) -> int:
        """Store the text for the current job, or pass it on. Returns its length."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        job_id = get_current_job_id() if self._is_routing else None
        if job_id is None:
            if self.keep_default or not self._is_routing:
                self.real_stdout.write(text)
        elif text:
            with self._lock:
                self._store(job_id, text)
        return len(text)

    def _store(self, job_id: str, text: str) -> None:
        if job_id not in self._jobs:
            self._jobs[job_id] = _JobText(_Tail(self.max_buffer_chars), _Tail(self.max_buffer_chars))
        self._jobs.move_to_end(job_id)
        self._jobs[job_id].all.add(text)
        self._jobs[job_id].unread.add(text)
        if len(self._jobs) > MAX_JOBS:
            self._jobs.popitem(last=False)

    def stop_routing(self) -> None:
        """Pass all further text to the real stdout. Other code may still hold this object."""
        self._is_routing = False

    def pop_chunks(self, job_id: str) -> list[str]:
        """Return what the job wrote since the last call, in its original pieces."""
        with self._lock:
            return self._jobs[job_id].unread.take() if job_id in self._jobs else []

    def get_buffer(self, job_id: str) -> str:
        """Return the end of the job's whole text, at most `max_buffer_chars`."""
        with self._lock:
            return "".join(self._jobs[job_id].all.parts) if job_id in self._jobs else ""

    def clear_job(self, job_id: str) -> None:
        with self._lock:
            self._jobs.pop(job_id, None)

    def list_jobs(self) -> list[str]:
        """Return the ids of the jobs with stored text, ordered by their last write."""
        with self._lock:
            return list(self._jobs)

    def get_stats(self) -> dict[str, int]:
        """Return `{"job_count", "total_queue_items", "total_buffer_chars"}`."""
        with self._lock:
            texts = list(self._jobs.values())
            return {
                "job_count": len(texts),
                "total_queue_items": sum(len(text.unread.parts) for text in texts),
                "total_buffer_chars": sum(text.all.length for text in texts),
            }


_installed: RoutedStdout | None = None
_install_lock = Lock()


def install_routed_stdout(keep_default: bool = True, max_buffer_chars: int = 200_000) -> RoutedStdout:
    """Replace `sys.stdout` by a `RoutedStdout` and return it. If one is installed already, return that."""
    global _installed
    with _install_lock:
        if _installed is None:
            _installed = RoutedStdout(sys.stdout, keep_default, max_buffer_chars)
            sys.stdout = _installed
        return _installed


def uninstall_routed_stdout() -> None:
    """Restore the real stdout and drop the texts. Does nothing if none is installed."""
    global _installed
    with _install_lock:
        if _installed is None:
            return
        _installed.stop_routing()
        if sys.stdout is _installed:  # otherwise other code has wrapped it; it now only passes text on
            sys.stdout = _installed.real_stdout
        _installed = None


def get_routed_stdout() -> RoutedStdout | None:
    """Return the installed `RoutedStdout`, or None."""
    return _installed


def get_job_output(job_id: str, incremental: bool = True) -> str:
    """Return what a job printed since the last call, or all stored text if `incremental` is False."""
    routed = _installed
    if routed is None:
        return ""
    return "".join(routed.pop_chunks(job_id)) if incremental else routed.get_buffer(job_id)


def clear_job_output(job_id: str) -> None:
    """Drop the stored text of a job."""
    if _installed is not None:
        _installed.clear_job(job_id)
