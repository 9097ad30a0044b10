"""examples/incremental as its user runs it, but that it looks every few seconds, and takes two files at once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from penstock.errors import QueryRefused
from penstock.settings import load_settings
from penstock.wiring import open_warehouse
from tests.acceptance.running import WITHIN_SECONDS, Up
from tests.pipelines.running import example
from tests.waiting import wait_for

# Long: .ci/run shows the same ways of the engine by the other examples.
pytestmark = [pytest.mark.slow, pytest.mark.long]

LOOK_SECONDS = 3
FLOW = "count-units"
# Another run that has the dataset, until it is told to end.
HOLDS = """
import sys
import penstock

with penstock.claim("units_sold") as claim:
    print(*[one.key for one in claim.objects], flush=True)
    sys.stdin.read()
    claim.done()
"""


def till(number: int) -> str:
    """A file of three sales of two products."""
    return f"product_id,quantity,unit_price\n{number},2,1.50\n{number + 100},1,9.99\n{number},3,1.50\n"


@dataclass(kw_only=True)
class Tills:
    """The example at work."""

    up: Up

    def drop(self, name: str, content: str) -> None:
        """Move a file into the inbox."""
        draft = self.up.folder / name
        draft.write_text(content)
        draft.rename(self.up.inbox / "tills" / name)

    def units(self, *names: str) -> list[tuple[Any, ...]]:
        """The table's rows of these files; none where there is no table yet."""
        objects = " OR ".join(f"_penstock_object LIKE 'landing/tills/{name}@%'" for name in names)
        sql = f"SELECT product_id, units, revenue FROM units_sold WHERE {objects} ORDER BY ALL"
        try:
            return list(open_warehouse(load_settings(self.up.folder)).query(sql, limit=1000).rows)
        except QueryRefused:
            return []

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """What the Prefect server answers."""
        made = self.up.made()
        user, _, password = made["PENSTOCK_PREFECT_AUTH"].partition(":")
        url = f"{made['PENSTOCK_PREFECT_API_URL']}{path}"
        answer = httpx.request(method, url, json=body, auth=(user, password), timeout=20).raise_for_status()
        return answer.json() if answer.content else None

    def deployment(self) -> dict[str, Any]:
        """Its deployment, as the server has it."""
        found: dict[str, Any] = self.ask("GET", f"/deployments/name/{FLOW}/incremental.units_sold")
        return found

    def ended(self) -> list[dict[str, Any]]:
        """Its runs that ended, in the order of their beginning."""
        return sorted(self.runs("COMPLETED", "FAILED", "CRASHED"), key=lambda run: str(run["start_time"]))

    def runs(self, *states: str) -> list[dict[str, Any]]:
        """Its runs in these states."""
        body = {"flows": {"name": {"any_": [FLOW]}}, "flow_runs": {"state": {"type": {"any_": states}}}}
        found: list[dict[str, Any]] = self.ask("POST", "/flow_runs/filter", body)
        return found

    def result(self, run: dict[str, Any]) -> Any:
        """What the run returned, from where Prefect keeps results."""
        kept = Path(run["state"]["data"]["storage_key"])
        return json.loads(kept.read_text())

    def processed(self) -> list[dict[str, Any]]:
        """The results of the runs that took something."""
        return [self.result(run) for run in self.ended() if run["state_name"] == "Processed"]


@pytest.fixture(scope="module")
def tills(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tills]:
    """The example, for all tests here."""
    extra = {"LOOK_SECONDS": str(LOOK_SECONDS), "PENSTOCK_BATCH_OBJECTS": "2"}
    with example("incremental", tmp_path_factory.mktemp("tills"), extra=extra) as up:
        yield Tills(up=up)


def test_a_run_that_finds_nothing_ends_as_skipped(tills: Tills) -> None:
    """Its state and its result say so."""
    runs = wait_for(
        lambda: [run for run in tills.ended() if run["state_name"] == "Skipped"],
        seconds=WITHIN_SECONDS,
        what="a run looked",
    )
    assert (runs[0]["state_type"], runs[0]["auto_scheduled"]) == ("COMPLETED", True)
    assert tills.result(runs[0]) == {"outcome": "skipped", "objects": 0, "rows": 0, "refused": 0}
    (schedule,) = tills.deployment()["schedules"]
    assert schedule["schedule"]["interval"] == LOOK_SECONDS


def test_what_one_run_leaves_the_next_one_takes(tills: Tills) -> None:
    """Five files are more than one batch: run after run takes two, each file once, and all were started by time."""
    before = len(tills.ended())
    names = [f"{number}.csv" for number in range(1, 6)]
    for number, name in enumerate(names, start=1):
        tills.drop(name, till(number))
    expected = [(n, 5, 7.5) for n in range(1, 6)] + [(n + 100, 1, 9.99) for n in range(1, 6)]
    wait_for(lambda: tills.units(*names) == expected, seconds=WITHIN_SECONDS, what="all five are in the table")
    wait_for(
        lambda: sum(result["objects"] for result in tills.processed()) >= 5,
        seconds=WITHIN_SECONDS,
        what="all runs ended",
    )
    runs = [run for run in tills.ended()[before:] if run["state_name"] == "Processed"]
    found = [tills.result(run) for run in runs]
    assert len(found) >= 3
    assert all(0 < one["objects"] <= 2 and one["rows"] == 2 * one["objects"] for one in found)
    assert sum(one["objects"] for one in found) == 5
    assert runs[0]["state"]["message"] == f"files: {found[0]['objects']}, rows: {found[0]['rows']}, refused: 0"
    assert all(run["auto_scheduled"] for run in tills.ended())


def test_what_cannot_be_read_is_refused_and_stops_nothing(tills: Tills) -> None:
    """A file that is no table goes to quarantine, and is counted; the one beside it is loaded."""
    tills.drop("bad.csv", "\0\1\2 no table")
    tills.drop("good.csv", till(50))
    tills.up.ends_as("tills/bad.csv", "quarantined")
    tills.up.ends_as("tills/good.csv", "loaded")
    assert tills.units("bad.csv", "good.csv") == [(50, 5, 7.5), (150, 1, 9.99)]
    wait_for(
        lambda: [result for result in tills.processed() if result["refused"]],
        seconds=WITHIN_SECONDS,
        what="the run that refused it ended",
    )


def test_a_run_does_not_overlap_another(tills: Tills) -> None:
    """While another has the dataset, runs end as skipped though a file waits; the next one after it takes that file."""
    deployment = tills.deployment()["id"]
    tills.ask("POST", f"/deployments/{deployment}/pause_deployment")
    # The worker has taken what is planned for the next seconds.
    wait_for(
        lambda: not tills.runs("SCHEDULED", "PENDING", "RUNNING"), seconds=WITHIN_SECONDS, what="the schedule is paused"
    )
    tills.drop("held.csv", till(60))
    tills.up.ends_as("tills/held.csv", "pending")
    environment = {**tills.up.env, "PENSTOCK_PROJECT_DIR": str(tills.up.folder)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS],
        env=environment,
        cwd=tills.up.folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        try:
            assert other.stdout.readline() == "tills/held.csv\n"
            tills.drop("waits.csv", till(70))
            tills.up.ends_as("tills/waits.csv", "pending")
            before = len(tills.ended())
            tills.ask("POST", f"/deployments/{deployment}/resume_deployment")
            runs = wait_for(
                lambda: found if len(found := tills.ended()[before:]) >= 2 else [],
                seconds=WITHIN_SECONDS,
                what="two runs came meanwhile",
            )
            assert {run["state_name"] for run in runs} == {"Skipped"}
            assert tills.units("waits.csv") == []
        finally:
            other.stdin.close()
    assert other.returncode == 0
    wait_for(
        lambda: tills.units("waits.csv") == [(70, 5, 7.5), (170, 1, 9.99)],
        seconds=WITHIN_SECONDS,
        what="the next run took it",
    )
    assert tills.units("held.csv") == [], "the other one said that it was done"
