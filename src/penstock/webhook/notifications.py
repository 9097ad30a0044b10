"""What an S3 bucket notification says was created. Pure.

The shape is AWS's event message, versions 2.x; MinIO and others send the same. Keys are query-escaped in it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

MAX_KEY_BYTES = 1024  # S3's own limit


@dataclass(frozen=True, kw_only=True)
class Hints:
    """`keys` are (bucket, key) without repeats, in order; `skipped` records say something else than a creation."""

    keys: list[tuple[str, str]]
    skipped: int = 0
    unusable: int = 0


def parse(body: bytes) -> Hints:
    """Read a notification's body. What cannot be used is counted; nothing raises."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return Hints(keys=[], unusable=1)
    if isinstance(found, dict) and found.get("Event") == "s3:TestEvent":
        return Hints(keys=[], skipped=1)
    records = found.get("Records") if isinstance(found, dict) else None
    if not isinstance(records, list):
        return Hints(keys=[], unusable=1)
    keys: dict[tuple[str, str], None] = {}
    skipped = unusable = 0
    for record in records:
        try:
            if not _creates(record):
                skipped += 1
                continue
            keys[_key(record)] = None
        except (ValueError, LookupError, TypeError):
            unusable += 1
    return Hints(keys=list(keys), skipped=skipped, unusable=unusable)


def _creates(record: Any) -> bool:
    name = record["eventName"]
    if not isinstance(name, str):
        raise TypeError("eventName")
    return name.removeprefix("s3:").startswith("ObjectCreated:")


def _key(record: Any) -> tuple[str, str]:
    bucket, escaped = record["s3"]["bucket"]["name"], record["s3"]["object"]["key"]
    if not isinstance(bucket, str) or not isinstance(escaped, str) or not bucket:
        raise TypeError("bucket or key")
    # A key that is no UTF-8 must not turn into another key.
    key = unquote_plus(escaped, errors="strict")
    if not 1 <= len(key.encode()) <= MAX_KEY_BYTES:
        raise ValueError("key")
    bucket.encode()
    return bucket, key
