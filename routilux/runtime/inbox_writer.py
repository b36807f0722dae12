"""Writes to the inbox what this process asks of workers it does not own.

Either in its own transaction, or in the caller's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from routilux.core.job_context import JobContext, JobSnapshot
from routilux.core.states import JobStatus
from routilux.engine.acceptance import fingerprint
from routilux.engine.commands import Command, DropDeadLetter, RetryDeadLetter
from routilux.engine.inputs import Post
from routilux.errors import (
    DatabaseUnavailableError,
    DeadLetterGoneError,
    IdempotencyConflictError,
    PostInDoubt,
    SlotQueueFullError,
    StateError,
)
from routilux.runtime.handles import Posted, UncommittedJobHandle, worker_state
from routilux.runtime.host import Host
from routilux.store.backends.database_url import check_named
from routilux.store.backends.sqlite_writer import TurnConnection
from routilux.store.errors import Failure, classify
from routilux.store.reads import dead_letter_rows, queue_depth, worker_reads
from routilux.store.types import Connection, SQLAlchemyError
from routilux.store.writes import inbox
from routilux.store.writes.store import Store

if TYPE_CHECKING:
    from routilux.store.types import Session

Names = tuple[str, str, str]


def _row(names: Names, post: Post, worker_id: str | None, now: int) -> dict[str, Any]:
    return inbox.post_row(
        names,
        worker_id=worker_id,
        job_id=post.job_id,
        payload=post.payload,
        metadata=post.metadata,
        due_at=post.due_at,
        fingerprint=post.fingerprint,
        now=now,
    )


def post_in(
    transaction: Connection | Session,
    host: Host,
    names: Names,
    post: Post,
    worker_id: str | None,
    limit: int | None = None,
) -> Posted:
    """Post in the caller's own transaction: durable from its commit, gone with its rollback.

    `limit`: of the slot.
    """
    connection = inbox.connection_of(transaction)
    _check_turn(connection)
    try:
        if not is_known(connection, post):
            _check_room(connection, names, [post], worker_id, limit)
            inbox.put(connection, [_row(names, post, worker_id, host.now_us())], is_ours=False)
    except UnicodeEncodeError as error:
        raise StateError(
            "the connection of post(transaction=…) has a client_encoding without some of the text; make it"
            " with create_engine(url, connect_args={'client_encoding': 'UTF8'})"
        ) from error
    begun = connection.get_transaction()
    assert begun is not None
    handle = UncommittedJobHandle(host, begun, _snapshot(names, post, worker_id))
    worker = None if worker_id is None else worker_state(host, names[0], worker_id)
    return Posted((worker, JobContext(post.job_id, names[0], worker_id, handle)))


def _check_turn(connection: Connection) -> None:
    """Who writes to a SQLite file takes a turn, which only an engine of Routilux does."""
    driver = connection.connection.driver_connection
    if connection.dialect.name == "sqlite" and not isinstance(driver, TurnConnection):
        raise StateError(
            "post(transaction=…) on SQLite needs a connection of routilux.sqlite_engine(url): one made by"
            " create_engine() does not take turns with the runtime"
        )


def _snapshot(names: Names, post: Post, worker_id: str | None) -> JobSnapshot:
    return JobSnapshot(post.job_id, worker_id, names[0], JobStatus.PENDING, None, metadata=post.metadata)


def is_known(connection: Connection, post: Post) -> bool:
    """Whether a post of this id is there already.

    Raises `IdempotencyConflictError` if it was another post.
    """
    if post.fingerprint is None:
        return False
    known = inbox.known_post(connection, post.job_id)
    if known is None:
        return False
    flow, found = known
    if (found if flow is None else _print_of(flow, orjson.loads(found))) != post.fingerprint:
        raise IdempotencyConflictError(post.job_id)
    return True


def _print_of(flow: str, body: dict[str, Any]) -> str:
    """What a row was posted as; one with a generated id carries no fingerprint."""
    return fingerprint(flow, body["routine"], body["slot"], body["payload"])


def post_to_owner(
    host: Host, names: Names, posts: list[Post], worker_id: str | None, limit: int | None = None
) -> dict[str, str | None]:
    """Posts for a worker that another runtime owns, in a transaction of this process. `limit`: of the slot.

    Raises `PostInDoubt`, `SlotQueueFullError`.
    """
    try:
        return _insert(host, names, posts, worker_id, limit)
    except SQLAlchemyError as error:
        if classify(error) is Failure.LOST:
            raise PostInDoubt(posts[0].job_id) from error
        check_named(error, host.store.database.url)
        raise


def _insert(
    host: Host, names: Names, posts: list[Post], worker_id: str | None, limit: int | None
) -> dict[str, str | None]:
    with host.store.database.write() as connection:
        now = host.now_us()
        new = list({post.job_id: post for post in posts if not is_known(connection, post)}.values())
        _check_room(connection, names, new, worker_id, limit)
        if new:
            inbox.put(connection, [_row(names, post, worker_id, now) for post in new])
    return {post.job_id: worker_id for post in posts}


def _check_room(
    connection: Connection, names: Names, posts: list[Post], worker_id: str | None, limit: int | None
) -> None:
    """Approximate: what waited about a second ago, and what is in the inbox. Raises `SlotQueueFullError`."""
    arriving = sum(1 for post in posts if post.due_at is None)
    if limit is None or not arriving:
        return
    target = worker_id or worker_reads.newest_live_worker(connection, names[0])
    waiting = queue_depth.waiting_about(connection, names, target)
    if waiting + arriving > limit:
        raise SlotQueueFullError(names[2], limit)


def ask(store: Store, command: Command, flow: str, now: int) -> None:
    """Give a command to the owner of a worker. Durable on return.

    Raises `DeadLetterGoneError` if another operator was first, `DatabaseUnavailableError`.
    """
    assert command.worker_id is not None
    row = inbox.verb_row(
        command.kind, flow, worker_id=command.worker_id, job_id=command.job_id, body=command.body, now=now
    )
    try:
        _insert_command(store, command, row)
    except SQLAlchemyError as error:
        if classify(error) is Failure.LOST:
            raise DatabaseUnavailableError(
                f"{store.database.safe_url}: the connection was lost;"
                f" it is not known whether {command.kind} was stored"
            ) from error
        check_named(error, store.database.url)
        raise


def _insert_command(store: Store, command: Command, row: dict[str, Any]) -> None:
    with store.database.write() as connection:
        if isinstance(command, (RetryDeadLetter, DropDeadLetter)):
            stored = worker_reads.worker_named(connection, str(command.worker_id))
            if stored is None or not dead_letter_rows.hold_letter(connection, stored.key, command.seq):
                raise DeadLetterGoneError(command.seq)
        inbox.put(connection, [row])
