"""Fixtures for pytest. Ask for them in the `conftest.py` at the root of your tests:

    pytest_plugins = ["routilux.testing.pytest_plugin"]

They are not registered by themselves: a plugin that every session on the machine loads would import this
package before coverage measures anything, whether a test needs it or not.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from routilux.core.registry import FlowRegistry
from routilux.testing.manual_runtime import ManualRuntime, runtime


@pytest.fixture
def routilux_registry() -> FlowRegistry:
    """Where `routilux_runtime` looks flows up: a new, empty one for each test.

    Override it to use your own, such as `FlowRegistry.get_instance()`.
    """
    return FlowRegistry()


@pytest.fixture
def routilux_runtime(routilux_registry: FlowRegistry) -> Iterator[ManualRuntime]:
    """A `routilux.testing.runtime`, shut down after the test."""
    with runtime(registry=routilux_registry) as started:
        yield started
