"""What logic prints, kept by job.

While a `RoutedStdout` is installed as `sys.stdout`, text written inside logic goes to the job that is being
handled (`get_current_job_id`), text written anywhere else to the real stdout. It is kept in memory only: the end
of each job's text, of the jobs that wrote last. Threads that logic starts have no job: their text is not routed.
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
    """The last characters of a text that grows."""

    most: int
    parts: deque[str] = field(default_factory=deque)
    length: int = 0

    def add(self, text: str) -> None:
        self.parts.append(text)
        self.length += len(text)
        while (excess := self.length - self.most) > 0:
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
    """A stdout that gives each job its own text.

    `real_stdout`: where text outside jobs goes; default the present `sys.stdout`. `keep_default`: False drops it.
    `max_buffer_chars`: how much of a job's text is kept, its end. Thread-safe.
    """

    def __init__(
        self, real_stdout: TextIO | None = None, keep_default: bool = True, max_buffer_chars: int = 200_000
    ) -> None:
        if type(max_buffer_chars) is not int or max_buffer_chars < 1:
            raise ValueError(f"max_buffer_chars must be a number from 1 up, not {max_buffer_chars!r}")
        self.real_stdout: TextIO = real_stdout if real_stdout is not None else sys.stdout
        self.keep_default = keep_default
        self.max_buffer_chars = max_buffer_chars
        self._is_routing = True
        self._lock = Lock()
        self._jobs: OrderedDict[str, _JobText] = OrderedDict()

    def __getattr__(self, name: str) -> Any:
        if name == "real_stdout":  # not yet set: no recursion
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
        """Keep the text with the current job, or pass it on. Returns its length."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        job_id = get_current_job_id() if self._is_routing else None
        if job_id is None:
            if self.keep_default or not self._is_routing:
                self.real_stdout.write(text)
        elif text:
            with self._lock:
                self._keep(job_id, text)
        return len(text)

    def _keep(self, job_id: str, text: str) -> None:
        if job_id not in self._jobs:
            self._jobs[job_id] = _JobText(_Tail(self.max_buffer_chars), _Tail(self.max_buffer_chars))
        self._jobs.move_to_end(job_id)
        self._jobs[job_id].all.add(text)
        self._jobs[job_id].unread.add(text)
        if len(self._jobs) > MAX_JOBS:
            self._jobs.popitem(last=False)

    def stop_routing(self) -> None:
        """From now on pass everything to the real stdout: somebody may still hold this object."""
        self._is_routing = False

    def pop_chunks(self, job_id: str) -> list[str]:
        """What the job has written since the last call, in the pieces it was written in."""
        with self._lock:
            return self._jobs[job_id].unread.take() if job_id in self._jobs else []

    def get_buffer(self, job_id: str) -> str:
        """The end of all the job has written, at most `max_buffer_chars`."""
        with self._lock:
            return "".join(self._jobs[job_id].all.parts) if job_id in self._jobs else ""

    def clear_job(self, job_id: str) -> None:
        with self._lock:
            self._jobs.pop(job_id, None)

    def list_jobs(self) -> list[str]:
        """The ids of the jobs whose text is kept; who wrote last comes last."""
        with self._lock:
            return list(self._jobs)

    def get_stats(self) -> dict[str, int]:
        """`{"job_count", "total_queue_items", "total_buffer_chars"}`."""
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
    """Put a `RoutedStdout` in the place of `sys.stdout`. Returns the one that is there if there is one."""
    global _installed
    with _install_lock:
        if _installed is None:
            _installed = RoutedStdout(sys.stdout, keep_default, max_buffer_chars)
            sys.stdout = _installed
        return _installed


def uninstall_routed_stdout() -> None:
    """Put the real stdout back and forget the texts. Without one installed nothing happens."""
    global _installed
    with _install_lock:
        if _installed is None:
            return
        _installed.stop_routing()
        if sys.stdout is _installed:  # else somebody has wrapped it since: it passes everything on now
            sys.stdout = _installed.real_stdout
        _installed = None


def get_routed_stdout() -> RoutedStdout | None:
    """The one that is installed, or None."""
    return _installed


def get_job_output(job_id: str, incremental: bool = True) -> str:
    """What a job has printed: since the last call, or with `incremental=False` all that is kept. "" for none."""
    routed = _installed
    if routed is None:
        return ""
    return "".join(routed.pop_chunks(job_id)) if incremental else routed.get_buffer(job_id)


def clear_job_output(job_id: str) -> None:
    """Forget what a job has printed."""
    if _installed is not None:
        _installed.clear_job(job_id)
