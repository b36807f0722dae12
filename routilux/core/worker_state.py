"""`WorkerState`: what users see of a worker. They get it from `exec`, from `post`, and inside logic.

One class serves three places, and each has its own port. Inside logic, the port collects changes for the
activation's commit. Outside logic, it reads the live or stored worker. A detached state, made by hand or
loaded from a file, is a plain dict from which `exec` can start.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from routilux.core import payload
from routilux.core.names import check_key, check_number
from routilux.errors import PayloadError

Texts = Mapping[str, str]


class StatePort(Protocol):
    """Where a `WorkerState` reads and writes."""

    def status(self) -> str: ...
    def read_state(self, routine_id: str) -> Texts | None: ...
    def state_routines(self) -> list[str]: ...
    def replace_state(self, routine_id: str, texts: dict[str, str]) -> None: ...
    def increment_state(self, routine_id: str, key: str, by: float) -> None: ...
    def execution_history(self, routine_id: str | None) -> list[dict[str, Any]]: ...


class DetachedState:
    """State in a plain dict, for a `WorkerState` without a runtime."""

    def __init__(self) -> None:
        self.states: dict[str, dict[str, str]] = {}

    def status(self) -> str:
        return "pending"

    def read_state(self, routine_id: str) -> Texts | None:
        return self.states.get(routine_id)

    def state_routines(self) -> list[str]:
        return list(self.states)

    def replace_state(self, routine_id: str, texts: dict[str, str]) -> None:
        self.states[routine_id] = texts

    def increment_state(self, routine_id: str, key: str, by: float) -> None:
        texts = self.states.setdefault(routine_id, {})
        texts[key] = added(texts.get(key), by)

    def execution_history(self, routine_id: str | None) -> list[dict[str, Any]]:
        return []


class WorkerState:
    """A worker: its identity, its status and the state of its routines.

    State is JSON, plus the types that `Runtime.post` accepts. It is stored per routine id. All jobs of a
    worker share it; workers never share it. Inside logic, changes are part of the activation: durable when it
    commits, dropped when it fails.
    """

    __slots__ = ("_port", "flow_id", "worker_id")

    def __init__(
        self, flow_id: str = "", worker_id: str | None = None, *, port: StatePort | None = None
    ) -> None:
        self.flow_id = flow_id
        self.worker_id = worker_id
        self._port: StatePort = port if port is not None else DetachedState()

    def __repr__(self) -> str:
        return f"<WorkerState {self.worker_id} of flow {self.flow_id!r}>"

    @property
    def status(self) -> str:
        """`pending running idle paused completed failed cancelled`, as of now."""
        return self._port.status()

    @property
    def routine_states(self) -> dict[str, dict[str, Any]]:
        """A copy of the state of every routine that has state."""
        states = {routine: self.get_routine_state(routine) for routine in self._port.state_routines()}
        return {routine: state for routine, state in states.items() if state is not None}

    def get_routine_state(self, routine_id: str, default: Any = None) -> Any:
        """Return a copy of the state stored under `routine_id`, or `default` if there is none."""
        texts = self._port.read_state(routine_id)
        if texts is None:
            return default
        return {key: payload.decode(text) for key, text in texts.items()}

    def update_routine_state(self, routine_id: str, state: Mapping[str, Any]) -> None:
        """Replace the whole state stored under `routine_id`.

        Raises `TypeError` if `state` is not a mapping, and `PayloadError` with the path of a value that
        cannot be stored. Raises `StateError` inside a routine with concurrency above 1: use `increment`, or
        keep one key per job in the job data.
        """
        if type(state) is not dict and not isinstance(state, Mapping):
            raise TypeError(
                f"the state of routine {routine_id!r} must be a mapping, not {type(state).__name__}"
            )
        check_key(routine_id, "routine_id")
        self._port.replace_state(routine_id, encode_items(state, root="state"))

    def increment(self, routine_id: str, key: str, by: float = 1) -> None:
        """Add `by` to a number in the state. A missing key counts as 0. Exact at any concurrency."""
        check_key(routine_id, "routine_id")
        check_key(key, "key")
        check_number(by)
        self._port.increment_state(routine_id, key, by)

    def get_execution_history(self, routine_id: str | None = None) -> list[dict[str, Any]]:
        """Return the last activations, up to 1000, oldest first.

        Each has routine_id, job_id, status, started_at, ended_at and error.
        """
        return self._port.execution_history(routine_id)

    def save(self, path: str | Path) -> None:
        """Write identity and state to a JSON file that `load` can read."""
        document = {
            "flow_id": self.flow_id,
            "worker_id": self.worker_id,
            "routine_states": self.routine_states,
        }
        Path(path).write_text(payload.encode(document, root="worker_state"), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> WorkerState:
        """Read a file of `save` into a detached state. Pass it to `Runtime.exec(flow, worker_state=…)`.

        Raises `FileNotFoundError` if there is no such file.
        """
        document = payload.decode(Path(path).read_text(encoding="utf-8"))
        loaded = cls(document["flow_id"], document["worker_id"])
        for routine, state in document["routine_states"].items():
            loaded.update_routine_state(routine, state)
        return loaded


def encode_items(values: Mapping[str, Any], *, root: str) -> dict[str, str]:
    """Encode each value of a mapping as JSON text. Raises `PayloadError` with the path of a bad value."""
    texts = {}
    for key, value in values.items():
        if type(key) is not str:
            raise PayloadError(f"{root}: the key {key!r} is not a string", path=root)
        check_key(key, f"a key of {root}")
        texts[key] = payload.encode(value, root=f"{root}.{key}")
    return texts


def added(text: str | None, by: float) -> str:
    """Return the number in `text` plus `by`, as JSON text. Raises `TypeError` if it is not a number."""
    before = 0 if text is None else payload.decode(text)
    if isinstance(before, bool) or not hasattr(before, "__add__") or isinstance(before, (str, list)):
        raise TypeError(f"increment: the stored value {before!r} is not a number")
    return payload.encode(before + by, root="increment")
