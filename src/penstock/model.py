"""The frozen types that the rooms hand to one another.

Words are those of docs/glossary.md. Times are timezone-aware UTC datetimes, sizes are bytes, row numbers start at 1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

# What datasets, sources and their columns may be called.
NAME = re.compile(r"^[a-z][a-z0-9_]{0,62}\Z")

# Keys under this prefix belong to penstock: webhook envelopes live here, and only the delivery path registers them.
RESERVED_PREFIX = "_penstock/"
ENVELOPE_PREFIX = RESERVED_PREFIX + "deliveries/"
# What flows keep for themselves, by project: no data, and never read by penstock.
KEPT_PREFIX = RESERVED_PREFIX + "kept/"

# The `bucket` of what was refused before it ever became an object, such as a symlink in the inbox.
REFUSED_BUCKET = "(inbox)"

# The `bucket` of notifications, or parts of one, that nothing could be done with; the `key` is a digest of the bytes.
NOTIFICATIONS_BUCKET = "(notifications)"


class State(StrEnum):
    """The states of an object or delivery; `ledger/states.py` holds the legal moves."""

    WAITING = "waiting"
    PENDING = "pending"
    CLAIMED = "claimed"
    LOADED = "loaded"
    QUARANTINED = "quarantined"
    EMPTY = "empty"
    MISSING = "missing"
    SUPERSEDED = "superseded"
    IGNORED = "ignored"


class Via(StrEnum):
    """By which way an arrival was first seen."""

    FOLDER = "folder"
    BUCKET = "bucket"
    NOTIFICATION = "notification"
    WEBHOOK = "webhook"
    SWEEP = "sweep"
    FLOW = "flow"


@dataclass(frozen=True, kw_only=True)
class Stat:
    """What the object store says of a key now. `etag` has no quotes; `version_id` is None where the store has none."""

    bucket: str
    key: str
    etag: str
    size: int
    modified: datetime
    version_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class Version:
    """One version of a key as the store lists it; `marker`: a delete marker, which has no bytes."""

    id: str
    etag: str
    modified: datetime
    latest: bool
    marker: bool = False


@dataclass(frozen=True, kw_only=True)
class ObjectRef:
    """One generation of a key, or one delivery (`entry` > 0) of an envelope, as the ledger knows it.

    `id` is the arrival sequence: a smaller id arrived earlier. `claimed_before`: a run had it and did not settle it,
    so that it may be in the warehouse already. `again`: somebody asked for it to be loaded anew, over its own rows;
    `only_rejected`: of those only the ones that had been rejected. `arrived_at` is when it was first seen, and of an
    `old` one (`Backfill`) when it was written.
    `trouble` is what the last run that had it said of it.
    """

    id: int
    dataset: str
    bucket: str
    key: str
    generation: int
    etag: str
    size: int
    entry: int = 0
    version_id: str | None = None
    attempts: int = 0
    delivery: str | None = None
    claimed_before: bool = False
    again: bool = False
    only_rejected: bool = False
    old: bool = False
    arrived_at: datetime | None = None
    trouble: str | None = None

    @property
    def name(self) -> str:
        """How the warehouse's `_penstock_object` names it: `bucket/key@generation`, and `#entry` for a delivery."""
        return object_name(self.bucket, self.key, self.generation, self.entry)


def object_name(bucket: str, key: str, generation: int, entry: int = 0) -> str:
    """`bucket/key@generation`, and `#entry` when it is one delivery of an envelope."""
    return f"{bucket}/{key}@{generation}" + (f"#{entry}" if entry else "")


def media_type(content_type: str) -> str:
    """What a `Content-Type` names, in lower case and without its parameters."""
    return content_type.partition(";")[0].strip().lower()


@dataclass(frozen=True, kw_only=True)
class Lease:
    """The right to work on one dataset until `expires_at`; `token` grows with every holder.

    `taken_over` from a holder that did not let go: that one may still be at work, and must be fenced off.
    """

    dataset: str
    token: int
    holder: str
    expires_at: datetime
    taken_over: bool = False


@dataclass(frozen=True, kw_only=True)
class FurtherEvent:
    """An event that a source asked for besides penstock's own; `resource` is its `prefect.resource.id`."""

    name: str
    resource: str
    payload: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One accepted webhook request, or one event of a batch, as it is written into an envelope object.

    `id` is unique per source (the sender's delivery id, or a hash of the body where it has none); `headers` are the
    allowed ones in lower case; `body` is the request body. `request` names the HTTP request in log, ledger and events.
    """

    id: str
    source: str
    dataset: str
    received_at: datetime
    content_type: str
    headers: dict[str, str]
    body: bytes
    request: str = ""
    events: tuple[FurtherEvent, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a dataset's table: `name` in the table, `original` in the data, `type` in DuckDB's words."""

    name: str
    original: str
    type: str


@dataclass(frozen=True, kw_only=True)
class Schema:
    """A remembered schema. `dialect` holds what the format needs to read the next object without sniffing."""

    version: int
    columns: tuple[Column, ...]
    dialect: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one object of a claim. `rows` loaded, `rejected` rows put aside, `reason` unless loaded.

    `note` is what its history says besides of what was loaded.
    """

    ref: ObjectRef
    state: State
    rows: int = 0
    rejected: int = 0
    reason: str | None = None
    note: str | None = None


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One line of an object's history: what happened, when, and in which run."""

    at: datetime
    what: str
    detail: str = ""
    run: str | None = None


@dataclass(frozen=True, kw_only=True)
class OutboxEvent:
    """A Prefect event that must still be emitted; `id` is derived from its content, so sending twice is one event."""

    row: int
    id: str
    name: str
    resource: dict[str, str]
    related: list[dict[str, str]]
    payload: dict[str, Any]
    occurred_at: datetime
