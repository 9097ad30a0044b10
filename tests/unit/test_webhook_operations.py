"""What readiness says when something is wrong."""

from __future__ import annotations

import logging
from typing import Any, cast

import pytest

from penstock.errors import (
    LedgerUnavailable,
    NotMigrated,
    ObjectMissing,
    PenstockError,
    Refused,
    SettingsError,
    StoreUnavailable,
    Terminal,
)
from penstock.landing import Landing
from tests.edge import Edge, kind


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (StoreUnavailable, "object store does not answer"),
        (LedgerUnavailable, "ledger does not answer"),
        (ObjectMissing, "bucket is not there"),
        (SettingsError, "does not take our keys"),
        (Refused, "refuses the landing bucket"),
        (NotMigrated, "another revision"),
        (Terminal, "way in is closed"),
    ],
)
def test_whatever_keeps_deliveries_out_is_not_ready(
    failure: type[PenstockError], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """503 and when to come back, in words without addresses; those are in the log, once a minute."""
    edge = Edge([], {})
    edge.intake.failure = failure("the bucket at 192.0.2.1")
    for _ in range(3):
        found = edge.get("/readyz")
        assert (found.status_code, kind(found)) == (503, "not-ready")
        assert said in found.json()["detail"]
        assert "192.0.2.1" not in found.text
        assert "retry-after" in found.headers
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [record.getMessage() for record in warnings] == ["not ready: the bucket at 192.0.2.1"]
    edge.intake.failure = None
    assert edge.get("/readyz").json() == {"status": "ready"}


def test_the_way_in_asks_for_its_own_bucket() -> None:
    """A store that answers is not enough: deliveries go into the landing bucket."""
    asked: list[str] = []

    class Parts:
        """A store and a ledger that are told of what is asked."""

        def ping(self, bucket: str = "") -> None:
            """The store's."""
            asked.append(f"bucket {bucket}")

        def check(self) -> None:
            """The ledger's."""
            asked.append("ledger")

    parts = cast(Any, Parts())
    Landing(store=parts, ledger=parts, datasets=[], bucket="landing").check()
    assert asked == ["bucket landing", "ledger"]
