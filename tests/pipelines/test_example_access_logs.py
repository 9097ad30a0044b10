"""examples/access_logs as its user runs it: files are dropped, and one hour of them has too many errors."""

from __future__ import annotations

import gzip
import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest

from penstock.errors import QueryRefused
from penstock.settings import load_settings
from penstock.wiring import open_warehouse
from tests.acceptance.running import WITHIN_SECONDS, Up
from tests.pipelines.running import EXAMPLES, example
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

# An hour, or one of its routes: requests, 4xx, 5xx, and the percentiles.
Figures = dict[tuple[datetime, str], tuple[int, ...]]
REQUEST = re.compile(r'\[(.+?)\] "[A-Z]+ ([^ ?]+)\S* HTTP/1\.1" (\d{3}) .* ([\d.]+)')
BAD = "2026-03-02T10"
BLOCK = "from prefect.blocks.webhook import Webhook; Webhook(url='{}').save('ops')"


@dataclass(kw_only=True)
class Site:
    """The example at work, what it should find in the files that were dropped, and what its webhook was told."""

    up: Up
    data: Path
    faults: Path
    told: list[bytes]
    lines: list[tuple[datetime, str, int, int]] = field(default_factory=list)
    refused: list[tuple[str, int]] = field(default_factory=list)

    def drop(self, *names: str) -> None:
        """Move files into the inbox."""
        for name in names:
            for number, line in enumerate(gzip.decompress((self.data / name).read_bytes()).decode().splitlines(), 1):
                if (found := REQUEST.fullmatch(line[line.index("[") :])) is None:
                    self.refused.append((name, number))
                    continue
                at = datetime.strptime(found[1], "%d/%b/%Y:%H:%M:%S %z").replace(minute=0, second=0)
                route = re.sub(r"\d+", "{id}", found[2])
                self.lines.append((at, route, int(found[3]), round(float(found[4]) * 1000)))
        for name in names:
            draft = self.up.folder / name
            shutil.copyfile(self.data / name, draft)
            draft.rename(self.up.inbox / "access_logs" / name)

    def expected(self) -> Figures:
        """The figures of all lines that were dropped."""
        found: Figures = {}
        for hour, route in {(line[0], route) for line in self.lines for route in ("*", line[1])}:
            of_it = [line for line in self.lines if line[0] == hour and route in ("*", line[1])]
            latencies = sorted(line[3] for line in of_it)
            found[hour, route] = (
                len(of_it),
                sum(400 <= line[2] < 500 for line in of_it),
                sum(line[2] >= 500 for line in of_it),
                *(latencies[math.ceil(p * len(of_it) / 100) - 1] for p in (50, 95, 99)),
            )
        return found

    def figures(self) -> Figures:
        """What the table has."""
        found = self.rows(
            "SELECT hour, route, requests, errors_4xx, errors_5xx, p50_ms, p95_ms, p99_ms FROM access_hours"
        )
        assert len({row[:2] for row in found}) == len(found), "an hour and route stands there twice"
        return {(hour.astimezone(UTC), route): tuple(rest) for hour, route, *rest in found}

    def are_right(self) -> bool:
        """Whether they are those of all lines."""
        return self.figures() == self.expected()

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """What the warehouse answers; nothing where there is no such table yet."""
        try:
            return list(open_warehouse(load_settings(self.up.folder)).query(sql, limit=100_000).rows)
        except QueryRefused:
            return []

    def ask(self, path: str, body: dict[str, Any]) -> Any:
        """What the Prefect server answers."""
        made = self.up.made()
        user, _, password = made["PENSTOCK_PREFECT_AUTH"].partition(":")
        url = f"{made['PENSTOCK_PREFECT_API_URL']}{path}"
        return httpx.post(url, json=body, auth=(user, password), timeout=20).raise_for_status().json()

    def runs(self, *states: str) -> list[dict[str, Any]]:
        """The analysis's runs that are in one of these states, or all."""
        wanted = {"flows": {"name": {"any_": ["analyse"]}}}
        runs: list[dict[str, Any]] = self.ask("/flow_runs/filter", wanted)
        return [run for run in runs if not states or run["state_type"] in states]

    def is_quiet(self) -> bool:
        """Whether no run of any flow is under way."""
        under_way = {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}}
        return not self.ask("/flow_runs/filter", {"flow_runs": under_way})

    def alerts(self) -> list[dict[str, Any]]:
        """The events on the server."""
        wanted = {"filter": {"event": {"name": ["access_logs.errors.high"]}}}
        found: list[dict[str, Any]] = self.ask("/events/filter", wanted)["events"]
        return found

    def parsed(self) -> list[str]:
        """The files that mapped tasks parsed."""
        wanted = {"task_runs": {"name": {"like_": "parse "}, "state": {"type": {"any_": ["COMPLETED"]}}}}
        return sorted(run["name"].rpartition("/")[2] for run in self.ask("/task_runs/filter", wanted))


@contextmanager
def receiver() -> Iterator[tuple[str, list[bytes]]]:
    """The address of a server that takes every POST, and the bodies that it got."""
    bodies: list[bytes] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/alerts", bodies
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The example with its data made and its block saved, for all tests here."""
    folder = tmp_path_factory.mktemp("logs")
    faults, data = folder / "faults", folder / "data"
    faults.mkdir()
    for late in ([], ["--late"]):
        subprocess.run([sys.executable, EXAMPLES / "access_logs/data/make_logs.py", data, *late], check=True)
    with receiver() as (url, told), example("access_logs", folder, extra={"PENSTOCK_FAULTS": str(faults)}) as up:
        made = up.made()
        reach = {
            "PREFECT_API_URL": made["PENSTOCK_PREFECT_API_URL"],
            "PREFECT_API_AUTH_STRING": made["PENSTOCK_PREFECT_AUTH"],
        }
        subprocess.run([sys.executable, "-c", BLOCK.format(url)], env={**up.env, **reach}, cwd=folder, check=True)
        up.extra = {**up.extra, "ACCESS_LOGS_BLOCK": "webhook/ops"}
        up.run("apply")
        yield Site(up=up, data=data, faults=faults, told=told)


def test_good_hours_have_their_figures_and_no_alert(site: Site) -> None:
    """Hours, routes and percentiles are those of the lines; a line that is no request waits with its reason."""
    site.drop("web1-20260302T08.log.gz", "web1-20260302T09.log.gz", "web1-20260302T11.log.gz")
    wait_for(site.are_right, seconds=WITHIN_SECONDS, what="the figures are those of three files")
    assert sorted(hour.hour for hour, route in site.figures() if route == "*") == [8, 9, 10, 11, 12]
    found = site.rows("SELECT _penstock_object, line, reason FROM access_logs__rejected")
    assert sorted((name, line) for name, line, _ in found) == sorted(
        (f"landing/access_logs/{name}@1", number) for name, number in site.refused
    )
    assert {reason for _, _, reason in found} == {"does not match the pattern"}
    assert len(found) == 6
    assert site.alerts() == []


def test_a_bad_hour_is_told_once(site: Site) -> None:
    """The event is there once, the webhook is called once, with the share, and each file was parsed by a task."""
    site.drop("web1-20260302T10.log.gz")
    wait_for(site.are_right, seconds=WITHIN_SECONDS, what="the figures are those of four files")
    wait_for(lambda: site.told, seconds=WITHIN_SECONDS, what="the webhook was called")
    (event,) = site.alerts()
    assert event["resource"]["prefect.resource.id"] == f"access-logs.access_logs.hour.{BAD}"
    assert [json.loads(body) for body in site.told] == [
        {
            "text": "10.7 % of 394 requests failed in the hour 2026-03-02T10 (UTC), most of them /checkout",
            "hour": BAD,
        }
    ]
    assert site.parsed() == [f"web1-20260302T{hour:02}.log.gz" for hour in (8, 9, 10, 11)]


def test_a_late_file_of_a_run_that_died_is_counted_and_not_told_again(site: Site) -> None:
    """A run is killed with its lines loaded and the figures not: the next one, as the schedule starts it, makes them.

    The hour is as bad as before, and has been told of.
    """
    wait_for(site.is_quiet, seconds=WITHIN_SECONDS, what="nothing is under way")
    before = site.figures()
    (site.faults / "ingest.after_finish").write_text("kill")
    site.drop("web2-20260302T10.log.gz")
    wait_for(
        lambda: site.faults.joinpath("ingest.after_finish.hit").exists() and site.runs("CRASHED", "FAILED"),
        seconds=WITHIN_SECONDS,
        what="the run was killed",
    )
    site.up.ends_as("access_logs/web2-20260302T10.log.gz", "loaded")
    assert site.figures() == before
    (deployment,) = {run["deployment_id"] for run in site.runs()}
    site.ask(f"/deployments/{deployment}/create_flow_run", {})
    wait_for(site.are_right, seconds=WITHIN_SECONDS, what="the figures are those of both servers")
    wait_for(site.is_quiet, seconds=WITHIN_SECONDS, what="nothing is under way")
    assert len(site.alerts()) == 1
    assert len(site.told) == 1


def test_an_hour_whose_second_file_comes_late_is_put_right(site: Site) -> None:
    """Its percentiles are those of both files' lines, no line is there twice, and nothing is told of a good hour."""
    site.drop("web2-20260302T09.log.gz")
    wait_for(site.are_right, seconds=WITHIN_SECONDS, what="the figures are those of all files")
    assert site.rows("SELECT count(*) FROM access_logs") == [(len(site.lines),)]
    wait_for(site.is_quiet, seconds=WITHIN_SECONDS, what="nothing is under way")
    assert site.parsed()[-2:] == ["web2-20260302T09.log.gz", "web2-20260302T10.log.gz"]
    assert len(site.alerts()) == 1
    assert len(site.told) == 1


def test_the_schedule_and_the_threshold_are_the_deployments(site: Site) -> None:
    """What died is made up for within a quarter of an hour, and how many errors are too many can be changed there."""
    (identity,) = {run["deployment_id"] for run in site.runs()}
    (deployment,) = site.ask("/deployments/filter", {"deployments": {"id": {"any_": [identity]}}})
    assert deployment["name"] == "access-logs.access_logs"
    assert [one["schedule"]["interval"] for one in deployment["schedules"]] == [900]
    assert deployment["parameters"] == {"threshold": 0.05, "at_least": 100}
