"""`Client`: posts, signals, reads and controls from a process that runs nothing and has no flow code.

It checks posts against the newest definition that a runtime has registered in the database. The owner of the
worker checks slot models.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any

from routilux.core.job_context import JobContext
from routilux.engine.settings import MIB
from routilux.runtime import inbox_writer, validation
from routilux.runtime.handles import Posted, job_context
from routilux.runtime.operations import Operations
from routilux.runtime.remote_host import RemoteHost
from routilux.runtime.validation import PostItem, Seconds
from routilux.store.types import Connection, SqlEngine

if TYPE_CHECKING:
    from routilux.store.types import Session


class Client(Operations):
    """The database of runtimes that live elsewhere.

    `database`: a SQLAlchemy URL or the caller's `Engine`. `max_payload_bytes`: as the runtimes have it.
    Raises `SchemaError` or `DatabaseUnavailableError` when the database cannot serve.
    """

    def __init__(self, database: str | SqlEngine, *, max_payload_bytes: int = MIB) -> None:
        self._host: RemoteHost = RemoteHost(database, max_payload_bytes)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the database. Idempotent."""
        self._host.close()

    def post(
        self,
        flow_name: str,
        routine_name: str,
        slot_name: str,
        data: Mapping[str, Any],
        worker_id: str | None = None,
        job_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        delay: Seconds | None = None,
        at: datetime | None = None,
        transaction: Connection | Session | None = None,
    ) -> Posted:
        """As `Runtime.post`: durable on return, accepted as soon as a runtime with the flow looks.

        Without `worker_id` the runtime that accepts it chooses the worker.
        """
        host, names = self._host, (flow_name, routine_name, slot_name)
        limit = host.check_target(names, worker_id)
        post = host.encode_post(names, PostItem(data, job_id, delay, metadata), at)
        if transaction is not None:
            return inbox_writer.post_in(transaction, host, names, post, worker_id, limit)
        inbox_writer.post_to_owner(host, names, [post], worker_id, limit)
        return Posted((None, job_context(host, post.job_id, flow_name, worker_id)))

    def post_many(
        self,
        flow_name: str,
        routine_name: str,
        slot_name: str,
        items: Iterable[Mapping[str, Any] | PostItem],
        *,
        metadata: Mapping[str, Any] | None = None,
        worker_id: str | None = None,
        transaction: Connection | Session | None = None,
    ) -> list[JobContext]:
        """A job for each item, all in one transaction: all of them go in, or none."""
        host, names = self._host, (flow_name, routine_name, slot_name)
        limit = host.check_target(names, worker_id)
        posts = [
            host.encode_post(
                names,
                item if isinstance(item, PostItem) else PostItem(item, metadata=metadata),
                root=f"items[{i}]",
            )
            for i, item in enumerate(items)
        ]
        validation.check_ids(posts)
        if transaction is not None:
            return [
                inbox_writer.post_in(transaction, host, names, post, worker_id, limit).job for post in posts
            ]
        inbox_writer.post_to_owner(host, names, posts, worker_id, limit)
        return [job_context(host, post.job_id, flow_name, worker_id) for post in posts]
