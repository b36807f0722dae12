"""A runtime and a client on one database; both must refuse a call, and the database must not change."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from routilux import Client, FlowRegistry, Runtime
from tests.flows.flows import running
from tests.support.looking import stored


class Doors:
    """A runtime and a client on one database, and what must not change while they refuse."""

    def __init__(self, database: str, runtime: Runtime, client: Client) -> None:
        self.database = database
        self.all: list[Any] = [runtime, client]

    @contextlib.contextmanager
    def refusing(self, error: type[BaseException], match: str) -> Iterator[None]:
        before = stored(self.database)
        with pytest.raises(error, match=match) as refused:
            yield
        assert type(refused.value) is error
        assert stored(self.database) == before


@contextlib.contextmanager
def doors(database: str, registry: FlowRegistry) -> Iterator[Doors]:
    with running(database, registry) as runtime, Client(database) as client:
        yield Doors(database, runtime, client)
