"""The ledger's tables. Times are microseconds since 1970 in UTC; see `ledger/migrations/` for their history."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    Dialect,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TextClause,
    TypeDecorator,
    bindparam,
    text,
)

from penstock.model import State

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Moment(TypeDecorator[datetime]):
    """An aware datetime as whole microseconds, which sort and compare alike on every database."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """Microseconds since 1970."""
        return None if value is None else (value - _EPOCH) // timedelta(microseconds=1)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """The moment those microseconds mean."""
        return None if value is None else _EPOCH + timedelta(microseconds=value)


def insert_new(table: Table, *columns: str) -> TextClause:
    """INSERT of these columns that skips rows whose unique keys are taken; other constraints still raise.

    As text, because SQLAlchemy compiles its own ON CONFLICT anew each time, which takes longer than the INSERT.
    """
    names, values = ", ".join(columns), ", ".join(f":{column}" for column in columns)
    statement = text(f"INSERT INTO {table.name} ({names}) VALUES ({values}) ON CONFLICT DO NOTHING")
    return statement.bindparams(*(bindparam(column, type_=table.c[column].type) for column in columns))


metadata = MetaData()
_Id = BigInteger().with_variant(Integer, "sqlite")
_STATES = ", ".join(f"'{state.value}'" for state in State)

objects = Table(
    "objects",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True, comment="the arrival sequence"),
    Column("dataset", Text, comment="NULL while no dataset takes the key"),
    Column("bucket", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("entry", Integer, nullable=False, comment="0: the whole object; n: the n-th delivery of an envelope"),
    Column("etag", Text, nullable=False),
    Column("version_id", Text),
    Column("size", BigInteger, nullable=False),
    Column("via", Text, nullable=False),
    Column("source", Text),
    Column("delivery", Text, comment="the sender's delivery id, unique per source"),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    Column("attempts", Integer, nullable=False, server_default="0", comment="runs that died or failed with it"),
    Column("hiccups", Integer, nullable=False, server_default="0", comment="transient errors, which never quarantine"),
    Column(
        "again",
        Integer,
        nullable=False,
        server_default="0",
        # And 2: of its rows only those that had been rejected.
        comment="1: load it although the warehouse has it; its rows there are replaced",
    ),
    Column("claim_token", BigInteger),
    Column("run", Text, comment="the run that claimed it last"),
    Column("rows", BigInteger),
    Column("rejected", BigInteger),
    Column("arrived_at", Moment, nullable=False),
    Column("changed_at", Moment, nullable=False),
    Column("request", Text, comment="the HTTP request that brought a delivery"),
    Column("waits_for", Text, comment="the key, or the glob of keys, that says it is whole"),
    Column(
        "backlog",
        Integer,
        nullable=False,
        server_default="0",
        comment="1: old, to be loaded when nothing new is pending",
    ),
    Column("modified_at", Moment, comment="when the store says that it was written"),
    CheckConstraint(f"state IN ({_STATES})", name="state_known"),
    CheckConstraint("(state = 'claimed') = (claim_token IS NOT NULL)", name="claimed_has_token"),
    CheckConstraint("dataset IS NOT NULL OR state IN ('quarantined', 'superseded', 'ignored')", name="has_dataset"),
    CheckConstraint("state <> 'loaded' OR rows IS NOT NULL", name="loaded_has_rows"),
    CheckConstraint("state <> 'quarantined' OR reason IS NOT NULL", name="quarantined_has_reason"),
    CheckConstraint("(entry = 0) = (delivery IS NULL)", name="entry_has_delivery"),
    # The key and the delivery's id first: people ask by them alone.
    Index("one_generation", "key", "bucket", "generation", "entry", unique=True),
    Index(
        "one_delivery",
        "delivery",
        "source",
        unique=True,
        sqlite_where=text("delivery IS NOT NULL"),
        postgresql_where=text("delivery IS NOT NULL"),
    ),
    # With the id, so that what is pending, and what is loaded, is read in arrival order and a page at a time.
    Index("by_state", "state", "dataset", "id"),
    Index("by_change", "changed_at"),
    Index(
        "waiting_for",
        "waits_for",
        "bucket",
        # A folder's marker may release a million objects, in steps.
        "id",
        sqlite_where=text("waits_for IS NOT NULL"),
        postgresql_where=text("waits_for IS NOT NULL"),
    ),
    # SQLite takes it only with `backlog` within: else by_state seems the better one, and reads all old ones.
    Index(
        "live",
        "dataset",
        "backlog",
        "id",
        sqlite_where=text("backlog = 0 AND state = 'pending'"),
        postgresql_where=text("backlog = 0 AND state = 'pending'"),
    ),
    Index(
        "backlog",
        "dataset",
        "modified_at",
        "id",
        sqlite_where=text("backlog = 1 AND state = 'pending'"),
        postgresql_where=text("backlog = 1 AND state = 'pending'"),
    ),
    Index(
        "by_request",
        "request",
        sqlite_where=text("request IS NOT NULL"),
        postgresql_where=text("request IS NOT NULL"),
    ),
    # The moment first: with the source first it would tempt a planner that looks for a source's delivery ids.
    Index(
        "deliveries_by_arrival",
        "arrived_at",
        "source",
        "dataset",
        sqlite_where=text("delivery IS NOT NULL"),
        postgresql_where=text("delivery IS NOT NULL"),
    ),
    sqlite_autoincrement=True,
)

history = Table(
    "history",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("object_id", BigInteger, nullable=False, index=True),
    Column("at", Moment, nullable=False),
    Column("what", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("run", Text),
)

archive = Table(
    "archive",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False, comment="the one it had in objects"),
    Column("dataset", Text, comment="NULL: superseded before a dataset took its key"),
    Column("bucket", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("entry", Integer, nullable=False),
    Column("etag", Text, nullable=False),
    Column("version_id", Text),
    Column("size", BigInteger, nullable=False),
    Column("via", Text, nullable=False),
    Column("source", Text),
    Column("delivery", Text),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    Column("run", Text),
    Column("rows", BigInteger),
    Column("rejected", BigInteger),
    Column("arrived_at", Moment, nullable=False),
    Column("changed_at", Moment, nullable=False),
    Column("archived_at", Moment, nullable=False),
    Column("request", Text),
    Column("backlog", Integer, nullable=False, server_default="0", comment="as it was in objects"),
    Column("modified_at", Moment, comment="as it was in objects"),
    Index("archived_key", "key", "bucket"),
    Index(
        "archived_delivery",
        "delivery",
        "source",
        sqlite_where=text("delivery IS NOT NULL"),
        postgresql_where=text("delivery IS NOT NULL"),
    ),
    Index(
        "archived_source",
        "source",
        "arrived_at",
        sqlite_where=text("source IS NOT NULL"),
        postgresql_where=text("source IS NOT NULL"),
    ),
    Index(
        "archived_request",
        "request",
        sqlite_where=text("request IS NOT NULL"),
        postgresql_where=text("request IS NOT NULL"),
    ),
    Index(
        "archived_arrival",
        "arrived_at",
        "source",
        "dataset",
        sqlite_where=text("delivery IS NOT NULL"),
        postgresql_where=text("delivery IS NOT NULL"),
    ),
)

rejections = Table(
    "rejections",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("source", Text, nullable=False),
    Column("at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False, comment="as its source said when it was refused"),
    Column("kind", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("request", Text, nullable=False),
    Column("content_type", Text, nullable=False),
    Column("headers", JSON, nullable=False),
    Column("bytes", BigInteger, nullable=False, comment="as far as is known: the body below may be its beginning"),
    # Last, so that SQLite need not read through it for the others.
    Column("body", LargeBinary, nullable=False),
    Index("rejections_of_source", "source", "id"),
    Index("rejections_by_end", "expires_at"),
    Index("rejections_by_request", "request"),
    sqlite_autoincrement=True,
)

tallies = Table(
    "tallies",
    metadata,
    Column("dataset", Text, primary_key=True),
    Column("objects", BigInteger, nullable=False, comment="loaded ones that were archived, forgotten ones too"),
    Column("rows", BigInteger, nullable=False),
    Column("rejected", BigInteger, nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("dataset", Text, primary_key=True),
    Column("token", BigInteger, nullable=False),
    Column("holder", Text, comment="NULL: nobody"),
    Column("expires_at", Moment, nullable=False),
    Column("hold_until", Moment, comment="a transient error holds the dataset until then"),
    Column("backlog_due", Moment, comment="until then no old object is claimed"),
    CheckConstraint("token > 0", name="token_positive"),
)

wakeups = Table(
    "wakeups",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True, comment="names the wake-up; never used again"),
    Column("dataset", Text, nullable=False, unique=True, comment="at most one outstanding wake-up each"),
    Column("attempt", Integer, nullable=False),
    Column("asked_at", Moment, nullable=False),
    Column("due_at", Moment, nullable=False),
    Column("note", Text, comment="why it stays unanswered, for `penstock status`"),
    sqlite_autoincrement=True,
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("event_id", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("resource", JSON, nullable=False),
    Column("related", JSON, nullable=False),
    Column("payload", JSON, nullable=False),
    Column("occurred_at", Moment, nullable=False),
)

schemas = Table(
    "schemas",
    metadata,
    Column("dataset", Text, primary_key=True),
    Column("format", Text, primary_key=True, comment="one dataset may be fed as CSV and as JSON"),
    Column("version", Integer, primary_key=True),
    Column("columns", JSON, nullable=False),
    Column("dialect", JSON, nullable=False),
    Column("cause", Text, nullable=False),
    Column("created_at", Moment, nullable=False),
)

announced = Table(
    "announced",
    metadata,
    Column("key", Text, primary_key=True),
    Column("bucket", Text, primary_key=True),
    Column("manifest", Text, nullable=False, comment="the key of the manifest that named it first"),
)

watermarks = Table(
    "watermarks",
    metadata,
    Column("dataset", Text, primary_key=True),
    Column("event_time", Moment, nullable=False, comment="the greatest one that was loaded"),
    Column("late", BigInteger, nullable=False, comment="rows that came after it by more than is allowed"),
)

files = Table(
    "files",
    metadata,
    Column("path", Text, primary_key=True, comment="below the inbox"),
    Column("inode", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("etag", Text, nullable=False, comment="empty: refused, with the reason in objects"),
    Column("recorded_at", Moment, nullable=False),
)

sweeps = Table(
    "sweeps",
    metadata,
    Column("bucket", Text, primary_key=True),
    Column("prefix", Text, primary_key=True),
    Column("after", Text, nullable=False, comment="every key up to this one was compared"),
    Column("moved_at", Moment, nullable=False),
)

owner = Table(
    "owner",
    metadata,
    Column("project", Text, primary_key=True),
)
