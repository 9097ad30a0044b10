"""Rejected rows are loaded once the declaration is mended, and nothing else is touched: real store, ledger, DuckDB."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from penstock.declarations import Dataset
from penstock.ledger.replay import Done, Selection
from penstock.model import State
from tests.integration.parts import parts_in
from tests.integration.test_batch import TTL, Works, works_on
from tests.real_store import RealStore, real_store

WRONG = Dataset(name="sales", checks={"few": "quantity < 3"})
MENDED = replace(WRONG, checks={"few": "quantity < 10"})
ROWS = "id, quantity, _penstock_row, _penstock_loaded_at"


@pytest.fixture(scope="module")
def embedded() -> Iterator[RealStore]:
    """The store of this module's tests."""
    with real_store("embedded") as server:
        yield server


@pytest.fixture
def works(tmp_path: Path, embedded: RealStore) -> Iterator[Works]:
    """The dataset `sales` with a check that is too strict, on a clock that stands still."""
    with parts_in(tmp_path, embedded, (WRONG,), fake_time=True) as parts:
        yield works_on(parts, WRONG)


def csv_of(*quantities: int) -> bytes:
    return b"id,quantity\n" + b"".join(b"%d,%d\n" % pair for pair in enumerate(quantities, start=1))


def mend(works: Works, dataset: Dataset = MENDED) -> None:
    works.dataset = dataset
    works.parts.clock.advance(hours=1)


def replay(works: Works, *keys: str) -> Done:
    selection = Selection(keys=keys, dataset=None if keys else "sales", rejected=True)
    return works.parts.ledger.replay.replay(selection, datasets=[works.dataset], force=False, by="ann@desk")


def loaded(works: Works) -> list[tuple[int, int, int, datetime]]:
    """Every row: id, quantity, number in its object, and when it was loaded."""
    return works.rows(ROWS)


def rejected(works: Works) -> list[tuple[int, str]]:
    return works.rows("_penstock_row, check_name", table="sales__rejected")


def test_only_what_was_rejected_is_added(works: Works) -> None:
    """The good rows keep the moment they were loaded at, the mended ones come once, and what is still bad stays bad."""
    works.parts.arrive("sales/a.csv", csv_of(1, 5, 2, 50))
    works.parts.arrive("sales/b.csv", csv_of(1, 1))
    first = works.parts.clock.now
    works.drain()
    assert rejected(works) == [(2, "few"), (4, "few")]
    mend(works)

    done = replay(works)
    assert (done.first, done.refused) == ([f"{works.parts.bucket}/sales/a.csv@1"], {})
    assert works.parts.states("sales/a.csv") == [State.PENDING]
    assert works.drain().outcomes == {"loaded": 1}

    later = works.parts.clock.now
    assert loaded(works) == [(1, 1, 1, first), (1, 1, 1, first), (2, 1, 2, first), (2, 5, 2, later), (3, 2, 3, first)]
    assert rejected(works) == [(4, "few")]
    story = works.parts.stories("sales/a.csv")[0]
    assert (story.state, story.rows, story.rejected) == (State.LOADED, 3, 1)
    assert [fact.detail for fact in story.facts if fact.what == "replayed"] == ["by ann@desk, only its rejected rows"]
    assert works.warehouse.damaged("sales") == []


def test_twice_changes_nothing(works: Works) -> None:
    """What is good by now is not asked for again, and what is still bad is as it was."""
    works.parts.arrive("sales/a.csv", csv_of(1, 5, 50))
    works.drain()
    mend(works)
    replay(works)
    works.drain()
    before = loaded(works), rejected(works)
    works.parts.clock.advance(hours=1)
    assert replay(works).moved == 1
    works.drain()
    assert (loaded(works), rejected(works)) == before

    mend(works, Dataset(name="sales"))
    replay(works)
    works.drain()
    assert len(loaded(works)) == 3
    assert replay(works).moved == 0
    (reason,) = replay(works, "sales/a.csv").refused
    assert reason == "none of its rows was rejected"


@pytest.mark.parametrize("told", [False, True], ids=["before-the-commit", "after-the-commit"])
def test_a_crash_is_repaired_by_the_next_run(works: Works, told: bool) -> None:
    """Whether the warehouse had it or not when the run died: each mended row is there once."""
    works.parts.arrive("sales/a.csv", csv_of(1, 5))
    first = works.parts.clock.now
    works.drain()
    mend(works)
    replay(works)
    lease = works.acquire()
    batch = works.batch(lease, works.claim(lease))
    batch.fetch()
    batch.check()
    if told:
        batch.load()
    works.parts.clock.advance(seconds=TTL.total_seconds())
    assert works.drain().outcomes == {"loaded": 1}
    rows = loaded(works)
    assert [row[:3] for row in rows] == [(1, 1, 1), (2, 5, 2)]
    assert rows[0][3] == first
    assert rejected(works) == []
    assert works.warehouse.damaged("sales") == []
    story = works.parts.stories("sales/a.csv")[0]
    assert (story.rows, story.rejected) == (2, 0)


def test_what_cannot_be_loaded_again_stays_as_it_was(works: Works) -> None:
    """The mended declaration is worse, or the object is gone: its rows stay, with the reason."""
    works.parts.arrive("sales/a.csv", csv_of(1, 5))
    works.parts.arrive("sales/b.csv", csv_of(1, 5))
    works.drain()
    before = loaded(works), rejected(works)
    mend(works, replace(WRONG, checks={"few": "quantity < 0"}, threshold=0.9))
    works.parts.server.client().remove(works.parts.bucket, "sales/b.csv")
    assert replay(works).moved == 2
    works.drain()
    assert (loaded(works), rejected(works)) == before
    for key in ("sales/a.csv", "sales/b.csv"):
        story = works.parts.stories(key)[0]
        assert (story.state, story.rows, story.rejected) == (State.LOADED, 1, 1)
        assert "its rows stay as they were" in str(story.reason)
    mend(works)
    assert replay(works, "sales/a.csv").moved == 1
    works.drain()
    assert len(loaded(works)) == len(before[0]) + 1


def test_what_was_overwritten_is_not_brought_back(works: Works) -> None:
    """A newer generation stands for the key: the rejected rows of the older one are not meant."""
    works.parts.arrive("sales/a.csv", csv_of(1, 5))
    works.drain()
    works.parts.arrive("sales/a.csv", csv_of(2, 2))
    mend(works)
    assert replay(works).moved == 0
    works.drain()
    assert replay(works).moved == 0
    assert [row[1] for row in loaded(works)] == [2, 2]


def test_an_overwrite_while_it_waits_wins(works: Works) -> None:
    """Between replay and run the file came anew: only its rows are there."""
    works.parts.arrive("sales/a.csv", csv_of(1, 5))
    works.drain()
    mend(works)
    assert replay(works).moved == 1
    works.parts.arrive("sales/a.csv", csv_of(7, 8, 50))
    works.drain()
    assert [row[1] for row in loaded(works)] == [7, 8]
    assert rejected(works) == [(3, "few")]
    assert works.warehouse.damaged("sales") == []


def test_a_whole_object_in_quarantine_is_another_matter(works: Works) -> None:
    """All of its rows were bad: it says to replay it without --rejected."""
    works.dataset = replace(WRONG, threshold=0.5)
    works.parts.arrive("sales/a.csv", csv_of(5, 5))
    works.drain()
    mend(works)
    assert replay(works).moved == 0
    (reason,) = replay(works, "sales/a.csv").refused
    assert "quarantined as a whole" in reason
    assert "without --rejected" in reason


def test_where_rows_are_merged_the_later_arrival_stays(works: Works) -> None:
    """A mended row does not take the place of one with its key that arrived after its object did."""
    works.dataset = replace(WRONG, write="merge", key=["id"])
    works.parts.arrive("sales/a.csv", csv_of(1, 5, 6))
    works.drain()
    works.parts.clock.advance(minutes=1)
    works.parts.arrive("sales/b.csv", csv_of(2, 2))
    works.drain()
    assert [row[:2] for row in loaded(works)] == [(1, 2), (2, 2)]
    mend(works, replace(MENDED, write="merge", key=["id"]))
    assert replay(works).moved == 1
    works.drain()
    assert [row[:2] for row in loaded(works)] == [(1, 2), (2, 2), (3, 6)]
    assert rejected(works) == []
    assert works.warehouse.damaged("sales") == []
