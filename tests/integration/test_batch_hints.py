"""Type hints that are added or changed once objects were loaded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from penstock.checks import row_count
from penstock.declarations import Dataset
from penstock.ledger.replay import Selection
from penstock.model import State
from tests.integration.parts import parts_in
from tests.integration.test_batch import Works, works_on
from tests.real_store import RealStore, real_store

ORDERS = Dataset(name="orders", threshold=0.1)
SAID = replace(ORDERS, columns={"bestell_nr": "VARCHAR"})


@pytest.fixture(scope="module")
def embedded() -> Iterator[RealStore]:
    """The store of this module's tests."""
    with real_store("embedded") as server:
        yield server


@pytest.fixture
def works(tmp_path: Path, embedded: RealStore) -> Iterator[Works]:
    """A dataset `orders` with a column that was found to be BIGINT, in which a later object had another value."""
    with parts_in(tmp_path, embedded, datasets=(ORDERS,), fake_time=True) as parts:
        works = works_on(parts, ORDERS)
        parts.arrive("orders/a.csv", b"bestell_nr,n\n1,1\n2,2\n")
        parts.arrive("orders/b.csv", b"bestell_nr,n\n3,3\nA-12,4\n")
        works.drain()
        assert [story.rejected for story in parts.stories("orders/b.csv")] == [1]
        yield works


def _replay_rejected(works: Works) -> None:
    done = works.parts.ledger.replay.replay(
        Selection(dataset="orders", rejected=True), datasets=[SAID], force=False, by="a test"
    )
    assert done.moved == 1


def _changes(works: Works) -> list[dict[str, Any]]:
    events = works.parts.ledger.outbox.unsent(100)
    return [event.payload for event in events if event.name == "penstock.dataset.schema_changed"]


def test_a_hint_that_comes_later_counts(works: Works) -> None:
    """Rejected rows are read by it, and new files; the table is widened, a version says so, and an event."""
    works.dataset = SAID
    _replay_rejected(works)
    works.parts.arrive("orders/c.csv", b"bestell_nr,n\nB-1,5\n007,6\n")
    works.drain()
    assert works.rows("bestell_nr") == ["007", "1", "2", "3", "A-12", "B-1"]
    assert [story.rejected for story in works.parts.stories("orders/b.csv")] == [0]
    first, second = works.parts.ledger.schemas.versions("orders")
    assert (first.schema.version, second.schema.version) == (1, 2)
    assert second.cause.startswith("declared: bestell_nr BIGINT → VARCHAR: ")
    assert _changes(works)[-1]["widened"] == [{"name": "bestell_nr", "from": "BIGINT", "to": "VARCHAR"}]


def test_a_declared_type_is_no_change_of_the_data(works: Works) -> None:
    """A frozen schema takes it; and an object that is refused does not keep the next one from being read so."""
    works.dataset = replace(SAID, schema="freeze", checks={"few": row_count(at_most=2)})
    works.parts.arrive("orders/c.csv", b"bestell_nr,n\nB-1,5\nB-2,6\nB-3,7\n")
    works.parts.arrive("orders/d.csv", b"bestell_nr,n\nB-4,8\n")
    works.drain()
    assert works.parts.states("orders/c.csv") == [State.QUARANTINED]
    assert works.rows("bestell_nr") == ["1", "2", "3", "B-4"]
    assert "/orders/d.csv" in works.parts.ledger.schemas.versions("orders")[-1].cause


def test_a_narrower_hint_checks_values_and_leaves_the_table(works: Works) -> None:
    """Values that are none of the type are put aside; the column stays as wide as it is."""
    works.dataset = SAID
    works.parts.arrive("orders/c.csv", b"bestell_nr,n\nB-1,5\n")
    works.drain()
    works.dataset = replace(ORDERS, columns={"bestell_nr": "BIGINT"})
    works.parts.arrive("orders/d.csv", b"bestell_nr,n\nB-2,6\n8,7\n")
    works.drain()
    assert works.rows("bestell_nr") == ["1", "2", "3", "8", "B-1"]
    assert [story.rejected for story in works.parts.stories("orders/d.csv")] == [1]
    causes = [one.cause.split(": ")[1] for one in works.parts.ledger.schemas.versions("orders")[1:]]
    assert causes == ["bestell_nr BIGINT → VARCHAR", "bestell_nr VARCHAR → BIGINT"]


def test_a_hint_counts_beside_numbers_that_fractions_would_round(works: Works) -> None:
    """Where another column of the object is kept from DOUBLE, so is what is declared of this one."""
    works.parts.arrive("orders/c.csv", b"bestell_nr,n\n4,9007199254740993\n")
    works.drain()
    works.dataset = SAID
    works.parts.arrive("orders/d.csv", b"bestell_nr,n\nB-2,1.5\nB-3,1\n")
    works.drain()
    assert works.rows("bestell_nr, n")[-1] == ("B-3", 1)
