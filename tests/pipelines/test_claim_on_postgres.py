"""`penstock.claim` where ledger and warehouse are PostgreSQL, in runs of a real worker and a real Prefect server."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, update

from penstock.ledger import tables
from penstock.model import State
from penstock.warehouse.postgres import PostgresWarehouse
from tests.integration.prefect_parts import PROJECT, PrefectParts, prefect_parts
from tests.real_postgres import shared_postgres
from tests.real_store import real_store
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

_TAKE = """
import threading
from pathlib import Path

import penstock
from penstock import Deployment
from prefect import flow, task


@task
def twice(one):
    return [{**row, "twice": row["id"] * 2} for row in one.arrow().to_pylist()]


@flow
def take(hold_at: str | None = None) -> int:
    with penstock.claim("sales") as claim:
        for one, rows in zip(claim.objects, twice.map(claim.objects).result()):
            claim.load(rows, of=one)
        if hold_at:
            Path(hold_at).touch()
            threading.Event().wait()
        return len(claim.objects)


DEPLOYMENTS = [Deployment(flow=take, consumes="sales")]
"""
_AUTOMATIONS = 'from penstock import on_arrival\n\nAUTOMATIONS = [on_arrival("sales", flow="take")]\n'


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectParts]:
    """The project of these flows with a ledger and a warehouse on PostgreSQL, its server and its worker."""
    folder = tmp_path_factory.mktemp("claim")
    server = shared_postgres()
    with server.database() as ledger, server.database() as warehouse, real_store("embedded") as store:
        (folder / ".env").write_text(
            f"PENSTOCK_LEDGER_URL={server.url(ledger, scheme='postgresql+psycopg')}\n"
            f"PENSTOCK_WAREHOUSE_URL={server.url(warehouse)}\n"
        )
        with prefect_parts(folder, store) as made:
            (folder / "flows" / "take.py").write_text(_TAKE)
            (folder / "automations" / "arrival.py").write_text(_AUTOMATIONS)
            assert made.settings().ledger.startswith("postgresql")
            made.start_server()
            # It makes its pool itself, and imports what it needs while the rest is applied.
            made.start_worker()
            made.apply()
            yield made


def run(parts: PrefectParts, **parameters: Any) -> UUID:
    """A run of the flow that consumes the dataset, due now."""
    deployment = parts.ask("GET", f"/deployments/name/take/{PROJECT}.sales")
    wanted = {"state": {"type": "SCHEDULED"}, "parameters": parameters}
    return UUID(parts.ask("POST", f"/deployments/{deployment['id']}/create_flow_run", wanted)["id"])


def counts(parts: PrefectParts, key: str) -> dict[str, Any]:
    """What the ledger has counted against an object, and why."""
    ledger = parts.ledger()
    columns = (tables.objects.c.attempts, tables.objects.c.hiccups, tables.objects.c.reason)
    try:
        with ledger.database.read() as connection:
            found = connection.execute(select(*columns).where(tables.objects.c.key == key))
            return dict(found.one()._mapping)
    finally:
        ledger.close()


def lease(parts: PrefectParts, **values: Any) -> None:
    """As when so much time has passed: the lease of who died is over, or the pause after a failure."""
    ledger = parts.ledger()
    try:
        with ledger.database.write() as connection:
            connection.execute(update(tables.leases).values(values))
    finally:
        ledger.close()


def rows(parts: PrefectParts) -> list[Any]:
    """What the table has, by the object."""
    warehouse = PostgresWarehouse(parts.settings().warehouse_url.get_secret_value())
    return warehouse.query("SELECT id, twice FROM sales ORDER BY _penstock_object, id", limit=100).rows


def test_rows_of_ones_own_are_there_once_though_the_run_is_killed(parts: PrefectParts) -> None:
    """Kill -9 between the warehouse's commit and the ledger: the rows are there, and the next run only notes it."""
    parts.arrive("sales/1.csv")
    parts.arrive("sales/2.csv")
    (parts.faults / "warehouse.after_commit").write_text("kill")
    parts.becomes(run(parts), "CRASHED")
    once = [(number, 2 * number) for number in range(3)] * 2
    assert rows(parts) == once
    assert parts.states("sales/1.csv", "sales/2.csv") == [State.CLAIMED] * 2, "the ledger does not know"
    lease(parts, expires_at=datetime.now(UTC))
    parts.becomes(run(parts), "COMPLETED")
    assert parts.states("sales/1.csv", "sales/2.csv") == [State.LOADED] * 2
    assert rows(parts) == once


def test_a_cancelled_run_gives_its_objects_back(parts: PrefectParts) -> None:
    """Cancelled in the middle of its block: nothing is written, and no attempt is counted; the next run loads it."""
    before = rows(parts)
    parts.arrive("sales/3.csv")
    held = parts.folder / "held"
    cancelled = run(parts, hold_at=str(held))
    wait_for(held.exists, seconds=60, what=f"the run is in its block; the worker's log: {parts.log('worker')}")
    assert parts.states("sales/3.csv") == [State.CLAIMED]
    parts.set_state(cancelled, "CANCELLING")
    parts.becomes(cancelled, "CANCELLED")
    assert parts.states("sales/3.csv") == [State.PENDING]
    assert counts(parts, "sales/3.csv") == {"attempts": 0, "hiccups": 1, "reason": "the run was cancelled"}
    assert rows(parts) == before
    lease(parts, hold_until=None)
    parts.becomes(run(parts), "COMPLETED")
    assert parts.states("sales/3.csv") == [State.LOADED]
    assert rows(parts) == [*before, (0, 0), (1, 2), (2, 4)]
