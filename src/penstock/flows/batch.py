"""One claimed batch on its way from the store to the warehouse: fetch, check, load. No Prefect in here.

Each step leaves what became of every object, so that one bad object never stops another. A transient error holds the
object it met and, in an ordered dataset, everything that arrived after it.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
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
    Unreadable,
)
from penstock.flows.again import see_the_same_records, with_raw
from penstock.flows.counting import Counting
from penstock.flows.fetching import Fetched, Fetcher
from penstock.flows.fitting import Fitting, write_of
from penstock.flows.judging import judge_all, judge_nothing
from penstock.flows.learning import learn_of_the_dead, of_every_format, propose, read_losing_nothing
from penstock.flows.manifests import announce_named, is_manifest
from penstock.flows.older import Older
from penstock.flows.reading import Found, Reader
from penstock.flows.report import Counts, Report
from penstock.formats.engine import BY_THE_DATA
from penstock.formats.evolve import cause_of
from penstock.formats.names import json_keys
from penstock.formats.object_checks import ControlFile
from penstock.formats.result import REJECTED
from penstock.formats.transform import NO_ROWS
from penstock.landing import Landing
from penstock.ledger import Ledger
from penstock.ledger.decide import is_poison
from penstock.machine_faults import raise_machine_fault
from penstock.model import Lease, ObjectRef, Outcome, Schema, State, Via
from penstock.objects import ObjectStore
from penstock.warehouse.base import LoadPart, Warehouse
from penstock.warehouse.rows import agreed, as_kinds

log = logging.getLogger(__name__)

__all__ = ["Batch", "Report"]


class Batch:
    """The objects of one claim. The steps are called in the order in which they stand here.

    `counts` is what is told of them besides their outcomes, once they are settled.
    """

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
        self.counts = Counts()
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
        self._older = Older(self.refs)
        self._counting = Counting(dataset, ledger)
        self._replaced: list[ObjectRef] = []
        self._changed: dict[str, list[str]] = {}
        self._columns: dict[int, tuple[tuple[str, str], ...]] = {}
        self._fitting = Fitting(dataset, warehouse)
        self._originals: dict[str, str] = {}
        # By format, with the cause.
        self._learned: dict[str, tuple[Schema, str]] = {}
        self._prepared = False

    def fetch(self) -> int:
        """Download every object, etag asserted; returns how many came. Objects changed meanwhile are superseded.

        What a run loaded that died before it told the ledger is not read again: it is loaded, whatever became of its
        key since, and what it taught is remembered. Raises WarehouseLocked where that is looked up, LeaseLost.
        """
        learn_of_the_dead(self._ledger, self._warehouse, self._lease)
        self._find_loaded()
        self._give_up_poison()
        wanted = [ref for ref in self.refs if ref.id not in self.outcomes and (ref.entry or ref.size)]
        fetcher = Fetcher(store=self._store, dataset=self._dataset, spool=self._spool, progress=self._progress)
        fetched = fetcher.fetch(wanted)
        for ref in self.refs:
            if ref.id in self.outcomes:
                continue
            if ref.id not in fetched:
                if self._end_without_bytes(ref, fetcher):
                    continue
                break
            found = fetched[ref.id]
            if isinstance(found, Fetched):
                self._fetched[ref.id] = found
            elif not self._give_up(ref, found):
                break
        faults.point("ingest.after_read")
        return len(self._fetched)

    def prepare(self) -> None:
        """Look up what the objects replace and read the manifests; once, however often it is asked for.

        Raises WarehouseLocked.
        """
        if self._prepared:
            return
        # What is written again is merged where the dataset merges, or takes the place of its partitions.
        if self._dataset.on_overwrite == "replace" and self._dataset.write == "append":
            self._older.find(self._ledger, self._warehouse)
        self._counting.begin()
        self._read_manifests()
        self._prepared = True

    def check(self) -> int:
        """Parse and check what was fetched; returns the good rows.

        Raises DeclarationError for faulty SQL in the declaration, WarehouseLocked where an overwrite is looked up.
        """
        self.prepare()
        reader = Reader(
            {number: (found.path, found.name) for number, found in self._fetched.items()},
            dataset=self._dataset,
            remembered=lambda form: self._ledger.schemas.latest(self._dataset.name, form),
            others=lambda: of_every_format(self._ledger, self._dataset.name),
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
            except BY_THE_DATA as error:
                raise_machine_fault(error)
                # DuckDB's own words would hold values.
                self._end(ref, State.QUARANTINED, f"DuckDB cannot read it: {type(error).__name__}")
        self._round_off()
        return good

    def _round_off(self) -> None:
        for ref in self.refs:
            outcome = self.outcomes.get(ref.id)
            if outcome is None or outcome.state is not State.EMPTY or ref.only_rejected:
                continue
            if is_manifest(self._dataset, ref):
                continue
            if ref.again or self._older.names(ref):
                # Overwritten, or read again, with nothing in it: the rows that are there go.
                self._add_part(ref, rows=NO_ROWS, rejected=REJECTED.empty_table())
        self._keep_what_cannot_be_read_again()

    def _read_manifests(self) -> None:
        """What names others is read before anything else, and nothing of it is loaded."""
        for ref in self.refs:
            if ref.id not in self._fetched or not is_manifest(self._dataset, ref):
                continue
            path = self._fetched.pop(ref.id).path
            try:
                said = announce_named(self._ledger, self._dataset, ref, path, progress=self._progress)
            except Unreadable as error:
                self._end(ref, State.QUARANTINED, str(error))
            else:
                self._end(ref, State.EMPTY, said)

    def load(self) -> int:
        """Rows and markers in one warehouse transaction; returns the rows. Raises LeaseLost, WarehouseLocked."""
        parts = [self._parts[ref.id] for ref in self.refs if ref.id in self._parts]
        columns = agreed((self._columns.get(part.ref.id, ()), part.rows) for part in parts)
        for ref_id, own in self._columns.items():
            if ref_id in self._parts:
                part = self._parts[ref_id]
                self._parts[ref_id] = replace(part, rows=as_kinds(part.rows, own, columns))
                self._columns[ref_id] = tuple((name, columns[name]) for name, _ in own)
        parts = [self._parts[part.ref.id] for part in parts]
        if not parts:
            return 0
        propose(self._ledger, self._lease, self._learned, parts)
        faults.point("ingest.before_load")
        self._progress()
        result = self._warehouse.load(
            self._dataset.name,
            list(columns.items()),
            parts,
            token=self._lease.token,
            run=self._run,
            now=self._clock(),
            write=write_of(self._dataset),
            originals=self._originals,
        )
        if self._learned:
            self._ledger.schemas.conclude(self._lease, loaded=True)
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
        self._count_what_was_mended(parts)
        return rows

    def settle(self) -> tuple[list[Outcome], dict[str, Any]]:
        """Tell the ledger; returns what became of each object, and the figures of the dataset's report."""
        outcomes = self._counting.noted(list(self.outcomes.values()), self._parts)
        replaced = [old for ref_id in self._parts for old in self._older.loaded_before(ref_id, self.outcomes)]
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
        self.counts = self._counting.settled()
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
        suspects = {ref.name: ref for ref in self.refs if ref.claimed_before and not (ref.again or ref.only_rejected)}
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
            if ref.id in self.outcomes
            and (
                (ref.again and self.outcomes[ref.id].state not in (State.LOADED, State.EMPTY))
                or (ref.only_rejected and self.outcomes[ref.id].state is not State.LOADED)
            )
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

    def _read(self, ref: ObjectRef, reader: Reader) -> Found:
        return read_losing_nothing(
            ref.id,
            reader,
            table=self._dataset.name,
            warehouse=self._warehouse,
            parts=(part.rows for part in self._parts.values()),
        )

    def _check_one(self, ref: ObjectRef, reader: Reader) -> int:
        found = self._read(ref, reader)
        path, name = self._fetched[ref.id].path, self._fetched[ref.id].name
        if ref.only_rejected:
            see_the_same_records(ref, path, name, found.dataset, found.result, self._warehouse)
        rows = self._take(ref, found, reader, self._fetched[ref.id].control)
        if part := self._parts.get(ref.id):
            rejected = with_raw(part.rejected, path, name, found.dataset, found.result.schema)
            self._parts[ref.id] = replace(part, rejected=rejected)
        return rows

    def _take(self, ref: ObjectRef, found: Found, reader: Reader, control: ControlFile | None) -> int:
        judged = judge_all(found, control)
        result = judged.result
        self._counting.judged(ref, judged)
        if judged.state is not State.LOADED:
            self._end(ref, judged.state, judged.reason or "", rejected=result.rejected.num_rows)
            return 0
        self._fitting.check(result.columns)
        if result.schema != found.known:
            cause = cause_of(found.known, result.schema, hints=self._dataset.columns)
            self._learned[found.form] = result.schema, f"{cause}: {ref.name}"
            reader.learn(found.form, result.schema)
        self._columns[ref.id] = result.columns
        self._originals |= {
            column.name: ".".join(json_keys(column.original))
            for column in result.schema.columns
            if column.name not in found.dataset.derive
        }
        self._add_part(ref, rows=result.rows, rejected=result.rejected)
        return int(result.rows.num_rows)

    def _end_without_bytes(self, ref: ObjectRef, fetcher: Fetcher) -> bool:
        """As `_give_up`: False when nothing after it may be loaded in this batch."""
        state, reason = State.EMPTY, "it has 0 bytes"
        try:
            if not is_manifest(self._dataset, ref):
                state, reason = judge_nothing(self._dataset, reason, fetcher.control(ref))
        except (Terminal, Transient) as error:
            return self._give_up(ref, error)
        self._end(ref, state, reason)
        return True

    def _count_what_was_mended(self, parts: Sequence[LoadPart]) -> None:
        """Of what had only its rejected rows loaded, the rows are those that are there now."""
        mended = {part.ref.name: part.ref for part in parts if part.only_rejected}
        for name, (rows, rejected) in (self._warehouse.loaded(list(mended)) if mended else {}).items():
            ref = mended[name]
            if self.outcomes[ref.id].state is State.LOADED:
                self.outcomes[ref.id] = Outcome(ref=ref, state=State.LOADED, rows=rows, rejected=rejected)

    def _add_part(self, ref: ObjectRef, *, rows: pa.Table, rejected: pa.Table) -> None:
        self._parts[ref.id] = LoadPart(
            ref=ref,
            rows=rows,
            rejected=rejected,
            replaces=self._older.names(ref),
            again=ref.again,
            only_rejected=ref.only_rejected,
        )

    def _end(self, ref: ObjectRef, state: State, reason: str, *, rejected: int = 0) -> None:
        self.outcomes[ref.id] = Outcome(ref=ref, state=state, rejected=rejected, reason=reason)


def _left_to_the_sweep(key: str, error: Exception) -> None:
    log.info("%s is left to the sweep: %s", key, error)
