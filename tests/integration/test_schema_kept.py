"""What a dataset was taught holds: whatever dies, in whatever format objects come, and never by a guess."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from penstock import events, faults
from penstock.declarations import Dataset
from penstock.errors import LeaseLost
from penstock.model import State
from tests.integration.parts import SALES, parts_in
from tests.integration.test_batch import Works, csv_of, parquet_of, works_on
from tests.integration.test_schema_modes import column_types, latest, put
from tests.real_store import RealStore, real_store

FROZEN = replace(SALES, schema="freeze")
MERGED = Dataset(name="sales", write="merge", key=("id",), order_by="v")


@pytest.fixture(scope="module")
def embedded() -> Iterator[RealStore]:
    """The store of this module's tests."""
    with real_store("embedded") as server:
        yield server


@pytest.fixture
def works(tmp_path: Path, embedded: RealStore) -> Iterator[Works]:
    """A frozen dataset `sales`."""
    with parts_in(tmp_path, embedded, fake_time=True) as parts:
        yield works_on(parts, FROZEN)


def die_at(works: Works, seam: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of everything that waits ends at that seam without a word to anybody, and its lease runs out."""
    folder = works.parts.folder / "faults"
    folder.mkdir()
    (folder / seam).write_text("raise")
    lease = works.acquire()
    batch = works.batch(lease, works.claim(lease))
    batch.fetch()
    batch.check()
    with monkeypatch.context() as patch:
        patch.setattr(faults, "_folder", str(folder))
        with pytest.raises(faults.Injected):
            batch.load()
    works.parts.clock.advance(minutes=10)


def reason_of(works: Works, key: str) -> str:
    """Why the object is in quarantine."""
    (story,) = [one for one in works.parts.ledger.facts.by_state(State.QUARANTINED) if one.key == key]
    return story.reason or ""


def test_what_a_dead_run_loaded_taught(works: Works, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between the warehouse and the ledger, the first object is still the first; others learn of it once."""
    put(works, ("1.csv", csv_of(1, 2)))
    die_at(works, "warehouse.after_commit", monkeypatch)
    assert works.parts.ledger.schemas.versions("sales") == []
    put(works, ("2.csv", b"id,name,secret\n7,n,1\n"), ("3.csv", csv_of(3)))
    assert works.drain().outcomes == {"loaded": 2, "quarantined": 1}
    assert reason_of(works, "sales/2.csv") == "the schema is frozen, and it has other columns: secret"
    assert (works.rows(), column_types(works)) == ([1, 2, 3], {"id": "BIGINT", "name": "VARCHAR"})
    told = [event for event in works.parts.ledger.outbox.unsent(100) if event.name == events.SCHEMA_CHANGED]
    assert [(event.payload["version"], event.payload["cause"].split(":")[0]) for event in told] == [(1, "first object")]


def test_what_was_never_loaded_teaches_nothing(works: Works, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before the load, with an object that is then refused, the next one is the first."""
    put(works, ("1.csv", b"wrong,columns\n1,2\n"))
    die_at(works, "ingest.before_load", monkeypatch)
    works.dataset = replace(FROZEN, checks={"known": "id > 0"})
    put(works, ("2.csv", csv_of(1)))
    assert works.drain().outcomes == {"quarantined": 1, "loaded": 1}
    assert [column.name for column in latest(works).columns] == ["id", "name"]
    assert works.parts.ledger.schemas.proposed("sales") == []


def test_who_lost_the_lease_teaches_nothing(works: Works) -> None:
    """What a run would say that was overtaken is not taken for what its successor loads."""
    put(works, ("1.csv", b"id,other\nx,2\n"))
    lease = works.acquire()
    batch = works.batch(lease, works.claim(lease))
    batch.fetch()
    batch.check()
    works.parts.clock.advance(minutes=10)
    works.acquire()
    with pytest.raises(LeaseLost):
        batch.load()
    assert works.parts.ledger.schemas.proposed("sales") == []


def test_a_frozen_schema_holds_in_every_format(works: Works) -> None:
    """A new column and a wider type are refused; what fits is loaded, in another order and with columns left out."""
    put(
        works,
        ("1.csv", csv_of(1)),
        ("2.json", b'[{"id": 2, "name": "n2", "secret": 1}]'),
        ("3.ndjson", b'{"id": 2.5, "name": "n"}\n'),
        ("4.json", b'[{"id": 4}, {"id": "x"}]'),
        ("5.json", b'[{"name": "n5", "id": 5}]'),
        ("6.parquet", parquet_of(6)),
    )
    works.drain()
    assert reason_of(works, "sales/2.json") == 'the schema is frozen, and it has other columns: $."secret"'
    assert "would have to be wider: id BIGINT → DOUBLE" in reason_of(works, "sales/3.ndjson")
    assert works.rows("id, name") == [(1, "n1"), (4, None), (5, "n5"), (6, "n6")]
    assert works.rows("reason", "sales__rejected") == ["id: not BIGINT: x"]
    assert column_types(works) == {"id": "BIGINT", "name": "VARCHAR"}
    assert [column.name for column in latest(works, "json").columns] == ["id", "name"]


def test_what_is_new_in_another_format_is_rescued(works: Works) -> None:
    """The table keeps its columns and types; the other format's own way of writing them is learned."""
    works.dataset = SALES
    put(works, ("1.json", b'[{"id": 1, "at": {"x": 1}}]'))
    works.drain()
    put(works, ("2.csv", b"at_x;id;city\n7;2;Ulm\ny;3;\n"), ("3.csv", b"id;at_x\n4;8\n"))
    assert works.drain().outcomes == {"loaded": 2}
    assert works.rows("id, at_x, _penstock_rescued") == [
        (1, 1, None),
        (2, 7, '{"city":"Ulm"}'),
        (4, 8, None),
    ]
    assert column_types(works) == {"id": "BIGINT", "at_x": "BIGINT"}
    assert latest(works).dialect["delim"] == ";"


def test_long_numbers_are_not_rounded_for_another_format(works: Works) -> None:
    """Its first fractions are put aside where the table has whole numbers that they would round."""
    works.dataset = SALES
    put(works, ("1.csv", f"id,name\n{2**53 + 1},a\n".encode()))
    works.drain()
    put(works, ("2.json", b'[{"id": 1.5}, {"id": 2}]'))
    works.drain()
    assert (works.rows(), column_types(works)["id"]) == ([2, 2**53 + 1], "BIGINT")


def test_an_evolving_schema_grows_in_every_format(works: Works) -> None:
    """New columns are added, and what has no value or fits keeps its type."""
    works.dataset = replace(SALES, schema="evolve", checks={"known": "id > 0"})
    put(works, ("1.csv", b"id,n\n1,2\n"))
    works.drain()
    put(works, ("2.json", b'[{"id": 2, "n": null, "city": "Ulm"}, {"id": "x", "n": null, "city": ""}]'))
    works.drain()
    assert works.rows("id, n, city") == [(1, 2, None), (2, None, "Ulm")]
    assert column_types(works) == {"id": "BIGINT", "n": "BIGINT", "city": "VARCHAR"}


def test_no_type_is_guessed_where_rows_go_by_it(works: Works) -> None:
    """A first object without a value there waits; the next one tells the type, and 10 stays more than 9."""
    works.dataset = MERGED
    put(works, ("0.csv", b"id,v\n1,\n2,\n"), ("1.csv", b"id,v\n1,10\n"), ("2.csv", b"id,v\n1,9\n2,\n"))
    assert works.drain().outcomes == {"quarantined": 1, "loaded": 2}
    assert "order_by goes by the column 'v', which has no value" in reason_of(works, "sales/0.csv")
    assert (works.rows("id, v"), column_types(works)["v"]) == ([(1, 10), (2, None)], "BIGINT")
