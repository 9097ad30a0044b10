"""`penstock.land` tells what is new, also where the store's own notification is recorded first."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from penstock.landing import Landing
from penstock.objects import ObjectStore
from tests.integration.parts import MeddledStore, Parts, parts_in
from tests.real_store import Kind, real_store


@pytest.fixture(params=["minio", "embedded"])
def parts(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Parts]:
    """A ledger, and a bucket in a store of its own."""
    kind: Kind = request.param
    with real_store(kind) as server, parts_in(tmp_path, server) as made:
        yield made


def put(landing: Landing, data: bytes) -> bool:
    """As `penstock.land` does."""
    return landing.put("sales/a.csv", io.BytesIO(data), len(data))


def test_what_a_notification_tells_first_is_new_all_the_same(parts: Parts) -> None:
    """Whoever records it: other bytes are new, the same ones are not."""

    def notify(key: str) -> None:
        parts.record(key)

    notified = parts.landing_with(cast(ObjectStore, MeddledStore(real=parts.store, after=notify)))
    for landing in (notified, parts.landing):
        for data in (b"1", b"2"):
            assert put(landing, data)
            assert not put(landing, data)
    assert len(parts.stories("sales/a.csv")) == 4


def test_what_was_put_and_never_recorded_is_new(parts: Parts) -> None:
    """As after a crash between the two: the flow that tries again is told so."""
    parts.put("sales/a.csv", b"1")
    assert put(parts.landing, b"1")
