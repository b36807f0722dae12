"""Rows of the inbox: requests from a process to the owner of a worker.

Older releases read these rows. So the columns and the keys of the JSON body keep their names and their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
from sqlalchemy import Connection, func, insert, text

from routilux.store.backends import notify
from routilux.store.tables import inbox

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

InboxInsert = dict[str, Any]  # a row by column names

_KNOWN = text(
    "SELECT NULL AS flow, fingerprint AS found FROM routilux_job_keys WHERE job_id = :job_id UNION ALL"
    " SELECT flow, body FROM routilux_inbox WHERE job_id = :job_id AND kind = 'post'"
)


class KnownPost(NamedTuple):
    """A post that is stored already.

    `found` is its fingerprint if `flow` is None. Otherwise it is the JSON body of its inbox row.
    """

    flow: str | None
    found: str


def post_row(
    names: tuple[str, str, str],
    *,
    worker_id: str | None,
    job_id: str,
    payload: str,
    metadata: str | None,
    due_at: int | None,
    fingerprint: str | None,
    now: int,
) -> InboxInsert:
    """The row of a post. `names`: flow, routine, slot. `worker_id` None: any worker of the flow."""
    body: dict[str, Any] = {"routine": names[1], "slot": names[2], "payload": payload}
    if due_at is not None:
        body["due_at"] = due_at
    if fingerprint is not None:
        body["fingerprint"] = fingerprint
    return {
        "kind": "post",
        "flow": names[0],
        "worker_id": worker_id,
        "job_id": job_id,
        "metadata": metadata,
        "body": orjson.dumps(body).decode(),
        "created_at": now,
    }


def verb_row(
    kind: str, flow: str, *, worker_id: str, job_id: str | None, body: dict[str, Any], now: int
) -> InboxInsert:
    """The row of any other request, such as a signal or a cancel."""
    return {
        "kind": kind,
        "flow": flow,
        "worker_id": worker_id,
        "job_id": job_id,
        "body": orjson.dumps(body).decode(),
        "created_at": now,
    }


def put(connection: Connection, rows: Sequence[InboxInsert], *, is_ours: bool = True) -> None:
    """Insert rows, and notify the owners of the workers if possible (Postgres only).

    `is_ours`: the transaction is our own and is about to be committed.
    """
    statement: Any = insert(inbox)
    if connection.dialect.name == "postgresql" and notify.may_notify(connection, is_ours=is_ours):
        statement = statement.returning(func.pg_notify(notify.CHANNEL, ""))
    connection.execute(statement, list(rows))


def known_post(connection: Connection, job_id: str) -> KnownPost | None:
    """The stored post of this job id. Returns None if there is none."""
    row = connection.execute(_KNOWN, {"job_id": job_id}).first()
    return None if row is None else KnownPost._make(row)


def connection_of(transaction: Connection | Session) -> Connection:
    """The Core connection of a caller's transaction. Raises `TypeError` if it is neither of the two."""
    if isinstance(transaction, Connection):
        return transaction
    from sqlalchemy.orm import Session  # 5 MB; a caller that has a Session has loaded it already

    if not isinstance(transaction, Session):
        raise TypeError(
            "post(transaction=…) takes a SQLAlchemy Core Connection or an ORM Session, not "
            + type(transaction).__name__
        )
    return transaction.connection()
