"""examples/sales_etl as its user runs it: sales are dropped, and the report follows every load."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any

import httpx
import pytest

from penstock.errors import QueryRefused
from penstock.settings import load_settings
from penstock.testing.sales import HEADER, sales_csv
from penstock.wiring import open_store, open_warehouse
from tests.acceptance.running import WITHIN_SECONDS, Up
from tests.pipelines.running import example
from tests.waiting import wait_for

# Long: .ci/run shows the same ways of the engine by the other examples.
pytestmark = [pytest.mark.slow, pytest.mark.long]

Report = dict[tuple[date, str], tuple[int, Decimal]]
CATEGORIES = ("high", "medium", "low")
# A report that began before others and comes after them: it says of a day what was never true.
LATE = """
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
import penstock

day = date.fromisoformat(sys.argv[1])
row = {"day": day, "category": "low", "sales": 999, "total": Decimal("1.00"), "as_of": datetime(2026, 1, 1, tzinfo=UTC)}
assert penstock.land("daily_sales/late.parquet", [row])
"""


@dataclass(kw_only=True)
class Shop:
    """The example at work, with the sales that were dropped by their files' names."""

    up: Up
    files: dict[str, str] = field(default_factory=dict)

    def drop(self, name: str, sales: str) -> None:
        """Move a file into the inbox, also in the place of an earlier one."""
        draft = self.up.folder / name
        draft.write_text(sales)
        draft.rename(self.up.inbox / "sales" / name)
        self.files[name] = sales

    def expected(self) -> Report:
        """Of the days with sales, what each category comes to."""
        found: Report = defaultdict(lambda: (0, Decimal(0)))
        for content in self.files.values():
            for row in csv.DictReader(io.StringIO(content)):
                value = int(row["quantity"]) * float(row["unit_price"])
                category = "high" if value > 500 else "medium" if value > 100 else "low"
                key = (date.fromisoformat(row["sold_at"][:10]), category)
                sales, total = found[key]
                found[key] = (sales + 1, total + int(row["quantity"]) * Decimal(row["unit_price"]))
        return dict(found)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """What the warehouse answers; nothing where there is no such table yet."""
        try:
            return list(open_warehouse(load_settings(self.up.folder)).query(sql, limit=100_000).rows)
        except QueryRefused:
            return []

    def reported(self) -> Report:
        """The table `daily_sales` without its zeros."""
        found = self.rows("SELECT day, category, sales, total FROM daily_sales")
        assert len({row[:2] for row in found}) == len(found), "a day and category stands there twice"
        return {(day, category): (sales, total) for day, category, sales, total in found if sales or total}

    def is_reported(self) -> bool:
        """Whether the table is what the files say, and what Prefect shows too."""
        shown = self.artifact("daily-sales")
        return self.reported() == self.expected() and shown is not None and json.loads(shown) == self.latest_days()

    def latest_days(self) -> list[dict[str, Any]]:
        """What the artifact is to show: a row for each of the latest 31 days."""
        expected = self.expected()
        shown = []
        for day in sorted({day for day, _ in expected}, reverse=True)[:31]:
            sold = {category: expected.get((day, category), (0, Decimal(0))) for category in CATEGORIES}
            sales, total = sum(one[0] for one in sold.values()), sum((one[1] for one in sold.values()), Decimal(0))
            counts = {category: one[0] for category, one in sold.items()}
            shown.append({"day": day.isoformat(), **counts, "sales": sales, "total": str(total)})
        return shown

    def artifact(self, key: str) -> str | None:
        """The data of the artifact that Prefect shows under a key."""
        found = self.ask("/artifacts/latest/filter", {"artifacts": {"key": {"any_": [key]}}})
        return found[0]["data"] if found else None

    def ask(self, path: str, body: dict[str, Any]) -> Any:
        """What the Prefect server answers."""
        made = self.up.made()
        user, _, password = made["PENSTOCK_PREFECT_AUTH"].partition(":")
        url = f"{made['PENSTOCK_PREFECT_API_URL']}{path}"
        return httpx.post(url, json=body, auth=(user, password), timeout=20).raise_for_status().json()

    def runs(self) -> list[dict[str, Any]]:
        """The report's runs, without those that are planned for the coming mornings."""
        runs: list[dict[str, Any]] = self.ask("/flow_runs/filter", {"flows": {"name": {"any_": ["daily-report"]}}})
        return [run for run in runs if not run["auto_scheduled"]]

    def landed(self) -> list[tuple[str, str]]:
        """The reports in the bucket, whether loaded yet or not."""
        settings = load_settings(self.up.folder)
        return [(stat.key, stat.etag) for stat in open_store(settings).list("landing", prefix="daily_sales/")]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """The example, for all tests here."""
    with example("sales_etl", tmp_path_factory.mktemp("sales")) as up:
        yield Shop(up=up)


def test_several_loads_quickly_after_one_another_end_in_the_right_report(shop: Shop) -> None:
    """Each load runs the report by its automation; in the end table and artifacts are what all files say."""
    shop.drop("1.csv", sales_csv(rows=200, seed=1))
    shop.up.ends_as("sales/1.csv", "loaded")
    for number in (2, 3, 4):
        shop.drop(f"{number}.csv", sales_csv(rows=200, seed=number))
    wait_for(shop.is_reported, seconds=WITHIN_SECONDS, what="all four files are reported")
    markdown = shop.artifact("sales-by-category")
    assert markdown is not None
    for category in CATEGORIES:
        of_it = [value for key, value in shop.expected().items() if key[1] == category]
        sales, total = sum(one[0] for one in of_it), sum((one[1] for one in of_it), Decimal(0))
        assert f"| {category} | {sales:,} | {sales / 800:.1%} | {total:,} |" in markdown
    loads = shop.rows("SELECT count(DISTINCT loaded_at) FROM _penstock_objects WHERE dataset = 'sales'")[0][0]
    assert loads > 1
    runs = wait_for(
        lambda: found if len(found := shop.runs()) >= loads else [],
        seconds=WITHIN_SECONDS,
        what="each load has its run",
    )
    assert len(runs) == loads
    assert {run["created_by"]["type"] for run in runs} == {"AUTOMATION"}


def test_what_a_corrected_file_took_away_is_gone_from_the_report(shop: Shop) -> None:
    """A file that is written again with another day leaves no sales at its former one."""
    shop.drop("fix.csv", f"{HEADER}\n1,1,1,2,10.50,2019-05-01 12:00:00\n")
    wait_for(shop.is_reported, seconds=WITHIN_SECONDS, what="the file is reported")
    assert (date(2019, 5, 1), "low") in shop.reported()
    shop.drop("fix.csv", f"{HEADER}\n1,1,1,2,10.50,2019-05-02 12:00:00\n")
    wait_for(shop.is_reported, seconds=WITHIN_SECONDS, what="the corrected file is reported")
    found = shop.rows("SELECT sales, total FROM daily_sales WHERE day = '2019-05-01'")
    assert found == [(0, Decimal("0.00"))] * 3


def test_an_older_report_that_lands_late_changes_nothing(shop: Shop) -> None:
    """Of two reports the one that saw the newer load stays, though the other landed after it."""
    shop.drop("day.csv", f"{HEADER}\n2,1,1,2,10.50,2018-05-01 12:00:00\n")
    wait_for(shop.is_reported, seconds=WITHIN_SECONDS, what="the file is reported")
    environment = {**shop.up.env, "PENSTOCK_PROJECT_DIR": str(shop.up.folder)}
    subprocess.run([sys.executable, "-c", LATE, "2018-05-01"], env=environment, cwd=shop.up.folder, check=True)
    shop.up.ends_as("daily_sales/late.parquet", "loaded")
    assert shop.is_reported()


def test_the_same_report_again_is_no_new_object(shop: Shop) -> None:
    """A run when nothing was loaded since, such as each morning's, shows the report and lands nothing."""
    shop.drop("again.csv", sales_csv(rows=50, seed=9))
    wait_for(shop.is_reported, seconds=WITHIN_SECONDS, what="the file is reported")
    before = shop.landed()
    (deployment,) = {run["deployment_id"] for run in shop.runs()}
    run = shop.ask(f"/deployments/{deployment}/create_flow_run", {})["id"]
    ended = wait_for(
        lambda: [one for one in shop.runs() if one["id"] == run and one["state_type"] == "COMPLETED"],
        seconds=WITHIN_SECONDS,
        what="the report ran again",
    )
    assert ended[0]["state_name"] == "Reported"
    assert shop.landed() == before
    assert shop.is_reported()
