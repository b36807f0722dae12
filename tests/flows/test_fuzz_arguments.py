"""Arguments of definitions, runtimes and databases are accepted, or refused by name."""

# ruff: noqa: PT017

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routilux import ErrorHandler, Flow, FlowBuilder, FlowRegistry, RetryLater, Routine, Runtime, WorkerState
from routilux.activation_policies import (
    all_slots_ready_policy,
    batch_size_policy,
    custom_policy,
    immediate_policy,
    time_interval_policy,
)
from routilux.errors import DatabaseUnavailableError, RoutiluxError
from routilux.store.backends.database import Database
from tests.support.anything import ANY_TEXT, JSON_LIKE, NUMBERS, fuzzing, refusal

Takes = Callable[[Any], object]
ARGUMENTS: dict[str, Takes] = {
    "flow_id": lambda value: Flow(value),
    "execution_timeout": lambda value: Flow("f", value),
    "routine": lambda value: Flow("f").add_routine(value),
    "routine_id": lambda value: Flow("f").add_routine(Routine(), value),
    "connect": lambda value: Flow("f").connect(value, value, value, value),
    "slot": lambda value: Routine().add_slot(value),
    "max_queue_length": lambda value: Routine().add_slot("in", value),
    "watermark": lambda value: Routine().add_slot("in", 5, value),
    "model": lambda value: Routine().add_slot("in", model=value),
    "event": lambda value: Routine().add_event(value),
    "output_params": lambda value: _hash_of(Routine().add_event("e", value).routine),
    "logic": lambda value: Routine().set_logic(value),
    "policy": lambda value: Routine().set_activation_policy(value),
    "error_handler": lambda value: Routine().set_error_handler(value),
    "concurrency": lambda value: Routine().set_concurrency(value),
    "optional": lambda value: Routine().set_as_optional(value),
    "critical": lambda value: Routine().set_as_critical(value, value, value),
    "strategy": lambda value: ErrorHandler(value),
    "max_retries": lambda value: ErrorHandler("retry", value),
    "retry_delay": lambda value: ErrorHandler("retry", 3, value),
    "retry_backoff": lambda value: ErrorHandler("retry", 3, 1, value),
    "retryable_exceptions": lambda value: ErrorHandler("retry", retryable_exceptions=value),
    "max_retry_delay": lambda value: ErrorHandler("retry", max_retry_delay=value),
    "retry_jitter": lambda value: ErrorHandler("retry", retry_jitter=value),
    "max_items": lambda value: immediate_policy(max_items=value),
    "min_batch_size": lambda value: batch_size_policy(value),
    "max_wait": lambda value: batch_size_policy(2, max_wait=value),
    "interval": lambda value: time_interval_policy(value),
    "custom": lambda value: custom_policy(value),
    "by_job": lambda value: all_slots_ready_policy(by_job=value),
    "retry_later": lambda value: RetryLater(value),
    "flow_name": lambda value: FlowRegistry().register_by_name(value, Flow("f")),
    "flow": lambda value: FlowRegistry().register_by_name("f", value),
    "builder": lambda value: FlowBuilder(value).build(),
    "state": lambda value: WorkerState("f").update_routine_state(value, value),
    "increment": lambda value: WorkerState("f").increment(value, value, value),
    "lease": lambda value: Runtime(database="postgresql://127.0.0.1:1/x", lease=value),
    "durability": lambda value: Runtime(database="postgresql://127.0.0.1:1/x", durability=value),
    "registry": lambda value: Runtime(database="postgresql://127.0.0.1:1/x", registry=value),
    "settings": lambda value: Runtime(database="postgresql://127.0.0.1:1/x", settings=value),
    "thread_pool_size": lambda value: Runtime(value, database="postgresql://127.0.0.1:1/x"),
}


def _hash_of(routine: Routine | None) -> None:
    assert routine is not None
    flow = Flow("f")
    flow.add_routine(routine)
    flow.definition_hash()


@pytest.mark.parametrize("name", ARGUMENTS)
def test_an_argument_is_taken_or_refused(name: str) -> None:
    @fuzzing
    @given(JSON_LIKE | NUMBERS)
    def check(value: Any) -> None:
        refusal(lambda: ARGUMENTS[name](value))

    check()


SECRET = "hunter2"
PARTS = st.sampled_from(
    [
        "sqlite://",
        "postgresql://",
        "postgresql+psycopg://",
        "mysql://",
        f"user:{SECRET}@",
        "127.0.0.1",
        "[",
        "]",
        ":1",
        ":x",
        "/",
        "?",
        "a=b",
        f"password={SECRET}",
        "&",
        "%",
        "%00",
        "#",
        "..",
        "é",
    ]
)


def test_a_database_is_opened_or_named_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "2")

    @fuzzing
    @given(st.lists(PARTS | ANY_TEXT, max_size=6).map("".join) | ANY_TEXT | JSON_LIKE)
    def check(url: Any) -> None:
        try:
            Database.open(url).close()
        except RoutiluxError as error:
            assert isinstance(error, DatabaseUnavailableError)
            assert SECRET not in str(error)
            str(error).encode()
        else:
            assert isinstance(url, str)

    check()


def test_few_examples_are_tried_unless_more_are_asked_for() -> None:
    assert fuzzing.max_examples == int(os.environ.get("ROUTILUX_EXAMPLES", "25"))
