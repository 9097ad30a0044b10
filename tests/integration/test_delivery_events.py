"""The events of deliveries through the landing: once each, whoever records the delivery. Real store and ledger."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from penstock import events
from penstock.errors import LedgerUnavailable
from penstock.landing import Landing
from penstock.model import FurtherEvent
from tests.conformance.ledgers import SALES, Bench, delivery, sqlite_bench
from tests.real_store import RealStore, real_store

PAID = FurtherEvent(name="shop.order.paid", resource="shop.order.7", payload={"total": 3})
ONE = replace(delivery("one"), request="r-1", events=(PAID,))


@pytest.fixture(scope="module")
def server() -> Iterator[RealStore]:
    with real_store("embedded") as store:
        yield store


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with sqlite_bench(tmp_path) as made:
        yield made


def names(bench: Bench) -> list[str]:
    return [event.name for event in bench.ledger.outbox.unsent(100)]


def test_a_crash_between_store_and_ledger_loses_no_event(
    server: RealStore, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the sweep adopts brings its events, from the envelope; the sender's retry is a duplicate and brings none."""
    store = server.client()
    store.ensure_bucket("events")
    landing = Landing(
        store=store, ledger=bench.ledger, datasets=[SALES], bucket="events", announce_each=frozenset({"shop"})
    )

    def away(*args: object, **kwargs: object) -> set[int]:
        raise LedgerUnavailable

    with monkeypatch.context() as patched:
        patched.setattr(bench.ledger.deliveries, "record", away)
        with pytest.raises(LedgerUnavailable):
            landing.accept([ONE])
    assert names(bench) == []
    (left,) = store.list("events")
    assert [landing.adopt_envelope(left) for _ in range(2)] == [1, 0]
    assert names(bench) == [events.OBJECT_ARRIVED, events.DELIVERY_ACCEPTED, PAID.name]
    assert bench.rows()[0].request == "r-1"
    assert landing.accept([ONE]) == [True]
    assert landing.accept([ONE, replace(ONE, id="two")]) == [True, False]
    assert names(bench)[3:] == [events.OBJECT_ARRIVED, events.DELIVERY_ACCEPTED, PAID.name]
