"""The tables, in SQLAlchemy Core. Alembic revisions and every statement are checked against them.

Who writes what:

- `runtimes`, `commits`: the runtime that a row belongs to, and the runtime that takes it over.
- `inbox`: every process inserts; the owner of the row's worker deletes.
- all others: only the runtime that owns the worker, inside its fenced commit.

Instants are microseconds since 1970 UTC (`BIGINT`); the views show them as timestamps. JSON is stored as
text: it is written unchanged, and only Routilux and people read it. There are no foreign keys: on Postgres
each one would lock a row of `workers` for every inserted message. Only the owner writes, so no reference can
dangle.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, SmallInteger, Table, Text, text

metadata = MetaData()
Key = BigInteger().with_variant(Integer(), "sqlite")  # SQLite generates ids only for a column of type INTEGER
PREFIX = "routilux_"


def _instant(name: str, comment: str, *, nullable: bool = True) -> Column[int]:
    return Column(name, BigInteger, nullable=nullable, comment=f"{comment} (µs since 1970 UTC)")


runtimes = Table(
    f"{PREFIX}runtimes",
    metadata,
    Column("key", Key, primary_key=True, autoincrement=True),
    Column(
        "boot_id",
        Text,
        nullable=False,
        unique=True,
        comment="random identity of this start; never used again",
    ),
    Column("state", Text, nullable=False, comment="alive or dead; a dead runtime never lives again"),
    Column(
        "lease_until",
        BigInteger,
        nullable=False,
        comment="Postgres: µs by the database's clock; SQLite: µs of CLOCK_BOOTTIME of the host",
    ),
    Column(
        "host_boot", Text, nullable=False, comment="boot id of the host: a lease of an earlier boot is over"
    ),
    Column("lease_us", BigInteger, nullable=False, comment="length of the lease, µs"),
    _instant("started_at", "start of the process", nullable=False),
    _instant("heartbeat_at", "last renewal", nullable=False),
    _instant("stopped_at", "clean stop or take-over"),
    Column("backend_pid", BigInteger, comment="Postgres: backend of the lease connection"),
    Column(
        "backend_start", BigInteger, comment="Postgres: start of that backend, µs; tells a reused pid apart"
    ),
    Column("host", Text, nullable=False),
    Column("pid", BigInteger, nullable=False),
    Column("version", Text, nullable=False, comment="version of Routilux"),
    comment="One row per running process; the fence of every commit",
)

commits = Table(
    f"{PREFIX}commits",
    metadata,
    Column("runtime", Key, primary_key=True, autoincrement=False),
    Column("n", BigInteger, primary_key=True, autoincrement=False, comment="number of the group commit"),
    Column(
        "in_flight",
        Text,
        nullable=False,
        comment="JSON [[worker, routine, first seq, last seq, alone, parked row], …]:"
        " what runs once this commit is in",
    ),
    _instant("committed_at", "when it was sent", nullable=False),
    comment="One row per group commit: answers 'did it go in?' after a lost answer; old ones are pruned",
)

inbox = Table(
    f"{PREFIX}inbox",
    metadata,
    Column("id", Key, primary_key=True, autoincrement=True),
    Column("kind", Text, nullable=False, comment="post, signal, pause_worker, cancel_job, retry_dead, …"),
    Column("flow", Text, nullable=False),
    Column("worker_id", Text, comment="public id of the worker; NULL: any worker of the flow"),
    Column("job_id", Text, comment="public id of the job it makes or concerns"),
    Column("metadata", Text, comment="JSON metadata of the job a post makes"),
    Column("body", Text, nullable=False, comment="JSON: the rest of the request"),
    _instant("created_at", "when it was asked for", nullable=False),
    Index(f"{PREFIX}inbox_job", "job_id"),
    comment="What a process that does not own the worker wants;"
    " a row is deleted by the commit that accepts it",
)

flows = Table(
    f"{PREFIX}flows",
    metadata,
    Column("name", Text, primary_key=True),
    Column("hash", Text, primary_key=True, comment="sha256 of the canonical definition"),
    Column("definition", Text, nullable=False, comment="JSON as given by Flow.serialize()"),
    _instant("registered_at", "first seen", nullable=False),
    comment="Flow definitions that have run here",
)

workers = Table(
    f"{PREFIX}workers",
    metadata,
    Column("key", Key, primary_key=True, autoincrement=True),
    Column("worker_id", Text, nullable=False, unique=True, comment="public id"),
    Column("flow", Text, nullable=False),
    Column("definition", Text, nullable=False, comment="hash of the definition it runs"),
    Column("status", Text, nullable=False, comment="pending running idle paused completed failed cancelled"),
    Column("owner", BigInteger, comment="runtime that runs it; NULL: nobody"),
    Column(
        "is_named",
        SmallInteger,
        nullable=False,
        comment="1: somebody named it, so it stays when its work is done",
    ),
    Column("next_seq", BigInteger, nullable=False, comment="lower bound of the next message number"),
    Column("next_n", BigInteger, nullable=False, comment="lower bound of the next activation number"),
    Column(
        "deaths",
        Integer,
        nullable=False,
        comment="owners that died in a row without a commit for this worker",
    ),
    _instant("takeover_at", "not to be taken over before"),
    Column("reason", Text, comment="why it was paused, cancelled or failed"),
    _instant("created_at", "when it was made", nullable=False),
    _instant("started_at", "first activation"),
    _instant("ended_at", "when it completed, failed or was cancelled"),
    Index(f"{PREFIX}workers_owner", "owner"),
    Index(f"{PREFIX}workers_flow", "flow", "key"),
    comment="A running instance of a flow, with its state",
)

worker_state = Table(
    f"{PREFIX}worker_state",
    metadata,
    Column("worker", Key, primary_key=True, autoincrement=False),
    Column("routine", Text, primary_key=True),
    Column("key", Text, primary_key=True, comment="'' with an empty value: the state is {} (not absent)"),
    Column("value", Text, nullable=False, comment="JSON"),
    comment="One key of one routine's state; only changed keys are written",
    sqlite_with_rowid=False,
)

slots = Table(
    f"{PREFIX}slots",
    metadata,
    Column("worker", Key, primary_key=True, autoincrement=False),
    Column("routine", Text, primary_key=True),
    Column("slot", Text, primary_key=True),
    Column("waiting", BigInteger, nullable=False, comment="messages that wait; about a second old"),
    Column("low_seq", BigInteger, nullable=False, comment="no waiting message has a smaller seq"),
    _instant("last_fired_at", "last activation of a time-interval policy"),
    _instant("refreshed_at", "when the counters were written", nullable=False),
    comment="The slots of a worker, with counters that are refreshed about once a second",
    sqlite_with_rowid=False,
)

jobs = Table(
    f"{PREFIX}jobs",
    metadata,
    Column("worker", Key, primary_key=True, autoincrement=False),
    Column(
        "job", BigInteger, primary_key=True, autoincrement=False, comment="seq of the message that began it"
    ),
    Column("job_id", Text, nullable=False, unique=True, comment="public id"),
    Column("flow", Text, nullable=False),
    Column("status", Text, nullable=False, comment="pending running paused completed failed cancelled"),
    Column(
        "open_count",
        BigInteger,
        nullable=False,
        comment="its messages that wait, are parked or are being handled",
    ),
    Column("metadata", Text, comment="JSON object given with post"),
    Column("data", Text, comment="JSON object: what set_data and increment left"),
    Column(
        "routine_status",
        Text,
        comment="JSON {routine: failed|skipped|error_continued|retrying}; others follow from history",
    ),
    Column("result", Text, comment="JSON given to complete(result=…)"),
    Column("error", Text),
    _instant("created_at", "when it was posted", nullable=False),
    _instant("started_at", "commit of its first activation's start"),
    _instant("ended_at", "when it ended"),
    Column(
        "active_us",
        BigInteger,
        nullable=False,
        server_default=text("0"),
        comment="µs at work as of its last change; kept where the flow has an execution_timeout",
    ),
    comment="One request travelling through one worker from start to end",
    sqlite_with_rowid=False,
)

job_keys = Table(
    f"{PREFIX}job_keys",
    metadata,
    Column("job_id", Text, primary_key=True, comment="an id that a caller chose: an idempotency key"),
    Column("fingerprint", Text, nullable=False, comment="sha256 of flow, routine, slot and payload"),
    _instant("created_at", "first post", nullable=False),
    comment="Idempotency keys; they outlive their jobs",
    sqlite_with_rowid=False,
)

messages = Table(
    f"{PREFIX}messages",
    metadata,
    Column("worker", Key, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, primary_key=True, autoincrement=False, comment="place in the worker's line"),
    Column("job", BigInteger, nullable=False),
    Column("routine", Text, nullable=False),
    Column("slot", Text, nullable=False),
    Column(
        "priority", SmallInteger, nullable=False, server_default=text("0"), comment="0; for a later release"
    ),
    Column("payload", Text, nullable=False, comment="JSON object"),
    Column("produced_by", BigInteger, comment="activation that emitted it; NULL: posted or signalled"),
    Column("consumed_by", BigInteger, comment="activation that consumed it"),
    Column("status", Text, nullable=False, comment="waiting parked consumed cancelled dead"),
    _instant("created_at", "when it was accepted", nullable=False),
    Index(f"{PREFIX}messages_job", "worker", "job"),
    comment="One item in a slot",
    sqlite_with_rowid=False,
)

parked = Table(
    f"{PREFIX}parked",
    metadata,
    Column("worker", Key, primary_key=True, autoincrement=False),
    Column(
        "seq",
        BigInteger,
        primary_key=True,
        autoincrement=False,
        comment="its message, or the first of its batch",
    ),
    Column("job", BigInteger, nullable=False, comment="0: the batch is of several jobs"),
    Column("routine", Text, nullable=False),
    Column("reason", Text, nullable=False, comment="delay retry paused suspect dead unroutable"),
    _instant("due_at", "when it may run; NULL: it waits for an operator, or was requeued"),
    Column("line", BigInteger, comment="place in line since it came due; NULL: not in line"),
    Column("seqs", Text, nullable=False, comment="JSON list: the messages of the batch"),
    Column("attempt", Integer, nullable=False, comment="counted attempts so far"),
    Column("deaths", Integer, nullable=False, comment="deaths of a process while this ran alone"),
    Column("activation", BigInteger, comment="last activation that had these messages"),
    Column("policy_message", Text, comment="JSON, kept for the rerun"),
    Column("error_type", Text),
    Column("error", Text),
    _instant("parked_at", "when it left the line", nullable=False),
    Index(
        f"{PREFIX}parked_due",
        "due_at",
        sqlite_where=text("due_at IS NOT NULL"),
        postgresql_where=text("due_at IS NOT NULL"),
    ),
    Index(f"{PREFIX}parked_reason", "reason", "worker", "seq"),
    comment="Messages and batches that cannot run now, and why",
)

activations = Table(
    f"{PREFIX}activations",
    metadata,
    Column("worker", Key, primary_key=True, autoincrement=False),
    Column("n", BigInteger, primary_key=True, autoincrement=False),
    Column("job", BigInteger, nullable=False, comment="the newest job among its messages"),
    Column("routine", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column(
        "status",
        Text,
        nullable=False,
        comment="completed failed error_continued skipped retrying discarded",
    ),
    _instant("started_at", "logic began", nullable=False),
    _instant("ended_at", "logic ended", nullable=False),
    Column("seqs", Text, nullable=False, comment="the messages it consumed, comma separated"),
    Column("policy_message", Text, comment="JSON"),
    Column("error_type", Text),
    Column("error", Text),
    Column("traceback", Text),
    Index(f"{PREFIX}activations_job", "worker", "job"),
    comment="One attempt to run logic",
    sqlite_with_rowid=False,
)

traces = Table(
    f"{PREFIX}traces",
    metadata,
    Column("worker", Key, primary_key=True, autoincrement=False),
    Column("n", BigInteger, primary_key=True, autoincrement=False, comment="activation"),
    Column("i", Integer, primary_key=True, autoincrement=False, comment="line of that activation"),
    Column("job", BigInteger, nullable=False),
    Column("kind", Text, nullable=False, comment="trace or output"),
    Column("routine", Text, nullable=False),
    Column("action", Text, nullable=False, comment="what was traced, or the line that was printed"),
    Column("details", Text, comment="JSON"),
    _instant("at", "when logic said it", nullable=False),
    Index(f"{PREFIX}traces_job", "worker", "job"),
    comment="One job.trace() or captured output line",
    sqlite_with_rowid=False,
)
