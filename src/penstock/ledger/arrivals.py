"""How objects and refusals enter the ledger: one transaction each call, the wake-up included."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, bindparam, delete, func, insert, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from penstock.declarations import Dataset
from penstock.keys import backlog_of
from penstock.ledger import adopting, archive, states, waiting, wakeups
from penstock.ledger.arrived import announce, announce_object, moment
from penstock.ledger.database import Database
from penstock.ledger.decide import Known, decide_arrival, no_dataset
from penstock.ledger.rows import by_bucket, line, pieces, tell
from penstock.ledger.tables import files, objects
from penstock.ledger.waiting import MARKER, Signals
from penstock.model import REFUSED_BUCKET, Stat, State, Via

_PAGE = 500

Name = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class FileMark:
    """What the ledger remembers of a file of the inbox, so that a touch is nothing. `path` is below the inbox."""

    path: str
    inode: int
    size: int
    mtime_ns: int
    etag: str = ""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """An object as a sensor found it, with the dataset that takes its key (None: no dataset does).

    `untaken` is why none does. With `mark` the caller has just put it itself, from a file of the inbox that is to be
    remembered; `was_refused` when that file could not be taken earlier.
    """

    stat: Stat
    dataset: Dataset | None
    untaken: str | None = None
    mark: FileMark | None = None
    was_refused: bool = False


class Arrivals:
    """Recording what came. A repeated arrival changes nothing."""

    def __init__(self, database: Database, project: str) -> None:
        self._database = database
        self._project = project

    def record(self, seen: Sequence[Seen], via: Via, *, datasets: Sequence[Dataset] = ()) -> int:
        """Record objects that are durable in the store, and the marks of their files; returns how many are new.

        New are those that are to be loaded, at once or when what they wait for has come. They arrive in the order in
        which they are given. `datasets` are those declared, of which a marker may release objects.
        """
        with self._database.write() as connection:
            now = self._database.clock()
            arrived_at = moment(connection, now)
            found = {(s.stat.bucket, s.stat.key): s.stat for s in seen}
            known = _latest(connection, set(found))
            archive.bring_back(connection, {name: found[name] for name in found.keys() - known.keys()}, known, now)
            takers = {(s.stat.bucket, s.stat.key): s.dataset for s in seen if s.dataset is not None}
            signals = waiting.look(connection, takers)
            rows: dict[Name, dict[str, Any]] = {}
            new = []
            for one in seen:
                name = (one.stat.bucket, one.stat.key)
                if name in rows:
                    # Its row must be there, and have a number, before the next generation can be decided on.
                    _insert(connection, rows)
                    known |= _latest(connection, {name})
                row = self._decide_one(connection, one, via, known.get(name), signals, now)
                if row is None:
                    continue
                row["arrived_at"] = arrived_at
                rows[name] = row
                if one.dataset is not None and row["state"] in (State.PENDING.value, State.WAITING.value):
                    new.append(row)
            _insert(connection, rows)
            declared = {dataset.name: dataset for dataset in (*datasets, *takers.values())}
            self._wake(connection, [row for row in new if row["state"] == State.PENDING.value], declared, now)
            rest = waiting.release_marked(connection, self._project, signals.markers, declared, now)
            _remember(connection, [one.mark for one in seen if one.mark is not None], now)
            _forget_refusals(connection, [one.stat.key for one in seen if one.was_refused], now)
        waiting.release_rest(self._database, self._project, rest, declared)
        return len(new)

    def _wake(
        self, connection: Connection, fresh: Sequence[dict[str, Any]], declared: Mapping[str, Dataset], now: datetime
    ) -> None:
        by_dataset: dict[str, list[dict[str, Any]]] = {}
        for row in fresh:
            by_dataset.setdefault(row["dataset"], []).append(row)
            if declared[row["dataset"]].event_per_object:
                announce_object(connection, self._project, row["dataset"], row, now)
        for dataset, rows in by_dataset.items():
            wakeups.request(connection, dataset, now)
            announce(connection, self._project, dataset, [r["key"] for r in rows], sum(r["size"] for r in rows), now)

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
            connection.execute(insert(objects).values({**row, "arrived_at": moment(connection, now)}))
            _remember(connection, [mark], now)
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
            arrived_at = moment(connection, now)
            rows = []
            for key in fresh:
                dataset, reason = refused[key]
                stat = Stat(bucket=bucket, key=key, etag="", size=0, modified=now)
                row = _row(stat, None, 1, State.QUARANTINED, reason, via, now)
                rows.append({**row, "dataset": dataset, "arrived_at": arrived_at})
            dialect = sqlite if self._database.is_sqlite else postgresql
            connection.execute(dialect.insert(objects).on_conflict_do_nothing(), rows)
        return len(fresh)

    def refused_files(self, *, after: str = "") -> list[str]:
        """The next paths of the inbox after this one whose files were refused, sorted; empty when there are no more."""
        query = select(files.c.path).where(files.c.etag == "", files.c.path > after).order_by(files.c.path).limit(_PAGE)
        with self._database.read() as connection:
            return list(connection.execute(query).scalars())

    def forget_refusal(self, key: str) -> None:
        """The refused file is gone or became takeable: nothing waits in quarantine for it any more."""
        with self._database.write() as connection:
            _forget_refusals(connection, [key], self._database.clock())

    def latest(self, bucket: str, keys: Iterable[str]) -> dict[str, Known]:
        """The latest generation of each key that the ledger knows."""
        with self._database.read() as connection:
            found = _latest(connection, {(bucket, key) for key in keys})
        return {key: known for (_, key), known in found.items()}

    def adopt(self, datasets: Sequence[Dataset]) -> int:
        """Give objects that no dataset took to one that does by now; returns how many are to be loaded by that.

        What waits for what its dataset does not ask for any more waits for what it asks for now, if for anything.
        """
        return adopting.adopt(self._database, self._project, datasets)

    def file_marks(self, paths: Sequence[str]) -> dict[str, FileMark]:
        """What the ledger remembers of these paths below the inbox."""
        found: dict[str, FileMark] = {}
        with self._database.read() as connection:
            for piece in pieces(paths):
                for row in connection.execute(select(files).where(files.c.path.in_(piece))):
                    found[row.path] = FileMark(
                        path=row.path, inode=row.inode, size=row.size, mtime_ns=row.mtime_ns, etag=row.etag
                    )
        return found

    def forget_files(self, paths: Sequence[str]) -> None:
        """Forget files that left the inbox, so that the table does not grow for ever."""
        with self._database.write() as connection:
            for piece in pieces(paths):
                connection.execute(delete(files).where(files.c.path.in_(piece)))

    def _decide_one(
        self,
        connection: Connection,
        one: Seen,
        via: Via,
        latest: Known | None,
        signals: Signals,
        now: datetime,
    ) -> dict[str, Any] | None:
        """The row of a new generation, whose predecessor is superseded where it has to be; None: it is known."""
        dataset, name = one.dataset, (one.stat.bucket, one.stat.key)
        on_overwrite = dataset.on_overwrite if dataset else "replace"
        if name in signals.manifests:
            # Each says something of its own, however the dataset's data is overwritten.
            on_overwrite = "append"
        put_again = one.mark is not None or (
            latest is not None
            and None not in (latest.version_id, one.stat.version_id)
            and latest.version_id != one.stat.version_id
        )
        generation = decide_arrival(
            latest, one.stat.etag, on_overwrite, versioned=one.stat.version_id is not None, put_again=put_again
        )
        if generation is None or (on_overwrite == "append" and self._has_version(connection, one.stat)):
            return None
        state, reason = generation.state, generation.reason
        if dataset is None:
            state = State.QUARANTINED
            reason = one.untaken or no_dataset(one.stat.key)
        elif name in signals.markers:
            state, reason = State.IGNORED, MARKER
        elif state is State.PENDING and name in signals.waits:
            state = State.WAITING
        if generation.supersedes is not None:
            _supersede(connection, generation.supersedes, now)
        row = _row(one.stat, dataset, generation.number, state, reason, via, now)
        row["waits_for"] = signals.waits[name] if state is State.WAITING else None
        # What is never loaded is no part of what is yet to be.
        row["backlog"] *= name not in signals.markers
        return row

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


def _row(
    stat: Stat, dataset: Dataset | None, generation: int, state: State, reason: str | None, via: Via, now: datetime
) -> dict[str, Any]:
    return {
        "dataset": dataset.name if dataset else None,
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
        "changed_at": now,
        "modified_at": stat.modified,
        "backlog": int(dataset is not None and backlog_of(dataset, stat.key, stat.modified)),
    }


_KNOWN = tuple(objects.c[name] for name in ("key", "id", "generation", "etag", "state", "version_id", "run"))


def _latest(connection: Connection, pairs: set[Name]) -> dict[Name, Known]:
    found: dict[Name, Known] = {}
    for bucket, keys in by_bucket(sorted(pairs)):
        newest = (
            select(objects.c.key, func.max(objects.c.generation).label("generation"))
            .where(objects.c.bucket == bucket, objects.c.key.in_(keys), objects.c.entry == 0)
            .group_by(objects.c.key)
            .subquery()
        )
        query = select(*_KNOWN).join(
            newest,
            and_(
                objects.c.bucket == bucket,
                objects.c.key == newest.c.key,
                objects.c.generation == newest.c.generation,
                objects.c.entry == 0,
            ),
        )
        for key, row_id, generation, etag, state, version_id, run in connection.execute(query):
            found[(bucket, key)] = Known(
                id=row_id,
                generation=generation,
                etag=etag,
                state=State(state),
                version_id=version_id,
                tried=run is not None,
            )
    return found


_UNREAD = [State.WAITING.value, State.PENDING.value, State.QUARANTINED.value]


def _supersede(connection: Connection, row_id: int, now: datetime) -> None:
    moved = connection.execute(
        update(objects)
        .where(objects.c.id == row_id, objects.c.state.in_(_UNREAD))
        .values(state=State.SUPERSEDED.value, reason="overwritten before it was loaded", changed_at=now)
    )
    if moved.rowcount:
        tell(connection, [line(row_id, now, State.SUPERSEDED.value, "overwritten")])


def _forget_refusals(connection: Connection, keys: Sequence[str], now: datetime) -> None:
    for latest in _latest(connection, {(REFUSED_BUCKET, key) for key in keys}).values():
        if latest.state is State.QUARANTINED:
            _supersede(connection, latest.id, now)


# As text, because SQLAlchemy compiles its own ON CONFLICT anew each time.
_REMEMBER = text(
    "INSERT INTO files (path, inode, size, mtime_ns, etag, recorded_at)"
    " VALUES (:path, :inode, :size, :mtime_ns, :etag, :recorded_at)"
    " ON CONFLICT (path) DO UPDATE SET inode = excluded.inode, size = excluded.size, mtime_ns = excluded.mtime_ns,"
    " etag = excluded.etag, recorded_at = excluded.recorded_at"
).bindparams(bindparam("recorded_at", type_=files.c.recorded_at.type))


def _remember(connection: Connection, marks: Sequence[FileMark], now: datetime) -> None:
    if marks:
        connection.execute(_REMEMBER, [{**asdict(mark), "recorded_at": now} for mark in marks])


def _insert(connection: Connection, rows: dict[Name, dict[str, Any]]) -> None:
    """Insert what was gathered, in its order, and gather anew."""
    if rows:
        connection.execute(insert(objects), list(rows.values()))
        rows.clear()


# `states.BIRTHS` is what this module may insert; the assertion keeps the two together.
assert {State.WAITING, State.PENDING, State.QUARANTINED, State.IGNORED} == states.BIRTHS
