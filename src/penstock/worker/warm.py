"""A Prefect worker of the type `penstock`: told of runs by the event stream, it runs them in forks.

Claiming, limits, heartbeats, crash reports and the polling fallback are Prefect's `BaseWorker`. Ours besides are two
things that it leaves out: a run that is cancelled after it began is ended, and a run that died with its worker, or
while the server was away, is set right.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import anyio
import httpx
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import State, StateType
from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventFilter, EventNameFilter
from prefect.exceptions import Abort, InfrastructureNotAvailable, InfrastructureNotFound, ObjectNotFound
from prefect.settings import PREFECT_WORKER_QUERY_SECONDS
from prefect.states import Pending
from prefect.utilities.engine import propose_state
from prefect.workers.base import BaseWorker, BaseWorkerResult

from penstock.settings import load_settings
from penstock.worker import settle
from penstock.worker.configuration import PenstockJobConfiguration, PenstockVariables, PenstockWorkerResult
from penstock.worker.nursery import Nursery, end, ended
from penstock.worker.taken import Taken, TakenRuns

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun
    from prefect.events import Event

_SCHEDULED = "prefect.flow-run.Scheduled"
_CANCELLING = "prefect.flow-run.Cancelling"
# How long a worker that was asked to end waits for its runs.
_DRAIN_SECONDS = 8.0
# How long a run that was cancelled has to give its claim back and report.
_CANCEL_SECONDS = 10.0
_LONGEST_PAUSE = 30.0
# Before each look for a run that an event told of. One that is planned for later, or another worker's, is never found.
_LOOKS = (0.0, 0.05, 0.15)


@dataclass(kw_only=True)
class _Run:
    """A run under way: how to end its process within so many seconds (None: it has none), and whether it was told."""

    end: Callable[[float], Coroutine[Any, Any, Any]] | None = None
    cancelled: bool = False


class PenstockWorker(BaseWorker[PenstockJobConfiguration, PenstockVariables, PenstockWorkerResult]):
    """Runs flows in forks of a process that has Prefect and the project's flows imported.

    `runs` is the folder where it remembers what it has taken; default: under PENSTOCK_HOME.
    """

    type = "penstock"
    job_configuration = PenstockJobConfiguration
    job_configuration_variables = PenstockVariables
    _description = "Runs flows within milliseconds, each in a fork of a warm process."
    _display_name = "penstock"

    def __init__(self, *args: Any, runs: Path | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._nursery = Nursery(load_settings().project_dir)
        self._starts: str | None = None
        self._taken = TakenRuns(runs or load_settings().home / "runs")
        # From before they are claimed until their end is reported.
        self._under_way: dict[UUID, _Run] = {}
        # The runs that could not be looked after: each is told of once.
        self._troubled: set[UUID | None] = set()

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
        try:
            async with anyio.create_task_group() as group:
                if not run_once:
                    group.start_soon(self._listen)
                    group.start_soon(self._look_after_runs)
                await super().start(run_once=run_once, with_healthcheck=with_healthcheck, printer=printer)
                group.cancel_scope.cancel()
        finally:
            self._taken.close()

    async def run(
        self,
        flow_run: FlowRun,
        configuration: PenstockJobConfiguration,
        task_status: anyio.abc.TaskStatus[Any] | None = None,
    ) -> PenstockWorkerResult:
        """Run a flow run to its end."""
        env = {name: value for name, value in configuration.env.items() if value is not None}
        entrypoint = configuration.entrypoint
        try:
            # A fork of what was imported before somebody changed it would run yesterday's code.
            if configuration.isolation == "fresh" or entrypoint is None or self._nursery.is_stale():
                result = await self._run_fresh(flow_run.id, env, configuration.working_dir, task_status)
            else:
                result = await self._run_forked(flow_run, entrypoint, env, configuration.working_dir, task_status)
        finally:
            self._run(flow_run.id).end = None
        if self._run(flow_run.id).cancelled:
            await self._report_cancelled(flow_run.id)
            # Its exit code is our doing, and no crash.
            return PenstockWorkerResult(status_code=0, identifier=result.identifier)
        return result

    async def kill_infrastructure(
        self, infrastructure_pid: str, configuration: PenstockJobConfiguration, grace_seconds: int = 30
    ) -> None:
        """End the process of a run that is this worker's own. `infrastructure_pid` is what `_identifier` made."""
        host, _, rest = infrastructure_pid.partition(":")
        try:
            run = UUID(rest.partition(":")[0])
        except ValueError:
            raise InfrastructureNotAvailable(f"{infrastructure_pid!r} is no process of a penstock worker") from None
        found = self._under_way.get(run)
        if found is not None and found.end is not None:
            found.cancelled = True
            await found.end(grace_seconds)
            return
        if host != socket.gethostname() or found is not None or self._taken.elsewhere(run):
            raise InfrastructureNotAvailable(f"{infrastructure_pid} is not this worker's to end")
        raise InfrastructureNotFound(f"no process of the flow run {run} runs here")

    async def settle_runs(self) -> None:
        """Set right what died, and end what was cancelled. Losing the event stream costs time only: this looks."""
        if self._client is None:
            return
        with self._told_once(None):
            for run in await _cancelling(self.client, [run for run, its in self._under_way.items() if its.end]):
                self._cancel(run)
        self._taken.adopt()
        for taken in self._taken.remembered():
            with self._told_once(taken.run):
                await self._settle(taken)

    async def _settle(self, taken: Taken) -> None:
        if taken.run in self._under_way or (taken.by is not None and taken.by.lives()):
            return
        if not self._taken.elsewhere(taken.run):
            there = await _state_of(self.client, taken.run)
            if taken.run in self._under_way or settle.is_too_early(there, taken, datetime.now(UTC)):
                return
            wanted = settle.state_of_dead(there, taken)
            if wanted is not None:
                await self.client.set_flow_run_state(taken.run, wanted, force=True)
                self._logger.warning("flow run %s is %s: %s", taken.run, wanted.name, wanted.message)
        self._taken.forget(taken.run)

    @contextlib.contextmanager
    def _told_once(self, run: UUID | None) -> Iterator[None]:
        """What fails for one run holds up no other; a server that is away is the caller's to tell."""
        try:
            yield
        except httpx.TransportError:
            raise
        except Exception as error:
            if run not in self._troubled:
                self._troubled.add(run)
                what = f"flow run {run}" if run else "what was cancelled"
                self._logger.warning("%s could not be looked after: %r; trying again", what, error)
        else:
            self._troubled.discard(run)

    async def _propose_pending_state(self, flow_run: FlowRun) -> bool:
        # Before the claim, or a death between the two would leave a run that nobody knows to be dead.
        self._run(flow_run.id)
        self._remember(lambda: self._taken.take(flow_run.id))
        try:
            state = await propose_state(self.client, Pending(), flow_run_id=flow_run.id)
        except Abort:
            state = None
        except Exception:
            # Its file stays for a look: the server may have agreed, with this worker or since then with another.
            self._logger.exception("flow run %s could not be claimed", flow_run.id)
            self._remember(lambda: self._taken.unsure(flow_run.id))
            self._under_way.pop(flow_run.id, None)
            return False
        if state is not None and state.is_pending():
            # The run's process gets it as it is now, and need not ask.
            flow_run.state = state
            return True
        self._under_way.pop(flow_run.id, None)
        self._taken.forget(flow_run.id)
        return False

    async def _submit_run_and_capture_errors(
        self, flow_run: FlowRun, task_status: anyio.abc.TaskStatus[int | Exception] | None = None
    ) -> BaseWorkerResult | Exception:
        try:
            result = await super()._submit_run_and_capture_errors(flow_run, task_status)
        finally:
            # The file stays until the server has been seen to know the end.
            self._under_way.pop(flow_run.id, None)
        try:
            await super()._give_worker_labels_to_flow_run(flow_run.id)
        except Exception as error:
            # Whatever it is: it would end every other run of this worker.
            self._logger.debug("flow run %s has no labels of its worker: %r", flow_run.id, error)
        return result

    async def _run_forked(
        self,
        flow_run: FlowRun,
        entrypoint: str,
        env: dict[str, str],
        working_dir: str | None,
        task_status: anyio.abc.TaskStatus[Any] | None,
    ) -> PenstockWorkerResult:
        run = flow_run.id
        process = self._nursery.start(flow_run, entrypoint, env, working_dir)
        assert process.pid is not None
        self._has_begun(run, process.pid, lambda grace: end(process, grace=grace, cancelled=True))
        if task_status is not None:
            task_status.started(_identifier(run, process.pid))
        try:
            code = await ended(process)
        except asyncio.CancelledError:
            with anyio.CancelScope(shield=True):
                try:
                    await asyncio.wait_for(ended(process), _DRAIN_SECONDS)
                except TimeoutError:
                    await end(process, grace=2.0)
            raise
        return PenstockWorkerResult(status_code=code, identifier=_identifier(run, process.pid))

    async def _run_fresh(
        self,
        run: UUID,
        env: dict[str, str],
        working_dir: str | None,
        task_status: anyio.abc.TaskStatus[Any] | None,
    ) -> PenstockWorkerResult:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "prefect.engine", env={**os.environ, **env}, cwd=working_dir
        )
        self._has_begun(run, process.pid, lambda grace: _end_fresh(process, grace=grace))
        if task_status is not None:
            task_status.started(_identifier(run, process.pid))
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            with anyio.CancelScope(shield=True):
                await _end_fresh(process, grace=_DRAIN_SECONDS)
            raise
        return PenstockWorkerResult(status_code=code, identifier=_identifier(run, process.pid))

    def _run(self, run: UUID) -> _Run:
        return self._under_way.setdefault(run, _Run())

    def _has_begun(self, run: UUID, pid: int, ender: Callable[[float], Coroutine[Any, Any, Any]]) -> None:
        self._run(run).end = ender
        self._remember(lambda: self._taken.started(run, pid))

    def _remember(self, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            # A run that cannot be remembered is run all the same; only its death would go unnoticed.
            self._logger.warning("this run would not be found dead after a crash of the worker: %s", error)

    async def _give_worker_labels_to_flow_run(self, flow_run_id: UUID) -> None:
        """When the run has ended: until then every request to the server makes it wait."""

    async def _propose_submitting_state(self, flow_run: FlowRun) -> None:
        """Never: it names the wait for infrastructure, and a fork takes milliseconds."""

    def _cancel(self, run: UUID) -> None:
        """End a run's process, in the background; once."""
        found = self._under_way.get(run)
        if found is None or found.end is None or found.cancelled or self._runs_task_group is None:
            return
        found.cancelled = True
        self._logger.info("flow run %s was cancelled and is ended", run)
        self._runs_task_group.start_soon(found.end, _CANCEL_SECONDS)

    async def _report_cancelled(self, run: UUID) -> None:
        try:
            wanted = settle.state_of_cancelled(await _state_of(self.client, run))
            if wanted is not None:
                await self.client.set_flow_run_state(run, wanted, force=True)
        except httpx.HTTPError as error:
            # Its file is looked at again.
            self._logger.warning("flow run %s was cancelled, which could not be reported yet: %s", run, error)

    async def _look_after_runs(self) -> None:
        """Look every few seconds: of what the event stream tells, and of what it never tells."""
        away = False
        while True:
            try:
                if files := await self._nursery.renew():
                    self._logger.info("%s changed: runs begin with the new code", files)
                await self.settle_runs()
                away = False
            except Exception as error:
                # Whatever it is, the runs go on; a server that is away is told of once.
                self._logger.log(
                    logging.DEBUG if away else logging.WARNING,
                    "the runs could not be looked after: %s; trying again",
                    error,
                )
                away = True
            await asyncio.sleep(PREFECT_WORKER_QUERY_SECONDS.value())

    async def _listen(self) -> None:
        """Look for runs whenever the server says that one was scheduled for this pool. A hint: polling stays."""
        pause = 0.5
        only = EventFilter(event=EventNameFilter(name=[_SCHEDULED, _CANCELLING]))
        while True:
            try:
                async with get_events_subscriber(filter=only) as subscriber:
                    pause = 0.5
                    if self.is_setup:
                        # What was scheduled while nobody listened; Prefect's poll may be backing off for a minute.
                        await self.get_and_submit_flow_runs()
                    async for event in subscriber:
                        if event.event == _CANCELLING:
                            self._cancel(_run_of(event))
                        elif self._is_ours(event):
                            await self._look_for(_run_of(event))
            except Exception as error:
                # Whatever breaks the stream, polling goes on; the stream is tried again.
                self._logger.debug("the event stream ended: %s; again in %.1f s", error, pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _look_for(self, run: UUID) -> None:
        """Take what is due. The event may be here before the run's transaction has ended: then once more, soon."""
        for pause in _LOOKS:
            await asyncio.sleep(pause)
            if run in self._under_way or any(found.id == run for found in await self.get_and_submit_flow_runs()):
                return

    def _is_ours(self, event: Event) -> bool:
        return any(related.role == "work-pool" and related.name == self._work_pool_name for related in event.related)


async def _state_of(client: PrefectClient, run: UUID) -> State[Any] | None:
    """The run's state on the server; None where the run was deleted."""
    try:
        return (await client.read_flow_run(run)).state
    except ObjectNotFound:
        return None


async def _cancelling(client: PrefectClient, runs: list[UUID]) -> list[UUID]:
    """Those of the runs that somebody asked to cancel."""
    if not runs:
        return []
    asked = FlowRunFilter(
        id=FlowRunFilterId(any_=runs),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.CANCELLING])),
    )
    return [found.id for found in await client.read_flow_runs(flow_run_filter=asked)]


def _identifier(run: UUID, pid: int) -> str:
    """How Prefect names a run's process. Not by its id alone, which a later process may have, or another machine's."""
    return f"{socket.gethostname()}:{run}:{pid}"


def _run_of(event: Event) -> UUID:
    return UUID(event.resource.id.removeprefix("prefect.flow-run."))


async def _end_fresh(process: asyncio.subprocess.Process, *, grace: float) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), grace)
    except TimeoutError:
        process.kill()
