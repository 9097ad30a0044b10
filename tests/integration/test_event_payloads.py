"""What `events.PAYLOADS` says is what is emitted."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from jsonschema import validate

from penstock import events
from penstock.automations.samples import BEGIN, sample
from penstock.ledger.arrivals import Seen
from penstock.model import Column, OutboxEvent, Schema, State, Via
from penstock.outbox.relay import Relay
from tests.conformance.ledgers import PROJECT, Bench, declared, delivery, sqlite_bench, stat


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with sqlite_bench(tmp_path / "ledger") as made:
        yield made


class Heard:
    """A Prefect server that keeps what it is sent."""

    def __init__(self) -> None:
        self.events: list[OutboxEvent] = []

    def post_events(self, found: list[OutboxEvent]) -> None:
        """Keep them."""
        self.events += found

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the relay asked for {name}")


def kind_of(resource: dict[str, str]) -> str:
    """Of which kind a resource is, by its id."""
    return resource["prefect.resource.id"].split(".")[2]


def test_the_payloads_are_those_of_the_emitters(bench: Bench) -> None:
    """Every event that arrivals, deliveries, loads, quarantine, comparison and relay emit has just these fields."""
    each = declared("each", event_per_object=True)
    bench.ledger.arrivals.record([Seen(stat=stat(f"each/{n}"), dataset=each) for n in range(3)], Via.BUCKET)
    came = delivery("d1")
    bench.ledger.deliveries.record(
        "landing", "_penstock/deliveries/sales/1", stat("e"), {1: came}, Via.WEBHOOK, announce_each={"shop"}
    )
    heard = Heard()
    relay = Relay(bench.ledger, heard, project=PROJECT, unanswered_after=timedelta(seconds=60), clock=bench.clock)
    relay.run_once()
    lease = bench.take("each")
    first, second, _ = bench.claim(lease)
    bench.settle(lease, first)
    bench.settle(lease, second, state=State.QUARANTINED, reason="1 of 2 rows are bad")
    schema = Schema(version=1, columns=(Column(name="id", original="id", type="BIGINT"),))
    bench.ledger.schemas.remember("each", "csv", schema, cause="first object")
    assert bench.ledger.checked.lost([first], what="its rows are gone") == 1
    relay.run_once()

    seen: dict[str, dict[str, dict[str, str]]] = {}
    for event in heard.events:
        kind = kind_of(event.resource)
        fields = events.PAYLOADS[event.name][kind]
        assert set(event.payload) == set(fields), event.name
        validate(event.payload, {"properties": {name: {"type": of} for name, of in fields.items()}})
        seen.setdefault(event.name, {})[kind] = dict(fields)
    assert seen == {name: {kind: dict(of) for kind, of in kinds.items()} for name, kinds in events.PAYLOADS.items()}


def test_a_summary_tells_of_every_arrival(bench: Bench) -> None:
    """Where a dataset has an event for each object the summary comes as well: `when_silent` goes by it alone."""
    for number, dataset in enumerate((declared("each", event_per_object=True), declared("sales"))):
        bench.ledger.arrivals.record([Seen(stat=stat(f"{dataset.name}/{number}"), dataset=dataset)], Via.BUCKET)
        told = [event.resource["prefect.resource.id"] for event in bench.ledger.outbox.unsent(100)]
        assert told.count(f"penstock.{PROJECT}.dataset.{dataset.name}") == 1


@pytest.mark.parametrize("name", events.PAYLOADS)
def test_a_made_up_event_has_them_too(name: str) -> None:
    """What tests and simulations make up has the fields of the real one."""
    for key in (None, "sales/a.csv"):
        made = sample(name, "sales", project="p", occurred=BEGIN, key=key)
        assert set(made["payload"]) == set(events.PAYLOADS[name][kind_of(made["resource"])])
