"""What the figures of examples/access_logs are made of."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from random import Random
from types import ModuleType
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from tests.acceptance.running import ROOT
from tests.loading import module_at

NINE, TEN, ELEVEN = (datetime(2026, 3, 2, hour, tzinfo=UTC) for hour in (9, 10, 11))
LOAD = datetime(2026, 3, 2, 12, 0, 0, 5, tzinfo=UTC)


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    """Its module of pure functions."""
    return module_at(ROOT / "examples/access_logs/flows/_figures.py")


def lines(*rows: tuple[datetime, str]) -> pa.Table:
    """Lines of these times and paths."""
    return pa.table({"time": [row[0] for row in rows], "path": [row[1] for row in rows]})


def hour(at: datetime, route: str, requests: int, errors: int) -> dict[str, Any]:
    """A row of figures."""
    return {"hour": at, "route": route, "requests": requests, "errors_5xx": errors, "p95_ms": 70}


def test_an_hour_is_one_of_utc_and_a_route_has_no_numbers(figures: ModuleType) -> None:
    """A zone with half an hour does not move the hour; numbers and what is asked for are left out of the path."""
    india = timezone(timedelta(hours=5, minutes=30))
    found = figures.with_hour_and_route(
        lines(
            (datetime(2026, 3, 2, 15, 59, tzinfo=india), "/cart/17/items?page=2"),
            (datetime(2026, 3, 2, 15, 30, tzinfo=india), "/"),
            (datetime(2026, 3, 2, 15, 29, 59, 999_999, tzinfo=india), "/products/7?next=/products/8"),
        )
    )
    assert found["hour"].to_pylist() == [TEN, TEN, NINE]
    assert found["route"].to_pylist() == ["/cart/{id}/items", "/", "/products/{id}"]


def test_a_file_without_a_good_line_stays_as_it_is(figures: ModuleType) -> None:
    """Of what was put into quarantine not even the columns are known."""
    assert figures.with_hour_and_route(pa.table({})).num_rows == 0


def test_percentiles_are_of_all_lines_of_the_hour(figures: ModuleType) -> None:
    """Each is the least latency that so many requests did not exceed, of the hour and of each of its routes."""
    random = Random(4)  # noqa: S311 - to be repeated, not to be secret
    rows: list[dict[str, Any]] = [
        {
            "hour": random.choice([NINE, TEN, ELEVEN]),
            "route": random.choice("ab"),
            "status": random.choice([200, 404, 499, 500, 503]),
            "latency_ms": random.randrange(500),
        }
        for _ in range(1000)
    ]
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'Asia/Kolkata'")
        connection.register("given", pa.Table.from_pylist(rows))
        connection.execute("CREATE TABLE access_logs AS SELECT * FROM given")
        answer = connection.sql(figures.of_hours([NINE, TEN])).to_arrow_table().to_pylist()

    def expected(at: datetime, route: str) -> dict[str, Any]:
        found = [row for row in rows if row["hour"] == at and route in ("*", row["route"])]
        latencies = sorted(row["latency_ms"] for row in found)
        return {
            "hour": at,
            "route": route,
            "requests": len(found),
            "errors_4xx": sum(400 <= row["status"] < 500 for row in found),
            "errors_5xx": sum(row["status"] >= 500 for row in found),
            **{f"p{p}_ms": latencies[math.ceil(p * len(found) / 100) - 1] for p in (50, 95, 99)},
        }

    assert answer == [expected(at, route) for at in (NINE, TEN) for route in "*ab"]


@pytest.mark.parametrize(
    ("there", "known", "is_behind"),
    [
        ((3, LOAD), None, True),
        ((3, LOAD), (3, LOAD), False),
        ((3, LOAD), (3, LOAD + timedelta(hours=1)), False),
        ((4, LOAD), (3, LOAD + timedelta(hours=1)), True),
        ((2, LOAD - timedelta(hours=1)), (3, LOAD), True),
        ((3, LOAD), (3, LOAD - timedelta(microseconds=1)), True),
        (None, (3, LOAD), True),
        (None, (0, LOAD), False),
    ],
)
def test_an_hour_is_behind_when_its_lines_changed(figures: ModuleType, there: Any, known: Any, is_behind: bool) -> None:
    """By their number, or by a load that its figures have not seen; an hour whose lines are gone is, once."""
    others = {ELEVEN: (7, LOAD)}
    found = figures.behind({TEN: there, **others} if there else others, {TEN: known, **others} if known else others)
    assert found == ([TEN] if is_behind else [])


def test_what_has_no_lines_any_more_has_figures_that_say_so(figures: ModuleType) -> None:
    """Hours and routes that had figures and are not found again become zeros, without percentiles."""
    found = [hour(NINE, "*", 5, 0), hour(NINE, "/", 5, 0)]
    before = [{"hour": at, "route": route} for at in (NINE, TEN) for route in ("*", "/")]
    *kept, star, slash = figures.with_those_gone(found, before)
    assert kept == found
    zeros = {"requests": 0, "errors_4xx": 0, "errors_5xx": 0, "p50_ms": None, "p95_ms": None, "p99_ms": None}
    assert (star, slash) == ({"hour": TEN, "route": "*", **zeros}, {"hour": TEN, "route": "/", **zeros})


@pytest.mark.parametrize(
    ("requests", "errors", "told"), [(100, 6, True), (100, 5, False), (99, 99, False), (0, 0, False)]
)
def test_an_hour_is_told_of_when_more_than_the_threshold_failed(
    figures: ModuleType, requests: int, errors: int, told: bool
) -> None:
    """Exactly the threshold is not more, and of few requests nothing is told."""
    found = figures.too_many_errors([hour(TEN, "*", requests, errors)] + [hour(TEN, "/", 1, errors)] * told, 0.05, 100)
    assert [one["hour"] for one in found] == ["2026-03-02T10"] * told


def test_what_is_told_names_the_worst_route(figures: ModuleType) -> None:
    """The one of that hour with the most errors, whatever other hours have."""
    found = figures.too_many_errors(
        [hour(TEN, "*", 300, 40), hour(TEN, "/pay", 100, 30), hour(TEN, "/", 200, 10), hour(NINE, "/", 50, 45)],
        0.05,
        100,
    )
    assert found == [
        {
            "hour": "2026-03-02T10",
            "percent": 13.3,
            "errors": 40,
            "p95_ms": 70,
            "text": "13.3 % of 300 requests failed in the hour 2026-03-02T10 (UTC), most of them /pay",
        }
    ]


def test_an_event_has_the_same_id_again(figures: ModuleType) -> None:
    """Of the same hour; another hour's, or another event's, is another."""
    ids = [figures.event_id("a", "shop.10"), figures.event_id("a", "shop.11"), figures.event_id("b", "shop.10")]
    assert figures.event_id("a", "shop.10") == ids[0]
    assert len(set(ids)) == 3
