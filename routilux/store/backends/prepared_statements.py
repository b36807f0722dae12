"""Postgres: prepared statements of a connection, for use inside a text of several statements.

The driver can only prepare a statement that it sends alone. A text of several needs `PREPARE` and `EXECUTE`.
The first text that contains a statement prepares it. If that text succeeds, later texts execute it by name.
Source: https://www.postgresql.org/docs/current/sql-prepare.html
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import Connection

from routilux.store.backends import postgres_connection
from routilux.store.backends.driver_sql import Literal

_PREPARED = "routilux_prepared"  # in `Connection.info`


class Prepared:
    """The statements that one connection has prepared.

    Behind a pooler there are none: the pooler may use another backend for the next transaction.
    """

    def __init__(self, *, is_direct: bool) -> None:
        self._is_direct = is_direct
        self._calls: dict[str, str] = {}
        self._new: dict[str, str] = {}
        self._names = (f"routilux_{number}" for number in itertools.count())  # no name is used twice

    @classmethod
    def of(cls, connection: Connection) -> Prepared:
        known = connection.info.get(_PREPARED)
        if known is None:
            known = connection.info[_PREPARED] = cls(is_direct=postgres_connection.is_direct(connection))
        return known

    @contextmanager
    def text(self, parts: Sequence[Literal]) -> Iterator[str]:
        """The text of these statements, to be sent in the block.

        If the block raises, all names are forgotten: some statements may not be prepared any more.
        """
        try:
            yield "; ".join([self._text_of(part) for part in parts])
        except BaseException:
            self._calls.clear()
            self._new.clear()
            raise
        self._calls |= self._new
        self._new.clear()

    def _text_of(self, part: Literal) -> str:
        if not (self._is_direct and part.is_plain):
            return part.statement
        call = self._calls.get(part.statement) or self._new.get(part.statement)
        if call is not None:
            return call
        name, numbers = next(self._names), itertools.count(1)
        statement = re.sub("%s", lambda mark: f"${next(numbers)}", part.statement)
        call = self._new[part.statement] = f"EXECUTE {name}({', '.join(['%s'] * len(part.values))})"
        return f"PREPARE {name} AS {statement}; {call}"
