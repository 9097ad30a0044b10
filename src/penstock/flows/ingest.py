"""The flow that a dataset's deployment runs: what is new → claim → read → check → load → report, until nothing waits.

The dataset's lease serialises runs: a second one finds it taken and ends as skipped. The heartbeat keeps the lease
while the work goes on in threads; should it be lost all the same, the warehouse refuses the transaction by its token.
"""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import timedelta
from typing import Any
from uuid import UUID

import duckdb
from prefect import flow, get_run_logger, task
from prefect.artifacts import acreate_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run
from prefect.settings import PREFECT_LOCAL_STORAGE_PATH

from penstock import faults
from penstock.errors import DeclarationError, LeaseLost, LedgerUnavailable, SettingsError, Transient
from penstock.flows.batch import Batch
from penstock.flows.lease import kept
from penstock.flows.render import as_markdown
from penstock.flows.report import Report
from penstock.ledger import Ledger
from penstock.ledger.database import utc_now
from penstock.model import Lease
from penstock.project import load_project
from penstock.settings import Settings, load_settings
from penstock.wiring import open_landing, open_ledger, open_store, open_warehouse, spool_folder

log = logging.getLogger(__name__)

# What fails for every object alike: a full disk, wrong keys, a faulty declaration.
_NOT_THE_OBJECTS = (DeclarationError, SettingsError, Transient, OSError, MemoryError, duckdb.IOException)


# Where results would go is said here, or every run would ask the server three times. None is kept: the ledger has all.
@flow(name="ingest", persist_result=False, result_storage=PREFECT_LOCAL_STORAGE_PATH.value(), validate_parameters=True)
async def ingest(dataset: str) -> dict[str, Any]:
    """Load everything that is new for `dataset`; returns its status and counts.

    `{"status": "processed", "objects": …, "rows": …, "rejected": …, …}`, or `{"status": "skipped", "reason": …}` when
    nothing was new or another run holds the dataset. `filtered`, `warnings` and `event_times` are there if any are.
    """
    settings = load_settings()
    project = load_project(settings.project_dir, only=["flows"])
    declared = project.dataset(dataset)
    ledger = await asyncio.to_thread(open_ledger, settings)
    run = str(flow_run.get_id() or "by hand")
    lease = await asyncio.to_thread(
        ledger.work.acquire,
        dataset,
        holder=f"run {run}",
        ttl=timedelta(seconds=settings.lease_seconds),
    )
    if lease is None:
        return {"status": "skipped", "dataset": dataset, "reason": "another run holds the dataset and takes all of it"}
    store = open_store(settings)
    warehouse = open_warehouse(settings)
    parts = {
        "dataset": declared,
        "lease": lease,
        "run": run,
        "store": store,
        "ledger": ledger,
        "warehouse": warehouse,
        "landing": open_landing(settings, project, store, ledger),
        "clock": utc_now,
    }
    began = time.monotonic()
    try:
        async with kept(
            ledger,
            lease,
            ttl=timedelta(seconds=settings.lease_seconds),
            stall=timedelta(seconds=settings.stall_seconds),
        ) as progress:
            await asyncio.to_thread(faults.point, "ingest.after_lease")
            if lease.taken_over:
                await asyncio.to_thread(warehouse.fence, dataset, lease.token)
            report = await _drain(settings, lease, ledger, {**parts, "progress": progress})
    except LeaseLost as error:
        if error.greater is not None:
            await asyncio.to_thread(_outrun, ledger, lease, error.greater)
        raise
    except Exception as error:
        await asyncio.to_thread(_let_go, ledger, lease, error, run)
        await _name_run(dataset)
        raise
    except BaseException as error:
        # Cancelled or terminated. On this thread, since the process may be killed soon and the others may hang.
        _let_go(ledger, lease, error, run)
        raise
    await _name_run(dataset)
    if not report.outcomes:
        return {"status": "skipped", "dataset": dataset, "reason": "nothing was new"}
    seconds = round(time.monotonic() - began, 3)
    await leave_report(dataset, report, seconds)
    return {
        "status": "processed",
        "dataset": dataset,
        "objects": report.loaded,
        "rows": report.rows,
        "rejected": report.rejected,
        "outcomes": report.outcomes,
        "report": report.figures,
        "seconds": seconds,
        **report.told(),
    }


async def _name_run(dataset: str) -> None:
    """Name the run as its dataset. Not by `flow_run_name`, which costs requests before the work begins."""
    if (run := flow_run.get_id()) is None:
        return
    try:
        async with get_client() as client:
            await client.set_flow_run_name(UUID(run), dataset)
    except Exception as error:
        # A name must not fail a run that has loaded.
        log.debug("the run %s keeps its name: %r", run, error)


async def _drain(settings: Settings, lease: Lease, ledger: Ledger, parts: dict[str, Any]) -> Report:
    report = Report()
    number = 0
    while True:
        refs = await asyncio.to_thread(
            ledger.work.claim,
            lease,
            run=parts["run"],
            max_objects=settings.batch_objects,
            max_bytes=settings.batch_bytes,
            backfill=parts["dataset"].backfill,
        )
        if not refs:
            if await asyncio.to_thread(ledger.work.finish, lease):
                await asyncio.to_thread(faults.point, "ingest.after_finish")
                return report
            continue
        await asyncio.to_thread(faults.point, "ingest.after_claim")
        number += 1
        spool = spool_folder(settings) / f"{lease.dataset}-{lease.token}-{number}"
        spool.mkdir(parents=True, exist_ok=True, mode=0o700)
        batch = Batch(refs, spool=spool, **parts)
        try:
            await read_objects(batch)
            await check_rows(batch)
            await load_rows(batch)
            outcomes, figures = await asyncio.to_thread(batch.settle)
            await asyncio.to_thread(faults.point, "ingest.after_settle")
        finally:
            await asyncio.to_thread(batch.clean)
        parts["progress"]()
        report.add(outcomes, figures, batch.counts)


def _is_transient(task: Any, task_run: Any, state: Any) -> bool:
    """Prefect asks this before it retries a task: only where a retry can help."""
    try:
        state.result()
    except (Transient, OSError):
        return True
    except Exception:
        log.debug("not retried: %s", state.message)
    return False


@task(name="read objects", cache_policy=NO_CACHE)
async def read_objects(batch: Batch) -> int:
    """Download the claimed objects from the store, etags asserted."""
    count = await asyncio.to_thread(batch.fetch)
    get_run_logger().info("read %d of %d objects", count, len(batch.refs))
    return count


@task(name="check rows", cache_policy=NO_CACHE)
async def check_rows(batch: Batch) -> int:
    """Parse the objects and check their rows."""
    rows = await asyncio.to_thread(batch.check)
    for outcome in batch.outcomes.values():
        if outcome.reason:
            get_run_logger().warning("%s is %s: %s", outcome.ref.name, outcome.state.value, outcome.reason)
    return rows


@task(
    name="load rows",
    cache_policy=NO_CACHE,
    retries=3,
    retry_delay_seconds=[1, 2, 4],
    retry_condition_fn=_is_transient,
)
async def load_rows(batch: Batch) -> int:
    """Write rows and markers in one warehouse transaction; the markers make a second attempt harmless."""
    rows = await asyncio.to_thread(batch.load)
    get_run_logger().info("loaded %d rows", rows)
    return rows


@task(name="report", cache_policy=NO_CACHE)
async def leave_report(dataset: str, report: Report, seconds: float) -> None:
    """Leave what the run did as an artifact."""
    await acreate_markdown_artifact(
        key=f"ingest-{dataset.replace('_', '-')}",
        markdown=as_markdown(dataset, report, seconds),
        description=f"What the last run of {dataset} did",
    )


def _outrun(ledger: Ledger, lease: Lease, greater: int) -> None:
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


def _let_go(ledger: Ledger, lease: Lease, error: BaseException, run: str) -> None:
    """Give the claim back, so that the next run needs not wait for the lease to expire."""
    blameless = not isinstance(error, Exception) or isinstance(error, _NOT_THE_OBJECTS)
    try:
        ledger.work.abandon(
            lease,
            reason=f"{type(error).__name__}: {error}" if isinstance(error, Exception) else "the run was cancelled",
            run=run,
            blame=not blameless,
        )
    except (LeaseLost, LedgerUnavailable) as lost:
        log.warning("the claim comes back when the lease expires: %s", lost)
