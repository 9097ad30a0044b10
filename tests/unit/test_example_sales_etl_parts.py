"""What the daily report of examples/sales_etl is made of."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from types import ModuleType
from typing import Any

import pyarrow as pa
import pytest

import penstock
from penstock.project import load_project
from tests.acceptance.running import ROOT
from tests.loading import another_project, module_at

AS_OF = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
ONE, TWO, THREE = date(2026, 1, 1), date(2026, 1, 2), date(2026, 1, 3)
# What is asked for has a row also where there are no sales: the moment.
NONE_LEFT = [{"day": None, "category": None, "sales": None, "total": None, "as_of": AS_OF}]


@pytest.fixture(scope="module")
def days() -> ModuleType:
    """Its module of pure functions."""
    return module_at(ROOT / "examples/sales_etl/flows/_days.py")


@pytest.fixture
def report() -> Iterator[ModuleType]:
    """Its module with the flow; the repository's own flows are imported under the same names."""
    with another_project():
        load_project(ROOT / "examples/sales_etl", only=["flows"])
        yield sys.modules["flows.daily_sales"]


def sold(day: date, category: str, sales: int, total: str) -> dict[str, Any]:
    """A row of the query."""
    return {"day": day, "category": category, "sales": sales, "total": Decimal(total), "as_of": AS_OF}


FOUND = [sold(TWO, "low", 3, "12.30"), sold(ONE, "high", 1, "900.00"), sold(TWO, "medium", 1, "150.05")]


def test_each_day_has_each_category(days: ModuleType) -> None:
    """Days in order, what was not sold as zeros, and all of one moment."""
    rows = days.every_category(FOUND, [], AS_OF)
    assert [(row["day"], row["category"], row["sales"], str(row["total"])) for row in rows] == [
        (ONE, "high", 1, "900.00"),
        (ONE, "medium", 0, "0.00"),
        (ONE, "low", 0, "0.00"),
        (TWO, "high", 0, "0.00"),
        (TWO, "medium", 1, "150.05"),
        (TWO, "low", 3, "12.30"),
    ]
    assert {row["as_of"] for row in rows} == {AS_OF}


def test_a_day_without_sales_any_more_becomes_zeros(days: ModuleType) -> None:
    """A day of an earlier report that is gone is said to have no sales, since a merge deletes nothing."""
    rows = days.every_category(FOUND[:1], [TWO, THREE], AS_OF)
    assert [(row["day"], row["sales"]) for row in rows if row["category"] == "low"] == [(TWO, 3), (THREE, 0)]
    assert len(rows) == 6


def test_the_latest_days_are_the_artifact(days: ModuleType) -> None:
    """A row for each day with sales, the newest first, no more than asked for, in what JSON knows."""
    rows = days.every_category(FOUND, [THREE], AS_OF)
    two = {"day": "2026-01-02", "high": 0, "medium": 1, "low": 3, "sales": 4, "total": "162.35"}
    one = {"day": "2026-01-01", "high": 1, "medium": 0, "low": 0, "sales": 1, "total": "900.00"}
    assert days.latest_days(rows, 31) == [two, one]
    assert days.latest_days(rows, 1) == [two]


def test_the_distribution_by_category(days: ModuleType) -> None:
    """Over all days; its shares are of the number of sales."""
    rows = days.every_category(FOUND, [], AS_OF)
    assert [(one["category"], one["sales"], one["share"], str(one["total"])) for one in days.by_category(rows)] == [
        ("high", 1, 0.2, "900.00"),
        ("medium", 1, 0.2, "150.05"),
        ("low", 3, 0.6, "12.30"),
    ]
    shown = days.as_markdown(rows, AS_OF)
    assert "2026-03-02 09:30:00 UTC" in shown
    assert "| low | 3 | 60.0% | 12.30 |" in shown


def test_a_report_of_zeros_divides_by_nothing(days: ModuleType) -> None:
    """Shares of no sales at all are 0."""
    rows = days.every_category([], [ONE], AS_OF)
    assert [one["share"] for one in days.by_category(rows)] == [0.0, 0.0, 0.0]
    assert days.latest_days(rows, 31) == []


@pytest.mark.parametrize(
    ("found", "reported", "newest", "ends_as", "landed"),
    [
        pytest.param(FOUND, [], AS_OF, "Reported", 1, id="as it is"),
        pytest.param(FOUND, [], AS_OF + timedelta(seconds=1), "Superseded", 1, id="loaded meanwhile"),
        pytest.param([], [], None, "Skipped", 0, id="no sales"),
        pytest.param(NONE_LEFT, [], AS_OF, "Skipped", 0, id="no sales of any day"),
        pytest.param(NONE_LEFT, [{"day": ONE}], AS_OF, "Reported", 1, id="no sales any more"),
    ],
)
def test_the_report_is_shown_only_while_it_is_the_newest(
    report: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    found: list[dict[str, Any]],
    reported: list[dict[str, Any]],
    newest: datetime | None,
    ends_as: str,
    landed: int,
) -> None:
    """It lands its rows in any case; where a newer load came meanwhile, the artifacts are the next report's."""
    answers = {
        report.SALES_BY_DAY: found,
        report.NEWEST_LOAD: [{"as_of": newest}],
        "SELECT DISTINCT day FROM daily_sales": reported,
    }
    keys: list[str] = []
    shown: list[str] = []

    def query(sql: str) -> pa.Table:
        if not answers.get(sql):
            raise penstock.TableMissing(sql)
        return pa.Table.from_pylist(answers[sql])

    monkeypatch.setattr(penstock, "query", query)
    monkeypatch.setattr(penstock, "land", lambda key, rows: keys.append(key))
    for kind in ("table", "markdown"):
        monkeypatch.setattr(report, f"create_{kind}_artifact", lambda data, *, key, description: shown.append(key))
    assert report.daily_report.fn().name == ends_as
    assert keys == ["daily_sales/20260302T093000.000000.parquet"][:landed]
    assert shown == (["daily-sales", "sales-by-category"] if ends_as == "Reported" else [])
