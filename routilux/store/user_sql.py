"""Which statements a routine may hand to `self.write`.

They run inside the shared transaction of a group commit. A plain SQL text could be a COMMIT. So only Core
statements of a known kind are allowed.
"""

from __future__ import annotations

from sqlalchemy import Delete, Insert, Update

_DML = (Insert, Update, Delete)


def is_dml(statement: object) -> bool:
    """Whether it is a Core insert(), update() or delete()."""
    return isinstance(statement, _DML)


def returns_rows(statement: object) -> bool:
    """Whether a Core insert(), update() or delete() has a RETURNING clause."""
    assert isinstance(statement, _DML)
    return bool(statement._returning)
