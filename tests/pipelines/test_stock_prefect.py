"""Prefect's own commands against what `penstock up` started, and that it touched nothing that it did not start."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.running import ROOT, Up, weather
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

_PAGE = ROOT / "docs" / "prefect-side-by-side.md"
# A run of it goes on until it is cancelled, if it is told to.
_NIGHTLY = """
import time

from penstock import Deployment
from prefect import flow
from prefect.artifacts import create_markdown_artifact


@flow
def nightly(seconds: float = 0.0) -> None:
    create_markdown_artifact(key="nightly", markdown="all well")
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.1)


DEPLOYMENTS = [
    Deployment(
        flow=nightly, cron=["0 3 * * *"], rrule=["FREQ=MINUTELY;INTERVAL=1440"], timezone="Europe/Berlin",
        concurrency_limit=1, collision="cancel_new",
    )
]
"""


class _Foreign(BaseHTTPRequestHandler):
    """Somebody's server: it notes who asks it anything."""

    asked: list[str]

    def handle(self) -> None:
        self.asked.append(f"{self.client_address}")
        super().handle()


@contextmanager
def foreign_server(port: int) -> Iterator[list[str]]:
    """Who connected to it; where the port is taken already it is somebody else's indeed, and nobody can tell."""
    asked: list[str] = []
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), type("Noting", (_Foreign,), {"asked": asked}))
    except OSError:
        yield asked
        return
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Beside:
    """A project that is up, beside a Prefect and an object store of somebody's, in the home of one who uses Prefect."""

    def __init__(self, up: Up, home: Path, asked: Sequence[list[str]]) -> None:
        self.up, self.home, self.asked = up, home, asked
        lines = up.run("env", "--with-password", "--json").stdout
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        bare = {name: value for name, value in up.env.items() if not name.startswith("PREFECT_")}
        self.env = {**bare, **json.loads(lines), "PATH": path, "COLUMNS": "250"}
        self.client = httpx.Client(
            base_url=self.env["PREFECT_API_URL"],
            auth=tuple(self.env["PREFECT_API_AUTH_STRING"].split(":", 1)),
            timeout=30,
        )

    def prefect(self, command: str) -> str:
        """What one of Prefect's commands prints."""
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.up.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def runs(self, flow: str, *states: str) -> list[dict[str, Any]]:
        """The runs of a flow, in these states if any are said, the newest first."""
        wanted: dict[str, Any] = {"flows": {"name": {"any_": [flow]}}, "sort": "START_TIME_DESC"}
        if states:
            wanted["flow_runs"] = {"state": {"type": {"any_": list(states)}}}
        found: list[dict[str, Any]] = self.client.post("/flow_runs/filter", json=wanted).raise_for_status().json()
        return found


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beside]:
    """One `up` for all the tests here."""
    home = tmp_path_factory.mktemp("home")
    (home / ".prefect").mkdir()
    # Whoever reads it fails.
    (home / ".prefect" / "profiles.toml").write_text("active = [\n")
    folder = tmp_path_factory.mktemp("projects") / "shop"
    folder.mkdir()
    running = Up.make(folder)
    (folder / "flows" / "nightly.py").write_text(_NIGHTLY)
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    running.extra = {
        "HOME": str(home),
        "XDG_CACHE_HOME": cache,
        "PREFECT_API_URL": "http://127.0.0.1:4200/api",
        "PREFECT_API_KEY": "of-another-server",
        "PREFECT_PROFILE": "another",
    }
    with ExitStack() as stack:
        asked = [stack.enter_context(foreign_server(port)) for port in (4200, 9000)]
        try:
            running.start()
            found = Beside(running, home, asked)
            stack.enter_context(found.client)
            yield found
        finally:
            if running.process is not None:
                running.stop(signal.SIGTERM)


def commands(section: str) -> list[str]:
    """Prefect's commands in the tables of a section of the page."""
    text = _PAGE.read_text(encoding="utf-8").partition(f"## {section}\n")[2].partition("\n## ")[0]
    return re.findall(r"`(prefect [^`]+)`", "\n".join(line for line in text.splitlines() if line.startswith("|")))


@pytest.mark.long
def test_prefects_commands_do_what_the_page_says(beside: Beside) -> None:
    """Each of the page's commands ends well, and those that list have what is penstock's in them."""
    up = beside.up
    (up.inbox / "weather" / "a.csv").write_text(weather(3, year=2026))
    up.ends_as("weather/a.csv", "loaded")
    run = beside.runs("ingest", "COMPLETED")[0]["id"]
    looking = [command.replace("RUN", run) for command in commands("What each says")]
    assert len(looking) == 9
    with ThreadPoolExecutor(2) as pool:
        said = dict(zip(looking, pool.map(beside.prefect, looking), strict=True))
    assert "ingest/shop.sales" in said["prefect deployment ls"]
    assert "nightly/shop" in said["prefect deployment ls"]
    assert "shop" in said["prefect work-pool ls"]
    assert "sales on arrival" in said["prefect automation ls"]
    assert "loaded 3 rows" in said[f"prefect flow-run logs {run}"]
    assert up.run("plan", "--detailed-exitcode").returncode == 0


def test_a_shell_is_prepared_by_one_line(beside: Beside) -> None:
    """The page's line lets Prefect's command find the server, where the shell had another's address and key."""
    (line,) = re.findall(r"^eval .*", _PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    other = {"PREFECT_API_URL": "http://127.0.0.1:9/api", "PREFECT_API_KEY": "other", "PREFECT_PROFILE": "other"}
    shell = {**{name: value for name, value in beside.env.items() if not name.startswith("PREFECT_")}, **other}
    done = subprocess.run(
        ["bash", "-c", f"{line}; prefect work-pool ls; env"],
        cwd=beside.up.folder,
        env=shell,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "shop" in done.stdout.partition("PREFECT")[0]
    assert "PREFECT_API_KEY" not in done.stdout


def test_runs_are_begun_limited_and_cancelled(beside: Beside) -> None:
    """A run by `prefect deployment run` works until `prefect flow-run cancel`; one beyond the limit is cancelled."""
    beside.prefect("prefect deployment run nightly/shop -p seconds=600")
    wait_for(lambda: beside.runs("nightly", "RUNNING"), seconds=60, what="the run works")
    first = beside.runs("nightly", "RUNNING")[0]["id"]
    beside.prefect("prefect deployment run nightly/shop")
    wait_for(lambda: beside.runs("nightly", "CANCELLED"), seconds=60, what="the second run is cancelled")
    assert [run["id"] for run in beside.runs("nightly", "RUNNING")] == [first]
    beside.prefect(f"prefect flow-run cancel {first}")
    wait_for(lambda: len(beside.runs("nightly", "CANCELLED")) == 2, seconds=60, what="the first run is cancelled too")
    assert "nightly" in beside.prefect("prefect artifact ls")


@pytest.mark.long
def test_what_is_paused_stays_paused(beside: Beside) -> None:
    """Pausing schedules and automations by Prefect's commands is no difference, and applying leaves it so."""
    up = beside.up
    found = beside.client.get("/deployments/name/ingest/shop.sales").raise_for_status().json()
    (schedule,) = found["schedules"]
    doing = [re.sub(r"\bID\b", schedule["id"], command) for command in commands("What each does")]
    pausing = [command for command in doing if " pause " in command]
    assert len(pausing) == 2
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(beside.prefect, pausing))
    up.run("apply", "--yes")
    found = beside.client.get("/deployments/name/ingest/shop.sales").raise_for_status().json()
    assert [schedule["active"] for schedule in found["schedules"]] == [False]
    named = {"automations": {"name": {"any_": ["shop: sales on arrival"]}}}
    (automation,) = beside.client.post("/automations/filter", json=named).raise_for_status().json()
    assert automation["enabled"] is False
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(beside.prefect, [command for command in doing if " resume " in command]))


@pytest.mark.long
def test_a_stock_worker_on_the_pool_loads(beside: Beside) -> None:
    """A `process` worker of Prefect's takes the pool's runs, where penstock's own worker does not."""
    up = beside.up
    own = next(pid for command, pid in up.pids().items() if "penstock.worker.main" in command)
    argv = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "shop", "--type", "process"]
    log = up.folder / "stock.log"
    os.kill(own, signal.SIGSTOP)
    try:
        with log.open("wb") as output:
            worker = subprocess.Popen(argv, env=beside.env, cwd=beside.home, stdout=output, stderr=output)
        try:
            (up.inbox / "weather" / "b.csv").write_text(weather(4, year=2025))
            up.ends_as("weather/b.csv", "loaded")
        finally:
            worker.terminate()
            with suppress(subprocess.TimeoutExpired):
                worker.wait(20)
            worker.kill()
            worker.wait()
    finally:
        os.kill(own, signal.SIGCONT)
    assert up.rows("weather", "weather/b.csv") == 4


def test_up_touches_nothing_that_it_did_not_start(beside: Beside) -> None:
    """Nobody connected to the servers of others, and its user's Prefect is as it was."""
    assert beside.asked == [[], []]
    left = {str(path.relative_to(beside.home)) for path in beside.home.rglob("*")}
    assert left == {".prefect", ".prefect/profiles.toml"}
    assert (beside.home / ".prefect" / "profiles.toml").read_text() == "active = [\n"
