"""A delivery whose answer comes in the same turn of the loop in which its time is over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from penstock.errors import StoreUnavailable
from penstock.model import Delivery
from penstock.testing.intake import MemoryIntake
from penstock.webhook.deliveries import GroupCommit

ANSWER_SECONDS = 0.02
DELIVERY = Delivery(
    id="d-1",
    source="shop",
    dataset="orders",
    received_at=datetime(2026, 3, 1, 12, tzinfo=UTC),
    content_type="application/json",
    headers={},
    body=b"{}",
)


@pytest.mark.parametrize("fails", [False, True], ids=["accepted", "away"])
def test_an_answer_in_the_last_moment_is_the_answer(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was made durable is accepted and an outage is an outage; neither is an error of the edge."""

    async def run() -> bool:
        commit = GroupCommit(MemoryIntake(), answer_seconds=ANSWER_SECONDS)

        async def call(deliveries: Sequence[Delivery]) -> list[bool]:
            # Holds up the loop, so that the end of the time and this answer are both due in its next turn.
            time.sleep(2 * ANSWER_SECONDS)  # noqa: ASYNC251
            await asyncio.sleep(0)
            if fails:
                raise StoreUnavailable("away")
            return [False] * len(deliveries)

        monkeypatch.setattr(commit, "_call", call)
        return await commit.accept(DELIVERY)

    if fails:
        with pytest.raises(StoreUnavailable):
            asyncio.run(run())
    else:
        assert asyncio.run(run()) is False
