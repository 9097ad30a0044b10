"""What every warehouse must do with its columns: make, name, add and widen them, and bring up older tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from penstock.warehouse.base import LoadPart, LoadResult, Write
from penstock.widening import Widening, bound, widening
from tests.conformance.warehouses import COLUMNS, MAKERS, NOW, WarehouseBench, part

Load = Callable[..., LoadResult]
A = part("a.csv", {"id": [1, 2], "name": ["x", None]})
COMMENTS = {
    "duckdb": "SELECT column_name, comment FROM duckdb_columns() WHERE comment IS NOT NULL AND table_name = 'sales'",
    "postgres": "SELECT attname, col_description(attrelid, attnum) FROM pg_attribute "
    "WHERE attrelid = 'sales'::regclass AND col_description(attrelid, attnum) IS NOT NULL",
}


@pytest.fixture(params=sorted(MAKERS))
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[WarehouseBench]:
    with MAKERS[request.param](tmp_path) as made:
        yield made


@pytest.fixture
def load(bench: WarehouseBench) -> Load:
    def run(*parts: LoadPart, columns: Any = COLUMNS, **more: Any) -> LoadResult:
        return bench.warehouse.load("sales", columns, parts, token=1, run="r1", now=NOW, **more)

    return run


def rows(bench: WarehouseBench, sql: str) -> list[tuple[Any, ...]]:
    return bench.warehouse.query(sql, limit=1000).rows


def values(bench: WarehouseBench) -> list[Any]:
    return [row[0] for row in rows(bench, "SELECT v FROM sales ORDER BY _penstock_object, _penstock_row")]


WIDENED: list[Any] = [
    ("INTEGER", pa.array([1, None], pa.int32()), "BIGINT", pa.array([2**40]), [1, None, 2**40]),
    ("BIGINT", pa.array([1, 2**53]), "DOUBLE", pa.array([2.5]), [1.0, 2.0**53, 2.5]),
    ("BIGINT", pa.array([2**53 + 1]), "DOUBLE", pa.array([2.5]), ["9007199254740993", "2.5"]),
    ("BIGINT", pa.array([7, None]), "VARCHAR", pa.array(["x"]), ["7", None, "x"]),
    ("DOUBLE", pa.array([2.0, -0.1]), "VARCHAR", pa.array(["x"]), ["2.0", "-0.1", "x"]),
    ("BOOLEAN", pa.array([True]), "VARCHAR", pa.array(["x"]), ["true", "x"]),
    ("BOOLEAN", pa.array([True]), "BIGINT", pa.array([5]), ["true", "5"]),
    ("DATE", pa.array([date(2026, 3, 1)]), "VARCHAR", pa.array(["x"]), ["2026-03-01", "x"]),
    (
        "DATE",
        pa.array([date(2026, 3, 1)]),
        "TIMESTAMP",
        pa.array([datetime(2026, 3, 1, 12)]),  # noqa: DTZ001
        [datetime(2026, 3, 1), datetime(2026, 3, 1, 12)],  # noqa: DTZ001
    ),
    (
        "TIMESTAMP WITH TIME ZONE",
        pa.array([NOW], pa.timestamp("us", "UTC")),
        "VARCHAR",
        pa.array(["x"]),
        ["2026-03-01 12:00:00+00", "x"],
    ),
    ("VARCHAR", pa.array(["x"]), "BIGINT", pa.array([7]), ["x", "7"]),
    ("DOUBLE", pa.array([1.5]), "BIGINT", pa.array([7]), [1.5, 7.0]),
    ("VARCHAR", pa.array(["x"]), "BIGINT[]", pa.array([[1, 2]]), ["x", "[1,2]"]),
    ("BIGINT", pa.array([1]), "DECIMAL(10,2)", pa.array([Decimal("1.50")]), [Decimal(1), Decimal("1.50")]),
    (
        "DECIMAL(10,2)",
        pa.array([Decimal("1.00")], pa.decimal128(10, 2)),
        "DECIMAL(12,4)",
        pa.array([Decimal("1.2567")], pa.decimal128(12, 4)),
        [Decimal("1.0000"), Decimal("1.2567")],
    ),
    (
        "DECIMAL(10,4)",
        pa.array([Decimal("2.5")], pa.decimal128(10, 4)),
        "BIGINT",
        pa.array([2**62]),
        [Decimal("2.5"), Decimal(2**62)],
    ),
    ("DOUBLE", pa.array([1.5]), "BIGINT", pa.array([2**60 + 1]), ["1.5", "1152921504606846977"]),
    (
        "DOUBLE",
        pa.array([1.5]),
        "DECIMAL(38,2)",
        pa.array([Decimal("12345678901234567890.11")], pa.decimal128(38, 2)),
        ["1.5", "12345678901234567890.11"],
    ),
    ("DOUBLE", pa.array([1.5]), "DECIMAL(38,2)", pa.array([Decimal("2.25")], pa.decimal128(38, 2)), [1.5, 2.25]),
    ("BIGINT", pa.array([5]), "BOOLEAN", pa.array([True]), ["5", "true"]),
    (
        "TIME",
        pa.array([time(1)]),
        "TIMESTAMP",
        pa.array([datetime(2026, 1, 1, 5)]),  # noqa: DTZ001
        ["01:00:00", "2026-01-01 05:00:00"],
    ),
]


@pytest.mark.parametrize(
    ("before", "old", "after", "new", "found"),
    WIDENED,
    ids=[f"{row[0]} {row[2]} {number}" for number, row in enumerate(WIDENED)],
)
def test_a_column_becomes_wider_and_loses_nothing(
    bench: WarehouseBench, load: Load, before: str, old: pa.Array, after: str, new: pa.Array, found: list[Any]
) -> None:
    """What was there is as it was or as its text, and a table that is wider than the schema takes narrower values."""
    load(part("a.csv", {"v": old}), columns=(("v", before),))
    load(part("b.csv", {"v": new}), columns=(("v", after),))
    assert values(bench) == found
    assert bench.warehouse.damaged("sales") == []


def test_whatever_was_nested_becomes_json(bench: WarehouseBench, load: Load) -> None:
    """Structs and lists that become text are JSON, and so are those that come into text later."""
    kind = "STRUCT(x BIGINT, y VARCHAR[])"
    struct = pa.array([{"x": 1, "y": ["a", None]}], pa.struct([("x", pa.int64()), ("y", pa.list_(pa.string()))]))
    load(part("a.csv", {"v": struct}), columns=(("v", kind),))
    load(part("b.csv", {"v": ["text"]}), columns=(("v", "VARCHAR"),))
    load(part("c.csv", {"v": struct}), columns=(("v", kind),))
    found = [value.replace(" ", "") for value in values(bench)]
    assert found == ['{"x":1,"y":["a",null]}', "text", '{"x":1,"y":["a",null]}']


def test_a_struct_with_another_field_loses_none(bench: WarehouseBench, load: Load) -> None:
    """Where fields differ, the column is JSON."""
    load(part("a.csv", {"v": pa.array([{"a": 1}])}), columns=(("v", "STRUCT(a BIGINT)"),))
    load(part("b.csv", {"v": pa.array([{"a": 1, "b": 2}])}), columns=(("v", "STRUCT(a BIGINT, b BIGINT)"),))
    found = [value if isinstance(value, dict) else json.loads(value) for value in values(bench)]
    assert found == [{"a": 1}, {"a": 1, "b": 2}]


KINDS = [
    *("BOOLEAN", "TINYINT", "UTINYINT", "SMALLINT", "INTEGER", "UINTEGER", "BIGINT", "UBIGINT", "HUGEINT", "FLOAT"),
    *("DOUBLE", "DECIMAL(4,2)", "DECIMAL(38,10)", "DATE", "TIME", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "VARCHAR"),
    *("JSON", "UUID", "BLOB", "BIGINT[]", "STRUCT(a BIGINT)"),
]
# Of each type the extreme values.
EXTREMES = {
    "BOOLEAN": ["true"],
    "TINYINT": ["-128", "127"],
    "UTINYINT": ["255"],
    "SMALLINT": ["-32768", "32767"],
    "INTEGER": ["-2147483648", "2147483647"],
    "UINTEGER": ["4294967295"],
    "BIGINT": ["-9223372036854775808", "9223372036854775807"],
    "UBIGINT": ["18446744073709551615"],
    "DECIMAL(4,2)": ["99.99", "-0.01"],
    "DECIMAL(38,10)": ["1234567890123456789012345678.0123456789"],
    "DATE": ["2026-03-01"],
    "TIME": ["12:34:56.789012"],
    "TIMESTAMP": ["2026-03-01 12:34:56.789012"],
}


@pytest.mark.parametrize("there", sorted(EXTREMES))
def test_nothing_is_lost_in_whatever_a_column_becomes(there: str) -> None:
    """Of any two types, the extreme values of both come back from the type of the column; beyond `within`, as text."""
    with duckdb.connect() as connection:
        for wanted in KINDS:
            found = widening(there, wanted)
            kind = found.kind if found else there
            limits = {there: found.within if found else None, wanted: bound(kind, wanted)}
            for own in {there, wanted} & EXTREMES.keys():
                for text in EXTREMES[own]:
                    if limits[own] is not None and abs(Decimal(text)) > Decimal(limits[own] or 0):
                        continue
                    sql = f"SELECT CAST(CAST(v AS {kind}) AS {own}) = v FROM (SELECT CAST('{text}' AS {own}) AS v)"
                    assert connection.execute(sql).fetchone() == (True,), (there, wanted, kind, text)


@pytest.mark.parametrize(
    ("there", "wanted", "found"),
    [
        ("VARCHAR", "BIGINT", None),
        ("DOUBLE", "BIGINT", None),
        ("BIGINT", "INTEGER", None),
        ("BIGINT", "HUGEINT", Widening(kind="HUGEINT")),
        ("FLOAT", "DOUBLE", Widening(kind="DOUBLE")),
        ("DECIMAL(15,2)", "DOUBLE", Widening(kind="DOUBLE")),
        ("DECIMAL(18,3)", "DOUBLE", Widening(kind="DOUBLE", within="1000000000000")),
        ("DECIMAL(38,20)", "DOUBLE", Widening(kind="DOUBLE", within="0.00001")),
        ("JSON", "VARCHAR", Widening(kind="VARCHAR")),
        ("TIMESTAMPTZ", "TIMESTAMP WITH TIME ZONE", None),
        ("DECIMAL(18,3)", "decimal(18,3)", None),
        ("UTINYINT", "TINYINT", Widening(kind="SMALLINT")),
        ("FLOAT", "INTEGER", Widening(kind="DOUBLE")),
        ("DECIMAL(38,10)", "BIGINT", None),
        ("DECIMAL(38,20)", "BIGINT", Widening(kind="VARCHAR")),
        ("BIGINT", '"NULL"', None),
        ('"NULL"', "BIGINT", Widening(kind="BIGINT")),
        ("JSON", "BIGINT[]", None),
        ("BIGINT", "JSON", Widening(kind="VARCHAR")),
    ],
)
def test_the_lattice_goes_one_way(there: str, wanted: str, found: Widening | None) -> None:
    """A type gives way to one that has all of its values, and never to a narrower one."""
    assert widening(there, wanted) == found


def test_what_a_column_is_called_in_the_data_is_kept(bench: WarehouseBench, load: Load) -> None:
    """As a comment of a column that is made or added, where it is another name; later loads leave it alone.

    A U+0000, which no database takes, is another sign there.
    """
    names = {"id": "Id No. 'x'", "name": "name", "price": "Preis\0€"}
    load(A, originals=names)
    load(part("b.csv", {"id": [3], "price": [1.5]}), columns=(*COLUMNS, ("price", "DOUBLE")), originals=names)
    load(part("c.csv", {"id": ["x"]}), columns=(("id", "VARCHAR"),), originals={"id": "otherwise"})
    assert dict(rows(bench, COMMENTS[bench.kind])) == {"id": "Id No. 'x'", "price": "Preis\ufffd€"}


def test_a_rejected_row_names_column_and_check(bench: WarehouseBench, load: Load) -> None:
    """What is to blame is beside the reason."""
    load(replace(A, rejected=part("a.csv", {"id": [1]}, rejected=[(3, 4, "r", "raw", "id", "id_positive")]).rejected))
    assert rows(bench, "SELECT reason, column_name, check_name FROM sales__rejected") == [("r", "id", "id_positive")]


# The tables as they were made before rows could be merged and rejected ones named a column.
_OLD = (
    "CREATE TABLE _penstock_fences (dataset VARCHAR{key}, token BIGINT)",
    "CREATE TABLE _penstock_objects (object VARCHAR{key}, dataset VARCHAR, rows BIGINT, rejected BIGINT, token BIGINT, "
    "run VARCHAR, loaded_at TIMESTAMPTZ)",
    "CREATE TABLE _penstock_replaced (object VARCHAR, dataset VARCHAR, by_object VARCHAR)",
    "CREATE TABLE sales (id BIGINT, name VARCHAR, _penstock_object VARCHAR, _penstock_row BIGINT, "
    "_penstock_loaded_at TIMESTAMPTZ, _penstock_rescued VARCHAR)",
    "CREATE TABLE sales__rejected (_penstock_object VARCHAR, _penstock_row BIGINT, line BIGINT, reason VARCHAR, "
    "raw VARCHAR, _penstock_loaded_at TIMESTAMPTZ)",
    "INSERT INTO _penstock_fences VALUES ('sales', 1)",
    "INSERT INTO _penstock_objects VALUES ('landing/sales/old.csv@1', 'sales', 2, 1, 1, 'r', '2026-02-28 12:00:00+00')",
    "INSERT INTO sales VALUES (1, 'old', 'landing/sales/old.csv@1', 1, NULL, NULL), "
    "(2, 'old', 'landing/sales/old.csv@1', 2, NULL, NULL)",
    "INSERT INTO sales__rejected VALUES ('landing/sales/old.csv@1', 3, 4, 'r', 'raw', NULL)",
)


def test_an_older_warehouse_is_brought_up(bench: WarehouseBench, load: Load) -> None:
    """It can be read before anything is loaded, gets what it lacks with the next load, and its rows give way as any."""
    if bench.kind == "duckdb":
        Path(bench.address).parent.mkdir()
    for sql in _OLD:
        bench.spoil(sql.format(key=" PRIMARY KEY" if bench.kind == "postgres" else ""))
        if sql.startswith("CREATE") and bench.kind == "postgres":
            bench.spoil(f"ALTER TABLE {sql.split()[2]} OWNER TO warehouse")
    assert bench.warehouse.damaged("sales") == []
    assert bench.warehouse.loaded(["landing/sales/old.csv@1"]) == {"landing/sales/old.csv@1": (2, 1)}
    bad = part("a.csv", {"id": [1]}, rejected=[(3, 4, "r", "raw", "id", None)]).rejected
    newer = replace(A, rejected=bad, ref=replace(A.ref, arrived_at=NOW))
    load(newer, write=Write(key=("id",)))
    assert rows(bench, "SELECT id, name FROM sales ORDER BY id") == [(1, "x"), (2, None)]
    assert rows(bench, "SELECT column_name FROM sales__rejected ORDER BY _penstock_object") == [("id",), (None,)]
    assert rows(bench, "SELECT gone, arrived_at FROM _penstock_objects ORDER BY gone") == [(0, NOW), (2, None)]
    assert bench.warehouse.damaged("sales") == []
