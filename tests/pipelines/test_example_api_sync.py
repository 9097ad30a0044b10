"""`examples/api_sync` as its user runs it: its schedule, its API, which fails, and a warehouse on PostgreSQL."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.rows import dict_row

from tests.acceptance.running import Up
from tests.loading import module_at
from tests.pipelines.running import EXAMPLES, example
from tests.real_postgres import shared_postgres
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

EVERY = 3
PAGE = 100
server = module_at(EXAMPLES / "api_sync" / "api" / "server.py")


@dataclass(kw_only=True)
class Sync:
    """The example that runs, its API in this process, and the database that it loads into."""

    api: Any
    database: str
    # Told of each request by its address, before it is answered; says what goes wrong with it.
    on_request: Callable[[str], str | None] = lambda path: None
    answers: list[tuple[str, int]] = field(default_factory=list)
    up: Up | None = None

    def table(self) -> list[dict[str, Any]]:
        """The table as the API would say it; nothing while there is none."""
        columns = "id, name, email, city, updated_at"
        try:
            with psycopg.connect(self.database, row_factory=dict_row) as connection:
                return connection.execute(f"SELECT {columns} FROM customers ORDER BY id".encode()).fetchall()
        except psycopg.errors.UndefinedTable:
            return []

    def is_the_apis(self) -> bool:
        """Whether the table has every customer as the API has it, and no other."""
        there = [{**one, "updated_at": datetime.fromisoformat(one["updated_at"])} for one in self.api.customers.all()]
        return self.table() == there

    def objects(self) -> list[str]:
        """The objects that were loaded."""
        with psycopg.connect(self.database) as connection:
            return [row[0] for row in connection.execute(b"SELECT object FROM _penstock_objects ORDER BY 1")]

    def ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """One request to the Prefect server."""
        assert self.up is not None
        made = self.up.made()
        user, _, password = made["PENSTOCK_PREFECT_AUTH"].partition(":")
        url = f"{made['PENSTOCK_PREFECT_API_URL']}{path}"
        return httpx.request(method, url, json=body, auth=(user, password), timeout=20)

    def runs(self, **only: Any) -> list[dict[str, Any]]:
        """The flow's runs, the first to begin before the others."""
        asked = {"flows": {"name": {"any_": ["sync-customers"]}}, "flow_runs": only, "sort": "START_TIME_ASC"}
        found: list[dict[str, Any]] = self.ask("POST", "/flow_runs/filter", asked).json()
        return found

    def state(self, run: str) -> str:
        """The type of a run's state."""
        return str(self.runs(id={"any_": [run]})[0]["state_type"])

    def tries(self, run: str) -> list[int]:
        """How often each page was asked for in a run, in their order."""
        found = self.ask("POST", "/task_runs/filter", {"task_runs": {"flow_run_id": {"any_": [run]}}}).json()
        return [task["run_count"] for task in sorted(found, key=lambda task: task["start_time"] or "")]

    def ended_with(self, message: str) -> None:
        """Wait for a run that says this at its end."""

        def said() -> bool:
            return message in [run["state"]["message"] for run in self.runs(state={"type": {"any_": ["COMPLETED"]}})]

        wait_for(said, what=message)

    def at_a_second_page(self) -> str:
        """The run that has asked for two pages and goes on; nothing where there is none."""
        running = self.runs(state={"type": {"any_": ["RUNNING"]}})
        return next((run["id"] for run in running if len(self.tries(run["id"])) == 2), "")


@pytest.fixture(scope="module")
def sync(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sync]:
    """All of it, begun while the second page fails in three ways."""
    troubles = ["error", "busy", "stall"]

    def second_page_fails(path: str) -> str | None:
        return troubles.pop(0) if f"after={PAGE}" in path and troubles else None

    postgres = shared_postgres()
    with postgres.database() as database, server.Api(server.Customers(250, 7), stall_seconds=10) as api:
        found = Sync(api=api, database=postgres.url(database), on_request=second_page_fails)
        api.trouble = lambda number, path: found.on_request(path)
        api.answered = lambda path, status: found.answers.append((path, status))
        threading.Thread(target=api.serve_forever, daemon=True).start()
        env = {
            "PENSTOCK_WAREHOUSE_URL": found.database,
            "SYNC_API_URL": api.url,
            "SYNC_EVERY_SECONDS": str(EVERY),
            "SYNC_TIMEOUT_SECONDS": "2",
        }
        try:
            with example("api_sync", tmp_path_factory.mktemp("api_sync"), extra=env) as found.up:
                yield found
        finally:
            api.shutdown()


def test_a_page_that_fails_is_asked_for_again(sync: Sync) -> None:
    """By its schedule, over a 500, a 429 and a silence, the table gets every customer as the API has it."""
    wait_for(sync.is_the_apis, seconds=60, what="the table is as the API is")
    first = wait_for(lambda: sync.runs(state={"type": {"any_": ["COMPLETED"]}}), what="the run has ended")[0]
    assert first["state"]["message"] == "processed: 3 pages asked for, 3 new ones landed"
    assert first["auto_scheduled"]
    wait_for(lambda: sync.tries(first["id"]) == [1, 4, 1], what="the server knows of every try")
    assert [status for path, status in sync.answers[:5]] == [200, 500, 429, 200, 200], "and one try was not answered"
    deployment = sync.ask("GET", "/deployments/name/sync-customers/api-sync").json()
    assert [one["schedule"]["interval"] for one in deployment["schedules"]] == [EVERY]
    assert sync.ask("GET", "/deployments/name/ingest/api-sync.customers").is_success
    asked = f"/deployments/{deployment['id']}/create_flow_run"
    for wrong in ({"page_size": 0}, {"base_url": 7}):
        assert sync.ask("POST", asked, {"parameters": wrong}).status_code == httpx.codes.CONFLICT
    elsewhere = {"parameters": {"base_url": f"{sync.api.url}/nowhere"}, "state": {"type": "SCHEDULED"}}

    def failed() -> str:
        run = str(sync.ask("POST", asked, elsewhere).json()["id"])
        wait_for(lambda: sync.state(run) in ("FAILED", "CANCELLED"), seconds=60, what=f"the run {run} ends")
        # Cancelled where a scheduled run was under way.
        return run if sync.state(run) == "FAILED" else ""

    lost = wait_for(failed, seconds=60, what="a run that gets a 404 fails")
    wait_for(lambda: sync.tries(lost) == [1], what="the server knows that it was tried once")


def test_only_what_changed_is_landed(sync: Sync) -> None:
    """After a change of some, one page lands; what did not change is answered with 304, and the run is Skipped."""
    wait_for(sync.is_the_apis, seconds=60, what="the table is as the API is")
    before = sync.objects()
    sync.api.customers.change([3, 77, 250, 251], {"name": "Mona", "email": "mona@example.org", "city": "Oslo"})
    wait_for(sync.is_the_apis, seconds=60, what="the changes are in the table")
    assert sync.up is not None
    asked = "SELECT id, city FROM customers ORDER BY updated_at DESC, id LIMIT 4"
    assert sync.up.facts("query", asked) == [{"id": one, "city": "Oslo"} for one in (3, 77, 250, 251)]
    told = len(sync.answers)
    wait_for(lambda: 304 in [status for path, status in sync.answers[told:]], seconds=60, what="nothing has changed")
    (landed,) = set(sync.objects()) - set(before)
    assert len(sync.objects()) == len(before) + 1
    assert landed.endswith("@1")
    sync.ended_with("skipped: 1 pages asked for, 0 new ones landed")


def test_a_run_that_is_killed_loses_nothing(sync: Sync) -> None:
    """Kill -9 between two pages: the next run asks for both again, and what has landed is not landed twice."""
    wait_for(sync.is_the_apis, seconds=60, what="the table is as the API is")
    before, asked, killed = sync.objects(), threading.Event(), threading.Event()

    def hold_second_page(path: str) -> None:
        if "after=" in path:
            asked.set()
            killed.wait(60)

    sync.on_request = hold_second_page
    sync.api.customers.change(range(1, 151), {"city": "Turku"})
    try:
        assert asked.wait(60), "a run has landed the first page and asks for the second"
        run = wait_for(sync.at_a_second_page, what="which run it is")
        os.kill(pid_of(sync, run), signal.SIGKILL)
    finally:
        killed.set()
    wait_for(lambda: sync.state(run) == "CRASHED", what="the run has crashed")
    wait_for(sync.is_the_apis, seconds=60, what="the table is as the API is")
    sync.ended_with("processed: 2 pages asked for, 1 new ones landed")
    landed = set(sync.objects()) - set(before)
    assert len(landed) == 2, "two pages"
    assert all(one.endswith("@1") for one in landed), "each of them once"


def pid_of(sync: Sync, run: str) -> int:
    """The process of a run."""
    assert sync.up is not None
    (found,) = (sync.up.home / "runs").glob(f"*/{run}.json")
    return int(json.loads(found.read_text())["pid"])
