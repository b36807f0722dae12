"""One group commit, until it is in or refused.

    fence → what must be known first (own statements, idempotency keys, inbox) → decide → rows → commit row → COMMIT

Passing errors (connection lost, deadlock, busy, disk full) send the same rows again under the same number, however
long it takes; the commit row tells whether an earlier try went in. Any other error is a refusal: the engine takes
the batch apart. What was sent before the error may still reach the database when nobody waits for it any more, so first its
number is used up: a commit of its row alone, and of the next one's, which tells that it was this that used it up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from routilux.engine import interpreter
from routilux.engine.batch import Batch
from routilux.errors import RuntimeShutDownError
from routilux.store.errors import PASSING, AlreadyIn, Fenced, TransactionEnded, classify
from routilux.store.writes.commit_rows import CommitRow
from routilux.store.writes.store import Commit, as_json

if TYPE_CHECKING:
    from routilux.engine.engine import Engine

_PAUSES_S = (0.01, 0.05, 0.2, 0.5, 1.0)


class Refused(Exception):
    """The database refuses this batch, now and every time."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.cause = cause


class GroupCommit:
    """One batch on its way in. `prepare` runs inside the transaction before `decide`; `decide` runs once."""

    def __init__(
        self,
        engine: Engine,
        batch: Batch,
        prepare: Callable[[Commit, Batch], object] | None,
        decide: Callable[[Batch], None],
    ) -> None:
        self._engine = engine
        self._batch = batch
        self._prepare = prepare
        self._decide = decide
        self._is_decided = False
        self._was_sent = False
        self._answer: object = None
        self._in_flight: list[object] = []

    def run(self) -> None:
        """Until it is in. Raises `Refused`, `Fenced`, or `RuntimeShutDownError` when the engine gives up waiting."""
        attempt = 0
        while True:
            try:
                return self._try()
            except AlreadyIn:
                return None
            except TransactionEnded as error:
                self._engine.store.drop_connection()
                self._engine.commit_n += 1
                if self._is_decided:
                    raise Refused(error) from error
            except (Fenced, RuntimeShutDownError):
                raise
            except Exception as error:
                if classify(error) in PASSING:
                    attempt += 1
                    self._wait(error, attempt)
                    continue
                if self._was_sent and self._went_in():
                    return None
                raise error if isinstance(error, Refused) else Refused(error) from error

    def _went_in(self) -> bool:
        """Whether an earlier try is in. If not none ever will be: its number and the next are used up, durably."""
        engine = self._engine
        key, n, now = engine.runtime_key, engine.commit_n, self._batch.now
        running = as_json([run.in_flight() for run in engine.runs])
        engine.commit_n = n + 1  # whatever becomes of it here: its row may be in though its answer is lost

        def use_up() -> bool:
            with interpreter.in_commit(), engine.store.commit(key) as current:
                try:
                    current.fence()
                    current.mark(key, n, running, now)
                    current.mark(key, n + 1, running, now)
                except AlreadyIn:
                    # by the commit itself or, if the next number is used up, too, by a try of this
                    return not current.went_in(key, n + 1)
                except Fenced:
                    was_in = current.went_in(key, n) and not current.went_in(key, n + 1)
                    raise Fenced(was_in=was_in) from None
            return False

        # an error that does not pass: nobody can know, whoever waits is told so
        return engine.patiently(use_up)

    def _try(self) -> None:
        if self._prepare is None and not self._is_decided:
            self._settle()  # nothing to ask the database: decide before the transaction begins
            if self._batch.is_empty or self._is_sent_whole():
                return
        with interpreter.in_commit(), self._engine.store.commit(self._engine.runtime_key) as current:
            self._fence(current)
            if self._was_sent:
                self._mark(current)
            if self._prepare is not None:
                self._ask(current)
            if not self._is_decided:
                self._settle()
            if self._batch.unused_keys:
                current.free_keys(sorted(self._batch.unused_keys))
            self._batch.changes.write(current.connection, None if self._was_sent else self._row())
            self._was_sent = True

    def _is_sent_whole(self) -> bool:
        """The first try, if one way to the server and back is enough for it."""
        self._was_sent = True  # for all that is known, if this raises
        with interpreter.in_commit():
            self._was_sent = self._engine.store.commit_whole(self._batch.changes, self._row()) or False
        return self._was_sent

    def _fence(self, current: Commit) -> None:
        engine = self._engine
        try:
            current.fence()
        except Fenced:
            was_in = self._was_sent and current.went_in(engine.runtime_key, engine.commit_n)
            raise Fenced(was_in=was_in) from None

    def _settle(self) -> None:
        try:
            self._decide(self._batch)
            self._batch.finish()
        except RuntimeShutDownError:
            raise
        except (
            Exception
        ) as error:  # memory is half changed: it must be loaded again, not decided over once more
            raise Refused(error) from error
        self._is_decided = True
        self._in_flight = self._engine.in_flight(self._batch)

    def _ask(self, current: Commit) -> None:
        assert self._prepare is not None
        answer = self._prepare(current, self._batch)
        if self._is_decided and answer != self._answer:
            raise Refused(RuntimeError("the database answered otherwise when the commit was sent again"))
        self._answer = answer

    def _mark(self, current: Commit) -> None:
        current.mark(*self._row())

    def _row(self) -> CommitRow:
        engine = self._engine
        return engine.runtime_key, engine.commit_n, as_json(self._in_flight), self._batch.now

    def _wait(self, error: BaseException, attempt: int) -> None:
        engine = self._engine
        engine.store.drop_connection()
        engine.report_trouble(error, attempt)
        if engine.gives_up(_PAUSES_S[min(attempt, len(_PAUSES_S)) - 1]):
            raise RuntimeShutDownError(
                "Runtime is shut down: the database did not take the last commit before the deadline"
            ) from error
