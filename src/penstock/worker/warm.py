"""A Prefect worker of the type `penstock`: told of runs by the event stream, it runs them in forks.

Claiming, limits, heartbeats, crash reports and the polling fallback are Prefect's `BaseWorker`.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import anyio
from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventFilter, EventNameFilter
from prefect.exceptions import InfrastructureNotAvailable, InfrastructureNotFound
from prefect.workers.base import BaseJobConfiguration, BaseVariables, BaseWorker, BaseWorkerResult
from pydantic import Field

from penstock.worker import child
from penstock.worker.nursery import Nursery, end, ended

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun
    from prefect.events import Event

_SCHEDULED = "prefect.flow-run.Scheduled"
# How long a worker that was asked to end waits for its runs.
_DRAIN_SECONDS = 8.0
_LONGEST_PAUSE = 30.0


class PenstockJobConfiguration(BaseJobConfiguration):
    """How a run is started."""

    working_dir: str | None = Field(default=None)
    isolation: Literal["fork", "fresh"] = Field(default="fork")


class PenstockVariables(BaseVariables):
    """What a deployment may choose."""

    working_dir: str | None = Field(default=None, description="The folder in which the run works.")
    isolation: Literal["fork", "fresh"] = Field(
        default="fork", description="'fork' starts in milliseconds; 'fresh' starts a new interpreter."
    )


class PenstockWorkerResult(BaseWorkerResult):
    """How a run's process ended."""


class PenstockWorker(BaseWorker[PenstockJobConfiguration, PenstockVariables, PenstockWorkerResult]):
    """Runs flows in forks of a process that has Prefect and the project's flows imported."""

    type = "penstock"
    job_configuration = PenstockJobConfiguration
    job_configuration_variables = PenstockVariables
    _description = "Runs flows within milliseconds, each in a fork of a warm process."
    _display_name = "penstock"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._nursery = Nursery()
        self._starts: str | None = None

    async def warm(self) -> str:
        """Import what the runs need, once; returns in words how runs are started."""
        if self._starts is None:
            self._starts = await self._nursery.warm()
        return self._starts

    async def start(
        self, run_once: bool = False, with_healthcheck: bool = False, printer: Callable[..., None] = print
    ) -> None:
        """Run until cancelled: Prefect's loops, and the event stream beside them."""
        printer(f"Runs are started: {await self.warm()}")
        async with anyio.create_task_group() as group:
            if not run_once:
                group.start_soon(self._listen)
            await super().start(run_once=run_once, with_healthcheck=with_healthcheck, printer=printer)
            group.cancel_scope.cancel()

    async def run(
        self,
        flow_run: FlowRun,
        configuration: PenstockJobConfiguration,
        task_status: anyio.abc.TaskStatus[Any] | None = None,
    ) -> PenstockWorkerResult:
        """Run a flow run to its end."""
        env = {name: value for name, value in configuration.env.items() if value is not None}
        entrypoint = await self._entrypoint(flow_run)
        if configuration.isolation == "fresh" or entrypoint is None:
            return await self._run_fresh(env, configuration.working_dir, task_status)
        process = self._nursery.start(flow_run.id, entrypoint, env, configuration.working_dir)
        if task_status is not None:
            task_status.started(process.pid)
        try:
            code = await ended(process)
        except asyncio.CancelledError:
            with anyio.CancelScope(shield=True):
                try:
                    await asyncio.wait_for(ended(process), _DRAIN_SECONDS)
                except TimeoutError:
                    await end(process, grace=2.0)
            raise
        return PenstockWorkerResult(status_code=code, identifier=str(process.pid))

    async def kill_infrastructure(
        self, infrastructure_pid: str, configuration: PenstockJobConfiguration, grace_seconds: int = 30
    ) -> None:
        """End a run's process that is this worker's own."""
        for process in self._nursery.alive():
            if str(process.pid) == infrastructure_pid:
                await end(process, grace=grace_seconds)
                return
        try:
            os.kill(int(infrastructure_pid), 0)
        except (ProcessLookupError, ValueError):
            raise InfrastructureNotFound(f"no process {infrastructure_pid} runs here") from None
        raise InfrastructureNotAvailable(f"process {infrastructure_pid} is not this worker's")

    async def _entrypoint(self, flow_run: FlowRun) -> str | None:
        """The module path of the run's flow; None where only Prefect's own loader can find it."""
        if flow_run.deployment_id is None:
            return None
        deployment = await self.client.read_deployment(flow_run.deployment_id)
        if deployment.pull_steps or not deployment.entrypoint or not child.is_module_path(deployment.entrypoint):
            return None
        return deployment.entrypoint

    async def _run_fresh(
        self, env: dict[str, str], working_dir: str | None, task_status: anyio.abc.TaskStatus[Any] | None
    ) -> PenstockWorkerResult:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "prefect.engine", env={**os.environ, **env}, cwd=working_dir
        )
        if task_status is not None:
            task_status.started(process.pid)
        return PenstockWorkerResult(status_code=await process.wait(), identifier=str(process.pid))

    async def _listen(self) -> None:
        """Look for runs whenever the server says that one was scheduled for this pool. A hint: polling stays."""
        pause = 0.5
        only = EventFilter(event=EventNameFilter(name=[_SCHEDULED]))
        while True:
            try:
                async with get_events_subscriber(filter=only) as subscriber:
                    pause = 0.5
                    async for event in subscriber:
                        if self._is_ours(event):
                            await self.get_and_submit_flow_runs()
            except Exception as error:
                # Whatever breaks the stream, polling goes on; the stream is tried again.
                self._logger.debug("the event stream ended: %s; again in %.1f s", error, pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _is_ours(self, event: Event) -> bool:
        return any(related.role == "work-pool" and related.name == self._work_pool_name for related in event.related)
