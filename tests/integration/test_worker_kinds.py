"""Who can run our deployments: the warm worker, also as Prefect's own command starts it, and a stock worker."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from penstock.model import State
from penstock.warehouse.duckdb import DuckDBWarehouse
from tests.integration.prefect_parts import PROJECT, PrefectParts, prefect_server
from tests.waiting import wait_for

_STOCK_POOL = "stock"
# An interpreter that imports Prefect and the flows, on a busy machine.
_COLD_SECONDS = 90.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectParts]:
    """A server with the deployment, for all the tests here."""
    with prefect_server(tmp_path_factory.mktemp("kinds")) as parts:
        yield parts


@pytest.fixture
def parts(server: PrefectParts) -> Iterator[PrefectParts]:
    """No worker runs before or after."""
    try:
        yield server
    finally:
        if "worker" in server.processes:
            server.kill_if_alive("worker")


def load_one(parts: PrefectParts) -> UUID:
    """An object that arrives is loaded by a run; returns that."""
    key = f"sales/{uuid4().hex}.csv"
    parts.arrive(key)
    run = parts.create_run()
    parts.becomes(run, "COMPLETED", seconds=_COLD_SECONDS)
    assert parts.states(key) == [State.LOADED]
    return run


def start_prefects_worker(parts: PrefectParts, pool: str, kind: str) -> None:
    """`prefect worker start`, in the project's folder."""
    argv = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", kind]
    parts.start("worker", argv, parts.client_env())


def deployment(parts: PrefectParts) -> dict[str, Any]:
    """The dataset's deployment."""
    found: dict[str, Any] = parts.ask("GET", f"/deployments/name/ingest/{PROJECT}.sales")
    return found


def test_changed_code_is_picked_up(parts: PrefectParts) -> None:
    """A declaration that is edited while the worker runs is what the next run loads by, without a restart."""
    parts.start_worker()
    load_one(parts)
    path = parts.folder / "flows" / "sales.py"
    before = path.read_text()
    try:
        path.write_text(before.replace('name="sales"', 'name="sales", derive={"twice": "2 * id"}'))
        load_one(parts)
        found = DuckDBWarehouse(parts.settings().warehouse).query(
            "SELECT count(*) FROM sales WHERE twice = 2 * id", limit=1
        )
        assert found.rows == [(3,)]
        wait_for(
            lambda: "runs begin with the new code" in parts.log("worker"), seconds=60, what="the fork server is new"
        )
        load_one(parts)
    finally:
        path.write_text(before)


def test_a_deployment_may_ask_for_a_fresh_interpreter(parts: PrefectParts) -> None:
    """With `isolation` = fresh the run has a new interpreter, and loads all the same."""
    there = deployment(parts)
    variables = there["job_variables"]
    parts.start_worker()
    try:
        parts.patch(f"/deployments/{there['id']}", {"job_variables": {**variables, "isolation": "fresh"}})
        load_one(parts)
    finally:
        parts.patch(f"/deployments/{there['id']}", {"job_variables": variables})


def test_prefects_command_starts_the_warm_worker(parts: PrefectParts) -> None:
    """`prefect worker start --type penstock` knows our type, and its runs are visible: their logs are on the server."""
    start_prefects_worker(parts, PROJECT, "penstock")
    run = load_one(parts)

    def logged() -> bool:
        found = parts.ask("POST", "/logs/filter", {"logs": {"flow_run_id": {"any_": [str(run)]}}})
        return any("loaded 3 rows" in line["message"] for line in found)

    wait_for(logged, seconds=60, what="the run's log is on the server")


@pytest.mark.slow
@pytest.mark.long
def test_a_stock_worker_runs_the_same_deployment(parts: PrefectParts) -> None:
    """A stock `process` worker, which knows nothing of ours, loads by the same deployment; it is only slower."""
    there = deployment(parts)
    parts.ask("POST", "/work_pools/", {"name": _STOCK_POOL, "type": "process"})
    try:
        parts.patch(f"/deployments/{there['id']}", {"work_pool_name": _STOCK_POOL})
        start_prefects_worker(parts, _STOCK_POOL, "process")
        load_one(parts)
    finally:
        parts.patch(f"/deployments/{there['id']}", {"work_pool_name": PROJECT})


def test_a_run_with_wrong_parameters_is_refused(parts: PrefectParts) -> None:
    """The server checks parameters against the deployment's schema before there is a run."""
    wrong = {"state": {"type": "SCHEDULED"}, "parameters": {"dataset": 7}}
    answer = parts.answer("POST", f"/deployments/{deployment(parts)['id']}/create_flow_run", wrong)
    assert answer.status_code == 409, answer.text
    assert "dataset" in answer.text or "7 is not of type" in answer.text
