"""What waits until another object says that it is whole: whether that was said already, and its release.

All of it in the caller's transaction. One transaction writes at a time: what is recorded as waiting is seen by the
transaction that records its marker, or the marker by the one that records what waits for it, whichever comes first.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, exists, select

from penstock.declarations import Dataset
from penstock.keys import Role, role, waits_for
from penstock.ledger import wakeups
from penstock.ledger.arrived import announce, announce_object
from penstock.ledger.database import Database
from penstock.ledger.rows import are, by_bucket, line, move, pieces, tell
from penstock.ledger.tables import announced, objects
from penstock.model import State

Name = tuple[str, str]

# As many as one transaction releases: a folder of a million must not keep every other writer waiting.
_STEP = 2000
# For so long others are let through between two of them: SQLite's waiting writers ask again each tenth of a second.
_PAUSE_SECONDS = 0.1
_WAITS = are(objects.c.state == State.WAITING.value)

# The reasons of a marker file's row: nothing is wrong with it, and nothing of it is ever loaded. The warehouse's
# markers are another thing.
MARKER = "a marker file: it says that other objects may be read, and is not loaded itself"
MARKER_REMOVED = "a marker file that was removed: what comes from now on waits for the next one"


@dataclass(frozen=True, kw_only=True)
class Signals:
    """What arrivals are to their datasets' `ready`: `waits` has those that must wait, and for what."""

    waits: Mapping[Name, str] = field(default_factory=dict)
    markers: frozenset[Name] = frozenset()
    manifests: frozenset[Name] = frozenset()


_NONE = Signals()
_COLUMNS = tuple(
    objects.c[name] for name in ("id", "dataset", "bucket", "key", "generation", "size", "state", "waits_for")
)


def look(connection: Connection, arrived: Mapping[Name, Dataset]) -> Signals:
    """What these (bucket, key), each with the dataset that takes it, are and wait for.

    A marker that arrives together with what waits for it counts, whichever is first.
    """
    of_interest = {name: dataset for name, dataset in arrived.items() if dataset.ready is not None}
    if not of_interest:
        return _NONE
    roles = {name: role(dataset, name[1]) for name, dataset in of_interest.items()}
    markers = frozenset(name for name, found in roles.items() if found is Role.MARKER)
    wanted = {name: waits_for(dataset, name[1]) or "" for name, dataset in of_interest.items()}
    wanted = {name: text for name, text in wanted.items() if text}
    by_manifest = {name for name in wanted if (ready := of_interest[name].ready) and ready.manifest is not None}
    by_marker = {name: (name[0], text) for name, text in wanted.items() if name not in by_manifest}
    there = markers | _known(connection, set(by_marker.values()) - markers)
    free = {name for name, marker in by_marker.items() if marker in there} | named(connection, by_manifest)
    return Signals(
        waits={name: text for name, text in wanted.items() if name not in free},
        markers=markers,
        manifests=frozenset(name for name, found in roles.items() if found is Role.MANIFEST),
    )


def _known(connection: Connection, names: Collection[Name]) -> set[Name]:
    """Those whose newest generation was recorded and, as far as is known, is there."""
    states: dict[Name, str] = {}
    for bucket, keys in by_bucket(sorted(names)):
        query = (
            select(objects.c.key, objects.c.state)
            .where(objects.c.bucket == bucket, objects.c.key.in_(keys), objects.c.entry == 0)
            .order_by(objects.c.generation)
        )
        states.update({(bucket, key): state for key, state in connection.execute(query)})
    return {name for name, state in states.items() if state != State.MISSING}


def named(connection: Connection, names: Collection[Name]) -> set[Name]:
    """Those that a manifest has named."""
    found: set[Name] = set()
    for bucket, keys in by_bucket(sorted(names)):
        query = select(announced.c.key).where(announced.c.bucket == bucket, announced.c.key.in_(keys))
        found.update((bucket, key) for key in connection.execute(query).scalars())
    return found


def release_marked(
    connection: Connection, project: str, markers: Collection[Name], datasets: Mapping[str, Dataset], now: datetime
) -> list[Name]:
    """Move what waits for these markers to pending, as an arrival does.

    Returns the markers for which more waits than one transaction should move: they are for `release_rest`.
    """
    rest: list[Name] = []
    for bucket, keys in by_bucket(sorted(markers)):
        meant = (objects.c.bucket == bucket, objects.c.waits_for.in_(keys))
        found = connection.execute(select(*_COLUMNS).where(*meant, _WAITS).limit(_STEP + 1)).all()
        if len(found) > _STEP:
            rest += [(bucket, key) for key in keys]
        else:
            _release(connection, project, found, datasets, now)
    return rest


def release_rest(database: Database, project: str, markers: Sequence[Name], datasets: Mapping[str, Dataset]) -> int:
    """As `release_marked`, in as many transactions as it takes; returns how many were released.

    What a crash cuts short the sweep goes on with (`stranded`). A marker that is removed meanwhile counts no more.
    """
    todo, released, after = list(markers), 0, 0
    while todo:
        if released and database.is_sqlite:
            time.sleep(_PAUSE_SECONDS)
        with database.write() as connection:
            left = _STEP
            while todo and left:
                bucket, key = todo[0]
                meant = (objects.c.bucket == bucket, objects.c.waits_for == key, objects.c.id > after)
                query = select(*_COLUMNS).where(*meant, _WAITS).order_by(objects.c.id).limit(left)
                found = connection.execute(query).all() if _known(connection, [(bucket, key)]) else []
                _release(connection, project, found, datasets, database.clock())
                after = found[-1].id if len(found) == left else 0
                left -= len(found)
                if not after:
                    del todo[0]
        released += _STEP - left
    return released


def stranded(connection: Connection, dataset: Dataset, *, limit: int) -> list[Name]:
    """The markers that are there although something of the dataset waits for them: their release was cut short."""
    if dataset.ready is None or dataset.ready.manifest is not None:
        return []
    marker, newer = objects.alias(), objects.alias()
    of_key = (newer.c.key == marker.c.key, newer.c.bucket == marker.c.bucket, newer.c.entry == 0)
    there = exists().where(
        marker.c.key == objects.c.waits_for,
        marker.c.bucket == objects.c.bucket,
        marker.c.entry == 0,
        marker.c.state != State.MISSING.value,
        ~exists().where(*of_key, newer.c.generation > marker.c.generation),
    )
    waits = (objects.c.dataset == dataset.name, objects.c.state == State.WAITING.value)
    query = select(objects.c.bucket, objects.c.waits_for).where(*waits, there).distinct().limit(limit)
    return [(row.bucket, row.waits_for) for row in connection.execute(query)]


def release_ids(
    connection: Connection,
    project: str,
    ids: Sequence[int],
    datasets: Mapping[str, Dataset],
    now: datetime,
    *,
    because: str,
) -> int:
    """As `release_marked`, of those of these ids that wait."""
    return sum(
        release(connection, project, [objects.c.id.in_(piece)], datasets, now, because=because) for piece in pieces(ids)
    )


def release(
    connection: Connection,
    project: str,
    meant: Sequence[ColumnElement[bool]],
    datasets: Mapping[str, Dataset],
    now: datetime,
    *,
    because: str | None = None,
) -> int:
    """Move what waits, and fulfils the conditions, to pending: history, wake-ups and events as of an arrival.

    `because`: what came; None: the marker that it waited for. Returns how many.
    """
    # The state and the order are left to us: for them a planner would read all that waits, instead of what is meant.
    found = [row for row in connection.execute(select(*_COLUMNS).where(*meant)) if row.state == State.WAITING]
    return _release(connection, project, found, datasets, now, because)


def _release(
    connection: Connection,
    project: str,
    found: Sequence[Any],
    datasets: Mapping[str, Dataset],
    now: datetime,
    because: str | None = None,
) -> int:
    by_dataset: dict[str, list[Any]] = {}
    for row in sorted(found, key=lambda row: int(row.id)):
        by_dataset.setdefault(row.dataset, []).append(row)
    for dataset, rows in by_dataset.items():
        move(connection, [row.id for row in rows], State.PENDING, {"waits_for": None, "changed_at": now})
        told = [line(row.id, now, State.PENDING.value, because or f"{row.waits_for} came") for row in rows]
        tell(connection, told)
        wakeups.request(connection, dataset, now)
        announce(connection, project, dataset, [row.key for row in rows], sum(row.size for row in rows), now)
        if dataset in datasets and datasets[dataset].event_per_object:
            for row in rows:
                announce_object(connection, project, dataset, row._mapping, now)
    return sum(len(rows) for rows in by_dataset.values())
