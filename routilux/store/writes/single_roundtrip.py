"""Postgres: a small group commit whole, from BEGIN to COMMIT in one text, in one way there and back instead of three.

A connection may be given up while the server has not read what was sent; it reads it later, and nothing was locked until
then. So the row of the commit comes first, and after it a fence that also refuses what has later commits.
"""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError

from routilux.store.backends.writer import Writer
from routilux.store.errors import PASSING, classify
from routilux.store.writes.bulk import Literal
from routilux.store.writes.commit_rows import Changes, CommitRow

# Divides by zero if the runtime is dead or has committed later ones.
_FENCE = (
    "SELECT 1 / count(*) FROM (SELECT 1 FROM routilux_runtimes WHERE key = %s AND state = 'alive' AND NOT EXISTS"
    " (SELECT 1 FROM routilux_commits WHERE runtime = %s AND n > %s) FOR KEY SHARE) AS fence"
)


def send(writer: Writer, changes: Changes, commit_row: CommitRow) -> bool | None:
    """Whether it is in. None: it is not small or not for Postgres, nothing was sent. False: the server has refused it, and the
    long way finds out why. Raises what passes, like a lost connection: then it is not known whether it is in.
    """
    if not writer.can_send_whole or (parts := changes.whole(commit_row)) is None:
        return None
    runtime, n, *_ = commit_row
    parts.insert(1, Literal(_FENCE, [runtime, runtime, n], is_plain=True))
    try:
        writer.send_whole(parts)
    except DBAPIError as error:
        if classify(error) in PASSING:
            raise
        return False
    return True
