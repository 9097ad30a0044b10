"""Which of the files under way are recorded next, and when: decided on values alone."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Iterable
from pathlib import Path

import pytest

from penstock.model import Stat
from penstock.sensors import uploads
from penstock.sensors.queue import Taken, Turn, Waiting
from penstock.sensors.settle import Print
from penstock.sensors.uploads import Pace, Upload, Uploads, in_order

NOW = 100.0


def upload(name: str, *, over: bool, order: str | None, size: int = 1, began: float | None = 99.0) -> Upload:
    taken = Taken(path=Path(name), waiting=Waiting(), turn=Turn(0.0, 0))
    found = Print(inode=1, size=size, mtime_ns=1)
    return Upload(taken=taken, key=name, file=io.BytesIO(), found=found, order=order, began=began, over=over)


def under_way(ones: Iterable[Upload]) -> Uploads:
    """Uploads on a clock that stands still, and whose threads have nothing to do."""

    def put(one: Upload) -> Stat:
        raise AssertionError(one.key)

    return Uploads(put=put, monotonic=lambda: NOW, on_over=lambda: None, under_way=list(ones))


@pytest.mark.parametrize(
    ("ones", "chosen"),
    [
        ([], ""),
        ([("x", True), ("x", True)], "ab"),
        ([("x", True), ("x", False), ("x", True)], "a"),
        ([("x", False), ("y", True), ("x", True), ("y", True)], "bd"),
        ([(None, False), (None, True), ("x", True)], "bc"),
        ([("x", False), (None, True)], "b"),
    ],
    ids=["none", "all over", "in order", "another dataset", "order that does not matter", "nor behind one that has it"],
)
def test_what_is_over_is_recorded_in_the_order_of_its_dataset(ones: list[tuple[str | None, bool]], chosen: str) -> None:
    """However slow a file is, none that came after it to its dataset is recorded before it; any other is."""
    made = [upload(name, over=over, order=order) for name, (order, over) in zip("abcd", ones, strict=False)]
    assert "".join(one.key for one in in_order(made)) == chosen


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("order", ["x", None])
def test_nobody_is_told_to_ask_when_nothing_is_to_be_recorded(order: str | None, paused: bool) -> None:
    """Whatever is slow, queued or over: when it is due by now there is something to record, and else it is not now."""
    states = [(True, 99.0), (False, None), (False, NOW), (False, 10.0)]
    for three in itertools.product(states, repeat=3):
        found = under_way(
            upload(name, over=over, order=order, began=began) for name, (over, began) in zip("abc", three, strict=True)
        )
        if paused:
            found.pace.recorded(NOW - 10, NOW)
        chosen = found.next()
        assert (found.due() <= NOW) == bool(chosen), three
        assert math.isinf(found.due()) == (not in_order(found.under_way)), three


def test_who_is_behind_waits_before_it_is_put(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dataset's next file waits for a large one, and for room; those of others do not."""
    monkeypatch.setattr(uploads, "_MOST_OF_ONE", 3)
    large = upload("a", over=False, order="x", size=20_000_000)
    found = under_way([large, upload("b", over=False, order="y"), upload("c", over=False, order="y")])
    assert (found.holds("x"), found.holds("y"), found.holds("z")) == (True, False, False)
    large.over = True
    assert not found.holds("x"), "the store has it"
    found.under_way.append(upload("d", over=True, order="y"))
    assert found.holds("y")


def test_at_the_end_nothing_overtakes_what_was_not_put() -> None:
    """What waits behind a file that no thread will take any more is left to the next start, too."""
    found = under_way(
        [
            upload("a", over=True, order="x"),
            upload("b", over=False, order="x", began=None),
            upload("c", over=True, order="x"),
            upload("d", over=True, order="y"),
        ]
    )
    found.close()
    assert [one.key for one in found.next()] == ["a", "d"]
    assert len(found.under_way) == 2


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
