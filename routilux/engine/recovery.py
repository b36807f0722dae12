"""When a commit is not in: fenced, refused, or something unexpected. And the end: telling whoever still waits."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from routilux.core.outcome import Outcome
from routilux.engine import inbox, scheduler, worker_loading
from routilux.engine.batch import Batch
from routilux.engine.inputs import Input, PostIn, Request, RunEnded, SignalIn
from routilux.errors import DatabaseUnavailableError, PostInDoubt, RuntimeShutDownError
from routilux.ownership import handover
from routilux.store.backends.database_url import named
from routilux.store.errors import PASSING, classify

if TYPE_CHECKING:
    from routilux.engine.engine import Engine

log = logging.getLogger("routilux")


def fenced(
    engine: Engine, batch: Batch | None = None, inputs: Iterable[Input] = (), *, was_in: bool = False
) -> None:
    """Somebody took over: drop everything and come back under a new identity. `was_in`: only the answer was lost."""
    log.warning(
        "runtime %s was declared dead by another; it drops its workers and starts again", engine.runtime_key
    )
    lose_identity(engine, batch)
    _undo_waits(engine, inputs)
    for entry in inputs:
        if isinstance(entry, RunEnded):
            engine.give_room(entry.run)
    if was_in and batch is not None:
        batch.answer_callers()
    else:
        engine.inputs.put_back([entry for entry in inputs if not isinstance(entry, (Outcome, RunEnded))])


def refused(engine: Engine, batch: Batch, inputs: list[Input], cause: BaseException) -> None:
    """Not passing: the workers concerned are loaded again; their inputs are tried one by one."""
    engine.store.drop_connection()
    _undo_waits(engine, inputs)
    if batch.inbox_ids:
        inbox.suspect(engine, batch.inbox_ids, len(inputs), cause)
    alone = len(inputs) == 1 and not batch.inbox_ids
    reported = (entry.run.cell.worker for entry in inputs if isinstance(entry, (Outcome, RunEnded)))
    planned = (run.cell.worker for run in batch.planned)
    concerned = dict.fromkeys([*reported, *planned, *batch.jobs.values(), *batch.workers.values()])
    for run in batch.planned:
        engine.executor.give(run)
        if engine.lone_run is run:
            engine.lone_run = None
    again: list[Input] = []
    for entry in inputs:
        match entry:
            case Outcome() if alone:
                worker_loading.convict(engine, entry, cause)
            case RunEnded(run=run):
                engine.give_room(run)
            case PostIn() | SignalIn() | Request():
                if alone:
                    entry.receipt.fail(named(cause, engine.store.database.url))
                else:
                    again.append(entry)
    log.warning("the database refused a commit (%s); its %d inputs are tried one by one", cause, len(inputs))
    for worker in concerned:
        worker_loading.reload(engine, worker)
    for key in dict.fromkeys(worker for worker, _, _ in batch.changes.slots):
        cell = engine.workers.get(key)  # it may have had nothing in this commit but its counters
        if cell is not None:
            engine.uncounted[cell] = None
            cell.refreshed_at = 0
    engine.careful = 0 if alone else sum(isinstance(entry, Outcome) for entry in inputs) + scheduler.RUN_AHEAD
    engine.inputs.put_back(again)
    engine.inbox.forget()


def _in_doubt(entry: PostIn | SignalIn | Request, cause: BaseException | None) -> BaseException:
    """What a caller is told whose commit may be in, or go in."""
    if isinstance(entry, PostIn):
        return PostInDoubt(entry.posts[0].job_id)
    error = DatabaseUnavailableError("the commit was broken off: it is not known whether this was stored")
    error.__cause__ = cause
    return error


def _undo_waits(engine: Engine, inputs: Iterable[Input]) -> None:
    """That posts of a commit which is not in were to wait for room is not so either: they would be there twice."""
    gone = {id(entry) for entry in inputs}
    engine.waiting_posts = [post for post in engine.waiting_posts if id(post) not in gone]


def heal(engine: Engine, error: BaseException, failures: int) -> None:
    """Something unexpected: forget all memory, load again; whoever waits for an answer is in doubt."""
    if classify(error) in PASSING:
        engine.report_trouble(error, failures)
    else:
        log.error("engine: an unexpected error; its workers are loaded again", exc_info=error)
    inputs, engine.in_hand = engine.in_hand, []
    for entry in inputs:
        match entry:
            case RunEnded(run=run):
                engine.give_room(run)
            case PostIn() | SignalIn() | Request() if not entry.receipt.is_done:
                entry.receipt.fail(_in_doubt(entry, error))
    engine.pause(min(1.0, 0.05 * 2.0 ** min(failures, 6)))
    for worker in list(engine.workers.values()) if inputs else ():
        worker_loading.reload(engine, worker)


def lose_identity(engine: Engine, batch: Batch | None = None) -> None:
    """I am dead for the database: drop every worker, come back as somebody new."""
    for run in batch.planned if batch is not None else ():
        engine.executor.give(run)
    for run in engine.runs:
        run.should_stop = True
    engine.lone_run = engine.lone_cell = None
    engine.inbox.forget()  # what was found may be for workers that are not mine any more
    for worker in list(engine.workers.values()):
        worker_loading.forget(engine, worker)
    handover.patiently(engine, engine.reidentify)


def refuse_rest(engine: Engine) -> None:
    """The engine has stopped: whoever still waits is told."""
    for entry in [*engine.inputs.take(1 << 30), *engine.waiting_posts]:
        match entry:
            case Outcome() | RunEnded():
                continue
            case PostIn() | SignalIn() | Request() if entry.receipt.is_taken and not entry.receipt.is_done:
                entry.receipt.fail(_in_doubt(entry, None))  # its commit may have been sent
            case _ if not entry.receipt.is_done:
                entry.receipt.fail(RuntimeShutDownError("Runtime is shut down"))
