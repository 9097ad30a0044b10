"""`penstock why`, `status`, `replay`, `backfill` and `quarantine ls`: what they say is so. Real ledger, real DuckDB."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner, Result
from filelock import FileLock

from penstock.cli import in_the_table
from penstock.cli.main import cli
from penstock.declarations import Dataset, Ready
from penstock.ledger import Ledger
from penstock.ledger.arrivals import Seen
from penstock.model import ObjectRef, Outcome, Stat, State, Via
from penstock.settings import RUNTIME_FILE, write_made
from penstock.warehouse.base import APPEND, LoadPart, Write
from penstock.warehouse.duckdb import DuckDBWarehouse
from tests.conformance.warehouses import part
from tests.loading import another_project

SALES, ORDERS = Dataset(name="sales"), Dataset(name="orders", write="merge", key=["id"])
DONE = Dataset(name="sales", ready=Ready(beside=".done"))
LATE = "landing/orders/late.csv@1"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No setting of the machine's own, and each test's declarations are importable in that test only."""
    for name in [name for name in os.environ if name.startswith("PENSTOCK_")]:
        monkeypatch.delenv(name)
    with another_project():
        yield


class Desk:
    """A project in which `sales` appends and `orders` merges, its ledger and its warehouse."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "flows").mkdir()
        declared = {
            "sales": 'DATASET = Dataset(name="sales", backfill=Backfill(prefix="old/"))',
            "orders": 'DATASET = Dataset(name="orders", write="merge", key=["id"])',
        }
        for name, line in declared.items():
            (folder / "flows" / f"{name}.py").write_text(f"from penstock import Backfill, Dataset\n{line}\n")
        (folder / ".env").write_text("PENSTOCK_PROJECT=desk\n")
        self.home = folder / ".penstock"
        self.now = datetime.now(UTC)
        self.ledger = Ledger(f"sqlite:///{self.home / 'ledger.db'}", project="desk", clock=lambda: self.now)
        self.ledger.migrate(lock_folder=self.home)
        self.warehouse = DuckDBWarehouse(self.home / "warehouse.duckdb", wait_seconds=10)

    def arrive(self, *keys: str, dataset: Dataset = SALES) -> None:
        """Record objects."""
        stats = [Stat(bucket="landing", key=key, etag="a", size=3, modified=self.now) for key in keys]
        self.ledger.arrivals.record([Seen(stat=stat, dataset=dataset) for stat in stats], Via.BUCKET)

    def end(self, dataset: str, state: State = State.LOADED, **more: Any) -> list[ObjectRef]:
        """What is pending ends so, with two rows."""
        lease = self.ledger.work.acquire(dataset, holder="x", ttl=timedelta(seconds=30))
        assert lease is not None
        refs = self.ledger.work.claim(lease, run="r", max_objects=100, max_bytes=10**9)
        self.ledger.work.settle(lease, [Outcome(ref=ref, state=state, rows=2, **more) for ref in refs], run="r")
        assert self.ledger.work.finish(lease)
        return refs

    def load(self, *keys: str, ids: Sequence[int], dataset: Dataset = ORDERS) -> None:
        """Objects of two rows each, in the warehouse too."""
        for key in keys:
            self.arrive(key, dataset=dataset)
            (ref,) = self.end(dataset.name)
            made = part(key.partition("/")[2], {"id": pa.array(ids)})
            loaded = LoadPart(ref=ref, rows=made.rows, rejected=made.rejected)
            write = Write(key=("id",)) if dataset is ORDERS else APPEND
            columns = [("id", "BIGINT")]
            self.warehouse.load(dataset.name, columns, [loaded], token=ref.id, run="r", now=self.now, write=write)

    def run(self, *words: str) -> str:
        """What a command says, all on one line."""
        return self.result(*words).stdout

    def result(self, *words: str) -> Result:
        """What it says, and what beside it."""
        result = CliRunner(env={"COLUMNS": "80"}).invoke(cli, ["--project", str(self.folder), *words])
        assert result.exception is None, result.output
        return result

    def facts(self, *words: str) -> Any:
        """What a command says with --json."""
        return json.loads(self.run(*words, "--json"))


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.ledger.close()


class TestRowsThatGaveWay:
    """Of merged datasets what is said to be in the warehouse is there."""

    def test_the_warehouse_is_asked(self, desk: Desk) -> None:
        """`why` by the object's marker, `status` by the table; both say so in --json."""
        desk.load("orders/late.csv", "orders/new.csv", ids=[1, 2])
        desk.load("orders/some.csv", ids=[2, 3])
        assert "next: nothing; 2 rows, all of which gave way to others." in desk.run("why", "orders/late.csv")
        assert "next: nothing; 2 rows, 1 of which gave way to others." in desk.run("why", "orders/new.csv")
        assert "next: nothing; its rows are in the warehouse." in desk.run("why", "orders/some.csv")
        ((late,), (some,)) = (desk.facts("why", f"orders/{name}.csv") for name in ("late", "some"))
        assert ((late["gone"], late["not_asked"]), (some["gone"], some["not_asked"])) == ((2, None), (0, None))
        (orders,) = desk.facts("status")["datasets"]
        assert (orders["rows"], orders["rows_of"], orders["rows_not_asked"]) == (3, "table", None)
        assert desk.run("status").split("orders")[1].split()[:2] == ["3", "3"]

    def test_a_locked_warehouse_is_named(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is waited for only shortly, and then said that it was not asked."""
        desk.load("orders/late.csv", "orders/new.csv", ids=[1, 2])
        monkeypatch.setattr(in_the_table, "_WAIT_SECONDS", 0.01)
        with FileLock(f"{desk.warehouse.path}.lock"):
            told = desk.run("why", "orders/late.csv")
            assert "the warehouse was not asked" in told
            assert "is held by" in told
            assert "in the warehouse. To replace" not in told
            (story,) = desk.facts("why", "orders/late.csv")
            assert story["gone"] is None
            assert "is held by" in story["not_asked"]
            assert "orders: rows are those that were loaded, whether they gave way" in desk.run("status")
            (orders,) = desk.facts("status")["datasets"]
            assert (orders["rows"], orders["rows_of"]) == (4, "ledger")
            assert "is held by" in orders["rows_not_asked"]

    def test_of_what_only_appends_nobody_is_asked(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        """So that nobody waits for a warehouse that is away."""
        desk.load("sales/a.csv", ids=[1, 2], dataset=SALES)
        monkeypatch.delattr(in_the_table, "open_warehouse")
        assert "its rows are in the warehouse" in desk.run("why", "sales/a.csv")
        (sales,) = desk.facts("status")["datasets"]
        assert (sales["rows"], sales["rows_of"], sales["rows_not_asked"]) == (2, "ledger", None)

    def test_declarations_that_cannot_be_read_are_no_hindrance(self, desk: Desk) -> None:
        """`why` asks then in any case, and `status` says whose rows it counts."""
        desk.load("orders/late.csv", "orders/new.csv", ids=[1, 2])
        (desk.folder / "flows" / "orders.py").write_text("from nowhere import nothing\n")
        assert "2 rows, all of which gave way to others" in desk.run("why", "orders/late.csv")
        assert "penstock doctor" in desk.run("status")


def test_what_a_load_warned_of_is_seen_afterwards(desk: Desk) -> None:
    """In the object's history, and late rows of all loads in `status`."""
    desk.arrive("sales/a.csv")
    desk.end("sales", note="9 warned of by state; 2 late")
    assert "loaded: 2 rows, 0 rejected; 9 warned of by state; 2 late" in desk.run("why", "sales/a.csv")
    (before,) = desk.facts("status")["datasets"]
    assert (before["event_time"], before["late"]) == (None, None)
    assert "late" not in desk.run("status")
    desk.ledger.watermarks.advance("sales", desk.now, late=2)
    assert "sales: 2 rows came late; event times until" in desk.run("status")
    (after,) = desk.facts("status")["datasets"]
    assert after["late"] == 2


def test_while_nothing_runs_every_command_says_so(desk: Desk) -> None:
    """Unless a Prefect is configured that `up` did not start: its services may run elsewhere."""
    desk.arrive("sales/a.csv")
    told = "nothing is running: penstock up"
    assert f"next: {told}. Then a run loads it" in desk.run("why", "sales/a.csv")
    assert f"nothing old waits that is known of, and {told}" in desk.run("backfill")
    assert "down; start: penstock up" in desk.run("status")
    desk.end("sales", State.QUARANTINED, reason="bad")
    assert desk.result("replay", "sales/a.csv").stderr == f"Next: {told}\n"
    # An `up` that was killed leaves its file.
    gone = {"pid": 2**22 + 1, "PENSTOCK_PREFECT_API_URL": "http://127.0.0.1:1/api"}
    write_made(desk.home, RUNTIME_FILE, gone)
    assert told in desk.run("why", "sales/a.csv")
    write_made(desk.home, RUNTIME_FILE, {**gone, "pid": os.getpid()})
    assert told not in desk.run("why", "sales/a.csv") + desk.run("backfill")
    (desk.home / RUNTIME_FILE).unlink()
    (desk.folder / ".env").write_text("PENSTOCK_PROJECT=desk\nPENSTOCK_PREFECT_API_URL=http://prefect:4200/api\n")
    assert told not in desk.run("why", "sales/a.csv") + desk.run("backfill")
    assert "down" not in desk.run("status")


def test_names_in_quarantine_can_be_copied(desk: Desk) -> None:
    """A long one is on one line, however narrow the terminal; attempts are told of only where there were some."""
    key = f"sales/{'x' * 150}/a b.csv"
    desk.arrive(key)
    desk.end("sales", State.QUARANTINED, reason="no header")
    lines = desk.run("quarantine", "ls").splitlines()
    assert lines[0] == f"landing/{key}@1"
    assert lines[1].startswith("  sales, since ")
    assert lines[1].endswith(": no header")
    assert "attempts" not in "".join(lines) + desk.run("quarantine", "show", key)


def test_what_is_neither_loaded_nor_waiting_is_named(desk: Desk) -> None:
    """Marker files are told from what was left alone, and what waits has a column of its own."""
    desk.arrive("sales/a.csv", "sales/b.csv.done", "sales/c.csv.done", dataset=DONE)
    desk.arrive("sales/e.csv", "sales/f.csv")
    desk.end("sales", State.EMPTY, reason="it has 0 bytes")
    told = desk.run("status")
    assert "sales: other: 2 empty, 2 marker files" in told
    heading = next(line for line in told.splitlines() if line.startswith("dataset")).replace("oldest pending", "")
    row = next(line for line in told.splitlines() if line.startswith("sales "))
    assert dict(zip(heading.split(), row.split(), strict=False))["waiting"] == "1"
    assert desk.facts("status")["datasets"][0]["markers"] == 2
