"""Every error that Routilux raises on purpose. Each says what is wrong and what to do next.

    RoutiluxError
    ├── DefinitionError                        a flow or a part of it cannot be so             (ValueError)
    ├── FlowNotFoundError · RoutineNotFoundError · SlotNotFoundError · EventNotFoundError      (ValueError)
    ├── WorkerNotFoundError · JobNotFoundError                                                 (ValueError)
    ├── PayloadError                           a value cannot be stored                        (ValueError)
    │   ├── PayloadTooLargeError
    │   └── SlotModelError                     it does not fit the slot's model
    ├── PolicyError · NaiveDatetimeError · WriteError · StateError · ControlError              (ValueError)
    ├── IdempotencyConflictError               the job id is taken by another post             (ValueError)
    ├── LogicSignatureError                                                                    (TypeError)
    ├── RemovedNameError                       a name of an older Routilux                     (TypeError)
    │   ├── RemovedAttributeError              … read from an object                           (AttributeError)
    │   └── RemovedImportError                 … imported                                      (ImportError)
    ├── SlotQueueFullError                     nothing was stored; post later or wait
    ├── PostInDoubt · PostManyIncomplete       something may be, or is, stored                 (RuntimeError)
    ├── JobFailedError · JobEndedError · WorkerEndedError · DeadLetterGoneError                (RuntimeError)
    ├── RuntimeShutDownError · ForkedRuntimeError · LeaseLostError · ProcessDiedError          (RuntimeError)
    ├── CalledInLogicError · OutsideLogicError · ConfigReadOnlyError                           (RuntimeError)
    ├── DatabaseUnavailableError               try again later                                 (RuntimeError)
    │   ├── DatabaseReadOnlyError
    │   └── DatabaseFullError
    ├── SchemaError                            the database cannot be served                   (RuntimeError)
    │   ├── SchemaMissingError · SchemaTooOldError · SchemaTooNewError · SchemaForeignError
    └── Steering                               raised by logic to choose what happens
        ├── RetryLater
        └── GiveUp

`TimeoutError` is Python's own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta

# a century: beyond it an instant is no longer a date
LONGEST_DELAY_S = 100 * 365 * 86_400.0


class RoutiluxError(Exception):
    """Root of all errors of this package."""

    def __reduce__(self) -> tuple[object, ...]:
        # the default calls the class with the message, which is not what most constructors here take
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(kind: type[RoutiluxError], args: tuple[object, ...], fields: dict[str, object]) -> RoutiluxError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(fields)
    return error


# names that lead nowhere


class FlowNotFoundError(RoutiluxError, ValueError):
    """No flow is registered under `name`."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"Flow {name!r} not found in registry; register it first:"
            f" FlowRegistry.get_instance().register_by_name({name!r}, flow)"
        )


class RoutineNotFoundError(RoutiluxError, ValueError):
    """The flow has no routine of that id."""

    def __init__(self, routine_id: str, flow_name: str) -> None:
        self.routine_id = routine_id
        self.flow_name = flow_name
        super().__init__(
            f"Routine {routine_id!r} not found in flow {flow_name!r}; use an id that flow.add_routine() was given or returned"
        )


class SlotNotFoundError(RoutiluxError, ValueError):
    """The routine has no slot of that name."""

    def __init__(self, slot_name: str, routine_id: str) -> None:
        self.slot_name = slot_name
        self.routine_id = routine_id
        super().__init__(
            f"Slot {slot_name!r} not found in routine {routine_id!r}; declare it with add_slot({slot_name!r})"
        )


class EventNotFoundError(RoutiluxError, ValueError):
    """The routine has no event of that name."""

    def __init__(self, event_name: str, routine_id: str) -> None:
        self.event_name = event_name
        self.routine_id = routine_id
        super().__init__(
            f"Event {event_name!r} not found in routine {routine_id!r}; declare it with add_event({event_name!r})"
        )


class WorkerNotFoundError(RoutiluxError, ValueError):
    """No worker has that id."""

    def __init__(self, worker_id: str | None) -> None:
        self.worker_id = worker_id
        super().__init__(
            f"Worker {worker_id!r} not found; start it with runtime.exec(flow_name, worker_id={worker_id!r})"
        )


class JobNotFoundError(RoutiluxError, ValueError):
    """No job has that id: never posted, rolled back, or pruned."""

    def __init__(self, job_id: str | None) -> None:
        self.job_id = job_id
        super().__init__(f"Job {job_id!r} not found: it was never stored, or its history has been pruned")


# what cannot be defined or taken


class DefinitionError(RoutiluxError, ValueError):
    """A flow, or a part of one, that cannot be as it was asked for: a name that is taken or unknown, a bad limit."""


class PayloadError(RoutiluxError, ValueError):
    """A value cannot be stored as JSON, or stored text cannot be read back. `path` names the place in it."""

    def __init__(self, message: str, *, path: str = "") -> None:
        self.path = path
        super().__init__(message)


class PayloadTooLargeError(PayloadError):
    """A value's JSON text is longer than the limit; both sizes in bytes of UTF-8."""

    def __init__(self, path: str, size_bytes: int, limit_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes
        super().__init__(
            f"{path}: {size_bytes} bytes of JSON, the limit is {limit_bytes};"
            " store the bulk elsewhere and pass a reference to it",
            path=path,
        )


class SlotModelError(PayloadError):
    """Data does not fit the Pydantic model of a slot; `path` names the field."""


class IdempotencyConflictError(RoutiluxError, ValueError):
    """The job id belongs to a post with another flow, routine, slot or payload. Nothing was stored."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(
            f"job_id {job_id!r} was used for a different post; use a new job_id,"
            " or repeat the first post exactly to get its job"
        )


class PolicyError(RoutiluxError, ValueError):
    """An activation policy that can never work, or that returned what no policy may return."""


class NaiveDatetimeError(RoutiluxError, ValueError):
    """An instant without a time zone. `name` is the argument."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"{name} needs a time zone, for example datetime.now(timezone.utc)")


class WriteError(RoutiluxError, ValueError):
    """A statement that `Routine.write` does not take."""


class StateError(RoutiluxError, ValueError):
    """A change of state, or a read of it, that is not possible here."""


class ControlError(RoutiluxError, ValueError):
    """A pause, resume or cancel that makes no sense for its target."""


class LogicSignatureError(RoutiluxError, TypeError):
    """The parameters of a routine's logic fit neither of the two forms, or both."""

    def __init__(self, name: str, signature: str, slot_names: Sequence[str], reason: str) -> None:
        self.name = name
        self.slot_names = tuple(slot_names)
        lists = ", ".join([*slot_names, "policy_message", "worker_state"])
        super().__init__(
            f"logic {name}{signature}: {reason}. Write it as\n"
            f"    def {name}(slot_data, policy_message, worker_state)    # slot_data is {{slot name: [item, …]}}\n"
            f"or with one list per slot, in the order they were added,\n"
            f"    def {name}({lists})"
        )


class RemovedNameError(RoutiluxError, TypeError):
    """A name of an older Routilux that means nothing now. `instead` says what to use."""

    def __init__(self, removed: str, instead: str) -> None:
        self.removed = removed
        self.instead = instead
        super().__init__(f"{removed} is gone: {instead}")


class RemovedAttributeError(RemovedNameError, AttributeError):
    """The same for an attribute, so that `hasattr` says no."""


class RemovedImportError(RemovedNameError, ImportError):
    """The same for an import, so that programs that try the old name first go on."""


# posts and jobs


class SlotQueueFullError(RoutiluxError):
    """A slot holds as many waiting messages as it may. Nothing was stored."""

    def __init__(self, slot_name: str, limit: int) -> None:
        self.slot_name = slot_name
        self.limit = limit
        super().__init__(
            f"Slot {slot_name!r} queue is full (max={limit}); nothing was stored:"
            " post again later, wait with post(timeout=…), or raise max_queue_length"
        )


class PostInDoubt(RoutiluxError, RuntimeError):
    """It is not known whether the post was stored. Posting the same again with this `job_id` is safe."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(
            f"no answer from the database: job {job_id!r} may or may not be stored;"
            f" post the same data again with job_id={job_id!r}, it is taken once"
        )


class PostManyIncomplete(RoutiluxError, RuntimeError):
    """`post_many` stopped half-way. `stored` are the handles of what is durable, `error` is what stopped it."""

    def __init__(self, stored: Sequence[object], error: BaseException) -> None:
        self.stored = list(stored)
        self.error = error
        super().__init__(
            f"{len(self.stored)} items are stored, the rest is not: {error};"
            " post the items after those in error.stored again"
        )


class JobFailedError(RoutiluxError, RuntimeError):
    """The job whose result was asked for has failed, or was cancelled. `error` is its error text."""

    def __init__(self, job_id: str, error: str) -> None:
        self.job_id = job_id
        self.error = error
        super().__init__(f"job {job_id!r} failed: {error}")


class JobEndedError(RoutiluxError, RuntimeError):
    """The job has ended and takes no more."""

    def __init__(self, job_id: str, status: str) -> None:
        self.job_id = job_id
        self.status = status
        super().__init__(
            f"job {job_id!r} has ended ({status}); post a new one, or send its dead letter again"
        )


class WorkerEndedError(RoutiluxError, RuntimeError):
    """The worker has ended and takes no more."""

    def __init__(self, worker_id: str, status: str) -> None:
        self.worker_id = worker_id
        self.status = status
        super().__init__(f"worker {worker_id!r} has ended ({status}); start another with runtime.exec()")


class DeadLetterGoneError(RoutiluxError, RuntimeError):
    """The dead letter was sent again or dropped meanwhile: another operator was first."""

    def __init__(self, letter: object) -> None:
        self.letter = letter
        super().__init__(
            f"dead letter {letter} is gone: it was sent again or dropped already; read dead_letters() anew"
        )


# where and when a call is made


class RuntimeShutDownError(RoutiluxError, RuntimeError):
    """The runtime takes no more calls."""

    def __init__(self, message: str = "Runtime is shut down; make a new Runtime") -> None:
        super().__init__(message)


class ForkedRuntimeError(RoutiluxError, RuntimeError):
    """A runtime was made before a fork and used after it."""

    def __init__(self) -> None:
        super().__init__(
            "this Runtime was made before a fork; make it in the child process,"
            " or start children with multiprocessing's 'spawn' method"
        )


class LeaseLostError(RoutiluxError, RuntimeError):
    """This runtime lost its lease and may not commit; another may run its workers by now."""

    def __init__(
        self, message: str = "this runtime has lost its lease; it comes back under a new identity"
    ) -> None:
        super().__init__(message)


class ProcessDiedError(RoutiluxError, RuntimeError):
    """The process died each time this work ran alone. Kept as the error of a dead letter."""

    def __init__(self, deaths: int) -> None:
        self.deaths = deaths
        super().__init__(
            f"the process died {deaths} times while this ran; look for crashes or lack of memory,"
            " then send the dead letter again"
        )


class CalledInLogicError(RoutiluxError, RuntimeError):
    """A call that waits for the engine was made inside logic, which the engine waits for."""

    def __init__(self, call: str) -> None:
        self.call = call
        super().__init__(
            f"{call} would wait for ever inside logic; emit an event and go on in another routine"
        )


class OutsideLogicError(RoutiluxError, RuntimeError):
    """A call that belongs to an activation was made outside logic."""

    def __init__(self, call: str) -> None:
        self.call = call
        super().__init__(f"{call} works only inside logic; from outside use runtime.post() to send a message")


class ConfigReadOnlyError(RoutiluxError, RuntimeError):
    """A routine's configuration was changed inside logic."""

    def __init__(self) -> None:
        super().__init__(
            "Cannot modify _config during execution. Use WorkerState for execution-specific state."
        )


# the database


class DatabaseUnavailableError(RoutiluxError, RuntimeError):
    """The database did not answer, or did not take a change, in time."""


class DatabaseReadOnlyError(DatabaseUnavailableError):
    """The database takes no writes."""


class DatabaseFullError(DatabaseUnavailableError):
    """The disk of the database is full."""


class SchemaError(RoutiluxError, RuntimeError):
    """The database has no schema that this version can serve. `database` is its URL without the password."""

    def __init__(self, database: str, problem: str) -> None:
        self.database = database
        super().__init__(f"{database}: {problem}")


class SchemaMissingError(SchemaError):
    """The database has no Routilux tables."""

    def __init__(self, database: str) -> None:
        super().__init__(database, "no Routilux tables; run `routilux db upgrade`")


class SchemaTooOldError(SchemaError):
    """The tables were made by an older version."""

    def __init__(self, database: str, current: str | None, needed: str) -> None:
        self.current = current
        self.needed = needed
        super().__init__(
            database,
            f"the schema is at revision {current}, this version needs {needed};"
            " stop the other runtimes and run `routilux db upgrade`",
        )


class SchemaTooNewError(SchemaError):
    """The tables were made by a newer version."""

    def __init__(self, database: str, current: str | None, needed: str) -> None:
        self.current = current
        self.needed = needed
        super().__init__(
            database,
            f"the schema is at revision {current}, this version knows {needed}; install the version that made it",
        )


class SchemaForeignError(SchemaError):
    """There are tables of our names that we did not make."""

    def __init__(self, database: str) -> None:
        super().__init__(
            database, "has tables named routilux_… that Routilux did not make; use another database or schema"
        )


# raised by logic


class Steering(RoutiluxError):
    """What logic raises to say what happens next, whatever the error strategy."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class RetryLater(Steering):
    """Run this activation again after `delay`; no attempt is counted.

    `delay`: seconds or `timedelta`, from 0 to a century. `reason`: kept in the history. Raises `ValueError`.
    """

    def __init__(self, delay: float | timedelta, reason: str = "") -> None:
        try:
            self.delay_s = delay.total_seconds() if isinstance(delay, timedelta) else float(delay)
        except OverflowError:  # an int beyond every float
            self.delay_s = math.inf
        if not 0 <= self.delay_s <= LONGEST_DELAY_S:
            raise ValueError(
                f"RetryLater: delay must be a finite number of seconds, 0 or more, not {delay!r}"
            )
        super().__init__(reason or f"again in {self.delay_s:g} s")


class GiveUp(Steering):
    """Make this activation's messages a dead letter now and fail the job; no retry. `reason`: why."""
