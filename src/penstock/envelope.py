"""The envelope: the object in which deliveries of one dataset ride. Pure.

An envelope is NDJSON, one delivery a line; line *i* is entry *i*, from 1. The body is kept as it came: as text when
it is UTF-8, else in base64.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from penstock.errors import Unreadable
from penstock.model import ENVELOPE_PREFIX, Delivery, FurtherEvent

_TEXTS = ("delivery", "source", "dataset", "content_type")


def envelope_key(dataset: str, at: datetime, unique: str) -> str:
    """Where an envelope of `dataset` made at `at` goes; `unique` keeps two of one moment apart."""
    return f"{ENVELOPE_PREFIX}{dataset}/{at:%Y/%m/%d}/{at:%H%M%S%f}-{unique}.ndjson"


def envelope_dataset(key: str) -> str:
    """The dataset an envelope's key names. Raises Unreadable for a key that is no envelope's."""
    rest = key.removeprefix(ENVELOPE_PREFIX)
    dataset, slash, _ = rest.partition("/")
    if rest == key or not slash or not dataset:
        raise Unreadable(f"{key} is not the key of an envelope")
    return dataset


def encode(deliveries: Sequence[Delivery]) -> bytes:
    """The envelope's bytes. Raises ValueError when there is nothing to put in or it is not of one dataset."""
    if len({delivery.dataset for delivery in deliveries}) != 1:
        raise ValueError("an envelope holds deliveries of one dataset")
    return b"".join(_line(delivery) for delivery in deliveries)


def entry_line(envelope: bytes, entry: int) -> bytes:
    """Line `entry` (from 1) of an envelope. Raises Unreadable when it has no such line."""
    return entry_of(envelope.split(b"\n"), entry)


def entry_of(lines: Sequence[bytes], entry: int) -> bytes:
    """As `entry_line`, of an envelope that was split at its line ends; there is nothing behind the last."""
    if not 1 <= entry < len(lines):
        raise Unreadable(f"the envelope has {len(lines) - 1} deliveries, none at {entry}")
    return lines[entry - 1]


def decode(envelope: bytes) -> list[Delivery]:
    """Every delivery of an envelope, in order. Raises Unreadable when it was not written by `encode`."""
    return [decode_line(line) for line in envelope.split(b"\n")[:-1]]


def decode_line(line: bytes) -> Delivery:
    """One delivery. Raises Unreadable when the line was not written by `encode`."""
    try:
        found = json.loads(line)
        body = found["body"].encode() if "body" in found else base64.b64decode(found["body_base64"], validate=True)
        headers, received_at = found["headers"], _moment(found["received_at"])
        request = found.get("request", "")
        events = tuple(_event(one) for one in found.get("events", ()))
        # Anybody may write to the bucket: what is no text, or none that can be stored, fails here.
        "".join([found[name] for name in _TEXTS] + [request, *headers.keys(), *headers.values()]).encode()
        return Delivery(
            id=found["delivery"],
            source=found["source"],
            dataset=found["dataset"],
            received_at=received_at,
            content_type=found["content_type"],
            headers=headers,
            body=body,
            request=request,
            events=events,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error) as error:
        raise Unreadable(f"not a line of an envelope: {error}") from None


def _event(found: dict[str, Any]) -> FurtherEvent:
    name, resource, payload = found["name"], found["resource"], found["payload"]
    (name + resource + json.dumps(payload, ensure_ascii=False, allow_nan=False)).encode()
    if not isinstance(payload, dict):
        raise TypeError("an event's payload")
    return FurtherEvent(name=name, resource=resource, payload=payload)


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("its time has no zone")
    return moment


def _line(delivery: Delivery) -> bytes:
    found: dict[str, object] = {
        "delivery": delivery.id,
        "source": delivery.source,
        "dataset": delivery.dataset,
        "received_at": delivery.received_at.isoformat(),
        "content_type": delivery.content_type,
        "headers": delivery.headers,
    }
    if delivery.request:
        found["request"] = delivery.request
    if delivery.events:
        found["events"] = [asdict(event) for event in delivery.events]
    try:
        found["body"] = delivery.body.decode()
    except UnicodeDecodeError:
        found["body_base64"] = base64.b64encode(delivery.body).decode()
    # ensure_ascii keeps U+2028 and its like out, so that a line is a line for every reader.
    return json.dumps(found, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"
