"""One claimed batch on its way from the store to the warehouse: fetch, check, load. No Prefect in here.

Each step leaves what became of every object, so that one bad object never stops another. A transient error holds the
object it met and, in an ordered dataset, everything that arrived after it.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from penstock import faults, formats
from penstock.declarations import Dataset
from penstock.errors import (
    DeclarationError,
    ObjectChanged,
    ObjectMissing,
    SettingsError,
    Terminal,
    Transient,
)
from penstock.flows.fetching import Fetched, Fetcher
from penstock.flows.judging import judge
from penstock.flows.reading import Reader
from penstock.formats.result import REJECTED, RESCUED, ROW
from penstock.landing import Landing
from penstock.ledger import Ledger
from penstock.ledger.decide import is_poison
from penstock.model import Lease, ObjectRef, Outcome, Schema, State, Via, object_name
from penstock.objects import ObjectStore
from penstock.warehouse.base import LoadPart, Warehouse

log = logging.getLogger(__name__)

_NO_ROWS = pa.table({ROW: pa.array([], pa.int64()), RESCUED: pa.array([], pa.string())})

# How many older generations of a key are asked for in the warehouse, besides those that the ledger calls loaded.
_GENERATIONS = 100


@dataclass(kw_only=True)
class Report:
    """What a run did, added up batch by batch."""

    loaded: int = 0
    rows: int = 0
    rejected: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)

    def add(self, outcomes: Sequence[Outcome], figures: dict[str, Any]) -> None:
        """Count a settled batch."""
        for outcome in outcomes:
            self.outcomes[outcome.state.value] = self.outcomes.get(outcome.state.value, 0) + 1
            if outcome.state is State.LOADED:
                self.loaded += 1
                self.rows += outcome.rows
                self.rejected += outcome.rejected
        self.figures = formats.merge_reports(self.figures, figures)


class Batch:
    """The objects of one claim. The steps are called in the order in which they stand here."""

    def __init__(
        self,
        refs: Sequence[ObjectRef],
        *,
        dataset: Dataset,
        lease: Lease,
        run: str,
        store: ObjectStore,
        ledger: Ledger,
        warehouse: Warehouse,
        landing: Landing,
        spool: Path,
        clock: Callable[[], datetime],
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        self.refs = list(refs)
        self.outcomes: dict[int, Outcome] = {}
        self.postponed: tuple[ObjectRef, str] | None = None
        self._dataset = dataset
        self._lease = lease
        self._run = run
        self._store = store
        self._ledger = ledger
        self._warehouse = warehouse
        self._landing = landing
        self._spool = spool
        self._clock = clock
        self._progress = progress
        self._fetched: dict[int, Fetched] = {}
        self._parts: dict[int, LoadPart] = {}
        self._replaces: dict[int, list[ObjectRef]] = {}
        self._stale: dict[int, set[str]] = {}
        self._replaced: list[ObjectRef] = []
        self._changed: dict[str, list[str]] = {}
        self._columns: dict[str, str] = {}
        self._learned: dict[str, Schema] = {}
        self._causes: dict[str, str] = {}

    def fetch(self) -> int:
        """Download every object, etag asserted; returns how many came. Objects changed meanwhile are superseded.

        What a run loaded that died before it told the ledger is not read again: it is loaded, whatever became of its
        key since. Raises WarehouseLocked where that is looked up.
        """
        self._find_loaded()
        self._give_up_poison()
        wanted = [ref for ref in self.refs if ref.id not in self.outcomes and (ref.entry or ref.size)]
        fetcher = Fetcher(store=self._store, dataset=self._dataset, spool=self._spool, progress=self._progress)
        fetched = fetcher.fetch(wanted)
        for ref in self.refs:
            if ref.id in self.outcomes:
                continue
            if ref.id not in fetched:
                self._end(ref, State.EMPTY, "it has 0 bytes")
                continue
            found = fetched[ref.id]
            if isinstance(found, Fetched):
                self._fetched[ref.id] = found
            elif not self._give_up(ref, found):
                break
        faults.point("ingest.after_read")
        return len(self._fetched)

    def check(self) -> int:
        """Parse and check what was fetched; returns the good rows.

        Raises DeclarationError for faulty SQL in the declaration, WarehouseLocked where an overwrite is looked up.
        """
        if self._dataset.on_overwrite == "replace":
            self._find_older()
        reader = Reader(
            {number: (found.path, found.name) for number, found in self._fetched.items()},
            dataset=self._dataset,
            remembered=lambda form: self._ledger.schemas.latest(self._dataset.name, form),
            progress=self._progress,
        )
        good = 0
        for ref in self.refs:
            if ref.id not in self._fetched:
                continue
            try:
                good += self._check_one(ref, reader)
            except (DeclarationError, MemoryError):  # Arrow's MemoryError is an ArrowException too
                raise
            except Terminal as error:
                self._end(ref, State.QUARANTINED, str(error))
            except (pa.ArrowException, ValueError, OverflowError, RecursionError) as error:
                self._end(ref, State.QUARANTINED, f"{type(error).__name__}: {error}")
        for ref in self.refs:
            outcome = self.outcomes.get(ref.id)
            if outcome is not None and outcome.state is State.EMPTY and (ref.again or self._replaced_names(ref)):
                # Overwritten, or read again, with nothing in it: the rows that are there go.
                self._add_part(ref, rows=_NO_ROWS, rejected=REJECTED.empty_table())
        self._keep_what_cannot_be_read_again()
        return good

    def load(self) -> int:
        """Rows and markers in one warehouse transaction; returns the rows. Raises LeaseLost, WarehouseLocked."""
        parts = [self._parts[ref.id] for ref in self.refs if ref.id in self._parts]
        if not parts:
            return 0
        faults.point("ingest.before_load")
        self._progress()
        result = self._warehouse.load(
            self._dataset.name,
            list(self._columns.items()),
            parts,
            token=self._lease.token,
            run=self._run,
            now=self._clock(),
        )
        for form, schema in self._learned.items():
            self._ledger.schemas.remember(self._dataset.name, form, schema, cause=self._causes[form])
        self._learned.clear()
        rows = 0
        for part in parts:
            if part.ref.name in result.superseded:
                self._end(part.ref, State.SUPERSEDED, "a newer generation of its key was loaded before it")
                continue
            rows += part.rows.num_rows
            if part.ref.id not in self.outcomes:
                self.outcomes[part.ref.id] = Outcome(
                    ref=part.ref, state=State.LOADED, rows=part.rows.num_rows, rejected=part.rejected.num_rows
                )
        return rows

    def settle(self) -> tuple[list[Outcome], dict[str, Any]]:
        """Tell the ledger; returns what became of each object, and the figures of the dataset's report."""
        outcomes = list(self.outcomes.values())
        replaced = [old for ref_id in self._parts for old in self._replaces.get(ref_id, []) if self._was_loaded(old)]
        self._ledger.work.settle(self._lease, outcomes, run=self._run, replaced=[*self._replaced, *replaced])
        left = [ref for ref in self.refs if ref.id not in self.outcomes]
        if left:
            assert self.postponed is not None, left
            failed, reason = self.postponed
            self._ledger.work.give_back(self._lease, left, run=self._run, failed=failed, reason=reason)
        for bucket, keys in self._changed.items():
            self._landing.seen(bucket, keys, Via.SWEEP, skip=_left_to_the_sweep, progress=self._progress)
        loaded = [
            self._parts[outcome.ref.id].rows
            for outcome in outcomes
            if outcome.ref.id in self._parts and outcome.state is State.LOADED
        ]
        figures: dict[str, Any] = {}
        if loaded and self._dataset.report:
            figures = formats.report(pa.concat_tables(loaded, promote_options="permissive"), self._dataset)
        return outcomes, figures

    def clean(self) -> None:
        """Remove what was downloaded."""
        shutil.rmtree(self._spool, ignore_errors=True)

    def _give_up_poison(self) -> None:
        """Only now, when it is sure that none of the runs that died with it had loaded it."""
        for ref in self.refs:
            if ref.id not in self.outcomes and is_poison(ref.attempts, self._dataset.max_attempts):
                self._end(
                    ref, State.QUARANTINED, f"{ref.attempts} runs failed or died with it; the last: {ref.trouble}"
                )

    def _find_loaded(self) -> None:
        suspects = {ref.name: ref for ref in self.refs if ref.claimed_before and not ref.again}
        found = self._warehouse.loaded(list(suspects)) if suspects else {}
        for name, (rows, rejected) in found.items():
            ref = suspects[name]
            if rows or rejected:
                self.outcomes[ref.id] = Outcome(ref=ref, state=State.LOADED, rows=rows, rejected=rejected)
            else:
                # Overwritten with nothing: the marker stands for the rows that went.
                self._end(ref, State.EMPTY, "it has no records")
        self._find_replaced([suspects[name] for name in found])

    def _find_replaced(self, loaded: Sequence[ObjectRef]) -> None:
        """What the load of a run replaced that died before it told the ledger."""
        older = self._ledger.work.older(loaded)
        names = {old.name for found in older.values() for old in found}
        gone = self._warehouse.replaced(sorted(names)) if names else set()
        self._replaced = [old for found in older.values() for old in found if old.name in gone]

    def _keep_what_cannot_be_read_again(self) -> None:
        """A replay that fails leaves what was loaded before as it was; only its reason says so.

        Where that is not whole any more, the loss must be seen: it goes to quarantine, with what is left in the table.
        """
        failed = {
            ref.name: ref
            for ref in self.refs
            if ref.again and ref.id in self.outcomes and self.outcomes[ref.id].state not in (State.LOADED, State.EMPTY)
        }
        if not failed:
            return
        found = self._warehouse.loaded(list(failed))
        damaged = set(self._warehouse.damaged(self._dataset.name))
        for name, ref in failed.items():
            why = self.outcomes[ref.id].reason
            if name in found and name not in damaged:
                rows, rejected = found[name]
                reason = f"it could not be loaded again, and its rows stay as they were: {why}"
                self.outcomes[ref.id] = Outcome(
                    ref=ref, state=State.LOADED, rows=rows, rejected=rejected, reason=reason
                )
            else:
                self._end(ref, State.QUARANTINED, f"the warehouse lost rows of it, and it cannot be read again: {why}")

    def _give_up(self, ref: ObjectRef, error: Terminal | Transient) -> bool:
        """Settle an object that did not come; False when nothing after it may be loaded in this batch."""
        if isinstance(error, ObjectMissing | ObjectChanged) and not ref.entry:
            self._changed.setdefault(ref.bucket, []).append(ref.key)
        if isinstance(error, ObjectMissing):
            self._end(ref, State.MISSING, "it was deleted before it was read")
        elif isinstance(error, ObjectChanged):
            self._end(ref, State.SUPERSEDED, "it was overwritten before it was read")
        elif isinstance(error, Terminal) and not isinstance(error, SettingsError):
            self._end(ref, State.QUARANTINED, str(error))
        else:
            # Wrong keys or clocks are no fault of the object's: it waits until somebody has set them right.
            if self.postponed is None:
                self.postponed = (ref, str(error))
            return not self._dataset.ordered
        return True

    def _check_one(self, ref: ObjectRef, reader: Reader) -> int:
        found = reader.read(ref.id)
        form, known, result = found.form, found.known, found.result
        state, reason = judge(result, self._dataset)
        if state is not State.LOADED:
            self._end(ref, state, reason or "", rejected=result.rejected.num_rows)
            return 0
        if result.schema != known:
            self._learned[form] = result.schema
            reader.learn(form, result.schema)
            self._causes[form] = f"{_cause(known, result.schema)}: {ref.name}"
        for column, kind in result.columns:
            if self._columns.get(column) != "DOUBLE":
                self._columns[column] = kind
        self._add_part(ref, rows=result.rows, rejected=result.rejected)
        return int(result.rows.num_rows)

    def _find_older(self) -> None:
        """What each object replaces: what the ledger calls loaded, what comes with this batch, and what a run left in
        the warehouse that died before it told the ledger (the markers say so).
        """
        self._replaces = {ref_id: list(found) for ref_id, found in self._ledger.work.older(self.refs).items()}
        names: dict[int, list[str]] = {}
        for ref in self.refs:
            if ref.entry or ref.generation == 1:
                continue
            self._replaces.setdefault(ref.id, []).extend(
                old
                for old in self.refs
                if not old.entry and (old.bucket, old.key) == (ref.bucket, ref.key) and old.generation < ref.generation
            )
            oldest = max(1, ref.generation - _GENERATIONS)
            names[ref.id] = [object_name(ref.bucket, ref.key, number) for number in range(oldest, ref.generation)]
        there = self._warehouse.markers([name for found in names.values() for name in found]) if names else set()
        self._stale = {ref_id: there & set(found) for ref_id, found in names.items()}

    def _replaced_names(self, ref: ObjectRef) -> tuple[str, ...]:
        names = {old.name for old in self._replaces.get(ref.id, [])} | self._stale.get(ref.id, set())
        return tuple(sorted(names))

    def _was_loaded(self, old: ObjectRef) -> bool:
        """Whether a replaced generation is loaded for the ledger, before this batch or in it."""
        if all(old.id != ref.id for ref in self.refs):
            return True
        outcome = self.outcomes.get(old.id)
        return outcome is not None and outcome.state is State.LOADED

    def _add_part(self, ref: ObjectRef, *, rows: pa.Table, rejected: pa.Table) -> None:
        replaces = self._replaced_names(ref)
        self._parts[ref.id] = LoadPart(ref=ref, rows=rows, rejected=rejected, replaces=replaces, again=ref.again)

    def _end(self, ref: ObjectRef, state: State, reason: str, *, rejected: int = 0) -> None:
        self.outcomes[ref.id] = Outcome(ref=ref, state=state, rejected=rejected, reason=reason)


def _left_to_the_sweep(key: str, error: Exception) -> None:
    log.info("%s is left to the sweep: %s", key, error)


def _cause(known: Schema | None, learned: Schema) -> str:
    if known is None:
        return "first object"
    names = {column.name for column in known.columns}
    new = [column.name for column in learned.columns if column.name not in names]
    return f"new columns {', '.join(new)}" if new else "numbers widened"
