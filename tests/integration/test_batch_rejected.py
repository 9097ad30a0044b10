"""Only an object's rejected rows are loaded again, and only where they are still the same records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from penstock.declarations import Dataset
from penstock.dialects import Csv
from penstock.ledger.replay import Selection
from penstock.model import State
from tests.integration.parts import parts_in
from tests.integration.test_batch import Works, csv_of, works_on
from tests.real_store import RealStore, real_store

PLAIN = Dataset(name="sales")


@pytest.fixture(scope="module")
def embedded() -> Iterator[RealStore]:
    """The store of this module's tests."""
    with real_store("embedded") as server:
        yield server


@pytest.fixture
def works(tmp_path: Path, embedded: RealStore) -> Iterator[Works]:
    """A dataset's batches, whose declaration a test changes."""
    with parts_in(tmp_path, embedded, datasets=(PLAIN,), fake_time=True) as parts:
        yield works_on(parts, PLAIN)


def rows(works: Works) -> tuple[list[Any], list[Any]]:
    """Ids of the rows, and numbers of the rejected ones."""
    return (
        [row[0] for row in works.warehouse.query("SELECT id FROM sales ORDER BY id", limit=99).rows],
        [row[0] for row in works.warehouse.query("SELECT _penstock_row FROM sales__rejected", limit=99).rows],
    )


def replay(works: Works, dataset: Dataset) -> str | None:
    """Load the rejected rows again by another declaration; returns what is told of it."""
    works.dataset = dataset
    works.parts.clock.advance(hours=1)
    selection = Selection(dataset="sales", rejected=True)
    works.parts.ledger.replay.replay(selection, datasets=[dataset], force=False, by="x")
    works.drain()
    (story,) = works.parts.stories("sales/a.csv")
    assert story.state is State.LOADED
    return story.reason


def test_records_that_are_numbered_otherwise_are_refused(works: Works) -> None:
    """Where the declaration divides the object into other records, nothing changes, and it says what to do."""
    works.dataset = replace(PLAIN, csv=Csv(quote=""), checks={"n": "name <> 'bad'"})
    works.parts.arrive("sales/a.csv", b'id,name\n1,"x\n2,y"\n3,c\n4,bad\n5,e\n')
    works.drain()
    before = rows(works)
    assert before == ([1, 2, 3, 5], [4])
    told = replay(works, replace(PLAIN, csv=Csv(quote='"')))
    assert "penstock replay sales/a.csv --force" in str(told)
    assert rows(works) == before


def test_the_same_record_is_added_and_what_was_passed_over_is_not(works: Works) -> None:
    """Checks and filters may change: what was rejected is judged anew, and the rest stays where it was."""
    works.dataset = replace(PLAIN, where="id < 4", checks={"n": "name NOT IN ('n1', 'n2')"})
    works.parts.arrive("sales/a.csv", csv_of(1, 2, 3, 4))
    works.drain()
    assert rows(works) == ([3], [1, 2])
    assert replay(works, replace(PLAIN, checks={"n": "name <> 'n2'"})) is None
    assert rows(works) == ([1, 3], [2])


def test_rows_that_a_transform_spoiled_are_known_by_their_text(works: Works) -> None:
    """Their records have line and text as any other rejected row, so they are added when the transform is mended."""

    def spoil(table: pa.Table) -> pa.Table:
        ids = [None if number == 2 else number for number in table["id"].to_pylist()]
        return table.set_column(0, "id", pa.array(ids, pa.int64()))

    merged = replace(PLAIN, write="merge", key=["id"])
    works.dataset = replace(merged, transform=spoil)
    works.parts.arrive("sales/a.csv", csv_of(1, 2, 3))
    works.drain()
    assert rows(works) == ([1, 3], [2])
    assert works.warehouse.query("SELECT line, raw IS NULL FROM sales__rejected", limit=9).rows == [(3, False)]
    assert replay(works, merged) is None
    assert rows(works) == ([1, 2, 3], [])


def test_an_object_whose_key_would_be_text_stops_no_other(works: Works) -> None:
    """It goes to quarantine with the column's name, and its neighbours are merged by numbers."""

    def as_texts(table: pa.Table) -> pa.Table:
        return table.set_column(1, "v", table["v"].cast(pa.string())) if 7 in table["v"].to_pylist() else table

    works.dataset = replace(PLAIN, write="merge", key=["id"], order_by="v", transform=as_texts)
    works.parts.arrive("sales/a.csv", b"id,v\n1,9\n2,9\n")
    works.drain()
    works.parts.arrive("sales/b.csv", b"id,v\n1,7\n")
    works.parts.arrive("sales/c.csv", b"id,v\n1,10\n")
    works.drain()
    (story,) = works.parts.stories("sales/b.csv")
    assert story.state is State.QUARANTINED
    assert " v" in str(story.reason)
    assert works.warehouse.query("SELECT id, v FROM sales ORDER BY id", limit=9).rows == [(1, 10), (2, 9)]
