"""Names and ids that do not exist."""

from __future__ import annotations

from routilux.errors.root import RoutiluxError


class FlowNotFoundError(RoutiluxError, ValueError):
    """No flow is registered under `name`."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"Flow {name!r} not found in registry; register it first:"
            f" FlowRegistry.get_instance().register_by_name({name!r}, flow)"
        )


class RoutineNotFoundError(RoutiluxError, ValueError):
    """The flow has no routine with this id."""

    def __init__(self, routine_id: str, flow_name: str) -> None:
        self.routine_id = routine_id
        self.flow_name = flow_name
        super().__init__(
            f"Routine {routine_id!r} not found in flow {flow_name!r};"
            " use an id that was given to flow.add_routine(), or that it returned"
        )


class SlotNotFoundError(RoutiluxError, ValueError):
    """The routine has no slot with this name."""

    def __init__(self, slot_name: str, routine_id: str) -> None:
        self.slot_name = slot_name
        self.routine_id = routine_id
        super().__init__(
            f"Slot {slot_name!r} not found in routine {routine_id!r}; declare it with add_slot({slot_name!r})"
        )


class EventNotFoundError(RoutiluxError, ValueError):
    """The routine has no event with this name."""

    def __init__(self, event_name: str, routine_id: str) -> None:
        self.event_name = event_name
        self.routine_id = routine_id
        super().__init__(
            f"Event {event_name!r} not found in routine {routine_id!r};"
            f" declare it with add_event({event_name!r})"
        )


class WorkerNotFoundError(RoutiluxError, ValueError):
    """No worker has this id."""

    def __init__(self, worker_id: str | None) -> None:
        self.worker_id = worker_id
        super().__init__(
            f"Worker {worker_id!r} not found; start it with runtime.exec(flow_name, worker_id={worker_id!r})"
        )


class JobNotFoundError(RoutiluxError, ValueError):
    """No job has this id: it was never posted, was rolled back, or was pruned."""

    def __init__(self, job_id: str | None) -> None:
        self.job_id = job_id
        super().__init__(f"Job {job_id!r} not found: it was never stored, or its history has been pruned")
