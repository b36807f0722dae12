"""What `Runtime` shows is what the reference documents; nothing more, nothing less."""

from __future__ import annotations

import re
from pathlib import Path

from routilux import Runtime, testing

API = Path(__file__).resolve().parents[2] / "docs" / "reference" / "api.md"


def documented() -> set[str]:
    """The names in the table's first column, and those that a row has as `likewise`."""
    names = set()
    for line in API.read_text().splitlines():
        if found := re.match(r"\| `Runtime\.(\w+)[(`]", line):
            names.add(found[1])
            _, _, likewise = line.partition("likewise ")
            names |= set(re.findall(r"`(\w+)`", likewise))
    return names


def shown() -> set[str]:
    return {name for name in dir(Runtime) if not name.startswith("_")}


def test_the_runtime_shows_what_is_documented_and_nothing_else() -> None:
    assert len(documented()) > 10
    assert shown() == documented()


def test_a_runtime_has_no_public_fields() -> None:
    """`clock` and `registry` are those of a runtime for tests, and documented there."""
    with testing.runtime() as runtime:
        fields = {name for name in vars(runtime) if not name.startswith("_")}
    assert fields <= {"clock", "registry"}
