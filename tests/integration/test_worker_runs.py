"""Runs that are cancelled, and runs that die: a real Prefect server and worker, and the ingest flow itself.

The flow is held by a fault point that hangs in one of its threads, which nothing but the end of its process ends.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest

from penstock.model import State
from penstock.worker.taken import TakenRuns, process
from tests.integration.prefect_parts import PrefectParts, prefect_server
from tests.waiting import wait_for

HELD = "ingest.in_read"
# A cancelled run ends within this on a busy machine; the last resort, SIGKILL, is put off until long after it.
SOON = 40.0
PATIENT = "import penstock.worker.warm as warm\nwarm._CANCEL_SECONDS = 90.0\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectParts]:
    """A server with the deployment, for all the tests here."""
    with prefect_server(tmp_path_factory.mktemp("runs")) as parts:
        yield parts


@pytest.fixture
def parts(server: PrefectParts) -> Iterator[PrefectParts]:
    """Nothing but the server runs before and after; nothing waits in the ledger but what the test puts there."""
    try:
        yield server
    finally:
        server.rest()
        server.lease_seconds = 60


def held_run(parts: PrefectParts, key: str, *, before: str = "") -> UUID:
    """A run that has claimed the object and hangs in the middle of reading it."""
    parts.arrive(key)
    (parts.faults / HELD).write_text("hang")
    run = parts.create_run()
    parts.start_worker(before)
    wait_for((parts.faults / f"{HELD}.hit").exists, seconds=60, what="the run has begun")
    assert parts.state(run)[0] == "RUNNING"
    assert parts.states(key) == [State.CLAIMED]
    return run


def loads(parts: PrefectParts, key: str, rows: int) -> None:
    """The next run loads what waits: the lease is free at once, though it was taken for a minute."""

    def loaded() -> bool:
        parts.becomes(parts.create_run(), "COMPLETED")
        return parts.states(key) == [State.LOADED]

    before = parts.count() if parts.settings().warehouse.exists() else 0
    wait_for(loaded, seconds=60, what=f"{key} is loaded")
    assert parts.count() == before + rows


def child_of(parts: PrefectParts, run: UUID) -> int:
    """The pid of a run's process."""
    (found,) = (parts.home / "runs").glob(f"*/{run}.json")
    return int(json.loads(found.read_text())["pid"])


@pytest.mark.parametrize(
    "before",
    [
        pytest.param(PATIENT, id="told by the event stream"),
        pytest.param(
            f"{PATIENT}import asyncio\nwarm.PenstockWorker._listen = lambda self: asyncio.Event().wait()",
            id="event stream down",
        ),
    ],
)
def test_a_cancelled_run_ends_at_once_and_leaves_no_half_batch(parts: PrefectParts, before: str) -> None:
    """Cancelling ends the process though a thread of it hangs; the claim is back, and the next run loads it once."""
    key = f"sales/cancelled-{uuid4().hex}.csv"
    run = held_run(parts, key, before=before)
    pid = child_of(parts, run)
    parts.set_state(run, "CANCELLING")
    parts.becomes(run, "CANCELLED", seconds=SOON)
    wait_for(lambda: process(pid) is None, seconds=SOON, what="the run's process has ended")
    assert parts.states(key) == [State.PENDING]
    assert "CRASHED" not in parts.past(run)
    loads(parts, key, 3)
    assert parts.state(run)[0] == "CANCELLED"


def test_a_run_that_does_not_react_is_killed(parts: PrefectParts) -> None:
    """A process that ignores the request is killed after its grace, and the run is Cancelled all the same."""
    run = held_run(
        parts,
        f"sales/stopped-{uuid4().hex}.csv",
        before="import penstock.worker.warm as warm\nwarm._CANCEL_SECONDS = 1.0",
    )
    pid = child_of(parts, run)
    os.kill(pid, signal.SIGSTOP)
    parts.set_state(run, "CANCELLING")
    assert "ended its process" in parts.becomes(run, "CANCELLED", seconds=SOON)
    assert process(pid) is None


def test_a_run_that_died_with_its_worker_is_crashed(parts: PrefectParts) -> None:
    """After kill -9 of the worker and its forks, the next worker sets the run Crashed, says why, and loads the data."""
    key = f"sales/killed-{uuid4().hex}.csv"
    parts.lease_seconds = 3
    run = held_run(parts, key)
    pid = child_of(parts, run)
    parts.kill("worker")
    wait_for(lambda: process(pid) is None, what="the run's process has ended")
    assert parts.state(run)[0] == "RUNNING", "nobody else sets it right"
    parts.start_worker()
    assert f"process {pid} is gone" in parts.becomes(run, "CRASHED")
    loads(parts, key, 3)


@pytest.mark.slow
@pytest.mark.long
def test_a_run_that_ended_while_the_server_was_away_is_crashed(parts: PrefectParts) -> None:
    """A run whose process died while nobody could be told is Crashed soon after the server is back."""
    # Prefect's client would try for about a minute; a longer absence is what is meant.
    impatient = "import os\nos.environ['PREFECT_CLIENT_MAX_RETRIES'] = '0'"
    run = held_run(parts, f"sales/away-{uuid4().hex}.csv", before=impatient)
    pid = child_of(parts, run)
    parts.kill("server")
    os.kill(pid, signal.SIGKILL)
    failed = "Failed to update state of flow run"
    wait_for(lambda: failed in parts.log("worker", most=200_000), seconds=60, what="the report has failed")
    parts.start_server()
    # Prefect's own crash report, had it come through, would say something else.
    assert f"process {pid} is gone" in parts.becomes(run, "CRASHED")


def test_only_what_is_certainly_dead_is_set_right(parts: PrefectParts) -> None:
    """At its start a worker ends the story of what died; what lives, or may be another worker's, it leaves alone."""
    everything = parts.home / "runs"
    runs = {name: parts.create_run() for name in ("claimed", "cancelling", "running", "alive", "others", "scheduled")}
    for name, run in runs.items():
        if name != "scheduled":
            parts.set_state(run, "PENDING" if name == "claimed" else "RUNNING")
    parts.set_state(runs["cancelling"], "CANCELLING")
    finished = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    other = TakenRuns(everything)
    dead = TakenRuns(everything)
    try:
        for name, run in runs.items():
            dead.take(run)
            if name not in ("claimed", "scheduled"):
                dead.started(run, os.getpid() if name == "alive" else finished.pid)
        other.take(runs["others"])
        os.close(dead._lock)  # as the kernel does for a process that dies
        finished.communicate(b"\n", timeout=60)
        parts.start_worker()
        assert "died before it began" in parts.becomes(runs["claimed"], "CRASHED")
        parts.becomes(runs["cancelling"], "CANCELLED")
        assert f"process {finished.pid} is gone" in parts.becomes(runs["running"], "CRASHED")
        # It works: what was only scheduled is run.
        parts.becomes(runs["scheduled"], "COMPLETED")
        assert {parts.state(runs[name])[0] for name in ("alive", "others")} == {"RUNNING"}
    finally:
        finished.kill()
        finished.communicate()
        other.forget(runs["others"])
        other.close()
    wait_for(lambda: [path.stem for path in everything.glob("*/*.json")] == [str(runs["alive"])], what="files are gone")


def test_the_files_go_when_the_runs_end(parts: PrefectParts) -> None:
    """A run that ends leaves no file, and a worker that ends leaves no folder."""
    run = parts.create_run()
    parts.start_worker()
    parts.becomes(run, "COMPLETED")
    everything = parts.home / "runs"
    wait_for(lambda: not list(everything.glob(f"*/{run}.json")), what="the run's file is gone")
    assert parts.stop("worker") == 0


def test_a_worker_that_is_asked_to_end_gives_the_claim_back(parts: PrefectParts) -> None:
    """A run that does not end in time is terminated with its worker: it is Crashed, and its claim is free at once."""
    key = f"sales/drained-{uuid4().hex}.csv"
    run = held_run(parts, key)
    assert parts.stop("worker") == 0
    assert parts.state(run)[0] == "CRASHED"
    assert parts.states(key) == [State.PENDING]
    parts.start_worker()
    loads(parts, key, 3)
