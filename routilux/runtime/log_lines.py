"""Words the log lines: one subscriber of facts about failures, ownership and the database.

Other facts are never logged. Payloads are in no line; what a user's exception says is the user's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from routilux.engine.facts import Fact, Facts

log = logging.getLogger("routilux")
Fields = dict[str, Any]

# fact -> level, text, and which of its fields the text takes
_LINES: dict[str, tuple[int, str, tuple[str, ...]]] = {
    "commit.refused": (
        logging.WARNING,
        "the database refused a commit (%s); its %d inputs are tried one by one",
        ("error", "inputs"),
    ),
    "runtime.fenced": (
        logging.WARNING,
        "runtime %s lost its lease to another runtime; dropping its workers and re-registering",
        ("runtime",),
    ),
    "runtime.taken_over": (
        logging.WARNING,
        "runtime %s (pid %s on %s) is dead; taking its workers over",
        ("runtime", "pid", "host"),
    ),
    "lease.renewal_failed": (logging.WARNING, "heartbeat failed, trying again: %s", ("error",)),
    "engine.stopped": (logging.ERROR, "engine stopped: %s", ("error",)),
    "inbox.refused": (
        logging.WARNING,
        "refusing inbox row %d (%s) of job %s: %s",
        ("row_id", "kind", "job_id", "error"),
    ),
    "inbox.undecodable": (logging.ERROR, "deleting undecodable inbox row %d: %s", ("row_id", "error")),
    "inbox.postponed": (
        logging.ERROR,
        "inbox row %d could be neither applied nor dead-lettered (%s); retrying in %g s",
        ("row_id", "error", "pause_s"),
    ),
    "shutdown.timed_out": (logging.WARNING, "shutdown timed out; still running: %s", ("running",)),
    "shutdown.failed": (logging.WARNING, "shutdown: %s", ("error",)),
    "shutdown.lease_kept": (
        logging.WARNING,
        "shutdown: the lease could not be given back (%s); it runs out by itself",
        ("error",),
    ),
    "shutdown.unknown_jobs": (
        logging.WARNING,
        "shutdown: it is not known whether all jobs have finished: %s",
        ("error",),
    ),
    "flow.never_runs": (
        logging.WARNING,
        "flow %r: routine %r has no %s and will never run",
        ("flow", "routine_id", "missing"),
    ),
    "logic.returned_value": (
        logging.WARNING,
        "logic of routine %r returned a value, which is ignored: emit an event instead",
        ("routine_id",),
    ),
}


def log_facts(facts: Facts) -> None:
    """Log what these facts report."""
    for name in _LINES:
        facts.subscribe(name, _log)
    for name, write in _WITH_TRACEBACK.items():
        facts.subscribe(name, _writer(write))


def subscriber_failed(fact: Fact, error: Exception) -> None:
    """A subscriber raised; the others are called all the same."""
    log.error("a subscriber of %s raised", fact.name, exc_info=error)


def _log(fact: Fact) -> None:
    level, text, names = _LINES[fact.name]
    log.log(level, text, *(fact.fields[name] for name in names))


def _writer(write: Callable[[Fields], None]) -> Callable[[Fact], None]:
    return lambda fact: write(fact.fields)


def _retried(fields: Fields) -> None:
    attempt = fields["attempt"]
    level = logging.WARNING if attempt < 3 else logging.ERROR
    log.log(level, "try %d of a database call failed, trying again: %s", attempt, fields["error"])


def _engine_failed(fields: Fields) -> None:
    log.error("unexpected error in the engine; loading its workers again", exc_info=fields["error"])


def _run_failed(fields: Fields) -> None:
    log.error("unexpected error while running routine %r", fields["routine_id"], exc_info=fields["error"])


_WITH_TRACEBACK: dict[str, Callable[[Fields], None]] = {
    "database.retried": _retried,
    "engine.failed": _engine_failed,
    "run.failed": _run_failed,
}
