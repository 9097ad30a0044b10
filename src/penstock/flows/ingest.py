"""The flow that a dataset's deployment runs: what is new → claim → read → check → load → report, until nothing waits.

The dataset's lease serialises runs: a second one finds it taken and ends as skipped. The heartbeat keeps the lease
while the work goes on in threads; should it be lost all the same, the warehouse refuses the transaction by its token.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

from prefect import flow, get_run_logger, task
from prefect.artifacts import acreate_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run
from prefect.settings import PREFECT_LOCAL_STORAGE_PATH

from penstock import faults
from penstock.errors import LeaseLost, Transient
from penstock.flows.batch import Batch
from penstock.flows.lease import kept
from penstock.flows.render import as_markdown
from penstock.flows.report import Report
from penstock.flows.working import Work, acquire, let_go, open_work, outrun
from penstock.project import load_project
from penstock.settings import load_settings
from penstock.wiring import open_ledger, spool_folder

log = logging.getLogger(__name__)


# Where results would go is said here, or every run would ask the server three times. None is kept: the ledger has all.
@flow(name="ingest", persist_result=False, result_storage=PREFECT_LOCAL_STORAGE_PATH.value(), validate_parameters=True)
async def ingest(dataset: str) -> dict[str, Any]:
    """Load everything that is new for `dataset`; returns its status and counts.

    `{"status": "processed", "objects": …, "rows": …, "rejected": …, …}`, or `{"status": "skipped", "reason": …}` when
    nothing was new or another run holds the dataset. `filtered`, `warnings` and `event_times` are there if any are.
    """
    settings = load_settings()
    project = load_project(settings.project_dir, only=["flows"])
    project.dataset(dataset)
    if consumer := project.consumers.get(dataset):
        return {"status": "skipped", "dataset": dataset, "reason": f"the flow {consumer} takes what is new in it"}
    ledger = await asyncio.to_thread(open_ledger, settings)
    run = str(flow_run.get_id() or "by hand")
    lease = await asyncio.to_thread(acquire, ledger, dataset, settings=settings, run=run)
    if lease is None:
        return {"status": "skipped", "dataset": dataset, "reason": "another run holds the dataset and takes all of it"}
    work = open_work(settings, project, dataset, ledger, lease, run=run)
    began = time.monotonic()
    try:
        async with kept(
            ledger,
            lease,
            ttl=timedelta(seconds=settings.lease_seconds),
            stall=timedelta(seconds=settings.stall_seconds),
        ) as progress:
            await asyncio.to_thread(faults.point, "ingest.after_lease")
            await asyncio.to_thread(work.fence)
            report = await _drain(work, progress)
    except LeaseLost as error:
        if error.greater is not None:
            await asyncio.to_thread(outrun, ledger, lease, error.greater)
        raise
    except Exception as error:
        await asyncio.to_thread(let_go, ledger, lease, error, run)
        await _name_run(dataset)
        raise
    except BaseException as error:
        # Cancelled or terminated. On this thread, since the process may be killed soon and the others may hang.
        let_go(ledger, lease, error, run)
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


async def _drain(work: Work, progress: Callable[[], None]) -> Report:
    report = Report()
    number = 0
    while True:
        refs = await asyncio.to_thread(work.claim)
        if not refs:
            if await asyncio.to_thread(work.ledger.work.finish, work.lease):
                await asyncio.to_thread(faults.point, "ingest.after_finish")
                return report
            continue
        await asyncio.to_thread(faults.point, "ingest.after_claim")
        number += 1
        spool = spool_folder(work.settings) / f"{work.dataset.name}-{work.lease.token}-{number}"
        spool.mkdir(parents=True, exist_ok=True, mode=0o700)
        batch = Batch(refs, spool=spool, progress=progress, **work.parts)
        try:
            await read_objects(batch)
            await check_rows(batch)
            await load_rows(batch)
            outcomes, figures = await asyncio.to_thread(batch.settle)
            await asyncio.to_thread(faults.point, "ingest.after_settle")
        finally:
            await asyncio.to_thread(batch.clean)
        progress()
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
