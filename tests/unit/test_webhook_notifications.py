"""Bucket notifications: what is created is found, and nothing raises."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote_plus

from hypothesis import given
from hypothesis import strategies as st

from penstock.webhook.notifications import parse


def record(key: str, *, event: str = "s3:ObjectCreated:Put", bucket: str = "landing") -> dict[str, Any]:
    return {
        "eventVersion": "2.0",
        "eventName": event,
        "s3": {"bucket": {"name": bucket}, "object": {"key": key, "sequencer": "1"}},
    }


def body(*records: Any) -> bytes:
    return json.dumps({"EventName": "s3:ObjectCreated:Put", "Records": list(records)}).encode()


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=60))
def test_keys_are_unescaped(key: str) -> None:
    """Any key that S3 allows comes back as it was."""
    assert parse(body(record(quote_plus(key)))).keys == [("landing", key)]


def test_aws_and_minio_names_of_events_are_both_read() -> None:
    """Creations are found with and without the prefix `s3:`, and everything else is skipped."""
    found = parse(
        body(
            record("a", event="ObjectCreated:CompleteMultipartUpload"),
            record("b", event="s3:ObjectCreated:Copy"),
            record("c", event="s3:ObjectRemoved:Delete"),
            record("d", event="s3:ObjectAccessed:Get"),
        )
    )
    assert found.keys == [("landing", "a"), ("landing", "b")]
    assert (found.skipped, found.unusable) == (2, 0)


def test_repeats_are_one_key_in_order() -> None:
    """A key named twice is one hint, and the order is that of the records."""
    assert parse(body(record("b"), record("a"), record("b"))).keys == [("landing", "b"), ("landing", "a")]


def test_an_unusable_record_does_not_cost_its_neighbours() -> None:
    """Records that cannot be read are counted; those beside them are used."""
    bad: list[Any] = [
        None,
        {},
        7,
        {"eventName": 3},
        record("%ff"),
        record(""),
        record("x" * 1025),
        record("\ud800"),
        record("k", bucket=""),
        {**record("k"), "s3": []},
    ]
    found = parse(body(record("a"), *bad, record("z")))
    assert found.keys == [("landing", "a"), ("landing", "z")]
    assert found.unusable == len(bad)


def test_the_test_event_of_aws_is_skipped() -> None:
    """The message that AWS sends when notifications are configured is nothing unusable."""
    found = parse(b'{"Service": "Amazon S3", "Event": "s3:TestEvent"}')
    assert (found.keys, found.skipped, found.unusable) == ([], 1, 0)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_notification_are_counted(rubbish: bytes) -> None:
    """Whatever the bytes are, nothing raises and no key is found."""
    assert parse(rubbish).keys == []


def test_deep_nesting_is_counted() -> None:
    """A document nested beyond what can be read counts as unusable."""
    assert parse(b"[" * 200_000).unusable == 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["Records", "eventName", "s3", "bucket", "object", "name", "key"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(json_values)
def test_any_json_is_read_without_raising(value: Any) -> None:
    """Documents of the right words in the wrong shape never raise."""
    found = parse(json.dumps({"Records": value}).encode())
    assert all(isinstance(bucket, str) and isinstance(key, str) for bucket, key in found.keys)
