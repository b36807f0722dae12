"""One group commit, until the database has committed or refused it.

    fence → what must be known first (user statements, idempotency keys, inbox) → decide
        → rows → commit row → COMMIT

An error that passes (connection lost, deadlock, busy, disk full) sends the same rows again under the same
number, however long it takes; the commit row tells whether an earlier try was committed. Any other error is
a refusal: the engine takes the batch apart. A statement sent before the error may still be executed later.
So a small commit first stores this commit number and the next one. If the late statement arrives, its
number exists already and it fails. The next number proves that the small commit stored both, not the lost
try.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from routilux.core.run import Run
from routilux.engine import interpreter
from routilux.engine.batch import Batch
from routilux.engine.transactions import Transactions
from routilux.errors import RuntimeShutDownError
from routilux.store.errors import PASSING, AlreadyIn, Fenced, TransactionEnded, classify
from routilux.store.writes.commit_rows import CommitRow
from routilux.store.writes.store import Commit, as_json


class Refused(Exception):
    """The database refuses this batch, now and every time."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.cause = cause


class GroupCommit:
    """One batch on its way in. `prepare` runs inside the transaction before `decide`; `decide` runs once.

    `in_flight`: what is under way once these runs have started.
    """

    def __init__(
        self,
        transactions: Transactions,
        batch: Batch,
        prepare: Callable[[Commit, Batch], object] | None,
        decide: Callable[[Batch], None],
        in_flight: Callable[[Sequence[Run]], list[object]],
    ) -> None:
        self._transactions = transactions
        self._n = transactions.next_commit()
        self._batch = batch
        self._ask_in_flight = in_flight
        self._prepare = prepare
        self._decide = decide
        self._is_decided = False
        self._was_sent = False
        self._answer: object = None
        self._in_flight = ""

    def run(self) -> None:
        """Until it is in.

        Raises `Refused`, `Fenced`, or `RuntimeShutDownError` when the engine gives up waiting.
        """
        attempt = 0
        while True:
            try:
                return self._try()
            except AlreadyIn:
                return None
            except TransactionEnded as error:
                self._transactions.store.drop_connection()
                self._n = self._transactions.next_commit()
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
        """Whether an earlier try is in.

        If not, none ever will be: its number and the next are used up, durably.
        """
        transactions = self._transactions
        key, n, now = transactions.runtime_key, self._n, self._batch.now
        running = as_json(self._ask_in_flight(()))
        transactions.use_up(n + 1)  # its row may be in though its answer is lost

        def use_up() -> bool:
            with interpreter.in_commit(), transactions.store.commit(key) as current:
                try:
                    current.fence()
                    current.mark(key, n, running, now)
                    current.mark(key, n + 1, running, now)
                except AlreadyIn:
                    # by the commit itself; or, if the next number is used up too, by an earlier try of this
                    return not current.went_in(key, n + 1)
                except Fenced:
                    was_in = current.went_in(key, n) and not current.went_in(key, n + 1)
                    raise Fenced(was_in=was_in) from None
            return False

        # an error that does not pass: it cannot be known, and the callers are told so
        return transactions.retry_transient(use_up)

    def _try(self) -> None:
        if self._prepare is None and not self._is_decided:
            self._settle()  # nothing to ask the database: decide before the transaction begins
            store = self._transactions.store
            if self._batch.is_empty or (store.sends_whole and self._commit_in_one_round_trip()):
                return
        transactions = self._transactions
        with interpreter.in_commit(), transactions.store.commit(transactions.runtime_key) as current:
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

    def _commit_in_one_round_trip(self) -> bool:
        """The first try, if one round trip is enough for it."""
        self._was_sent = True  # if this raises, it may have been sent
        with interpreter.in_commit():
            sent = self._transactions.store.commit_whole(self._batch.changes, self._row())
            self._was_sent = sent or False
        return self._was_sent

    def _fence(self, current: Commit) -> None:
        try:
            current.fence()
        except Fenced:
            was_in = self._was_sent and current.went_in(self._transactions.runtime_key, self._n)
            raise Fenced(was_in=was_in) from None

    def _settle(self) -> None:
        try:
            self._decide(self._batch)
            self._batch.finish()
        except RuntimeShutDownError:
            raise
        except Exception as error:  # memory is half changed: load it again, do not decide again
            raise Refused(error) from error
        self._is_decided = True
        self._in_flight = as_json(self._ask_in_flight(self._batch.planned))

    def _ask(self, current: Commit) -> None:
        assert self._prepare is not None
        answer = self._prepare(current, self._batch)
        if self._is_decided and answer != self._answer:
            raise Refused(RuntimeError("the database gave another answer when the commit was sent again"))
        self._answer = answer

    def _mark(self, current: Commit) -> None:
        current.mark(*self._row())

    def _row(self) -> CommitRow:
        return self._transactions.runtime_key, self._n, self._in_flight, self._batch.now

    def _wait(self, error: BaseException, attempt: int) -> None:
        self._transactions.store.drop_connection()
        reason = "the database did not take the last commit before the deadline"
        self._transactions.pause_after(error, attempt, reason)
