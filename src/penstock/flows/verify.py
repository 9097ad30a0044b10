"""The warehouse is not believed, it is checked: markers and rows against the ledger, and what is lost is loaded again.

The ledger is read before the warehouse, and what a newer generation replaced is known there, so that no load that
happens meanwhile is taken for a loss: no lease is needed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from prefect import flow, get_run_logger

from penstock.ledger import Ledger
from penstock.model import ObjectRef
from penstock.settings import load_settings
from penstock.warehouse.base import Warehouse
from penstock.wiring import open_ledger, open_warehouse

log = logging.getLogger(__name__)

_PAGE = 5000


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One dataset: how many of its objects the ledger calls loaded, and how many of them went back to pending."""

    dataset: str
    loaded: int
    lost: int


def compare(ledger: Ledger, warehouse: Warehouse) -> list[Compared]:
    """Compare every dataset that has something loaded, and send back what the warehouse lost. Raises Transient.

    Every marker is looked for, since a warehouse that fell back behind a replacement has as many as before; rows are
    counted by object only where their total is not that of the markers.
    """
    return [
        _compare(ledger, warehouse, dataset, count) for dataset, count in sorted(ledger.checked.loaded_counts().items())
    ]


def due(last: datetime | None, now: datetime, interval: timedelta) -> bool:
    """Whether to compare again: runs that were late all come at once, and one of them is enough."""
    return last is None or not timedelta(0) <= now - last < interval / 2


@flow(name="verify", flow_run_name="verify", validate_parameters=True)
async def verify() -> dict[str, Any]:
    """Compare warehouse and ledger; returns each dataset's counts, or that it was done a moment ago."""
    settings = load_settings()
    ledger = await asyncio.to_thread(open_ledger, settings)
    last = max((await asyncio.to_thread(ledger.checked.last_compared)).values(), default=None)
    if not due(last, ledger.database.clock(), timedelta(seconds=settings.verify_seconds)):
        return {"status": "skipped", "reason": f"compared at {last}"}
    found = await asyncio.to_thread(compare, ledger, open_warehouse(settings))
    for one in found:
        if one.lost:
            get_run_logger().error(
                "the warehouse lost %d of %d objects of %s; they are loaded again", one.lost, one.loaded, one.dataset
            )
    return {"status": "processed", "datasets": [asdict(one) for one in found]}


def _compare(ledger: Ledger, warehouse: Warehouse, dataset: str, count: int) -> Compared:
    damaged = set(warehouse.damaged(dataset))
    lost = 0
    for page in _pages(lambda after: ledger.checked.loaded(dataset, after=after, limit=_PAGE)):
        there = warehouse.markers([ref.name for ref in page])
        gone = [ref for ref in page if ref.name not in there]
        replaced = warehouse.replaced([ref.name for ref in gone])
        lost += ledger.checked.lost(
            [ref for ref in gone if ref.name not in replaced], what="its marker is no longer in the warehouse"
        )
        lost += ledger.checked.lost(
            [ref for ref in page if ref.name in damaged and ref.name in there],
            what="the warehouse does not have as many rows of it as its marker says",
        )
    ledger.checked.compared(dataset)
    return Compared(dataset=dataset, loaded=count, lost=lost)


def _pages(read: Callable[[int], Sequence[ObjectRef]]) -> Iterator[Sequence[ObjectRef]]:
    after = 0
    while page := read(after):
        yield page
        after = page[-1].id
