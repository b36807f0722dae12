"""The tables of the durable core.

They are written out, not imported from `routilux.store.tables`: a revision says what was created at its time.
A test compares a migrated database with the tables of today. So a change there needs a revision here.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

Key = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# Rows of these tables change or are deleted soon after their insert. Free room in a page keeps a new version
# beside the old one (HOT: no index is touched). Vacuum starts at a number of dead rows, not at a share of a
# table that may be huge.
SMALL = "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000"
LARGE = "autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 10000"
HOT = {
    "routilux_runtimes": f"fillfactor = 50, {SMALL}",
    "routilux_slots": f"fillfactor = 50, {SMALL}",
    "routilux_worker_state": f"fillfactor = 50, {SMALL}",
    "routilux_parked": f"fillfactor = 70, {SMALL}",
    "routilux_inbox": SMALL,
    "routilux_commits": SMALL,
    "routilux_jobs": f"fillfactor = 70, {LARGE}",
    "routilux_messages": f"fillfactor = 70, {LARGE}",
}

# Without statistics, SQLite uses the primary key for any query with a worker. Then it reads all messages of
# the worker to find those of one job. These numbers describe large tables; an ANALYZE by the user replaces
# them. (table, index, rows and rows per distinct key prefix). WITHOUT ROWID: the key has the name of its
# table.
STATISTICS = (
    ("routilux_messages", "routilux_messages", "1000000 10000 1"),
    ("routilux_messages", "routilux_messages_job", "1000000 10000 3"),
    ("routilux_activations", "routilux_activations", "1000000 10000 1"),
    ("routilux_activations", "routilux_activations_job", "1000000 10000 3"),
    ("routilux_traces", "routilux_traces", "1000000 10000 3 1"),
    ("routilux_traces", "routilux_traces_job", "1000000 10000 3"),
    ("routilux_jobs", "routilux_jobs", "1000000 10000 1"),
    ("routilux_parked", "sqlite_autoindex_routilux_parked_1", "100000 10000 1"),
    ("routilux_parked", "routilux_parked_due", "50000 2"),
    ("routilux_parked", "routilux_parked_reason", "100000 20000 2000 1"),
    ("routilux_workers", "routilux_workers_owner", "1000 500"),
    ("routilux_workers", "routilux_workers_flow", "1000 100 1"),
)


def upgrade() -> None:
    _create_runtime_tables()
    _create_worker_tables()
    _create_work_tables()
    _create_history_tables()
    if op.get_context().dialect.name == "postgresql":
        for table, settings in HOT.items():
            op.execute(f"ALTER TABLE {table} SET ({settings}, autovacuum_vacuum_cost_delay = 0)")
    else:
        _insert_sqlite_statistics()


def _insert_sqlite_statistics() -> None:
    op.execute("ANALYZE routilux_messages")  # the table is empty: this creates sqlite_stat1 without a row
    for table, index, shape in STATISTICS:
        op.execute(f"INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES ('{table}', '{index}', '{shape}')")
    op.execute("ANALYZE sqlite_master")  # this connection reads them again; others read them when they open


def downgrade() -> None:
    for name in (
        "traces",
        "activations",
        "parked",
        "messages",
        "job_keys",
        "jobs",
        "slots",
        "worker_state",
        "workers",
        "flows",
        "inbox",
        "commits",
        "runtimes",
    ):
        op.drop_table(f"routilux_{name}")


def _create_runtime_tables() -> None:
    op.create_table(
        "routilux_runtimes",
        sa.Column("key", Key, primary_key=True, autoincrement=True),
        sa.Column(
            "boot_id",
            sa.Text(),
            nullable=False,
            unique=True,
            comment="random identity of this start; never used again",
        ),
        sa.Column(
            "state", sa.Text(), nullable=False, comment="alive or dead; a dead runtime never lives again"
        ),
        sa.Column(
            "lease_until",
            sa.BigInteger(),
            nullable=False,
            comment="Postgres: µs by the database's clock; SQLite: µs of CLOCK_BOOTTIME of the host",
        ),
        sa.Column(
            "host_boot",
            sa.Text(),
            nullable=False,
            comment="boot id of the host: a lease of an earlier boot is over",
        ),
        sa.Column("lease_us", sa.BigInteger(), nullable=False, comment="length of the lease, µs"),
        sa.Column(
            "started_at", sa.BigInteger(), nullable=False, comment="start of the process (µs since 1970 UTC)"
        ),
        sa.Column(
            "heartbeat_at", sa.BigInteger(), nullable=False, comment="last renewal (µs since 1970 UTC)"
        ),
        sa.Column("stopped_at", sa.BigInteger(), comment="clean stop or take-over (µs since 1970 UTC)"),
        sa.Column("backend_pid", sa.BigInteger(), comment="Postgres: backend of the lease connection"),
        sa.Column(
            "backend_start",
            sa.BigInteger(),
            comment="Postgres: start of that backend, µs; tells a reused pid apart",
        ),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False, comment="version of Routilux"),
        comment="One row per running process; the fence of every commit",
    )
    op.create_table(
        "routilux_commits",
        sa.Column("runtime", Key, primary_key=True, autoincrement=False),
        sa.Column(
            "n", sa.BigInteger(), primary_key=True, autoincrement=False, comment="number of the group commit"
        ),
        sa.Column(
            "in_flight",
            sa.Text(),
            nullable=False,
            comment="JSON [[worker, routine, first seq, last seq, alone, parked row], …]:"
            " what runs once this commit is in",
        ),
        sa.Column(
            "committed_at", sa.BigInteger(), nullable=False, comment="when it was sent (µs since 1970 UTC)"
        ),
        comment="One row per group commit: answers 'did it go in?' after a lost answer; old ones are pruned",
    )
    op.create_table(
        "routilux_inbox",
        sa.Column("id", Key, primary_key=True, autoincrement=True),
        sa.Column(
            "kind", sa.Text(), nullable=False, comment="post, signal, pause_worker, cancel_job, retry_dead, …"
        ),
        sa.Column("flow", sa.Text(), nullable=False),
        sa.Column("worker_id", sa.Text(), comment="public id of the worker; NULL: any worker of the flow"),
        sa.Column("job_id", sa.Text(), comment="public id of the job it makes or concerns"),
        sa.Column("metadata", sa.Text(), comment="JSON metadata of the job a post makes"),
        sa.Column("body", sa.Text(), nullable=False, comment="JSON: the rest of the request"),
        sa.Column(
            "created_at", sa.BigInteger(), nullable=False, comment="when it was asked for (µs since 1970 UTC)"
        ),
        comment="What a process that does not own the worker wants;"
        " a row is deleted by the commit that accepts it",
    )
    op.create_index("routilux_inbox_job", "routilux_inbox", ["job_id"])


def _create_worker_tables() -> None:
    op.create_table(
        "routilux_flows",
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("hash", sa.Text(), primary_key=True, comment="sha256 of the canonical definition"),
        sa.Column("definition", sa.Text(), nullable=False, comment="JSON as given by Flow.serialize()"),
        sa.Column("registered_at", sa.BigInteger(), nullable=False, comment="first seen (µs since 1970 UTC)"),
        comment="Flow definitions that have run here",
    )
    op.create_table(
        "routilux_workers",
        sa.Column("key", Key, primary_key=True, autoincrement=True),
        sa.Column("worker_id", sa.Text(), nullable=False, unique=True, comment="public id"),
        sa.Column("flow", sa.Text(), nullable=False),
        sa.Column("definition", sa.Text(), nullable=False, comment="hash of the definition it runs"),
        sa.Column(
            "status",
            sa.Text(),
            nullable=False,
            comment="pending running idle paused completed failed cancelled",
        ),
        sa.Column("owner", sa.BigInteger(), comment="runtime that runs it; NULL: nobody"),
        sa.Column(
            "is_named",
            sa.SmallInteger(),
            nullable=False,
            comment="1: somebody named it, so it stays when its work is done",
        ),
        sa.Column(
            "next_seq", sa.BigInteger(), nullable=False, comment="lower bound of the next message number"
        ),
        sa.Column(
            "next_n", sa.BigInteger(), nullable=False, comment="lower bound of the next activation number"
        ),
        sa.Column(
            "deaths",
            sa.Integer(),
            nullable=False,
            comment="owners that died in a row without a commit for this worker",
        ),
        sa.Column("takeover_at", sa.BigInteger(), comment="not to be taken over before (µs since 1970 UTC)"),
        sa.Column("reason", sa.Text(), comment="why it was paused, cancelled or failed"),
        sa.Column(
            "created_at", sa.BigInteger(), nullable=False, comment="when it was made (µs since 1970 UTC)"
        ),
        sa.Column("started_at", sa.BigInteger(), comment="first activation (µs since 1970 UTC)"),
        sa.Column(
            "ended_at",
            sa.BigInteger(),
            comment="when it completed, failed or was cancelled (µs since 1970 UTC)",
        ),
        comment="A running instance of a flow, with its state",
    )
    op.create_index("routilux_workers_flow", "routilux_workers", ["flow", "key"])
    op.create_index("routilux_workers_owner", "routilux_workers", ["owner"])
    op.create_table(
        "routilux_worker_state",
        sa.Column("worker", Key, primary_key=True, autoincrement=False),
        sa.Column("routine", sa.Text(), primary_key=True),
        sa.Column(
            "key", sa.Text(), primary_key=True, comment="'' with an empty value: the state is {} (not absent)"
        ),
        sa.Column("value", sa.Text(), nullable=False, comment="JSON"),
        comment="One key of one routine's state; only changed keys are written",
        sqlite_with_rowid=False,
    )
    op.create_table(
        "routilux_slots",
        sa.Column("worker", Key, primary_key=True, autoincrement=False),
        sa.Column("routine", sa.Text(), primary_key=True),
        sa.Column("slot", sa.Text(), primary_key=True),
        sa.Column(
            "waiting", sa.BigInteger(), nullable=False, comment="messages that wait; about a second old"
        ),
        sa.Column("low_seq", sa.BigInteger(), nullable=False, comment="no waiting message has a smaller seq"),
        sa.Column(
            "last_fired_at",
            sa.BigInteger(),
            comment="last activation of a time-interval policy (µs since 1970 UTC)",
        ),
        sa.Column(
            "refreshed_at",
            sa.BigInteger(),
            nullable=False,
            comment="when the counters were written (µs since 1970 UTC)",
        ),
        comment="The slots of a worker, with counters that are refreshed about once a second",
        sqlite_with_rowid=False,
    )


def _create_work_tables() -> None:
    op.create_table(
        "routilux_jobs",
        sa.Column("worker", Key, primary_key=True, autoincrement=False),
        sa.Column(
            "job",
            sa.BigInteger(),
            primary_key=True,
            autoincrement=False,
            comment="seq of the message that began it",
        ),
        sa.Column("job_id", sa.Text(), nullable=False, unique=True, comment="public id"),
        sa.Column("flow", sa.Text(), nullable=False),
        sa.Column(
            "status", sa.Text(), nullable=False, comment="pending running paused completed failed cancelled"
        ),
        sa.Column(
            "open_count",
            sa.BigInteger(),
            nullable=False,
            comment="its messages that wait, are parked or are being handled",
        ),
        sa.Column("metadata", sa.Text(), comment="JSON object given with post"),
        sa.Column("data", sa.Text(), comment="JSON object: what set_data and increment left"),
        sa.Column(
            "routine_status",
            sa.Text(),
            comment="JSON {routine: failed|skipped|error_continued|retrying}; others follow from history",
        ),
        sa.Column("result", sa.Text(), comment="JSON given to complete(result=…)"),
        sa.Column("error", sa.Text()),
        sa.Column(
            "created_at", sa.BigInteger(), nullable=False, comment="when it was posted (µs since 1970 UTC)"
        ),
        sa.Column(
            "started_at",
            sa.BigInteger(),
            comment="commit of its first activation's start (µs since 1970 UTC)",
        ),
        sa.Column("ended_at", sa.BigInteger(), comment="when it ended (µs since 1970 UTC)"),
        sa.Column(
            "active_us",
            sa.BigInteger(),
            nullable=False,
            server_default=sa.text("0"),
            comment="µs at work as of its last change; kept where the flow has an execution_timeout",
        ),
        comment="One request travelling through one worker from start to end",
        sqlite_with_rowid=False,
    )
    op.create_table(
        "routilux_job_keys",
        sa.Column(
            "job_id", sa.Text(), primary_key=True, comment="an id that a caller chose: an idempotency key"
        ),
        sa.Column(
            "fingerprint", sa.Text(), nullable=False, comment="sha256 of flow, routine, slot and payload"
        ),
        sa.Column("created_at", sa.BigInteger(), nullable=False, comment="first post (µs since 1970 UTC)"),
        comment="Idempotency keys; they outlive their jobs",
        sqlite_with_rowid=False,
    )
    op.create_table(
        "routilux_messages",
        sa.Column("worker", Key, primary_key=True, autoincrement=False),
        sa.Column(
            "seq",
            sa.BigInteger(),
            primary_key=True,
            autoincrement=False,
            comment="place in the worker's line",
        ),
        sa.Column("job", sa.BigInteger(), nullable=False),
        sa.Column("routine", sa.Text(), nullable=False),
        sa.Column("slot", sa.Text(), nullable=False),
        sa.Column(
            "priority",
            sa.SmallInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="0; for a later release",
        ),
        sa.Column("payload", sa.Text(), nullable=False, comment="JSON object"),
        sa.Column(
            "produced_by", sa.BigInteger(), comment="activation that emitted it; NULL: posted or signalled"
        ),
        sa.Column("consumed_by", sa.BigInteger(), comment="activation that consumed it"),
        sa.Column("status", sa.Text(), nullable=False, comment="waiting parked consumed cancelled dead"),
        sa.Column(
            "created_at", sa.BigInteger(), nullable=False, comment="when it was accepted (µs since 1970 UTC)"
        ),
        comment="One item in a slot",
        sqlite_with_rowid=False,
    )
    op.create_index("routilux_messages_job", "routilux_messages", ["worker", "job"])
    op.create_table(
        "routilux_parked",
        sa.Column("worker", Key, primary_key=True, autoincrement=False),
        sa.Column(
            "seq",
            sa.BigInteger(),
            primary_key=True,
            autoincrement=False,
            comment="its message, or the first of its batch",
        ),
        sa.Column("job", sa.BigInteger(), nullable=False, comment="0: the batch is of several jobs"),
        sa.Column("routine", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False, comment="delay retry paused suspect dead unroutable"),
        sa.Column(
            "due_at",
            sa.BigInteger(),
            comment="when it may run; NULL: it waits for an operator, or was requeued (µs since 1970 UTC)",
        ),
        sa.Column("line", sa.BigInteger(), comment="place in line since it came due; NULL: not in line"),
        sa.Column("seqs", sa.Text(), nullable=False, comment="JSON list: the messages of the batch"),
        sa.Column("attempt", sa.Integer(), nullable=False, comment="counted attempts so far"),
        sa.Column("deaths", sa.Integer(), nullable=False, comment="deaths of a process while this ran alone"),
        sa.Column("activation", sa.BigInteger(), comment="last activation that had these messages"),
        sa.Column("policy_message", sa.Text(), comment="JSON, kept for the rerun"),
        sa.Column("error_type", sa.Text()),
        sa.Column("error", sa.Text()),
        sa.Column(
            "parked_at", sa.BigInteger(), nullable=False, comment="when it left the line (µs since 1970 UTC)"
        ),
        comment="Messages and batches that cannot run now, and why",
    )
    op.create_index(
        "routilux_parked_due",
        "routilux_parked",
        ["due_at"],
        sqlite_where=sa.text("due_at IS NOT NULL"),
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_index("routilux_parked_reason", "routilux_parked", ["reason", "worker", "seq"])


def _create_history_tables() -> None:
    op.create_table(
        "routilux_activations",
        sa.Column("worker", Key, primary_key=True, autoincrement=False),
        sa.Column("n", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("job", sa.BigInteger(), nullable=False, comment="the newest job among its messages"),
        sa.Column("routine", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column(
            "status",
            sa.Text(),
            nullable=False,
            comment="completed failed error_continued skipped retrying discarded",
        ),
        sa.Column("started_at", sa.BigInteger(), nullable=False, comment="logic began (µs since 1970 UTC)"),
        sa.Column("ended_at", sa.BigInteger(), nullable=False, comment="logic ended (µs since 1970 UTC)"),
        sa.Column("seqs", sa.Text(), nullable=False, comment="the messages it consumed, comma separated"),
        sa.Column("policy_message", sa.Text(), comment="JSON"),
        sa.Column("error_type", sa.Text()),
        sa.Column("error", sa.Text()),
        sa.Column("traceback", sa.Text()),
        comment="One attempt to run logic",
        sqlite_with_rowid=False,
    )
    op.create_index("routilux_activations_job", "routilux_activations", ["worker", "job"])
    op.create_table(
        "routilux_traces",
        sa.Column("worker", Key, primary_key=True, autoincrement=False),
        sa.Column("n", sa.BigInteger(), primary_key=True, autoincrement=False, comment="activation"),
        sa.Column(
            "i", sa.Integer(), primary_key=True, autoincrement=False, comment="line of that activation"
        ),
        sa.Column("job", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False, comment="trace or output"),
        sa.Column("routine", sa.Text(), nullable=False),
        sa.Column(
            "action", sa.Text(), nullable=False, comment="what was traced, or the line that was printed"
        ),
        sa.Column("details", sa.Text(), comment="JSON"),
        sa.Column("at", sa.BigInteger(), nullable=False, comment="when logic said it (µs since 1970 UTC)"),
        comment="One job.trace() or captured output line",
        sqlite_with_rowid=False,
    )
    op.create_index("routilux_traces_job", "routilux_traces", ["worker", "job"])
