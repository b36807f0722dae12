"""`post` and `post_many` from the caller's side: check, hand over to the owner, return handles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from routilux.core.job_context import JobContext
from routilux.core.slot import Slot
from routilux.engine.acceptance import NotOwned
from routilux.engine.ids import new_id
from routilux.engine.inputs import Post, PostIn, Receipt
from routilux.errors import (
    DatabaseUnavailableError,
    PostInDoubt,
    PostManyIncomplete,
    RoutiluxError,
    RuntimeShutDownError,
    StateError,
    WorkerNotFoundError,
)
from routilux.runtime import inbox_writer, validation, workers
from routilux.runtime.handles import JobHandle, Posted, posted
from routilux.runtime.host import EngineHost
from routilux.runtime.validation import PostItem

Names = tuple[str, str, str]
CHUNK = 5000  # posts in one transaction


def post(
    host: EngineHost,
    names: Names,
    item: PostItem,
    worker_id: str | None,
    *,
    at: datetime | None,
    transaction: Any,
    timeout: float | None,
) -> Posted:
    """One post."""
    names = (host.parts.workers.flows.prepare(names[0]), names[1], names[2])
    entry = _encode(host, names, _slot(host, names), item, at)
    if transaction is not None:
        return inbox_writer.post_in(
            transaction, host, names, entry, worker_id, _limit(host, names, worker_id)
        )
    accepted = _send(host, names, [entry], worker_id, timeout)
    return posted(host, names[0], accepted[entry.job_id], entry.job_id)


def _slot(host: EngineHost, names: Names) -> Slot:
    return validation.slot_of(host.parts.workers.flows.get(names[0]), *names)


def _encode(
    host: EngineHost,
    names: Names,
    spec: Slot,
    item: PostItem,
    at: datetime | None = None,
    root: str = "data",
) -> Post:
    limit = host.settings.max_payload_bytes
    text = validation.encode_payload(spec, item.data, limit, root)
    due_at = validation.due_at_us(host.parts.clock.now_us(), item.delay, at)
    return validation.make_post(
        names, text, item.job_id, validation.encode_metadata(item.metadata, limit), due_at
    )


def post_many(
    host: EngineHost,
    names: Names,
    items: Iterable[Mapping[str, Any] | PostItem],
    metadata: Mapping[str, Any] | None,
    worker_id: str | None,
    *,
    transaction: Any,
    timeout: float | None,
) -> list[JobContext]:
    """Many posts: all checked first, then stored in parts."""
    names = (host.parts.workers.flows.prepare(names[0]), names[1], names[2])
    spec = _slot(host, names)
    posts = _encode_all(host, names, spec, items, metadata)
    validation.check_ids(posts)
    port = JobHandle(host)
    if transaction is not None:
        limit = _limit(host, names, worker_id)
        return [
            inbox_writer.post_in(transaction, host, names, entry, worker_id, limit).job for entry in posts
        ]
    stored: list[JobContext] = []
    for start in range(0, len(posts), CHUNK):
        chunk = posts[start : start + CHUNK]
        try:
            accepted = _send(host, names, chunk, worker_id, timeout)
        except Exception as error:
            if stored:
                raise PostManyIncomplete(stored, error) from error
            raise
        stored.extend(JobContext(entry.job_id, names[0], accepted[entry.job_id], port) for entry in chunk)
    return stored


def _encode_all(
    host: EngineHost,
    names: Names,
    spec: Slot,
    items: Iterable[Mapping[str, Any] | PostItem],
    metadata: Mapping[str, Any] | None,
) -> list[Post]:
    limit = host.settings.max_payload_bytes
    shared = validation.encode_metadata(metadata, limit)
    posts: list[Post] = []
    for i, item in enumerate(items):
        root = f"items[{i}]"
        if isinstance(item, PostItem):
            posts.append(_encode(host, names, spec, item, root=root))
        else:
            posts.append(Post(new_id(), validation.encode_payload(spec, item, limit, root), shared))
    return posts


def _send(
    host: EngineHost, names: Names, posts: list[Post], worker_id: str | None, timeout: float | None
) -> dict[str, str | None]:
    """Hand posts to the owner of the worker. Returns job id -> worker id."""
    if not posts:
        return {}
    lock = host.store.database.lock_file
    if lock is not None and lock.is_my_turn:
        raise StateError(
            "this thread has a write transaction open on the SQLite file, so post() would deadlock: give it"
            " to the post with transaction=, or end it first"
        )
    wait_s = None if timeout is None else validation.seconds(timeout, "timeout")
    deadline = None if wait_s is None else host.parts.clock.monotonic() + wait_s
    while True:
        target = worker_id if worker_id is not None else workers.target(host, names[0])
        if not isinstance(target, str):
            raise WorkerNotFoundError(target)
        if target not in host.parts.workers.by_id and not workers.fetch(host, target, names[0]):
            try:
                return inbox_writer.post_to_owner(host, names, posts, target, _limit(host, names, None))
            finally:  # one in doubt may be there
                host.elsewhere.add([post.job_id for post in posts])
        receipt = Receipt()
        host.parts.inputs.put(PostIn(names[0], target, names[1], names[2], posts, receipt, deadline))
        try:
            _await(host, receipt, posts, wait_s)
        except BaseException as error:  # an interrupt too: take back what the engine has not begun with
            if (receipt.is_taken or not host.parts.inputs.withdraw(receipt)) and not isinstance(
                error, RoutiluxError
            ):
                error.add_note(
                    f"job {posts[0].job_id} may have been stored;"
                    " posting it again with that job_id settles it"
                )
            raise
        try:
            accepted: dict[str, str | None] = receipt.get()
        except NotOwned:
            continue  # it changed hands meanwhile
        return accepted


def _limit(host: EngineHost, names: Names, worker_id: str | None) -> int | None:
    """Of the slot, for a post through the inbox; the worker is checked here as its owner would."""
    if worker_id is not None:
        workers.check_worker(workers.stored(host, worker_id), worker_id, names[0])
    return _slot(host, names).max_queue_length


def _await(host: EngineHost, receipt: Receipt, posts: list[Post], timeout: float | None) -> None:
    """Wait for the commit. A post that gives up says whether it can know that nothing was stored."""
    clock = host.parts.clock
    until = clock.monotonic() + host.settings.post_timeout_s + (timeout or 0.0)
    while not host.drive.wait_reply(receipt, min(1.0, max(0.01, until - clock.monotonic()))):
        if not host.is_running:
            if receipt.is_done:
                return
            if receipt.is_taken:
                raise PostInDoubt(posts[0].job_id)
            raise RuntimeShutDownError("Runtime is shut down")
        if clock.monotonic() >= until:
            if not receipt.is_taken and host.parts.inputs.withdraw(receipt):
                raise DatabaseUnavailableError("timed out before the post was accepted; nothing was stored")
            raise PostInDoubt(posts[0].job_id)
