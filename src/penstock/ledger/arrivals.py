"""How objects, deliveries and refusals enter the ledger: one transaction each call, the wake-up included."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from penstock import events
from penstock.declarations import Dataset
from penstock.ledger import outbox, states, wakeups
from penstock.ledger.database import Database
from penstock.ledger.decide import Known, decide_arrival, no_dataset
from penstock.ledger.tables import files, history, objects
from penstock.model import REFUSED_BUCKET, Delivery, Stat, State, Via

_CHUNK = 500  # keys in one IN (…), well under SQLite's limit of parameters


@dataclass(frozen=True, kw_only=True)
class Seen:
    """An object as a sensor found it, with the dataset that takes its key (None: no dataset does)."""

    stat: Stat
    dataset: Dataset | None


@dataclass(frozen=True, kw_only=True)
class FileMark:
    """What the ledger remembers of a file of the inbox, so that a touch is nothing. `path` is below the inbox."""

    path: str
    inode: int
    size: int
    mtime_ns: int
    etag: str = ""


class Arrivals:
    """Recording what came. A repeated arrival changes nothing."""

    def __init__(self, database: Database, project: str) -> None:
        self._database = database
        self._project = project

    def record(self, seen: Sequence[Seen], via: Via, *, mark: FileMark | None = None) -> int:
        """Record objects that are durable in the store; returns how many of them are new generations.

        With `mark` the caller has just put them itself, and the file is remembered in the same transaction.
        """
        with self._database.write() as connection:
            now = self._database.clock()
            fresh: dict[str, list[Stat]] = {}
            known = _latest(connection, {(s.stat.bucket, s.stat.key) for s in seen})
            for one in seen:
                latest = known.get((one.stat.bucket, one.stat.key))
                put_again = mark is not None or (
                    latest is not None
                    and None not in (latest.version_id, one.stat.version_id)
                    and latest.version_id != one.stat.version_id
                )
                row = self._record_one(connection, one, via, latest, now, put_again=put_again)
                if row is None:
                    continue
                known[(one.stat.bucket, one.stat.key)] = row
                if one.dataset is not None and row.state is State.PENDING:
                    fresh.setdefault(one.dataset.name, []).append(one.stat)
                    if one.dataset.event_per_object:
                        self._announce_object(connection, one.stat, row.generation, one.dataset.name, now)
            for dataset, stats in fresh.items():
                wakeups.request(connection, dataset, now)
                self._announce(connection, dataset, [s.key for s in stats], sum(s.size for s in stats), now)
            if mark is not None:
                _remember(connection, mark, now)
            return sum(len(stats) for stats in fresh.values())

    def record_deliveries(
        self, bucket: str, key: str, stat: Stat, deliveries: Mapping[int, Delivery], via: Via
    ) -> set[int]:
        """Record the entries (from 1) of a durable envelope; returns those whose delivery id was known already."""
        if not deliveries:
            return set()
        with self._database.write() as connection:
            now = self._database.clock()
            rows = [
                {
                    "dataset": delivery.dataset,
                    "bucket": bucket,
                    "key": key,
                    "generation": 1,
                    "entry": entry,
                    "etag": stat.etag,
                    "version_id": stat.version_id,
                    "size": len(delivery.body),
                    "via": via.value,
                    "source": delivery.source,
                    "delivery": delivery.id,
                    "state": State.PENDING.value,
                    "arrived_at": delivery.received_at,
                    "changed_at": now,
                }
                for entry, delivery in deliveries.items()
            ]
            dialect = sqlite if self._database.is_sqlite else postgresql
            statement = dialect.insert(objects).on_conflict_do_nothing().returning(objects.c.entry)
            # One by one, because only a single-row INSERT ... RETURNING says which row was skipped.
            inserted = {
                found for row in rows if (found := connection.execute(statement.values(row)).scalar()) is not None
            }
            for dataset in sorted({deliveries[entry].dataset for entry in inserted}):
                entries = [entry for entry in sorted(inserted) if deliveries[entry].dataset == dataset]
                keys = [f"{key}#{entry}" for entry in entries]
                size = sum(len(deliveries[entry].body) for entry in entries)
                wakeups.request(connection, dataset, now)
                self._announce(connection, dataset, keys, size, now)
            return set(deliveries) - inserted

    def known_deliveries(self, source: str, ids: Iterable[str]) -> set[str]:
        """Which of a source's delivery ids were accepted before."""
        with self._database.read() as connection:
            found: set[str] = set()
            for chunk in _chunks(sorted(set(ids))):
                query = select(objects.c.delivery).where(objects.c.source == source, objects.c.delivery.in_(chunk))
                found.update(connection.execute(query).scalars())
            return found

    def announce_delivery(self, delivery: Delivery) -> None:
        """Queue one event for one delivery, for a source that asks for it."""
        with self._database.write() as connection:
            outbox.enqueue(
                connection,
                event_id=events.event_id(self._project, events.DELIVERY_ACCEPTED, delivery.source, delivery.id),
                name=events.DELIVERY_ACCEPTED,
                resource=events.source_resource(self._project, delivery.source),
                related=[],
                payload={"delivery": delivery.id, "dataset": delivery.dataset, "bytes": len(delivery.body)},
                occurred_at=delivery.received_at,
            )

    def refuse(self, key: str, reason: str, *, mark: FileMark, via: Via) -> bool:
        """Record that a file of the inbox cannot be taken, and why; False when that was known already."""
        with self._database.write() as connection:
            now = self._database.clock()
            etag = f"{mark.inode}-{mark.size}-{mark.mtime_ns}"
            latest = _latest(connection, {(REFUSED_BUCKET, key)}).get((REFUSED_BUCKET, key))
            if latest is not None and latest.etag == etag and latest.state in (State.QUARANTINED, State.IGNORED):
                return False
            stat = Stat(bucket=REFUSED_BUCKET, key=key, etag=etag, size=mark.size, modified=now)
            number = latest.generation + 1 if latest else 1
            if latest is not None and latest.state is State.QUARANTINED:
                _supersede(connection, latest.id, now)
            row = _row(stat, None, number, State.QUARANTINED, reason, via, now)
            connection.execute(insert(objects).values(row))
            _remember(connection, mark, now)
            return True

    def refuse_keys(self, bucket: str, refused: Mapping[str, tuple[str | None, str]], via: Via) -> int:
        """Record keys of a bucket that cannot be asked for: each with its dataset, if one takes it, and the reason.

        Returns how many were not known before.
        """
        fresh = sorted(refused.keys() - self.latest(bucket, refused).keys())
        if not fresh:
            return 0
        with self._database.write() as connection:
            now = self._database.clock()
            rows = [
                _row(
                    Stat(bucket=bucket, key=key, etag="", size=0, modified=now),
                    refused[key][0],
                    1,
                    State.QUARANTINED,
                    refused[key][1],
                    via,
                    now,
                )
                for key in fresh
            ]
            dialect = sqlite if self._database.is_sqlite else postgresql
            connection.execute(dialect.insert(objects).on_conflict_do_nothing(), rows)
        return len(fresh)

    def refused_files(self, *, after: str = "") -> list[str]:
        """The next paths of the inbox after this one whose files were refused, sorted; empty when there are no more."""
        query = (
            select(files.c.path).where(files.c.etag == "", files.c.path > after).order_by(files.c.path).limit(_CHUNK)
        )
        with self._database.read() as connection:
            return list(connection.execute(query).scalars())

    def forget_refusal(self, key: str) -> None:
        """The refused file is gone or became takeable: nothing waits in quarantine for it any more."""
        with self._database.write() as connection:
            now = self._database.clock()
            latest = _latest(connection, {(REFUSED_BUCKET, key)}).get((REFUSED_BUCKET, key))
            if latest is not None and latest.state is State.QUARANTINED:
                _supersede(connection, latest.id, now)

    def latest(self, bucket: str, keys: Iterable[str]) -> dict[str, Known]:
        """The latest generation of each key that the ledger knows."""
        with self._database.read() as connection:
            found = _latest(connection, {(bucket, key) for key in keys})
        return {key: known for (_, key), known in found.items()}

    def envelopes(self, bucket: str, keys: Iterable[str]) -> set[str]:
        """Which of these envelope keys have at least one delivery in the ledger."""
        found: set[str] = set()
        with self._database.read() as connection:
            for chunk in _chunks(sorted(set(keys))):
                query = select(objects.c.key).distinct().where(objects.c.bucket == bucket, objects.c.key.in_(chunk))
                found.update(connection.execute(query).scalars())
        return found

    def adopt(self, datasets: Sequence[Dataset]) -> int:
        """Give objects that no dataset took to one that does by now; returns how many became pending."""
        adopted = 0
        with self._database.write() as connection:
            now = self._database.clock()
            for dataset in datasets:
                taken = connection.execute(
                    update(objects)
                    .where(
                        objects.c.dataset.is_(None),
                        objects.c.state == State.QUARANTINED.value,
                        objects.c.bucket != REFUSED_BUCKET,
                        func.substr(objects.c.key, 1, len(dataset.prefix)) == dataset.prefix,
                    )
                    .values(dataset=dataset.name, state=State.PENDING.value, reason=None, changed_at=now)
                    .returning(objects.c.id)
                ).scalars()
                told = [
                    {"object_id": row_id, "at": now, "what": State.PENDING.value, "detail": f"taken by {dataset.name}"}
                    for row_id in taken
                ]
                if told:
                    connection.execute(insert(history), told)
                    wakeups.request(connection, dataset.name, now)
                    adopted += len(told)
        return adopted

    def file_marks(self, paths: Sequence[str]) -> dict[str, FileMark]:
        """What the ledger remembers of these paths below the inbox."""
        found: dict[str, FileMark] = {}
        with self._database.read() as connection:
            for chunk in _chunks(paths):
                for row in connection.execute(select(files).where(files.c.path.in_(chunk))):
                    found[row.path] = FileMark(
                        path=row.path, inode=row.inode, size=row.size, mtime_ns=row.mtime_ns, etag=row.etag
                    )
        return found

    def forget_file(self, path: str) -> None:
        """Forget a file that left the inbox, so that the table does not grow for ever."""
        with self._database.write() as connection:
            connection.execute(delete(files).where(files.c.path == path))

    def _record_one(
        self, connection: Connection, one: Seen, via: Via, latest: Known | None, now: datetime, *, put_again: bool
    ) -> Known | None:
        dataset = one.dataset
        on_overwrite = dataset.on_overwrite if dataset else "replace"
        generation = decide_arrival(
            latest, one.stat.etag, on_overwrite, versioned=one.stat.version_id is not None, put_again=put_again
        )
        if generation is None or (on_overwrite == "append" and self._has_version(connection, one.stat)):
            return None
        state, reason = generation.state, generation.reason
        if dataset is None:
            state = State.QUARANTINED
            reason = no_dataset(one.stat.key)
        if generation.supersedes is not None:
            _supersede(connection, generation.supersedes, now)
        row = _row(one.stat, dataset.name if dataset else None, generation.number, state, reason, via, now)
        row_id = connection.execute(insert(objects).values(row).returning(objects.c.id)).scalar_one()
        return Known(
            id=row_id,
            generation=generation.number,
            etag=one.stat.etag,
            state=state,
            version_id=one.stat.version_id,
        )

    def _has_version(self, connection: Connection, stat: Stat) -> bool:
        """Whether this very version was recorded before: a slow hint must not append its rows again.

        With `replace` it does become a generation, and the next stat the one after: no order of hints can be told from
        another, and what heals itself must not be kept from it.
        """
        if stat.version_id is None:
            return False
        query = select(objects.c.id).where(
            objects.c.bucket == stat.bucket, objects.c.key == stat.key, objects.c.version_id == stat.version_id
        )
        return connection.execute(query.limit(1)).first() is not None

    def _announce(self, connection: Connection, dataset: str, keys: list[str], size: int, now: datetime) -> None:
        outbox.enqueue(
            connection,
            event_id=events.event_id(self._project, events.OBJECT_ARRIVED, dataset, now.isoformat(), *keys),
            name=events.OBJECT_ARRIVED,
            resource=events.dataset_resource(self._project, dataset),
            related=[],
            payload=events.summary(keys, size),
            occurred_at=now,
        )

    def _announce_object(
        self, connection: Connection, stat: Stat, generation: int, dataset: str, now: datetime
    ) -> None:
        outbox.enqueue(
            connection,
            event_id=events.event_id(self._project, events.OBJECT_ARRIVED, stat.bucket, stat.key, generation),
            name=events.OBJECT_ARRIVED,
            resource=events.object_resource(self._project, stat.bucket, stat.key),
            related=[
                {**events.dataset_resource(self._project, dataset), "prefect.resource.role": "dataset"},
            ],
            payload={"key": stat.key, "generation": generation, "bytes": stat.size},
            occurred_at=now,
        )


def _row(
    stat: Stat, dataset: str | None, generation: int, state: State, reason: str | None, via: Via, now: datetime
) -> dict[str, Any]:
    return {
        "dataset": dataset,
        "bucket": stat.bucket,
        "key": stat.key,
        "generation": generation,
        "entry": 0,
        "etag": stat.etag,
        "version_id": stat.version_id,
        "size": stat.size,
        "via": via.value,
        "state": state.value,
        "reason": reason,
        "arrived_at": now,
        "changed_at": now,
    }


def _latest(connection: Connection, pairs: set[tuple[str, str]]) -> dict[tuple[str, str], Known]:
    found: dict[tuple[str, str], Known] = {}
    by_bucket: dict[str, list[str]] = {}
    for bucket, key in sorted(pairs):
        by_bucket.setdefault(bucket, []).append(key)
    for bucket, keys in by_bucket.items():
        for chunk in _chunks(keys):
            newest = (
                select(objects.c.key, func.max(objects.c.generation).label("generation"))
                .where(objects.c.bucket == bucket, objects.c.key.in_(chunk), objects.c.entry == 0)
                .group_by(objects.c.key)
                .subquery()
            )
            query = select(objects).join(
                newest,
                and_(
                    objects.c.bucket == bucket,
                    objects.c.key == newest.c.key,
                    objects.c.generation == newest.c.generation,
                    objects.c.entry == 0,
                ),
            )
            for row in connection.execute(query):
                found[(bucket, row.key)] = Known(
                    id=row.id,
                    generation=row.generation,
                    etag=row.etag,
                    state=State(row.state),
                    version_id=row.version_id,
                    tried=row.run is not None,
                )
    return found


def _supersede(connection: Connection, row_id: int, now: datetime) -> None:
    moved = connection.execute(
        update(objects)
        .where(objects.c.id == row_id, objects.c.state.in_([State.PENDING.value, State.QUARANTINED.value]))
        .values(state=State.SUPERSEDED.value, reason="overwritten before it was loaded", changed_at=now)
    )
    if moved.rowcount:
        connection.execute(
            insert(history).values(object_id=row_id, at=now, what=State.SUPERSEDED.value, detail="overwritten")
        )


def _remember(connection: Connection, mark: FileMark, now: datetime) -> None:
    values = {
        "inode": mark.inode,
        "size": mark.size,
        "mtime_ns": mark.mtime_ns,
        "etag": mark.etag,
        "recorded_at": now,
    }
    if not connection.execute(update(files).where(files.c.path == mark.path).values(values)).rowcount:
        connection.execute(insert(files).values(path=mark.path, **values))


def _chunks(items: Sequence[str]) -> Iterable[Sequence[str]]:
    return (items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK))


# `states.BIRTHS` is what this module may insert; the assertion keeps the two together.
assert {State.PENDING, State.QUARANTINED, State.IGNORED} == states.BIRTHS
