"""How far the events of a dataset have come. On every ledger."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from penstock.ledger.watermarks import Watermark
from tests.conformance.ledgers import BACKENDS, MAKERS, Bench

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(params=BACKENDS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    with MAKERS[request.param](tmp_path / "ledger") as made:
        yield made


def test_it_only_moves_forward(bench: Bench) -> None:
    """The greatest event time stays, and late rows are added up; each dataset has its own."""
    marks = bench.ledger.watermarks
    assert marks.of("sales") is None
    marks.advance("sales", NOON, late=0)
    marks.advance("sales", NOON - timedelta(days=1), late=3)
    marks.advance("other", NOON - timedelta(days=2), late=1)
    assert marks.of("sales") == Watermark(event_time=NOON, late=3)
    later = (NOON + timedelta(microseconds=1)).astimezone(timezone(timedelta(hours=-8)))
    marks.advance("sales", later, late=2)
    assert marks.of("sales") == Watermark(event_time=later, late=5)
    assert marks.of("other") == Watermark(event_time=NOON - timedelta(days=2), late=1)


@pytest.mark.parametrize("year", [1, 1900, 9999], ids=str)
def test_any_year_is_kept(bench: Bench, year: int) -> None:
    """What Python has a datetime for comes back as it was, and is compared by time."""
    moment = datetime(year, 1, 2, tzinfo=UTC)
    bench.ledger.watermarks.advance("sales", moment, late=0)
    bench.ledger.watermarks.advance("sales", NOON, late=0)
    assert bench.ledger.watermarks.of("sales") == Watermark(event_time=max(moment, NOON), late=0)


def test_two_at_once(bench: Bench) -> None:
    """Nothing is lost of either."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: bench.ledger.watermarks.advance("sales", NOON + n * timedelta(1), late=1), range(8)))
    assert bench.ledger.watermarks.of("sales") == Watermark(event_time=NOON + timedelta(7), late=8)
