"""The envelope: what goes in comes out, and what is none is told apart."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.envelope import decode, decode_line, encode, entry_line, envelope_dataset, envelope_key
from penstock.errors import Unreadable
from penstock.model import Delivery

AT = datetime(2026, 3, 1, 12, 30, 15, 42, tzinfo=UTC)

texts = st.text(st.characters(exclude_categories=["Cs"]))
deliveries = st.builds(
    Delivery,
    id=texts,
    source=texts,
    dataset=st.just("sales"),
    received_at=st.datetimes(timezones=st.just(UTC)),
    content_type=texts,
    headers=st.dictionaries(texts, texts, max_size=3),
    body=st.binary() | texts.map(str.encode) | st.just("\u2028\x85\r\n\0".encode()),
)


def delivery(body: bytes = b"{}", *, dataset: str = "sales", received_at: datetime = AT) -> Delivery:
    return Delivery(
        id="1", source="shop", dataset=dataset, received_at=received_at, content_type="", headers={}, body=body
    )


@given(st.lists(deliveries, min_size=1, max_size=5))
def test_what_goes_in_comes_out(found: list[Delivery]) -> None:
    """Any deliveries, of any bytes, are decoded as they were encoded, whole and line by line."""
    made = encode(found)
    assert decode(made) == found
    assert [decode_line(entry_line(made, number)) for number in range(1, len(found) + 1)] == found
    assert len(made.decode().splitlines()) == len(found)


def test_a_received_time_keeps_its_moment() -> None:
    """A time in another zone is the same moment after the way through."""
    there = delivery(received_at=AT.astimezone(timezone(timedelta(hours=-5))))
    assert decode(encode([there]))[0].received_at == AT


def test_an_envelope_holds_one_dataset() -> None:
    """Nothing at all, or deliveries of two datasets, cannot be put in an envelope."""
    with pytest.raises(ValueError, match="one dataset"):
        encode([])
    with pytest.raises(ValueError, match="one dataset"):
        encode([delivery(), delivery(dataset="others")])


@pytest.mark.parametrize("entry", [-1, 0, 3])
def test_an_entry_that_is_not_there_is_unreadable(entry: int) -> None:
    """Entries count from 1, and one that the envelope lacks is refused with how many there are."""
    with pytest.raises(Unreadable, match="2 deliveries"):
        entry_line(encode([delivery(), delivery()]), entry)


def test_a_key_names_its_dataset_and_moment() -> None:
    """An envelope's key tells the dataset, sorts by time, and differs by what makes it unique."""
    key = envelope_key("sales", AT, "x")
    assert key == "_penstock/deliveries/sales/2026/03/01/123015000042-x.ndjson"
    assert envelope_dataset(key) == "sales"
    assert key < envelope_key("sales", AT + timedelta(microseconds=1), "a")


@pytest.mark.parametrize("key", ["sales/a.csv", "_penstock/deliveries/", "_penstock/deliveries/x", "_penstock/x/y", ""])
def test_another_key_is_no_envelopes(key: str) -> None:
    """A key outside the reserved prefix, or without a dataset, is refused."""
    with pytest.raises(Unreadable):
        envelope_dataset(key)


GOOD = json.loads(encode([delivery()]))


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"not json",
        b"[]",
        b"7",
        b"null",
        b"\xff",
        b"[" * 100_000,
        *(json.dumps({name: value for name, value in GOOD.items() if name != left_out}).encode() for left_out in GOOD),
        json.dumps({**GOOD, "received_at": "yesterday"}).encode(),
        json.dumps({**GOOD, "received_at": "2026-03-01T12:00:00"}).encode(),
        json.dumps({**GOOD, "received_at": 7}).encode(),
        json.dumps({**GOOD, "body": 7}).encode(),
        json.dumps({**GOOD, "body": "\ud800"}).encode(),
        json.dumps({**{n: v for n, v in GOOD.items() if n != "body"}, "body_base64": "not base64!"}).encode(),
        json.dumps({**GOOD, "headers": []}).encode(),
        json.dumps({**GOOD, "headers": {"a": 1}}).encode(),
        json.dumps({**GOOD, "delivery": 7}).encode(),
        json.dumps({**GOOD, "delivery": "\ud800"}).encode(),
        json.dumps({**GOOD, "dataset": None}).encode(),
    ],
)
def test_a_strange_line_is_unreadable(line: bytes) -> None:
    """Whatever somebody else wrote under the reserved prefix is told apart, and never another kind of error."""
    with pytest.raises(Unreadable):
        decode_line(line)
