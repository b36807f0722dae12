"""Commands are frozen, and an inbox row gives the same command back."""

from __future__ import annotations

import dataclasses

import orjson
import pytest

from routilux.engine import commands
from routilux.engine.commands import Command, command_of

EXAMPLES: list[Command] = [
    commands.Signal("w", "j", "r", "s", '{"a":1}'),
    commands.PauseWorker("w", None, "why"),
    commands.ResumeWorker("w", None, ""),
    commands.CancelWorker("w", None, None),
    commands.PauseJob("w", "j", "why"),
    commands.ResumeJob("w", "j", ""),
    commands.CancelJob("w", "j", "why"),
    commands.CompleteJob("w", "j", "failed", "error", None),
    commands.SetJobData("w", "j", "key", "1"),
    commands.IncrementJobData("w", "j", "key", 2),
    commands.ReplaceState("w", None, "r", {"a": "1"}),
    commands.IncrementState("w", None, "r", "a", 1.5),
    commands.RetryDeadLetter("w", "j", 7, None),
    commands.DropDeadLetter("w", "j", 7, "why"),
]


@pytest.mark.parametrize("command", EXAMPLES, ids=lambda command: type(command).__name__)
def test_a_command_survives_its_row(command: Command) -> None:
    body = orjson.loads(orjson.dumps(command.body))
    assert command_of(command.kind, command.worker_id, command.job_id, body) == command


@pytest.mark.parametrize("command", EXAMPLES, ids=lambda command: type(command).__name__)
def test_a_command_is_frozen(command: Command) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        command.worker_id = "other"  # type: ignore[misc]


def test_every_kind_has_an_example() -> None:
    assert {command.kind for command in EXAMPLES} == set(commands._KINDS)


def test_fields_of_a_newer_release_are_ignored_and_optional_ones_may_be_missing() -> None:
    assert command_of("cancel_job", "w", "j", {"colour": "red"}) == commands.CancelJob("w", "j", None)


@pytest.mark.parametrize(("kind", "body"), [("dance", {}), ("signal", {"routine": "r", "slot": "s"})])
def test_an_unknown_kind_and_a_missing_field_are_a_key_error(kind: str, body: dict[str, str]) -> None:
    with pytest.raises(KeyError):
        command_of(kind, "w", "j", body)
