"""The worker's process: started by `penstock worker`, which has put Prefect's settings into the environment."""

from __future__ import annotations

import asyncio
import contextlib
import signal

from prefect.client.orchestration import get_client

from penstock.settings import load_settings
from penstock.worker.warm import PenstockWorker


def main() -> None:
    """Work until SIGTERM or SIGINT; runs that are under way get some seconds to finish."""
    settings = load_settings()
    worker = PenstockWorker(
        work_pool_name=settings.project,
        name=f"penstock-{settings.project}",
        limit=settings.worker_limit,
        runs=settings.home / "runs",
    )
    asyncio.run(_until_asked_to_end(worker))


async def _until_asked_to_end(worker: PenstockWorker) -> None:
    loop = asyncio.get_running_loop()
    working = loop.create_task(_work(worker))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, working.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await working


async def _work(worker: PenstockWorker) -> None:
    # Imports take longer than anything else: they need no server, and so need not wait for one.
    await worker.warm()
    while True:
        async with get_client() as client:
            if await client.api_healthcheck() is None:
                break
        await asyncio.sleep(0.25)
    await worker.start()
