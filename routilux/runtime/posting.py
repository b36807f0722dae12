"""`post` and `post_many` from the caller's side: check, hand over, word the answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from routilux.core.job_context import JobContext
from routilux.core.slot import Slot
from routilux.core.worker_state import WorkerState
from routilux.engine.ids import new_id
from routilux.engine.inputs import Post, PostIn, Receipt
from routilux.engine.worker_loading import NotMine
from routilux.errors import (
    DatabaseUnavailableError,
    PostInDoubt,
    PostManyIncomplete,
    RoutiluxError,
    RuntimeShutDownError,
    StateError,
    WorkerNotFoundError,
)
from routilux.runtime import inbox_writer, validation, waiting, workers
from routilux.runtime.handles import JobHandle, WorkerHandle
from routilux.runtime.validation import PostItem

if TYPE_CHECKING:
    from routilux.runtime.runtime import Runtime

Names = tuple[str, str, str]
CHUNK = 5000  # posts in one transaction


class Posted(tuple[WorkerState | None, JobContext]):
    """`(worker_state, job_context)`; what it does not know itself it asks the job."""

    __slots__ = ()

    @property
    def worker(self) -> WorkerState | None:
        """None until a post in the caller's transaction is accepted."""
        return self[0]

    @property
    def job(self) -> JobContext:
        return self[1]

    def __getattr__(self, name: str) -> Any:
        return getattr(self[1], name)


def post(
    runtime: Runtime,
    names: Names,
    item: PostItem,
    worker_id: str | None,
    *,
    at: datetime | None,
    transaction: Any,
    timeout: float | None,
) -> Posted:
    """One post."""
    names = (runtime.engine.flows.prepare(names[0]), names[1], names[2])
    entry = _encode(runtime, names, _slot(runtime, names), item, at)
    if transaction is not None:
        return inbox_writer.post_in(
            transaction, runtime, names, entry, worker_id, _limit(runtime, names, worker_id)
        )
    accepted = _send(runtime, names, [entry], worker_id, timeout)
    return _posted(runtime, names[0], accepted[entry.job_id], entry.job_id)


def _posted(runtime: Runtime, flow: str, worker_id: str | None, job_id: str) -> Posted:
    worker = (
        None if worker_id is None else WorkerState(flow, worker_id, port=WorkerHandle(runtime, worker_id))
    )
    return Posted((worker, JobContext(job_id, flow, worker_id, JobHandle(runtime))))


def _slot(runtime: Runtime, names: Names) -> Slot:
    return validation.slot_of(runtime.engine.flows.get(names[0]), *names)


def _encode(
    runtime: Runtime,
    names: Names,
    spec: Slot,
    item: PostItem,
    at: datetime | None = None,
    root: str = "data",
) -> Post:
    limit = runtime.settings.max_payload_bytes
    text = validation.encode_payload(spec, item.data, limit, root)
    due_at = validation.due_at_us(runtime.engine.clock.now_us(), item.delay, at)
    return validation.make_post(
        names, text, item.job_id, validation.encode_metadata(item.metadata, limit), due_at
    )


def post_many(
    runtime: Runtime,
    names: Names,
    items: Iterable[Mapping[str, Any] | PostItem],
    metadata: Mapping[str, Any] | None,
    worker_id: str | None,
    *,
    transaction: Any,
    timeout: float | None,
) -> list[JobContext]:
    """Many posts: all checked first, then stored in parts."""
    names = (runtime.engine.flows.prepare(names[0]), names[1], names[2])
    spec = _slot(runtime, names)
    posts = _encode_all(runtime, names, spec, items, metadata)
    validation.check_ids(posts)
    port = JobHandle(runtime)
    if transaction is not None:
        limit = _limit(runtime, names, worker_id)
        return [
            inbox_writer.post_in(transaction, runtime, names, entry, worker_id, limit).job for entry in posts
        ]
    stored: list[JobContext] = []
    for start in range(0, len(posts), CHUNK):
        chunk = posts[start : start + CHUNK]
        try:
            accepted = _send(runtime, names, chunk, worker_id, timeout)
        except Exception as error:
            if stored:
                raise PostManyIncomplete(stored, error) from error
            raise
        stored.extend(JobContext(entry.job_id, names[0], accepted[entry.job_id], port) for entry in chunk)
    return stored


def _encode_all(
    runtime: Runtime,
    names: Names,
    spec: Slot,
    items: Iterable[Mapping[str, Any] | PostItem],
    metadata: Mapping[str, Any] | None,
) -> list[Post]:
    limit = runtime.settings.max_payload_bytes
    shared = validation.encode_metadata(metadata, limit)
    posts: list[Post] = []
    for i, item in enumerate(items):
        root = f"items[{i}]"
        if isinstance(item, PostItem):
            posts.append(_encode(runtime, names, spec, item, root=root))
        else:
            posts.append(Post(new_id(), validation.encode_payload(spec, item, limit, root), shared))
    return posts


def _send(
    runtime: Runtime, names: Names, posts: list[Post], worker_id: str | None, timeout: float | None
) -> dict[str, str | None]:
    """Hand posts to the owner of the worker, whoever that is by then; job id -> worker id."""
    if not posts:
        return {}
    lock = runtime.store.database.lock_file
    if lock is not None and lock.is_my_turn:
        raise StateError(
            "this thread has a write transaction open on the SQLite file, for which the post would wait for ever: give"
            " it to the post with transaction=, or end it first"
        )
    wait_s = None if timeout is None else validation.seconds(timeout, "timeout")
    deadline = None if wait_s is None else runtime.engine.clock.monotonic() + wait_s
    while True:
        target = worker_id if worker_id is not None else workers.target(runtime, names[0])
        if not isinstance(target, str):
            raise WorkerNotFoundError(target)
        if target not in runtime.engine.by_id and not workers.fetch(runtime, target, names[0]):
            try:
                return inbox_writer.post_to_owner(runtime, names, posts, target, _limit(runtime, names, None))
            finally:  # one in doubt may be there
                waiting.remember(runtime, [post.job_id for post in posts])
        receipt = Receipt()
        runtime.submit(PostIn(names[0], target, names[1], names[2], posts, receipt, deadline))
        try:
            _await(runtime, receipt, posts, wait_s)
        except BaseException as error:  # an interrupt, too: what the engine has not begun with is not posted
            if (receipt.is_taken or not runtime.engine.inputs.withdraw(receipt)) and not isinstance(
                error, RoutiluxError
            ):
                error.add_note(
                    f"job {posts[0].job_id} may have been stored; posting it again with that job_id settles it"
                )
            raise
        try:
            accepted: dict[str, str | None] = receipt.get()
        except NotMine:
            continue  # it changed hands meanwhile
        return accepted


def _limit(runtime: Runtime, names: Names, worker_id: str | None) -> int | None:
    """Of the slot, for a post through the inbox; the worker is checked here as its owner would."""
    if worker_id is not None:
        workers.check_worker(workers.stored(runtime, worker_id), worker_id, names[0])
    return _slot(runtime, names).max_queue_length


def _await(runtime: Runtime, receipt: Receipt, posts: list[Post], timeout: float | None) -> None:
    """Wait for the commit. A post that gives up says whether it can know that nothing was stored."""
    clock = runtime.engine.clock
    until = clock.monotonic() + runtime.settings.post_timeout_s + (timeout or 0.0)
    while not runtime.drive.answer(receipt, min(1.0, max(0.01, until - clock.monotonic()))):
        if runtime.is_engine_gone:
            if receipt.is_done:
                return
            if receipt.is_taken:
                raise PostInDoubt(posts[0].job_id)
            raise RuntimeShutDownError("Runtime is shut down")
        if clock.monotonic() >= until:
            if not receipt.is_taken and runtime.engine.inputs.withdraw(receipt):
                raise DatabaseUnavailableError(
                    "the engine did not get to this post in time; nothing was stored"
                )
            raise PostInDoubt(posts[0].job_id)
