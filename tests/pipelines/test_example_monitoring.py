"""examples/monitoring as its user runs it: readings are posted, and each alert is told once when it begins and ends."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from sqlalchemy import update

import penstock
from penstock import faults
from penstock.errors import QueryRefused
from penstock.ledger import Ledger, tables
from penstock.settings import load_settings
from penstock.wiring import open_ledger, open_warehouse
from tests.acceptance.running import WITHIN_SECONDS, Up
from tests.loading import another_project
from tests.pipelines.running import EXAMPLES, example
from tests.real_store import real_store
from tests.waiting import wait_for

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECONDS = 150
ONLY_ALERT = ("kiln-1@2026-03-01T12:00:50Z", NOON + timedelta(seconds=50), NOON + timedelta(seconds=110))

Reading = dict[str, Any]
Window = tuple[str, datetime]


def expected(readings: list[Reading]) -> dict[Window, tuple[float, ...]]:
    """Count, mean, least, greatest and 95th percentile of each window, as Python has them."""
    found: dict[Window, list[float]] = defaultdict(list)
    for one in readings:
        at = datetime.fromisoformat(one["measured_at"])
        found[one["sensor"], at - timedelta(seconds=at.second % 10, microseconds=at.microsecond)].append(one["celsius"])
    return {window: statistics_of(sorted(values)) for window, values in found.items()}


def statistics_of(values: list[float]) -> tuple[float, ...]:
    """Of values in their order; the percentile lies between two of them."""
    place = 0.95 * (len(values) - 1)
    below = int(place)
    above = min(below + 1, len(values) - 1)
    p95 = values[below] + (values[above] - values[below]) * (place - below)
    return (len(values), statistics.fmean(values), values[0], values[-1], p95)


def same(found: dict[Window, tuple[float, ...]], wanted: dict[Window, tuple[float, ...]]) -> bool:
    """But for the last digits."""
    return found.keys() == wanted.keys() and all(found[key] == pytest.approx(wanted[key]) for key in wanted)


def rows(folder: Path, sql: str) -> list[tuple[Any, ...]]:
    """What the warehouse answers; nothing where there is no such table yet."""
    try:
        return list(open_warehouse(load_settings(folder)).query(sql, limit=100_000).rows)
    except QueryRefused:
        return []


def windows(folder: Path) -> dict[Window, tuple[float, ...]]:
    """The table `windows`."""
    found = rows(folder, "SELECT sensor, window_start, readings, mean, min, max, p95 FROM windows")
    assert len({row[:2] for row in found}) == len(found), "a window stands there twice"
    return {(row[0], row[1]): tuple(row[2:]) for row in found}


@dataclass(kw_only=True)
class InProcess:
    """The example's flows in this process, without Prefect's server: what they would tell it is `events`."""

    folder: Path
    alerts: ModuleType
    windows: ModuleType
    events: list[dict[str, Any]] = field(default_factory=list)
    runs: int = 0

    def load(self, dataset: str) -> None:
        """As `ingest` does."""
        with penstock.claim(dataset) as claim:
            claim.load()

    def send(self, readings: list[Reading]) -> None:
        """Readings that are loaded, and their windows that are computed, by two runs one after the other."""
        self.runs += 1
        assert penstock.land(f"readings/{self.runs}.json", json.dumps(readings))
        self.load("readings")
        for run in (1, 2):
            os.environ["PREFECT__RUNTIME__FLOW_RUN__ID"] = f"run-{self.runs}-{run}"
            assert self.windows.summarize.fn().name == "Processed", "nothing of it is loaded yet"

    def request(self, method: str, path: str, json: list[dict[str, Any]]) -> httpx.Response:
        """Prefect's server, which knows an event by its id."""
        assert (method, path) == ("POST", "/events")
        self.events += [one for one in json if one["id"] not in {known["id"] for known in self.events}]
        return httpx.Response(204, request=httpx.Request(method, "http://prefect.test/api/events"))

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to close."""


@pytest.fixture
def flows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InProcess]:
    """A copy of the example, into whose folder this process has gone, with a store and a ledger."""
    folder = tmp_path / "monitoring"
    shutil.copytree(EXAMPLES / "monitoring", folder, ignore=shutil.ignore_patterns("__pycache__", ".penstock"))
    (tmp_path / "faults").mkdir()
    with another_project(), real_store("embedded") as store:
        for name in [name for name in os.environ if name.startswith(("PENSTOCK_", "PREFECT_"))]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("PENSTOCK_S3_ENDPOINT", store.endpoint)
        monkeypatch.setenv("PENSTOCK_S3_ACCESS_KEY", store.access_key)
        monkeypatch.setenv("PENSTOCK_S3_SECRET_KEY", store.secret_key)
        monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__ID", "run-0")
        monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__NAME", "monitoring.windows")
        monkeypatch.setattr(faults, "_folder", str(tmp_path / "faults"))
        monkeypatch.chdir(folder)
        monkeypatch.syspath_prepend(str(folder))
        store.client().ensure_bucket("landing")
        settings = load_settings(folder)
        settings.home.mkdir(mode=0o700)
        ledger = Ledger(settings.ledger, project=settings.project)
        ledger.migrate(lock_folder=settings.home)
        ledger.close()
        parts = InProcess(
            folder=folder,
            alerts=importlib.import_module("flows.alerts"),
            windows=importlib.import_module("flows.windows"),
        )
        telling = importlib.import_module("flows._telling")
        monkeypatch.setattr(telling, "get_client", lambda sync_client: parts)
        yield parts


def hot(first: int, last: int, celsius: float) -> list[Reading]:
    """A reading a second of one sensor."""
    return [
        {
            "sensor": "kiln-1",
            "measured_at": (NOON + timedelta(seconds=second)).isoformat(),
            "celsius": celsius,
        }
        for second in range(first, last)
    ]


def test_a_run_that_is_killed_forgets_nothing_and_says_nothing_twice(flows: InProcess, tmp_path: Path) -> None:
    """Between telling and writing, and after it: the next run does it again, and the alert goes on from there."""

    def killed_at(*seams: str) -> None:
        for seam in seams:
            (tmp_path / "faults" / seam).write_text("raise")
            with pytest.raises(faults.Injected):
                flows.alerts.judge.fn()
            free(flows.folder)

    assert flows.windows.summarize.fn().message == "there are no readings yet"
    flows.send(hot(0, 46, 90.0))
    killed_at("ingest.before_load", "warehouse.before_commit", "warehouse.after_commit")
    assert flows.alerts.judge.fn().name == "Skipped", "what was loaded is only noted"
    assert flows.windows.summarize.fn().name == "Skipped", "the windows are there"
    assert [one["event"] for one in flows.events] == ["monitoring.alert.fired"]

    flows.send([one for number in range(30) for one in hot(30, 31, number)])
    assert flows.alerts.judge.fn().name == "Processed"
    late = windows(flows.folder)["kiln-1", NOON + timedelta(seconds=30)]
    assert late[:4] == pytest.approx((40, 33.375, 0, 90))
    assert len(flows.events) == 1, "late readings of a window that was judged change its figures only"

    flows.send(hot(46, 76, 60.0))
    killed_at("ingest.before_load")
    assert flows.alerts.judge.fn().name == "Processed"
    assert (flows.alerts.judge.fn().name, flows.windows.summarize.fn().name) == ("Skipped", "Skipped")
    assert [one["event"] for one in flows.events] == ["monitoring.alert.fired", "monitoring.alert.resolved"]
    flows.load("alerts")
    found = rows(flows.folder, "SELECT alert, since, until FROM alerts")
    assert found == [("kiln-1@2026-03-01T12:00:20Z", NOON + timedelta(seconds=20), NOON + timedelta(seconds=50))]


def free(folder: Path) -> None:
    """As when the pause after a failure is over."""
    ledger = open_ledger(load_settings(folder))
    try:
        with ledger.database.write() as connection:
            connection.execute(update(tables.leases).values(hold_until=None))
    finally:
        ledger.close()


class Pager(HTTPServer):
    """What is told to somebody: the texts that a notification block posts."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        super().__init__(("127.0.0.1", 0), _Posted)
        self._thread = threading.Thread(target=self.serve_forever)

    def __enter__(self) -> Pager:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Posted(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Pager)
        self.server.texts.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: it would stand in the test's output."""


@dataclass(kw_only=True)
class Kilns:
    """The example at work, with somebody who is told."""

    up: Up
    pager: Pager

    def ask(self, path: str, body: Any) -> Any:
        """What the Prefect server answers."""
        made = self.up.made()
        user, _, password = made["PENSTOCK_PREFECT_AUTH"].partition(":")
        url = f"{made['PENSTOCK_PREFECT_API_URL']}{path}"
        return httpx.post(url, json=body, auth=(user, password), timeout=20).raise_for_status().json()

    def events(self, *names: str) -> list[dict[str, Any]]:
        """The server's events of these names, the oldest first."""
        body = {"filter": {"event": {"name": list(names)}, "order": "ASC"}, "limit": 50}
        events: list[dict[str, Any]] = self.ask("/events/filter", body)["events"]
        return events

    def told(self) -> list[tuple[str, str]]:
        """What became of alerts, by the server's events."""
        found = self.events("monitoring.alert.fired", "monitoring.alert.resolved")
        return [(one["event"], one["payload"]["alert"]) for one in found]

    def run(self, deployment: str) -> dict[str, Any]:
        """Run a deployment once more, to its end."""
        found = self.ask("/deployments/filter", {"deployments": {"name": {"any_": [deployment.partition("/")[2]]}}})
        (wanted,) = [one["id"] for one in found if one["entrypoint"].endswith("." + deployment.partition("/")[0])]
        number = self.ask(f"/deployments/{wanted}/create_flow_run", {"state": {"type": "SCHEDULED"}})["id"]

        def ended() -> dict[str, Any] | None:
            (one,) = self.ask("/flow_runs/filter", {"flow_runs": {"id": {"any_": [number]}}})
            return one if one["state"]["type"] in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"} else None

        return wait_for(ended, seconds=WITHIN_SECONDS, what=f"{deployment} has run") or {}


@pytest.fixture(scope="module")
def kilns(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kilns]:
    """`penstock up`, and the notification block that the README has one make."""
    folder = tmp_path_factory.mktemp("pipelines")
    with Pager() as pager, example("monitoring", folder, extra={"MONITORING_SILENCE_SECONDS": "10"}) as up:
        made = up.made()
        env = {
            **up.env,
            "PREFECT_API_URL": made["PENSTOCK_PREFECT_API_URL"],
            "PREFECT_API_AUTH_STRING": made["PENSTOCK_PREFECT_AUTH"],
        }
        block = (
            "from prefect.blocks.notifications import CustomWebhookNotificationBlock as Block; "
            f"Block(name='ops', url='http://127.0.0.1:{pager.server_port}', json_data={{'text': '{{{{body}}}}'}})"
            ".save('ops')"
        )
        subprocess.run([sys.executable, "-c", block], env=env, check=True, timeout=60, capture_output=True)
        up.extra = {**up.extra, "MONITORING_BLOCK": "custom-webhook/ops"}
        up.run("apply")
        yield Kilns(up=up, pager=pager)


# Long: .ci/run shows the same ways of the engine by the other examples.
@pytest.mark.slow
@pytest.mark.long
def test_readings_become_windows_and_an_alert_is_told_once(kilns: Kilns) -> None:
    """Posted by the example's sender; what is done again changes nothing, and a late reading its window only."""
    up, folder = kilns.up, kilns.up.folder
    send = [sys.executable, "send_readings.py", "--begin", NOON.isoformat(), "--seconds", str(SECONDS)]
    done = subprocess.run(send, cwd=folder, env=up.env, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", f"posted {2 * SECONDS} readings\n")
    sender = load_sender()
    readings = list(sender.readings(NOON, SECONDS, 1))

    def ended() -> bool:
        return [row[:3] for row in rows(folder, "SELECT alert, since, until FROM alerts")] == [ONLY_ALERT]

    wait_for(ended, seconds=WITHIN_SECONDS, what="the alert has ended")
    wait_for(lambda: same(windows(folder), expected(readings)), seconds=WITHIN_SECONDS, what="every window is there")
    once = [("monitoring.alert.fired", ONLY_ALERT[0]), ("monitoring.alert.resolved", ONLY_ALERT[0])]
    wait_for(lambda: kilns.told() == once, what="the server has the events")

    late = {"sensor": "kiln-1", "measured_at": (NOON + timedelta(seconds=73.5)).isoformat(), "celsius": 7.5}
    address = f"http://127.0.0.1:{up.made()['PENSTOCK_PORT']}/hooks/readings"
    sender.post(address, up.made()["READINGS_WEBHOOK_SECRET"], [late])
    readings.append(late)
    wait_for(lambda: same(windows(folder), expected(readings)), seconds=WITHIN_SECONDS, what="its window is corrected")

    up.run("replay", "--dataset", "windows", "--since", "1h", "--force")
    wait_for(lambda: is_at_rest(folder), seconds=WITHIN_SECONDS, what="the windows are loaded again")
    for deployment in ("judge/monitoring.windows", "summarize/monitoring"):
        again = kilns.run(deployment)
        assert (again["state"]["type"], again["state"]["name"]) == ("COMPLETED", "Skipped"), again["state"]
    assert same(windows(folder), expected(readings))
    wait_for(ended, what="the alerts are as they were")

    silent = "no readings for 10 seconds"
    wait_for(lambda: silent in kilns.pager.texts, seconds=WITHIN_SECONDS, what="the silence is told")
    assert kilns.told() == once
    # Of what comes at once, as here, Prefect may act on the later event first.
    assert sorted(text for text in kilns.pager.texts if text != silent) == [
        "kiln-1: above its threshold, 89.5 °C on average",
        "kiln-1: below its threshold, 64.3 °C on average",
    ]


def is_at_rest(folder: Path) -> bool:
    """Whether every object of `windows` is loaded, and nobody works on them."""
    ledger = open_ledger(load_settings(folder))
    try:
        (found,) = [one for one in ledger.facts.standings() if one.dataset == "windows"]
    finally:
        ledger.close()
    return found.holder is None and {state for state, count in found.counts.items() if count} == {"loaded"}


def load_sender() -> ModuleType:
    """The example's script."""
    spec = importlib.util.spec_from_file_location("send_readings", EXAMPLES / "monitoring" / "send_readings.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
