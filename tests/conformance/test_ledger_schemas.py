"""Schema memory: versions, and the event by which others learn of one. On every ledger."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from penstock import events
from penstock.errors import LeaseLost
from penstock.model import Column, OutboxEvent, Schema
from tests.conformance.ledgers import BACKENDS, MAKERS, PROJECT, START, Bench

FIRST = Schema(version=1, columns=(Column(name="id", original="ID", type="BIGINT"),), dialect={"delim": ";"})
MORE = replace(FIRST, columns=(*FIRST.columns, Column(name="city", original="City", type="VARCHAR")))
WIDER = replace(MORE, columns=(replace(FIRST.columns[0], type="DOUBLE"), MORE.columns[1]))


@pytest.fixture(params=BACKENDS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    with MAKERS[request.param](tmp_path / "ledger") as made:
        yield made


def told(bench: Bench) -> list[OutboxEvent]:
    return [event for event in bench.ledger.outbox.unsent(100) if event.name == events.SCHEMA_CHANGED]


class TestSchemas:
    """`Ledger.schemas`."""

    def test_versions_follow_one_another(self, bench: Bench) -> None:
        """For each dataset and format; the newest is what later objects are read by."""
        remember = bench.ledger.schemas.remember
        assert bench.ledger.schemas.latest("sales", "csv") is None
        assert remember("sales", "csv", FIRST, cause="first object").version == 1
        assert remember("sales", "json", MORE, cause="first object").version == 1
        assert remember("weather", "csv", MORE, cause="first object").version == 1
        assert remember("sales", "csv", MORE, cause="new columns city").version == 2
        assert bench.ledger.schemas.latest("sales", "csv") == replace(MORE, version=2)
        assert [(one.form, one.schema, one.cause, one.at) for one in bench.ledger.schemas.versions("sales")] == [
            ("csv", FIRST, "first object", START),
            ("csv", replace(MORE, version=2), "new columns city", START),
            ("json", MORE, "first object", START),
        ]

    def test_an_event_tells_of_each(self, bench: Bench) -> None:
        """What is new and what is wider, from which version on; the first one comes from nothing."""
        for schema, cause in ((FIRST, "first object"), (MORE, "new columns city"), (WIDER, "numbers widened")):
            bench.ledger.schemas.remember("sales", "csv", schema, cause=cause)
        assert [event.payload for event in told(bench)] == [
            {
                "format": "csv",
                "version": 1,
                "before": 0,
                "columns": 1,
                "added": [{"name": "id", "type": "BIGINT"}],
                "widened": [],
                "cause": "first object",
            },
            {
                "format": "csv",
                "version": 2,
                "before": 1,
                "columns": 2,
                "added": [{"name": "city", "type": "VARCHAR"}],
                "widened": [],
                "cause": "new columns city",
            },
            {
                "format": "csv",
                "version": 3,
                "before": 2,
                "columns": 2,
                "added": [],
                "widened": [{"name": "id", "from": "BIGINT", "to": "DOUBLE"}],
                "cause": "numbers widened",
            },
        ]
        assert {event.resource["prefect.resource.id"] for event in told(bench)} == {f"penstock.{PROJECT}.dataset.sales"}
        assert len({event.id for event in told(bench)}) == 3

    def test_what_is_known_is_no_change(self, bench: Bench) -> None:
        """Remembering a schema once more makes neither a version nor an event, at whatever time."""
        bench.ledger.schemas.remember("sales", "csv", FIRST, cause="first object")
        bench.clock.forward(5)
        assert bench.ledger.schemas.remember("sales", "csv", replace(FIRST, version=7), cause="again") == FIRST
        assert len(told(bench)) == len(bench.ledger.schemas.versions("sales")) == 1

    def test_two_at_once_make_two_versions(self, bench: Bench) -> None:
        """Each sees what the other wrote; none fails, and none is lost."""
        others = [bench.open() for _ in range(4)]
        found = [replace(FIRST, dialect={"skip": number}) for number in range(4)]
        with ThreadPoolExecutor(4) as pool:
            numbered = pool.map(
                lambda ledger, schema: ledger.schemas.remember("sales", "csv", schema, cause="x"), others, found
            )
            assert sorted(schema.version for schema in numbered) == [1, 2, 3, 4]
        assert {event.payload["version"] for event in told(bench)} == {1, 2, 3, 4}

    def test_an_event_stays_small(self, bench: Bench) -> None:
        """However many columns come, and whatever their types are: Prefect drops large events and tells nobody."""
        kind = f"STRUCT({', '.join(f'f{number} BIGINT' for number in range(100))})"
        columns = tuple(Column(name=f"c{number}", original="x" * 500, type=kind) for number in range(1000))
        bench.ledger.schemas.remember("sales", "csv", Schema(version=1, columns=columns), cause="x" * 10_000)
        (event,) = told(bench)
        assert event.payload["columns"] == 1000
        assert len(str(event.payload)) < 100_000

    def test_what_is_proposed_counts_once_it_is_loaded(self, bench: Bench) -> None:
        """Until then it is no version; the last proposal counts, and only that of who holds the dataset."""
        schemas = bench.ledger.schemas
        lease = bench.ledger.work.acquire("sales", holder="a", ttl=timedelta(seconds=30))
        assert lease is not None
        schemas.propose(lease, {"csv": (MORE, "first object"), "json": (MORE, "first object")}, proof=["b/1@1"])
        schemas.propose(lease, {"csv": (FIRST, "first object")}, proof=["b/1@1", "b/2@1"])
        assert (schemas.proposed("sales"), schemas.proposed("weather")) == (["b/1@1", "b/2@1"], [])
        assert (schemas.latest("sales", "csv"), schemas.versions("sales"), told(bench)) == (None, [], [])
        schemas.conclude(lease, loaded=True)
        assert [(one.form, one.schema) for one in schemas.versions("sales")] == [("csv", FIRST)]
        assert (len(told(bench)), schemas.proposed("sales")) == (1, [])
        schemas.propose(lease, {"csv": (MORE, "new columns city")}, proof=["b/3@1"])
        schemas.conclude(lease, loaded=False)
        assert (schemas.latest("sales", "csv"), schemas.proposed("sales")) == (FIRST, [])
        bench.ledger.work.release(lease)
        with pytest.raises(LeaseLost):
            schemas.propose(lease, {"csv": (MORE, "new columns city")}, proof=["b/3@1"])
        with pytest.raises(LeaseLost):
            schemas.conclude(lease, loaded=True)
