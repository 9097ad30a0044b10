"""What becomes of columns that the first object had not: rescued, added, or refused. Real store, ledger and DuckDB."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from penstock import events
from penstock.declarations import Dataset
from penstock.errors import DeclarationError
from penstock.model import State
from tests.integration.parts import SALES, parts_in
from tests.integration.test_batch import Works, csv_of, works_on
from tests.real_store import RealStore, real_store

MORE = b"id,name,country,City Name\n3,c,DE,Ulm\n4,d,,\n"


@pytest.fixture(scope="module")
def embedded() -> Iterator[RealStore]:
    """The store of this module's tests."""
    with real_store("embedded") as server:
        yield server


@pytest.fixture
def works(tmp_path: Path, embedded: RealStore) -> Iterator[Works]:
    """A dataset `sales` whose schema evolves."""
    with parts_in(tmp_path, embedded, fake_time=True) as parts:
        yield works_on(parts, replace(SALES, schema="evolve"))


def put(works: Works, *contents: tuple[str, bytes]) -> None:
    """Put objects of the dataset, which arrive in this order."""
    for name, content in contents:
        works.parts.arrive(f"sales/{name}", content)


def column_types(works: Works) -> dict[str, str]:
    """The table's own columns."""
    sql = "SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = 'sales' ORDER BY column_index"
    found = works.warehouse.query(sql, limit=100).rows
    return {name: kind for name, kind in found if not name.startswith("_penstock")}


def latest(works: Works, form: str = "csv") -> Any:
    return works.parts.ledger.schemas.latest("sales", form)


def test_a_new_column_is_added(works: Works) -> None:
    """Rows that came before have none, later objects may have it or not, and nothing of it is rescued."""
    put(works, ("1.csv", csv_of(1, 2)))
    works.drain()
    put(works, ("2.csv", MORE), ("3.csv", csv_of(5)), ("4.csv", b"country,id\nFR,6\n"))
    report = works.drain()
    assert report.outcomes == {"loaded": 3}
    assert works.rows("id, name, country, city_name") == [
        (1, "n1", None, None),
        (2, "n2", None, None),
        (3, "c", "DE", "Ulm"),
        (4, "d", None, None),
        (5, "n5", None, None),
        (6, None, "FR", None),
    ]
    assert works.rows("count(*) FILTER (_penstock_rescued IS NOT NULL)") == [0]
    assert list(column_types(works)) == ["id", "name", "country", "city_name"]
    schema = latest(works)
    assert (schema.version, [column.original for column in schema.columns][2:]) == (2, ["country", "City Name"])


def test_each_objects_columns_count_in_one_batch(works: Works) -> None:
    """Whether read alone or ahead, each is read by what those before it taught."""
    put(
        works,
        ("1.csv", csv_of(1)),
        ("2.csv", b"id,name,a\n2,x,1\n"),
        ("3.csv", b"id,name,b\n3,x,2.5\n"),
        ("4.csv", b"id,b,a\n4,7,8\n"),
        ("5.csv", csv_of(5)),
        ("6.csv", b"id,name,c\n6,x,true\n"),
        ("7.csv", b"id,name,c\n7,x,false\n"),
    )
    assert works.drain().outcomes == {"loaded": 7}
    assert works.rows("id, a, b") == [(1, None, None), (2, 1, None), (3, None, 2.5), (4, 8, 7.0)] + [
        (number, None, None) for number in (5, 6, 7)
    ]
    assert works.rows("id, c")[-2:] == [(6, True), (7, False)]
    assert column_types(works) == {"id": "BIGINT", "name": "VARCHAR", "a": "BIGINT", "b": "DOUBLE", "c": "BOOLEAN"}


def test_json_grows_columns_too(works: Works) -> None:
    """At any depth."""
    put(works, ("1.json", b'[{"id": 1, "at": {"x": 1}}]'))
    works.drain()
    put(works, ("2.json", b'[{"id": 2, "at": {"x": 2, "y": true}, "tags": ["a"]}]'))
    works.drain()
    assert works.rows("id, at_x, at_y, tags") == [(1, 1, None, None), (2, 2, True, '["a"]')]


def test_what_is_derived_keeps_its_name(works: Works) -> None:
    """A new column of that name gets another."""
    works.dataset = replace(works.dataset, derive={"double_id": "id * 2"})
    put(works, ("1.csv", csv_of(1)))
    works.drain()
    put(works, ("2.csv", b"id,name,double_id\n2,x,other\n"))
    works.drain()
    assert works.rows("id, double_id, double_id_2") == [(1, 2, None), (2, 4, "other")]


def test_a_refused_object_teaches_nothing(works: Works) -> None:
    """The columns of an object that is not loaded are not added."""
    works.dataset = replace(works.dataset, checks={"small": "id < 100"}, threshold=0.5)
    put(works, ("1.csv", csv_of(1)))
    works.drain()
    put(works, ("2.csv", b"id,name,evil\n200,x,1\n"))
    assert works.drain().outcomes == {"quarantined": 1}
    assert list(column_types(works)) == ["id", "name"]
    assert latest(works).version == 1


def test_a_frozen_schema_refuses_what_is_new(works: Works) -> None:
    """The whole object waits in quarantine, and the reason names the columns; what fits goes on."""
    works.dataset = replace(works.dataset, schema="freeze")
    put(works, ("1.csv", csv_of(1)))
    works.drain()
    put(works, ("2.csv", MORE), ("3.csv", csv_of(5)), ("4.csv", b"id\n6\n"), ("5.csv", b"id,name,empty\n7,x,\n"))
    assert works.drain().outcomes == {"quarantined": 1, "loaded": 3}
    (story,) = works.parts.ledger.facts.by_state(State.QUARANTINED)
    assert story.key == "sales/2.csv"
    assert story.reason is not None
    assert "other columns: City Name, country" in story.reason
    assert works.rows() == [1, 5, 6, 7]


def test_without_a_word_values_are_rescued(works: Works) -> None:
    """Nothing is lost, and the table stays as it is."""
    works.dataset = replace(works.dataset, schema="rescue")
    put(works, ("1.csv", csv_of(1)))
    works.drain()
    put(works, ("2.csv", MORE))
    works.drain()
    rescued = [text and json.loads(text) for text in works.rows("_penstock_rescued")]
    assert rescued == [{"country": "DE", "City Name": "Ulm"}, None, None]


def test_a_value_that_does_not_fit_makes_text(works: Works) -> None:
    """The table's values from before become their text, and those of the same batch, before and after, are text too."""
    put(works, ("1.csv", csv_of(1, 2)))
    works.drain()
    put(works, ("2.csv", csv_of(3)), ("3.csv", b"id,name\nA-4,x\n"), ("4.csv", csv_of(5)))
    assert works.drain().outcomes == {"loaded": 3}
    assert works.rows() == ["1", "2", "3", "5", "A-4"]
    assert column_types(works)["id"] == "VARCHAR"
    assert works.rows("count(*)", "sales__rejected") == [0]
    (_, second) = works.parts.ledger.schemas.versions("sales")
    assert second.cause == "id became text: landing/sales/3.csv@1".replace("landing", works.parts.bucket)


def test_what_a_check_goes_by_stays(works: Works) -> None:
    """Its rows that do not fit are put aside, and the table keeps its type."""
    works.dataset = replace(works.dataset, checks={"positive": "id > 0"})
    put(works, ("1.csv", csv_of(1)))
    works.drain()
    put(works, ("2.csv", b"id,name\nA-4,x\n5,y\n"))
    works.drain()
    assert (works.rows(), column_types(works)["id"]) == ([1, 5], "BIGINT")


@pytest.mark.parametrize("together", [True, False], ids=["one-batch", "two"])
@pytest.mark.parametrize(
    ("schema", "kind", "rows"),
    [("rescue", "BIGINT", [2, 2**53 + 1]), ("evolve", "VARCHAR", ["1.5", "2", str(2**53 + 1)])],
    ids=["rescue", "evolve"],
)
def test_a_long_number_from_before_is_not_rounded(
    works: Works, schema: Literal["rescue", "evolve"], kind: str, rows: list[Any], together: bool
) -> None:
    """Fractions that come later are put aside, or all become text; what was learned of it is remembered."""
    works.dataset = replace(works.dataset, schema=schema)
    put(works, ("1.csv", f"id,name\n{2**53 + 1},a\n".encode()))
    if not together:
        works.drain()
    put(works, ("2.csv", b"id,name\n1.5,b\n2,c\n"))
    works.drain()
    assert (works.rows(), column_types(works)["id"]) == (rows, kind)
    versions = works.parts.ledger.schemas.versions("sales")
    assert versions[-1].schema.dialect["long"] == ["id"]
    assert "id holds numbers that fractions would round" in versions[-1].cause
    put(works, ("3.csv", b"id,name\n2.5,b\n"))
    works.drain()
    assert len(works.parts.ledger.schemas.versions("sales")) == len(versions)


def test_a_frozen_schema_is_not_widened(works: Works) -> None:
    """Numbers that would have to be wider are refused, with the column's name; other misfits are put aside as ever."""
    works.dataset = replace(works.dataset, schema="freeze")
    put(works, ("1.csv", csv_of(1)))
    works.drain()
    put(works, ("2.csv", b"id,name\n1.5,b\n2,c\n"), ("3.csv", b"id,name\nx,b\n3,c\n"))
    assert works.drain().outcomes == {"quarantined": 1, "loaded": 1}
    (story,) = works.parts.ledger.facts.by_state(State.QUARANTINED)
    assert (story.key, story.reason) == (
        "sales/2.csv",
        "the schema is frozen, and would have to be wider: id BIGINT → DOUBLE",
    )
    assert (works.rows(), column_types(works)["id"], latest(works).version) == ([1, 3], "BIGINT", 1)


def test_another_spelling_is_no_new_column(works: Works) -> None:
    """Case, spaces and signs of a header make no column, in whatever mode."""
    put(works, ("1.csv", b"Order ID,Unit Price\n1,2\n"))
    works.drain()
    for number, mode in enumerate(("evolve", "rescue", "freeze")):
        works.dataset = replace(works.dataset, schema=mode)  # type: ignore[arg-type]
        put(works, (f"{mode}.csv", f"unit-price,order_id\n3,{number + 2}\n".encode()))
        assert works.drain().outcomes == {"loaded": 1}
    assert works.rows("order_id, unit_price") == [(1, 2), (2, 3), (3, 3), (4, 3)]
    assert works.rows("count(*) FILTER (WHERE _penstock_rescued IS NOT NULL)") == [0]
    assert latest(works).version == 1


def test_every_version_is_told(works: Works) -> None:
    """Others learn of a schema, and of each change, once it is loaded."""
    put(works, ("1.csv", csv_of(1)))
    works.drain()
    put(works, ("2.csv", MORE), ("3.csv", b"id,name\n1.5,x\n"))
    works.drain()
    told = [event for event in works.parts.ledger.outbox.unsent(100) if event.name == events.SCHEMA_CHANGED]
    assert [(event.payload["before"], event.payload["version"]) for event in told] == [(0, 1), (1, 2)]
    assert [one["name"] for one in told[1].payload["added"]] == ["country", "city_name"]
    assert told[1].payload["widened"] == [{"name": "id", "from": "BIGINT", "to": "DOUBLE"}]


@pytest.mark.parametrize(
    ("schema", "select"), [("evolve", ("id",)), ("other", ())], ids=["evolve-and-select", "no-such-mode"]
)
def test_what_cannot_work_is_said(schema: Literal["evolve"], select: tuple[str, ...]) -> None:
    """A table of chosen columns cannot grow."""
    with pytest.raises(DeclarationError, match=r"select|use rescue"):
        Dataset(name="d", schema=schema, select=select)
