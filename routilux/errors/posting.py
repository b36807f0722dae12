"""Posts that were rejected, or whose result is unknown."""

from __future__ import annotations

from collections.abc import Sequence

from routilux.errors.root import RoutiluxError


class IdempotencyConflictError(RoutiluxError, ValueError):
    """The job id belongs to a post with another flow, routine, slot or payload. Nothing was stored."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(
            f"job_id {job_id!r} was used for a different post; use a new job_id,"
            " or repeat the first post exactly to get its job"
        )


class NaiveDatetimeError(RoutiluxError, ValueError):
    """A datetime has no time zone. `name` is the argument."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"{name} needs a time zone, for example datetime.now(timezone.utc)")


class SlotQueueFullError(RoutiluxError):
    """A slot holds as many waiting messages as its limit allows. Nothing was stored."""

    def __init__(self, slot_name: str, limit: int) -> None:
        self.slot_name = slot_name
        self.limit = limit
        super().__init__(
            f"Slot {slot_name!r} queue is full (max={limit}); nothing was stored:"
            " post again later, wait with post(timeout=…), or raise max_queue_length"
        )


class PostInDoubt(RoutiluxError, RuntimeError):
    """It is unknown whether the post was stored. Posting the same data again with this `job_id` is safe."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(
            f"no answer from the database: job {job_id!r} may or may not be stored;"
            f" post the same data again with job_id={job_id!r}: it is stored only once"
        )


class PostManyIncomplete(RoutiluxError, RuntimeError):
    """`post_many` stopped half-way. `stored` holds the handles of the durable items, `error` the cause."""

    def __init__(self, stored: Sequence[object], error: BaseException) -> None:
        self.stored = list(stored)
        self.error = error
        super().__init__(
            f"{len(self.stored)} items are stored, the rest is not: {error};"
            " post the items after those in error.stored again"
        )
