"""Which of the files under way are recorded next, and when: decided on values alone."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from penstock.sensors.queue import Taken, Turn, Waiting
from penstock.sensors.settle import Print
from penstock.sensors.uploads import Pace, Upload, in_order


def upload(name: str, *, began: float | None, over: bool) -> Upload:
    taken = Taken(path=Path(name), waiting=Waiting(), turn=Turn(0.0, 0))
    found = Print(inode=1, size=1, mtime_ns=1)
    return Upload(taken=taken, key=name, file=io.BytesIO(), found=found, began=began, over=over)


@pytest.mark.parametrize(
    ("under_way", "chosen"),
    [
        ([], ""),
        ([(99.9, True), (99.9, True)], "ab"),
        ([(99.9, True), (99.9, False), (99.9, True)], "a"),
        ([(99.9, False), (99.9, True)], ""),
        ([(99.0, False), (99.9, True), (None, False), (99.95, True)], "b"),
    ],
    ids=["none", "all over", "in order", "a moment is waited", "slow ones hold up nobody"],
)
def test_what_is_over_is_recorded_in_order(under_way: list[tuple[float | None, bool]], chosen: str) -> None:
    """A file follows those that began before it, unless one of them is slow."""
    uploads = [upload(name, began=began, over=over) for name, (began, over) in zip("abcd", under_way, strict=False)]
    assert "".join(one.key for one in in_order(uploads, 100.0)) == chosen


def test_the_first_is_recorded_at_once_and_a_burst_shares_transactions() -> None:
    """There is a pause only after a transaction, in proportion to it, and only while more is under way."""
    pace = Pace()
    assert pace.pause(1000.0, more=True) == 0
    pace.recorded(1000.0, 1000.01)
    assert pace.pause(1000.01, more=False) == 0
    assert pace.pause(1000.01, more=True) == pytest.approx(0.04)
    assert pace.pause(1000.06, more=True) == 0
    pace.recorded(1000.0, 1030.0)
    assert pace.pause(1030.0, more=True) == pytest.approx(0.2), "what is over never waits for long"
