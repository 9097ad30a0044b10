"""How a worker looks after its runs: a real worker over a double of Prefect's client, and real processes to end."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import multiprocessing
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

import httpx
import pytest
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import InfrastructureNotAvailable, InfrastructureNotFound
from prefect.workers.base import BaseJobConfiguration, BaseWorker

from penstock.worker import child, nursery, warm
from penstock.worker.configuration import PenstockJobConfiguration
from penstock.worker.settle import LONGEST_PENDING
from penstock.worker.taken import TakenRuns
from penstock.worker.warm import PenstockWorker, _Run
from tests.waiting import wait_for

PENDING, RUNNING = StateType.PENDING, StateType.RUNNING


class Client:
    """What the worker asks of Prefect's server. `fails` raises for a run, or (None) for asking who is cancelled."""

    def __init__(self) -> None:
        self.states: dict[UUID, State[Any]] = {}
        self.fails: dict[UUID | None, Exception] = {}
        self.cancelling: list[UUID] = []
        self.set: list[tuple[UUID, str]] = []

    async def read_flow_run(self, run: UUID) -> Any:
        """One run."""
        return SimpleNamespace(state=self.states[run])

    async def set_flow_run_state(self, run: UUID, state: State[Any], *, force: bool) -> None:
        """Force a state."""
        assert force
        if run in self.fails:
            raise self.fails[run]
        self.states[run] = state
        self.set.append((run, str(state.name)))

    async def read_flow_runs(self, flow_run_filter: Any) -> list[Any]:
        """Those that are cancelling."""
        if None in self.fails:
            raise self.fails[None]
        return [SimpleNamespace(id=run) for run in self.cancelling if run in flow_run_filter.id.any_]


class Bench:
    """A worker whose server is the client above."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.client = Client()
        self.worker = PenstockWorker(work_pool_name="p", runs=folder)
        self.worker._client = cast(Any, self.client)

    def dead(self, *runs: UUID, content: str = "") -> None:
        """A worker took the runs and died."""
        taken = TakenRuns(self.folder)
        for run in runs:
            taken.take(run)
            taken._file(run).write_text(content)
        os.close(taken._lock)

    def look(self, times: int = 1) -> None:
        """What the worker does every few seconds."""
        for _ in range(times):
            asyncio.run(self.worker.settle_runs())

    def remembered(self) -> list[UUID]:
        """The runs that it will look at again."""
        return [taken.run for taken in self.worker._taken.remembered()]


@pytest.fixture
def bench(tmp_path: Path) -> Any:
    made = Bench(tmp_path)
    with closing(made.worker._taken):
        yield made


def failed(status: int = 500) -> httpx.HTTPStatusError:
    request = httpx.Request("POST", "http://server/api")
    return httpx.HTTPStatusError(str(status), request=request, response=httpx.Response(status, request=request))


def test_one_run_that_cannot_be_set_right_holds_up_no_other(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """An error for one run is told of once and tried again; the others are set right, and cancelled ones ended."""
    bad, good = sorted([uuid4(), uuid4()], key=str)
    bench.dead(bad, good, content=json.dumps({"pid": 1, "born": 1, "boot": "x"}))
    bench.client.states = {run: State(type=RUNNING) for run in (bad, good)}
    bench.client.fails[bad] = failed()
    with caplog.at_level(logging.WARNING):
        bench.look(3)
    assert bench.client.set == [(good, "Crashed")]
    assert bench.remembered() == [bad]
    assert len([record for record in caplog.records if str(bad) in record.getMessage()]) == 1
    bench.client.fails.clear()
    bench.look()
    assert bench.client.set == [(good, "Crashed"), (bad, "Crashed")]
    assert bench.remembered() == []


@pytest.mark.parametrize("trouble", ["run", "folder", "question"])
def test_a_cancelled_run_is_ended_whatever_else_fails(
    bench: Bench, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a dead run nor a folder in trouble keeps a run from being cancelled, nor the other way round."""
    dead, cancelled = uuid4(), uuid4()
    ended: list[float] = []

    async def end(grace: float) -> None:
        ended.append(grace)

    bench.dead(dead)
    bench.client.states[dead] = State(type=PENDING)
    bench.worker._under_way[cancelled] = _Run(end=end)
    bench.client.cancelling = [cancelled]
    if trouble == "run":
        bench.client.fails[dead] = failed()
    if trouble == "question":
        bench.client.fails[None] = failed()
    if trouble == "folder":

        def denied(folder: Path) -> int:
            raise PermissionError(13, "denied", str(folder))

        monkeypatch.setattr("penstock.worker.taken._locked", denied)

    async def look() -> None:
        async with asyncio.TaskGroup() as group:

            def start_soon(call: Callable[..., Awaitable[None]], *rest: Any) -> None:
                group.create_task(cast(Any, call(*rest)))

            bench.worker._runs_task_group = cast(Any, SimpleNamespace(start_soon=start_soon))
            await bench.worker.settle_runs()
            await bench.worker.settle_runs()

    asyncio.run(look())
    assert ended == ([] if trouble == "question" else [warm._CANCEL_SECONDS])
    assert bench.client.set == ([(dead, "Crashed")] if trouble == "question" else [])


def test_a_server_that_is_away_is_asked_once_a_pass(bench: Bench) -> None:
    """Each request to a server that is away takes its time: the pass ends with the first that finds nobody."""
    runs = [uuid4() for _ in range(3)]
    bench.dead(*runs)
    bench.client.states = {run: State(type=RUNNING) for run in runs}
    bench.client.fails = dict.fromkeys(runs, httpx.ConnectError("away"))
    with pytest.raises(httpx.ConnectError):
        bench.look()
    assert len(bench.remembered()) == 3


@pytest.mark.parametrize("content", ["", '{"pid":'])
def test_a_running_run_of_a_dead_worker_is_crashed_though_its_process_is_unknown(bench: Bench, content: str) -> None:
    """What a power cut or a full disk left of the file is enough: nobody is left who could report the run's end."""
    run, alive = uuid4(), uuid4()
    other = TakenRuns(bench.folder)
    with closing(other):
        other.take(alive)
        bench.dead(run, alive, content=content)
        bench.client.states = {run: State(type=RUNNING), alive: State(type=RUNNING)}
        bench.look()
        assert bench.client.set == [(run, "Crashed")], "what a living worker has taken is its own"
        other.forget(alive)


def test_a_claim_without_an_answer_is_left_to_whoever_has_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose claim had no answer is not begun, and set right only when nobody has begun it for minutes."""
    run = uuid4()

    async def lost(*_: Any, **__: Any) -> None:
        raise httpx.ReadTimeout("lost")

    monkeypatch.setattr(warm, "propose_state", lost)
    claimed = asyncio.run(bench.worker._propose_pending_state(cast(Any, SimpleNamespace(id=run))))
    assert not claimed
    bench.client.states[run] = State(type=PENDING)
    bench.look()
    assert bench.client.set == []
    assert bench.remembered() == [run]
    bench.client.states[run] = State(type=PENDING, timestamp=datetime.now(UTC) - LONGEST_PENDING - timedelta(seconds=1))
    bench.look()
    assert bench.client.set == [(run, "Crashed")]
    assert bench.remembered() == []


def test_a_process_is_ended_by_its_run_not_by_its_number(bench: Bench) -> None:
    """Of a number that was given to another process since, or on another machine, nothing is ended."""
    run, waiting, elsewhere = uuid4(), uuid4(), uuid4()
    ended: list[float] = []

    async def end(grace: float) -> None:
        ended.append(grace)

    bench.worker._under_way[run] = _Run(end=end)
    bench.worker._under_way[waiting] = _Run()

    def kill(identifier: str) -> None:
        asyncio.run(bench.worker.kill_infrastructure(identifier, PenstockJobConfiguration(command=None), 7))

    me = os.getpid()
    here = socket.gethostname()
    with pytest.raises(InfrastructureNotFound):
        kill(warm._identifier(uuid4(), me))
    other = TakenRuns(bench.folder)
    with closing(other):
        other.take(elsewhere)
        for foreign in (
            str(me),
            f"{here}:{me}",
            f"another:{uuid4()}:{me}",
            f"{here}:{waiting}:{me}",
            f"{here}:{elsewhere}:{me}",
        ):
            with pytest.raises(InfrastructureNotAvailable):
                kill(foreign)
        other.forget(elsewhere)
    assert ended == []
    kill(warm._identifier(run, me))
    assert ended == [7]
    assert bench.worker._under_way[run].cancelled


def test_a_process_that_ends_at_the_first_signal_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is gone when the second signal is sent is a run that has ended, and no error of the worker's."""
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=signal.pause)
    process.start()
    real, sent = os.kill, []

    def kill(pid: int, number: int) -> None:
        sent.append(number)
        real(pid, number)
        wait_for(lambda: not Path(f"/proc/{pid}").exists(), what="the process has gone")

    monkeypatch.setattr("penstock.worker.nursery.os.kill", kill)
    try:
        # The first of the two signals is not caught by this process, and so ends it.
        assert asyncio.run(nursery.end(process, grace=20, cancelled=True)) == -child.CANCEL
    finally:
        process.kill()
        process.join()
    assert sent == [child.CANCEL, signal.SIGTERM]


def test_prefect_still_calls_what_we_override() -> None:
    """What Prefect does not promise to keep is still there: a new name must not pass ours by unnoticed."""
    for name in ("_give_worker_labels_to_flow_run", "_propose_submitting_state", "_propose_pending_state"):
        assert name in BaseWorker.__dict__, name
    assert "deployment" in inspect.signature(BaseJobConfiguration.resolve_for_flow_run).parameters


@pytest.mark.parametrize(("empty", "looks"), [(0, 1), (2, 3), (9, 3)])
def test_a_run_whose_event_came_early_is_looked_for_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, empty: int, looks: int
) -> None:
    """The server tells of a run before it shows it: the worker looks again soon, and not for ever."""
    run, seen = uuid4(), []

    async def get_and_submit() -> list[Any]:
        seen.append(run)
        return [] if len(seen) <= empty else [SimpleNamespace(id=run)]

    monkeypatch.setattr(bench.worker, "get_and_submit_flow_runs", get_and_submit)
    asyncio.run(bench.worker._look_for(run))
    assert len(seen) == looks
