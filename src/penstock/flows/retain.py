"""Removes from the store what was loaded long enough ago, then archives its rows in the ledger.

The store comes first: a crash between the two leaves rows of what is gone, and the next pass archives those. A pass is
bounded in time and goes on where the last one stopped.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from prefect import flow, get_run_logger

from penstock import envelope
from penstock.declarations import Dataset
from penstock.errors import PenstockError, Terminal
from penstock.flows.retention import Plan, done_deliveries, plan_versions, plan_without_versions
from penstock.flows.verify import due
from penstock.ledger import Ledger
from penstock.ledger.archive import Held, Name
from penstock.model import ENVELOPE_PREFIX, Stat, State
from penstock.objects import ObjectStore
from penstock.project import load_project
from penstock.settings import load_settings
from penstock.sources import Source
from penstock.wiring import open_ledger, open_store

log = logging.getLogger(__name__)

EVERY = timedelta(hours=1)
_LONGEST_PASS = timedelta(minutes=5)
_PAGE = 500
_ASKERS = 8
# Where `sweeps` keeps how far a pass came, and for each dataset when the last whole one was.
_POSITION = "(retention)"
# A younger envelope without a row is about to be recorded, or to be found by the sweep.
_ORPHAN_AGE = timedelta(hours=1)
# So much later than promised a delivery's id is forgotten, so that no envelope with a retry of it waits still.
_MARGIN = timedelta(days=1)


@dataclass(kw_only=True)
class Retained:
    """What a pass did for one dataset. `kept` are keys that are old enough but are in a bucket without versions."""

    dataset: str
    removed: int = 0
    archived: int = 0
    kept: int = 0
    forgotten: int = 0
    complete: bool = True


class Retention:
    """`run_once` is one pass over a dataset."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        store: ObjectStore,
        bucket: str,
        monotonic: Callable[[], float] = time.monotonic,
        longest: timedelta = _LONGEST_PASS,
        page: int = _PAGE,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._bucket = bucket
        self._monotonic = monotonic
        self._longest = longest.total_seconds()
        self._page = page
        self._versioned: dict[str, bool] = {}

    def is_due(self, dataset: str) -> bool:
        """Whether the last whole pass was long enough ago; one that was cut short or failed is gone on with at once."""
        last = self._ledger.positions.after(_POSITION, dataset)
        return due(datetime.fromisoformat(last) if last else None, self._ledger.database.clock(), EVERY)

    def run_once(self, dataset: Dataset, sources: Sequence[Source]) -> Retained:
        """Remove and archive what a dataset no longer retains. Raises Transient.

        `sources` feed it: their deliveries are forgotten when their time is over.
        """
        done = Retained(dataset=dataset.name)
        if dataset.retain_days is None:
            return done
        until = self._monotonic() + self._longest
        before = self._ledger.database.clock() - timedelta(days=dataset.retain_days)
        for state in (State.LOADED, State.EMPTY, State.SUPERSEDED, State.MISSING):
            for rows in self._old(dataset.name, state, before):
                self._retire(rows, dataset, before, done)
                if self._monotonic() > until:
                    done.complete = False
                    return done
        if sources and self._no_orphans(dataset.name):
            for source in sources:
                self._forget(source, done)
        self._ledger.positions.move(_POSITION, dataset.name, self._ledger.database.clock().isoformat())
        return done

    def _old(self, dataset: str, state: State, before: datetime) -> Iterator[dict[int, Name]]:
        """The ids and keys of old rows in a state, a page at a time; a pass that was cut short is gone on with."""
        positions, place = self._ledger.positions, f"{dataset}/{state.value}"
        after = int(positions.after(_POSITION, place) or 0)
        while page := self._ledger.archive.page(dataset, state, after=after, limit=self._page):
            after = page[-1][0]
            # Before the work: a page in which something fails or takes too long must not keep the others for ever.
            positions.move(_POSITION, place, str(after))
            yield {id: name for id, name, held in page if held.changed_at < before}
            # Rows come in the order of their arrival, and nothing changes before it arrives.
            if all(held.arrived_at >= before for _, _, held in page):
                break
        positions.clear(_POSITION, place)

    def _retire(self, rows: Mapping[int, Name], dataset: Dataset, before: datetime, done: Retained) -> None:
        held = self._ledger.archive.of_keys(dict.fromkeys(rows.values()))
        unknown_too = dataset.on_overwrite == "replace"
        with ThreadPoolExecutor(_ASKERS) as pool:
            found = pool.map(lambda name: self._plan(name, held[name], before, unknown_too), held)
            plans = dict(zip(held, found, strict=True))
        # A key comes up once for each of its rows: counted with the newest.
        done.kept += sum(plan.kept and held[name][-1].id in rows for name, plan in plans.items())
        for bucket in sorted({bucket for bucket, _ in plans}):
            self._carry_out(bucket, {key: plan for (of, key), plan in plans.items() if of == bucket}, done)

    def _plan(self, name: Name, held: Sequence[Held], before: datetime, unknown_too: bool) -> Plan:
        bucket, key = name
        versioned = self._keeps_versions(bucket)
        if any(row.entry for row in held):
            if not done_deliveries(held, before=before):
                return Plan()
            # Nobody ever writes to an envelope's key again, so without versions it may go by its key alone.
            ids = [version.id for version in self._store.versions(bucket, key)] if versioned else [None]
            return Plan(first=tuple(ids), archive=tuple(held))
        if versioned:
            return plan_versions(held, self._store.versions(bucket, key), before=before, unknown_too=unknown_too)
        return plan_without_versions(held, before=before)

    def _carry_out(self, bucket: str, plans: Mapping[str, Plan], done: Retained) -> None:
        first = [(key, id) for key, plan in plans.items() for id in plan.first]
        failed = self._store.remove_versions(bucket, first)
        left = {key for key, _ in failed}
        last = [(key, plan.last) for key, plan in plans.items() if plan.last is not None and key not in left]
        failed |= self._store.remove_versions(bucket, last)
        left = {key for key, _ in failed}
        for key, id in sorted(failed, key=str):
            log.warning("the store does not let go of %s, version %s; it is tried again", key, id)
        done.removed += len(first) + len(last) - len(failed)
        retired = {(bucket, key): plan.archive for key, plan in plans.items() if plan.archive and key not in left}
        done.archived += self._ledger.archive.retire(retired) if retired else 0

    def _keeps_versions(self, bucket: str) -> bool:
        if bucket not in self._versioned:
            self._versioned[bucket] = self._store.versioned(bucket)
        return self._versioned[bucket]

    def _no_orphans(self, dataset: str) -> bool:
        """Whether no old envelope is left without a row; one whose deliveries all came in another is removed.

        Once its deliveries were forgotten the sweep would take it for new.
        """
        young = self._ledger.database.clock() - _ORPHAN_AGE
        left = 0
        for page in _pages(self._store.list(self._bucket, prefix=f"{ENVELOPE_PREFIX}{dataset}/"), self._page):
            old = {stat.key: stat for stat in page if stat.modified < young}
            for key in sorted(old.keys() - self._ledger.deliveries.envelopes(self._bucket, old)):
                left += not self._remove_orphan(old[key])
        return not left

    def _remove_orphan(self, stat: Stat) -> bool:
        try:
            found = envelope.decode(self._store.read(stat.bucket, stat.key, etag=stat.etag))
        except Terminal as error:
            log.debug("nobody can read %s: %s", stat.key, error)
            return True
        if self._ledger.archive.unknown((delivery.source, delivery.id) for delivery in found):
            return False
        versions = self._store.versions(stat.bucket, stat.key) if self._keeps_versions(stat.bucket) else [None]
        ids = [(stat.key, version.id if version else None) for version in versions]
        return not self._store.remove_versions(stat.bucket, ids)

    def _forget(self, source: Source, done: Retained) -> None:
        before = self._ledger.database.clock() - timedelta(days=source.dedup_days) - _MARGIN
        while forgotten := self._ledger.archive.forget(source.name, done.dataset, before=before):
            done.forgotten += forgotten


def retain_all(
    retention: Retention, datasets: Sequence[Dataset], sources: Sequence[Source]
) -> tuple[list[Retained], dict[str, Exception]]:
    """A pass over each dataset that is due, though another's fails; returns what was done, and what failed."""
    passes: list[Retained] = []
    failed: dict[str, Exception] = {}
    for dataset in datasets:
        try:
            if dataset.retain_days is not None and retention.is_due(dataset.name):
                feeding = [source for source in sources if dataset.name in source.datasets]
                passes.append(retention.run_once(dataset, feeding))
        except Exception as error:  # the run fails with it, once the other datasets had their pass
            failed[dataset.name] = error
    return passes, failed


@flow(name="retain", flow_run_name="retain", validate_parameters=True)
async def retain() -> dict[str, Any]:
    """Remove what the project's datasets no longer retain; returns the counts of those that had a pass now."""
    settings = load_settings()
    project = load_project(settings.project_dir, only=["flows", "webhook"])
    ledger = await asyncio.to_thread(open_ledger, settings)
    retention = Retention(ledger=ledger, store=open_store(settings), bucket=settings.bucket)
    passes, failed = await asyncio.to_thread(retain_all, retention, project.datasets, project.sources)
    for done in passes:
        if done.kept:
            get_run_logger().warning(
                "%d old objects of %s are not removed: their bucket keeps no versions, and without one nothing can be "
                "removed that might have been overwritten meanwhile. Turn versioning on, or remove them yourself",
                done.kept,
                done.dataset,
            )
    for name, error in failed.items():
        get_run_logger().error("nothing more of %s could be removed: %s", name, error, exc_info=error)
    if failed:
        raise PenstockError(f"retention failed for {', '.join(failed)}: see the run's log; the next run tries again")
    return {"status": "processed", "datasets": [asdict(done) for done in passes]}


def _pages(stats: Iterator[Stat], size: int) -> Iterator[list[Stat]]:
    page: list[Stat] = []
    for stat in stats:
        page.append(stat)
        if len(page) == size:
            yield page
            page = []
    yield page
