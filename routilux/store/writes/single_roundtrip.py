"""Postgres: a small group commit as one text, from BEGIN to COMMIT, in one round trip instead of three.

This process may give up a connection before the server has read the text. The server can read it later, and
until then nothing is locked. So the commit row comes first. After it comes a fence that also refuses if the
runtime has later commits.
"""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError

from routilux.store.backends.driver_sql import Literal
from routilux.store.backends.writer import Writer
from routilux.store.errors import PASSING, classify
from routilux.store.writes.commit_rows import Changes, CommitRow

# Divides by zero if the runtime is dead or has later commits.
_FENCE = (
    "SELECT 1 / count(*) FROM (SELECT 1 FROM routilux_runtimes WHERE key = %s AND state = 'alive'"
    " AND NOT EXISTS (SELECT 1 FROM routilux_commits WHERE runtime = %s AND n > %s) FOR KEY SHARE) AS fence"
)


def send(writer: Writer, changes: Changes, commit_row: CommitRow) -> bool | None:
    """Send a small commit. Returns True if it was committed.

    Returns None, and sends nothing, if the commit is not small or the database is not Postgres. Returns False
    if the server refused it: then send it as separate statements to find out why. Raises transient errors,
    like a lost connection: then it is unknown whether it was committed.
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
