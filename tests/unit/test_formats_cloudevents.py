"""CloudEvents as deliveries: their attributes are columns, as the edge writes them and the pipe reads them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from penstock import envelope
from penstock.declarations import Dataset
from penstock.flows.fetching import Fetched, Fetcher
from penstock.flows.reading import Reader
from penstock.model import Delivery, ObjectRef
from penstock.objects import ObjectStore
from penstock.webhook.cloudevents import MEDIA_TYPE, events_of

AT = datetime(2026, 1, 2, tzinfo=UTC)
BARE = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "order.placed"}
FULL = {
    **BARE,
    "id": "2",
    "time": "2018-04-05T19:31:00.123456789+02:00",
    "subject": "order/7",
    "dataschema": "https://example.com/order",
    "tenant": "t1",
    "data": {"total": 12.5, "buyer": {"name": "Ann"}, "lines": [1, 2]},
}


class _Store:
    """What holds one envelope."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def read(self, *_: Any, **__: Any) -> bytes:
        return self._content


def landed(
    folder: Path, dataset: Dataset, *events: dict[str, Any]
) -> list[tuple[list[dict[str, Any]], dict[str, str]]]:
    """Rows and column types of each event, sent in structured mode and read from its envelope as a batch does."""
    found = [events_of([(b"content-type", MEDIA_TYPE.encode())], json.dumps(event).encode())[0] for event in events]
    deliveries = [
        Delivery(
            id=event.id,
            source="shop",
            dataset=dataset.name,
            received_at=AT,
            content_type=MEDIA_TYPE,
            headers={},
            body=event.body,
        )
        for event in found
    ]
    store = cast(ObjectStore, _Store(envelope.encode(deliveries)))
    key = envelope.envelope_key(dataset.name, AT, "x")
    refs = [
        ObjectRef(
            id=entry,
            dataset=dataset.name,
            bucket="b",
            key=key,
            generation=1,
            etag="e",
            size=1,
            entry=entry,
            delivery="d",
        )
        for entry in range(1, len(found) + 1)
    ]
    fetched = Fetcher(store=store, dataset=dataset, spool=folder, progress=lambda: None).fetch(refs)
    files = {}
    for number, ref in enumerate(refs):
        one = fetched[ref.id]
        assert isinstance(one, Fetched)
        files[number] = (one.path, one.name)
    reader = Reader(files, dataset=dataset, remembered=lambda form: None, progress=lambda: None)
    results = []
    for number in files:
        read = reader.read(number)
        if read.known is None:
            reader.learn(read.form, read.result.schema)
        results.append(
            (read.result.rows.to_pylist(), {column.name: column.type for column in read.result.schema.columns})
        )
    return results


@pytest.mark.parametrize("form", ["auto", "json", "ndjson"])
def test_attributes_are_columns_from_the_first_event_on(tmp_path: Path, form: Any) -> None:
    """The first event lacks the optional attributes, and the second finds columns for them all the same."""
    (first, kinds), (second, _) = landed(tmp_path, Dataset(name="orders", format=form), BARE, FULL)
    assert kinds == {
        "specversion": "VARCHAR",
        "id": "VARCHAR",
        "source": "VARCHAR",
        "type": "VARCHAR",
        "subject": "VARCHAR",
        "time": "TIMESTAMP WITH TIME ZONE",
        "datacontenttype": "VARCHAR",
        "dataschema": "VARCHAR",
    }
    assert [row["id"] for row in (*first, *second)] == ["1", "2"]
    assert first[0]["time"] is first[0]["subject"] is None
    assert second[0]["time"] == datetime(2018, 4, 5, 17, 31, 0, 123456, tzinfo=UTC)
    assert (second[0]["subject"], second[0]["dataschema"]) == ("order/7", "https://example.com/order")


def test_data_and_extensions_are_columns_as_of_any_json(tmp_path: Path) -> None:
    """Objects in the data are flattened, arrays stay JSON; a hint overrides a column's type."""
    dataset = Dataset(name="orders", columns={"time": "VARCHAR"})
    ((rows, kinds),) = landed(tmp_path, dataset, FULL)
    assert {name: rows[0][name] for name in ("data_total", "data_buyer_name", "tenant")} == {
        "data_total": 12.5,
        "data_buyer_name": "Ann",
        "tenant": "t1",
    }
    assert json.loads(rows[0]["data_lines"]) == [1, 2]
    assert (kinds["data_total"], kinds["data_lines"]) == ("DOUBLE", "JSON")
    assert rows[0]["time"] == "2018-04-05T19:31:00.123456789+02:00"


def test_records_inside_the_data_are_no_events(tmp_path: Path) -> None:
    """A dataset that takes its records from within an event has their columns only."""
    dataset = Dataset(name="orders", records="data.lines")
    ((rows, kinds),) = landed(tmp_path, dataset, {**BARE, "data": {"lines": [{"sku": "a"}, {"sku": "b"}]}})
    assert kinds == {"sku": "VARCHAR"}
    assert [row["sku"] for row in rows] == ["a", "b"]


def test_as_deliveries_the_event_is_the_payload(tmp_path: Path) -> None:
    """A dataset of deliveries keeps each event whole."""
    ((rows, _),) = landed(tmp_path, Dataset(name="orders", format="delivery"), FULL)
    assert json.loads(rows[0]["payload"])["data"] == FULL["data"]
    assert (rows[0]["delivery"], rows[0]["content_type"]) == ("/shop#2", MEDIA_TYPE)
