"""Every error that Routilux raises on purpose. Each message says what is wrong and what to do next.

    RoutiluxError
    ├── DefinitionError                 a flow or a part of it is not valid                (ValueError)
    ├── FlowNotFoundError · RoutineNotFoundError · SlotNotFoundError · EventNotFoundError  (ValueError)
    ├── WorkerNotFoundError · JobNotFoundError                                             (ValueError)
    ├── PayloadError                    a value cannot be stored                           (ValueError)
    │   ├── PayloadTooLargeError
    │   └── SlotModelError              it does not fit the slot's model
    ├── PolicyError · NaiveDatetimeError · WriteError · StateError · ControlError          (ValueError)
    ├── IdempotencyConflictError        another post used the job id                       (ValueError)
    ├── LogicSignatureError                                                                (TypeError)
    ├── RemovedNameError                a name of an older Routilux                        (TypeError)
    │   ├── RemovedAttributeError       … read from an object                              (AttributeError)
    │   └── RemovedImportError          … imported                                         (ImportError)
    ├── SlotQueueFullError              nothing was stored; post later or wait
    ├── PostInDoubt · PostManyIncomplete          something may be stored, or is stored    (RuntimeError)
    ├── JobFailedError · JobEndedError · WorkerEndedError · DeadLetterGoneError            (RuntimeError)
    ├── RuntimeShutDownError · ForkedRuntimeError · LeaseLostError · ProcessDiedError      (RuntimeError)
    ├── CalledInLogicError · OutsideLogicError · ConfigReadOnlyError                       (RuntimeError)
    ├── DatabaseUnavailableError        try again later                                    (RuntimeError)
    │   ├── DatabaseReadOnlyError
    │   └── DatabaseFullError
    ├── SchemaError                     this version cannot use the database               (RuntimeError)
    │   ├── SchemaMissingError · SchemaTooOldError · SchemaTooNewError · SchemaForeignError
    └── Steering                        logic raises it to choose what happens next
        ├── RetryLater
        └── GiveUp

`TimeoutError` is Python's own.
"""

from routilux.errors.database import (
    DatabaseFullError,
    DatabaseReadOnlyError,
    DatabaseUnavailableError,
    SchemaError,
    SchemaForeignError,
    SchemaMissingError,
    SchemaTooNewError,
    SchemaTooOldError,
)
from routilux.errors.definitions import (
    ConfigReadOnlyError,
    DefinitionError,
    LogicSignatureError,
    PolicyError,
)
from routilux.errors.jobs import (
    ControlError,
    DeadLetterGoneError,
    JobEndedError,
    JobFailedError,
    ProcessDiedError,
    StateError,
    WorkerEndedError,
)
from routilux.errors.lifetime import ForkedRuntimeError, LeaseLostError, RuntimeShutDownError
from routilux.errors.logic import (
    LONGEST_DELAY_S,
    CalledInLogicError,
    GiveUp,
    OutsideLogicError,
    RetryLater,
    Steering,
    WriteError,
)
from routilux.errors.not_found import (
    EventNotFoundError,
    FlowNotFoundError,
    JobNotFoundError,
    RoutineNotFoundError,
    SlotNotFoundError,
    WorkerNotFoundError,
)
from routilux.errors.payloads import PayloadError, PayloadTooLargeError, SlotModelError
from routilux.errors.posting import (
    IdempotencyConflictError,
    NaiveDatetimeError,
    PostInDoubt,
    PostManyIncomplete,
    SlotQueueFullError,
)
from routilux.errors.removed import RemovedAttributeError, RemovedImportError, RemovedNameError
from routilux.errors.root import RoutiluxError

__all__ = [
    "LONGEST_DELAY_S",
    "CalledInLogicError",
    "ConfigReadOnlyError",
    "ControlError",
    "DatabaseFullError",
    "DatabaseReadOnlyError",
    "DatabaseUnavailableError",
    "DeadLetterGoneError",
    "DefinitionError",
    "EventNotFoundError",
    "FlowNotFoundError",
    "ForkedRuntimeError",
    "GiveUp",
    "IdempotencyConflictError",
    "JobEndedError",
    "JobFailedError",
    "JobNotFoundError",
    "LeaseLostError",
    "LogicSignatureError",
    "NaiveDatetimeError",
    "OutsideLogicError",
    "PayloadError",
    "PayloadTooLargeError",
    "PolicyError",
    "PostInDoubt",
    "PostManyIncomplete",
    "ProcessDiedError",
    "RemovedAttributeError",
    "RemovedImportError",
    "RemovedNameError",
    "RetryLater",
    "RoutiluxError",
    "RoutineNotFoundError",
    "RuntimeShutDownError",
    "SchemaError",
    "SchemaForeignError",
    "SchemaMissingError",
    "SchemaTooNewError",
    "SchemaTooOldError",
    "SlotModelError",
    "SlotNotFoundError",
    "SlotQueueFullError",
    "StateError",
    "Steering",
    "WorkerEndedError",
    "WorkerNotFoundError",
    "WriteError",
]

# Tracebacks and pickles name the public path.
for _name in __all__:
    if _name != "LONGEST_DELAY_S":
        globals()[_name].__module__ = __name__
