"""What a run that works on a dataset needs, and what becomes of its claim when it fails."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import duckdb

from penstock.declarations import Dataset
from penstock.errors import DeclarationError, LeaseLost, LedgerUnavailable, SettingsError, Transient
from penstock.landing import Landing
from penstock.ledger import Ledger
from penstock.ledger.database import utc_now
from penstock.model import Lease, ObjectRef
from penstock.objects import ObjectStore
from penstock.project import Project
from penstock.settings import Settings
from penstock.warehouse.base import Warehouse
from penstock.wiring import open_landing, open_store, open_warehouse

log = logging.getLogger(__name__)

# What fails for every object alike: a full disk, wrong keys, a faulty declaration.
NOT_THE_OBJECTS = (DeclarationError, SettingsError, Transient, OSError, MemoryError, duckdb.IOException)


@dataclass(frozen=True, kw_only=True)
class Work:
    """A run's hold on a dataset, with the parts that it works with."""

    settings: Settings
    dataset: Dataset
    lease: Lease
    run: str
    store: ObjectStore
    ledger: Ledger
    warehouse: Warehouse
    landing: Landing

    @property
    def parts(self) -> dict[str, Any]:
        """What a batch is made with, besides its objects and its folder."""
        clock: Callable[[], datetime] = utc_now
        return {
            "dataset": self.dataset,
            "lease": self.lease,
            "run": self.run,
            "store": self.store,
            "ledger": self.ledger,
            "warehouse": self.warehouse,
            "landing": self.landing,
            "clock": clock,
        }

    def fence(self) -> None:
        """Have the warehouse refuse the holder before, where it did not let go. Raises LeaseLost."""
        if self.lease.taken_over:
            self.warehouse.fence(self.dataset.name, self.lease.token)

    def claim(self) -> list[ObjectRef]:
        """What is pending, up to the bounds of a batch."""
        return self.ledger.work.claim(
            self.lease,
            run=self.run,
            max_objects=self.settings.batch_objects,
            max_bytes=self.settings.batch_bytes,
            backfill=self.dataset.backfill,
        )


def acquire(ledger: Ledger, dataset: str, *, settings: Settings, run: str) -> Lease | None:
    """The dataset's lease, or None while another holds it."""
    return ledger.work.acquire(dataset, holder=f"run {run}", ttl=timedelta(seconds=settings.lease_seconds))


def open_work(settings: Settings, project: Project, dataset: str, ledger: Ledger, lease: Lease, *, run: str) -> Work:
    """The parts that the settings name, for the holder of the lease."""
    store = open_store(settings)
    return Work(
        settings=settings,
        dataset=project.dataset(dataset),
        lease=lease,
        run=run,
        store=store,
        ledger=ledger,
        warehouse=open_warehouse(settings),
        landing=open_landing(settings, project, store, ledger),
    )


def outrun(ledger: Ledger, lease: Lease, greater: int) -> None:
    """Where nobody took the lease over, the ledger is the one that is behind: its next token is a greater one."""
    try:
        ledger.work.outrun(lease, greater)
    except LeaseLost:
        return
    except LedgerUnavailable as error:
        log.warning("the next run tries again: %s", error)
        return
    log.error(
        "dataset %s: the warehouse knows token %d, the ledger only %d: the ledger was restored, or made anew. "
        "The next run goes on; compare the two with: penstock sweep --verify",
        lease.dataset,
        greater,
        lease.token,
    )


def let_go(ledger: Ledger, lease: Lease, error: BaseException, run: str, *, blame: bool = True) -> None:
    """Give the claim back, so that the next run needs not wait for the lease to expire."""
    blameless = not isinstance(error, Exception) or isinstance(error, NOT_THE_OBJECTS)
    try:
        ledger.work.abandon(
            lease,
            reason=f"{type(error).__name__}: {error}" if isinstance(error, Exception) else "the run was cancelled",
            run=run,
            blame=blame and not blameless,
        )
    except (LeaseLost, LedgerUnavailable) as lost:
        log.warning("the claim comes back when the lease expires: %s", lost)
