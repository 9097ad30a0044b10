"""Loading again what was given up or loaded already, and dropping what nobody wants: what people ask of the ledger.

A large selection is worked in steps, each a transaction of its own: what a crash cuts short is done as far as it came,
and asking again does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, exists, func, or_, select

from penstock.declarations import Dataset
from penstock.keys import Role, role, takes
from penstock.ledger import wakeups
from penstock.ledger.database import Database
from penstock.ledger.decide import Again, Candidate, decide_replay, no_dataset
from penstock.ledger.facts import named, named_delivery, named_generation, named_ids
from penstock.ledger.rows import by_bucket, line, move, pieces, tell
from penstock.ledger.tables import archive, history, objects
from penstock.model import NOTIFICATIONS_BUCKET, REFUSED_BUCKET, State, object_name

_STEP = 2000
_FIRST = 5
# Reasons may name folders, of which there is no end.
_MOST_REASONS = 20
_ARCHIVED = "retention removed it from the store, and its rows stay as they are: put it again"
_OTHER_REASONS = "other reasons: see penstock why KEY"
_HOW = {Again.NO: "", Again.OVER_ITS_ROWS: ", over its own rows", Again.ONLY_REJECTED: ", only its rejected rows"}


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What is meant: everything that fits all that is given. No `states` means any.

    A key (or `bucket/key`, a delivery's id, or `source:id`) means its newest generation and those in quarantine; a name
    with its generation means that one. A delivery's id that several sources have given means nothing: see
    `Done.ambiguous`. `since` is when it came to its state. `rejected`: of what is loaded with rejected rows only those
    rows are meant.
    """

    keys: tuple[str, ...] = ()
    dataset: str | None = None
    since: datetime | None = None
    states: frozenset[State] = frozenset()
    rejected: bool = False


@dataclass(kw_only=True)
class Refusals:
    """How many were refused for one reason, and the names of the first few."""

    count: int = 0
    first: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class Done:
    """What was moved, by dataset, what was refused, by reason, and which keys mean nothing that was asked for.

    `unknown` keys mean nothing at all, `other` ones something that was not asked for: its name and state. `ambiguous`
    are ids of deliveries from several sources: each delivery's full name and source.
    """

    moved: int = 0
    first: list[str] = field(default_factory=list)
    datasets: dict[str, int] = field(default_factory=dict)
    refused: dict[str, Refusals] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    other: dict[str, tuple[str, State]] = field(default_factory=dict)
    ambiguous: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether all that was asked for was moved, or would be."""
        return not (self.refused or self.unknown or self.other or self.ambiguous)

    def take(self, name: str, dataset: str) -> None:
        """Count one that was moved."""
        self.moved += 1
        self.datasets[dataset] = self.datasets.get(dataset, 0) + 1
        if len(self.first) < _FIRST:
            self.first.append(name)

    def refuse(self, name: str, reason: str) -> None:
        """Count one that was refused."""
        if reason not in self.refused and len(self.refused) >= _MOST_REASONS:
            reason = _OTHER_REASONS
        refusals = self.refused.setdefault(reason, Refusals())
        refusals.count += 1
        if len(refusals.first) < _FIRST:
            refusals.first.append(name)


@dataclass(frozen=True, kw_only=True)
class _Siblings:
    """For each state, the least and the greatest generation of a key in it."""

    spans: tuple[tuple[State, int, int], ...] = ()

    def newer(self, generation: int) -> frozenset[State]:
        return frozenset(state for state, _, greatest in self.spans if greatest > generation)

    def older(self, generation: int) -> frozenset[State]:
        return frozenset(state for state, least, _ in self.spans if least < generation)


class Replay:
    """Replaying and dropping. `datasets` are those that the project declares now."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def plan(self, selection: Selection, *, datasets: Sequence[Dataset], force: bool) -> Done:
        """What `replay` would do, without doing it."""

        def step(connection: Connection, rows: Sequence[Any], done: Done) -> None:
            list(self._decide(connection, rows, datasets, done, force=force, only_rejected=selection.rejected))

        return self._work(selection, step, dry=True)

    def replay(self, selection: Selection, *, datasets: Sequence[Dataset], force: bool, by: str) -> Done:
        """Back to pending, as if nothing had been tried yet, and a run is asked for.

        What is loaded is refused without `force`; with it, the load replaces the object's own rows. Where only the
        rejected rows are meant, the load adds those of them that are good by now.
        """

        def step(connection: Connection, rows: Sequence[Any], done: Done) -> None:
            now = self._database.clock()
            groups: dict[tuple[str, Again], list[int]] = {}
            told = []
            found = self._decide(connection, rows, datasets, done, force=force, only_rejected=selection.rejected)
            decided = list(found)
            _keep_reasons(connection, [row for row, _, _ in decided])
            for row, dataset, again in decided:
                groups.setdefault((dataset, again), []).append(row.id)
                told.append(line(row.id, now, "replayed", f"by {by}{_HOW[again]}"))
            for (dataset, again), ids in groups.items():
                values = {
                    "dataset": dataset,
                    "reason": None,
                    "attempts": 0,
                    "hiccups": 0,
                    "again": int(again),
                    "rows": None,
                    "rejected": None,
                    "changed_at": now,
                }
                move(connection, ids, State.PENDING, values)
            tell(connection, told)
            for dataset in sorted({dataset for dataset, _ in groups}):
                wakeups.request(connection, dataset, now)

        return self._work(selection, step)

    def drop(self, selection: Selection, *, by: str, reason: str = "", dry: bool = False) -> Done:
        """Out of quarantine, to be left alone from now on. Only what is in quarantine is meant. `dry`: only say so."""

        def step(connection: Connection, rows: Sequence[Any], done: Done) -> None:
            now = self._database.clock()
            detail = f"dropped by {by}" + (f": {reason}" if reason else "")
            for row in rows:
                done.take(_name(row), row.dataset or "")
            if dry:
                return
            _keep_reasons(connection, rows)
            move(connection, [row.id for row in rows], State.IGNORED, {"reason": detail, "changed_at": now})
            tell(connection, [line(row.id, now, State.IGNORED.value, detail) for row in rows])

        return self._work(replace(selection, states=frozenset({State.QUARANTINED})), step, dry=dry)

    def _work(
        self,
        selection: Selection,
        step: Callable[[Connection, Sequence[Any], Done], None],
        *,
        dry: bool = False,
    ) -> Done:
        done = Done()
        # Two keys may mean one object.
        seen: set[int] = set()
        for key in dict.fromkeys(selection.keys) or (None,):
            if key is not None and len(several := self._sources(selection, key)) > 1:
                done.ambiguous[key] = several
                continue
            last = found = 0
            while True:
                with self._database.read() if dry else self._database.write() as connection:
                    query = _query(selection, key, last)
                    # Locked where writers run side by side: what was decided of a row still holds when it is moved.
                    rows = connection.execute(query if dry else query.with_for_update()).all()
                    step(connection, [row for row in rows if row.id not in seen], done)
                found += len(rows)
                if key is not None:
                    seen.update(row.id for row in rows)
                if len(rows) < _STEP:
                    break
                last = rows[-1].id
            if key is not None and not found:
                self._not_found(key, done)
        return done

    def _sources(self, selection: Selection, key: str) -> list[tuple[str, str]]:
        """The deliveries that a key means as a delivery's id: each one's full name and source."""
        query = select(objects).where(named_delivery(key), *_narrowed(selection)).order_by(objects.c.id)
        with self._database.read() as connection:
            return [(_name(row), str(row.source)) for row in connection.execute(query)]

    def _not_found(self, key: str, done: Done) -> None:
        with self._database.read() as connection:
            row, gone = (
                connection.execute(
                    select(table).where(table.c.id.in_(named_ids(key, table))).order_by(table.c.id.desc()).limit(1)
                ).first()
                for table in (objects, archive)
            )
        if row is not None:
            done.other[key] = (_name(row), State(row.state))
        elif gone is not None:
            done.refuse(_name(gone), _ARCHIVED)
        else:
            done.unknown.append(key)

    def _decide(
        self,
        connection: Connection,
        rows: Sequence[Any],
        datasets: Sequence[Dataset],
        done: Done,
        *,
        force: bool,
        only_rejected: bool,
    ) -> Iterator[tuple[Any, str, Again]]:
        """Each row that may be replayed, with its dataset and `again`; every one is counted."""
        siblings = _siblings(connection, rows)
        declared = {dataset.name: dataset for dataset in datasets}
        for row in rows:
            if row.dataset is None:
                taker = next((dataset for dataset in datasets if takes(dataset, row.key)), None)
            else:
                taker = declared.get(row.dataset)
            key = siblings.get((row.bucket, row.key), _Siblings()) if row.entry == 0 else _Siblings()
            verdict = decide_replay(
                Candidate(
                    state=State(row.state),
                    on_overwrite=taker.on_overwrite if taker else None,
                    no_dataset=_no_taker(row.dataset, row.key),
                    refused_in_inbox=row.bucket == REFUSED_BUCKET,
                    is_notification=row.bucket == NOTIFICATIONS_BUCKET,
                    readable=row.version_id is not None,
                    marker=taker is not None and not row.entry and role(taker, row.key) is Role.MARKER,
                    again=bool(row.again),
                    rejected=row.rejected or 0,
                    newer=key.newer(row.generation),
                    older=key.older(row.generation),
                ),
                force=force,
                only_rejected=only_rejected,
            )
            if verdict.refused is not None or taker is None:
                done.refuse(_name(row), verdict.refused or "")
                continue
            done.take(_name(row), taker.name)
            yield row, taker.name, verdict.again


def _query(selection: Selection, key: str | None, after: int) -> Select[Any]:
    conditions = _narrowed(selection)
    if after or key is None:
        # Not where a key is asked for: a planner might read all ids instead of the key's.
        conditions.append(objects.c.id > after)
    if key is not None:
        other = objects.alias()
        newest = ~exists().where(
            other.c.bucket == objects.c.bucket,
            other.c.key == objects.c.key,
            other.c.entry == objects.c.entry,
            other.c.generation > objects.c.generation,
        )
        waits = objects.c.state == State.QUARANTINED.value
        # A refusal that is over says nothing about an object of the same key.
        live = or_(objects.c.bucket != REFUSED_BUCKET, waits)
        conditions.append(objects.c.id.in_(named_ids(key)))
        conditions.append(or_(named_generation(key), and_(named(key), or_(waits, newest), live)))
    return select(objects).where(*conditions).order_by(objects.c.id).limit(_STEP)


def _narrowed(selection: Selection) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if selection.dataset is not None:
        conditions.append(objects.c.dataset == selection.dataset)
    if selection.since is not None:
        conditions.append(objects.c.changed_at >= selection.since)
    if selection.states:
        conditions.append(objects.c.state.in_(sorted(state.value for state in selection.states)))
    if selection.rejected and not selection.keys:
        # Of a key, why it is not meant is said.
        conditions.append(objects.c.state == State.LOADED.value)
        conditions.append(objects.c.rejected > 0)
    return conditions


def _siblings(connection: Connection, rows: Sequence[Any]) -> dict[tuple[str, str], _Siblings]:
    spans: dict[tuple[str, str], list[tuple[State, int, int]]] = {}
    for bucket, keys in by_bucket(sorted({(row.bucket, row.key) for row in rows if row.entry == 0})):
        query = (
            select(
                objects.c.key,
                objects.c.state,
                func.min(objects.c.generation).label("least"),
                func.max(objects.c.generation).label("greatest"),
            )
            .where(objects.c.bucket == bucket, objects.c.key.in_(keys), objects.c.entry == 0)
            .group_by(objects.c.key, objects.c.state)
        )
        for found in connection.execute(query):
            span = (State(found.state), found.least, found.greatest)
            spans.setdefault((bucket, found.key), []).append(span)
    return {name: _Siblings(spans=tuple(found)) for name, found in spans.items()}


def _keep_reasons(connection: Connection, rows: Sequence[Any]) -> None:
    """Write the reason of what has no history, for it was refused when it came, into its history."""
    reasons = {row.id: row for row in rows if row.reason}
    for piece in pieces(list(reasons)):
        query = select(history.c.object_id).distinct().where(history.c.object_id.in_(piece))
        for told in connection.execute(query).scalars():
            del reasons[told]
    tell(connection, [line(row.id, row.changed_at, row.state, row.reason) for row in reasons.values()])


def _no_taker(dataset: str | None, key: str) -> str:
    if dataset is None:
        return no_dataset(key)
    return f"no file in flows/ declares the dataset {dataset!r} any more: declare it again"


def _name(row: Any) -> str:
    return object_name(row.bucket, row.key, row.generation, row.entry)
