"""The lattice of types in docs/formats.md, edge by edge: what becomes of a column, alone and read together."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import openpyxl
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock import formats
from penstock.checks import Check
from penstock.declarations import Dataset
from penstock.formats.lattice import LONG, Misfits, text_columns, wider
from penstock.model import Schema
from tests.examples import examples
from tests.unit.test_formats_together import compare, csv_files, first_schema, json_files
from tests.unit.test_reading import FILES, read_all, reader_of

LONG_NUMBER = "9007199254740993"  # 2 ** 53 + 1, which DOUBLE has not
NOON = "2024-02-13 12:00:00"
NOON_THERE = datetime.fromisoformat(NOON)

# first values, later values; then, where the schema does not evolve: type, values that are loaded; where it does: type.
EDGES: dict[str, tuple[list[str], list[str], str, list[Any], str]] = {
    "whole and fraction": (["1", "2"], ["2.5", "3"], "DOUBLE", [2.5, 3.0], "DOUBLE"),
    "whole and text": (["1", "2"], ["x", "3"], "BIGINT", [3], "VARCHAR"),
    "whole, fraction and text": (["1", "2"], ["2.5", "x"], "BIGINT", [], "VARCHAR"),
    "whole and more digits": (["1", "2"], ["9223372036854775808", "3"], "BIGINT", [3], "VARCHAR"),
    "whole and zeros in front": (["1", "2"], ["007", "3"], "BIGINT", [3], "VARCHAR"),
    "fraction beside a long number": (["1", "2"], ["2.5", LONG_NUMBER], "BIGINT", [int(LONG_NUMBER)], "VARCHAR"),
    "fraction beside a number DOUBLE has": (["1"], ["2.5", "9007199254740992"], "DOUBLE", [2.5, 2.0**53], "DOUBLE"),
    "DOUBLE and a long number": (["1.5"], [LONG_NUMBER, "2"], "DOUBLE", [2.0], "VARCHAR"),
    "DOUBLE and a long number with a point": (["1.5"], [f"{LONG_NUMBER}.0", "2"], "DOUBLE", [2.0], "VARCHAR"),
    "DOUBLE and a large number it has": (["1.5"], ["1" + "0" * 20, "1e300"], "DOUBLE", [1e20, 1e300], "DOUBLE"),
    "DOUBLE and too large a number": (["1.5"], ["1e400", "inf"], "DOUBLE", [float("inf")], "VARCHAR"),
    "DOUBLE and more digits of a fraction": (["1.5"], ["0.12345678901234567890"], "DOUBLE", [0.12345678901234568], ""),
    "DOUBLE and zeros in front": (["1.5"], ["00501", "0.5", "0"], "DOUBLE", [0.5, 0.0], "VARCHAR"),
    "BOOLEAN and text": (["true", "false"], ["maybe", "true"], "BOOLEAN", [True], "VARCHAR"),
    "DATE and a time of day": (["2024-02-13"], [NOON, "2024-02-14"], "DATE", [date(2024, 2, 14)], "VARCHAR"),
    "DATE and midnight": (["2024-02-13"], ["2024-02-14 00:00:00"], "DATE", [date(2024, 2, 14)], "DATE"),
    "TIMESTAMP and an offset": (["2024-02-13 10:00:00"], [f"{NOON}+02:00"], "TIMESTAMP", [], "VARCHAR"),
    "TIMESTAMP and UTC": (["2024-02-13 10:00:00"], [f"{NOON}Z"], "TIMESTAMP", [NOON_THERE], ""),
    "TIME and a date": (["10:00:00"], [NOON], "TIME", [], "VARCHAR"),
}


def csv_of(values: list[str]) -> bytes:
    return "".join(["id,v\n", *(f"{number},{value}\n" for number, value in enumerate(values))]).encode()


@pytest.mark.parametrize("mode", ["rescue", "evolve", "freeze"])
@pytest.mark.parametrize("edge", EDGES)
def test_an_edge(tmp_path: Path, edge: str, mode: Literal["rescue", "evolve", "freeze"]) -> None:
    """Each value is loaded as it is, or is put aside whole; text takes all values, as they were written."""
    first, later, kind, values, evolved = EDGES[edge]
    dataset = Dataset(name="d", schema=mode)
    schema = first_schema(tmp_path, csv_of(first), "csv", dataset)
    contents = [csv_of(first), csv_of(later), csv_of(first)]
    together = compare(tmp_path, contents, "csv", dataset, schema)
    found = formats.read(tmp_path / "1", "x.csv", dataset, schema)
    assert {0, 2} <= set(together)
    if mode == "evolve":
        kind, values = evolved or kind, later if evolved == "VARCHAR" else values
    assert {column.name: column.type for column in found.schema.columns}["v"] == kind
    assert found.rows.column("v").to_pylist() == values
    assert found.rejected.num_rows == len(later) - len(values)


def test_a_decimal_comma_loses_nothing_either(tmp_path: Path) -> None:
    """A long number with groups of digits is put aside, or makes text."""
    first, later = b"a;b\n1,5;x\n", b"a;b\n9.007.199.254.740.993;x\n9.007.199.254.740.992;x\n"
    for mode, values in (("rescue", [2.0**53]), ("evolve", ["9.007.199.254.740.993", "9.007.199.254.740.992"])):
        dataset = Dataset(name="d", schema=mode)  # type: ignore[arg-type]
        schema = first_schema(tmp_path, first, "csv", dataset)
        (tmp_path / "later").write_bytes(later)
        assert formats.read(tmp_path / "later", "x.csv", dataset, schema).rows.column("a").to_pylist() == values


JSON_EDGES: dict[str, tuple[str, str, str, list[Any], str, list[Any]]] = {
    "text": ("1", '"x"', "BIGINT", [], "VARCHAR", ["x"]),
    "an object": ("1", '{"a": 1}', "BIGINT", [], "VARCHAR", ['{"a":1}']),
    "zeros in front": ("1", '"007"', "BIGINT", [], "VARCHAR", ["007"]),
    "a long number": ("1.5", LONG_NUMBER, "DOUBLE", [], "VARCHAR", [LONG_NUMBER]),
    "a number for a boolean": ("true", "5", "BOOLEAN", [], "VARCHAR", ["5"]),
    "a fraction": ("1", "2.5", "DOUBLE", [2.5], "DOUBLE", [2.5]),
    "a large float": ("1", "2.777764496449753e+16", "DOUBLE", [2.777764496449753e16], "DOUBLE", [2.777764496449753e16]),
}


@pytest.mark.parametrize("edge", JSON_EDGES)
def test_an_edge_of_json(tmp_path: Path, edge: str) -> None:
    """As with CSV."""
    first, later, kind, values, wide, texts = JSON_EDGES[edge]
    for mode, expected in (("rescue", (kind, values)), ("evolve", (wide, texts))):
        dataset = Dataset(name="d", schema=mode)  # type: ignore[arg-type]
        contents = [f'[{{"v": {value}}}]'.encode() for value in (first, later, first)]
        schema = first_schema(tmp_path, contents[0], "json", dataset)
        assert {0, 2} <= set(compare(tmp_path, contents, "json", dataset, schema))
        found = formats.read(tmp_path / "1", "x.json", dataset, schema)
        assert (found.schema.columns[0].type, found.rows.column("v").to_pylist()) == expected


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (f'[{{"v": {LONG_NUMBER}}}, {{"v": 0.5}}]', "VARCHAR"),
        ('[{"v": 9223372036854775808}, {"v": 1}]', "VARCHAR"),
        (f'[{{"v": {LONG_NUMBER}}}, {{"v": 1}}]', "BIGINT"),
        ('[{"v": 1}, {"v": 0.5}]', "DOUBLE"),
    ],
    ids=["long beside a fraction", "more digits", "long", "short"],
)
def test_a_first_json_object_rounds_nothing(tmp_path: Path, content: str, kind: str) -> None:
    """Numbers that have no type in which all are whole are text, all of them."""
    schema = first_schema(tmp_path, content.encode(), "json", Dataset(name="d"))
    assert schema.columns[0].type == kind
    assert formats.read(tmp_path / "0", "x.json", Dataset(name="d"), schema).rejected.num_rows == 0


PARQUET_EDGES: dict[str, tuple[pa.Array, pa.Array, str, list[Any], str | None]] = {
    "BIGINT and DOUBLE": (pa.array([1]), pa.array([1.0, 2.5]), "DOUBLE", [1.0, 2.5], "DOUBLE"),
    "DOUBLE and a long BIGINT": (pa.array([1.5]), pa.array([2**53 + 1, 2]), "DOUBLE", [2.0], "VARCHAR"),
    "BIGINT and texts": (pa.array([1]), pa.array(["007", "2.5", "3"]), "BIGINT", [3], "VARCHAR"),
    "BOOLEAN and a number": (pa.array([True]), pa.array([5, 1]), "BOOLEAN", [True], "VARCHAR"),
    "DATE and TIMESTAMP": (
        pa.array([date(2024, 2, 13)]),
        pa.array([NOON_THERE, datetime.fromisoformat("2024-02-14")]),
        "DATE",
        [date(2024, 2, 14)],
        "VARCHAR",
    ),
    "DECIMAL and more digits": (
        pa.array([Decimal("1.25")]),
        pa.array([Decimal("1.234"), Decimal("1.500")]),
        "DECIMAL(3,2)",
        [Decimal("1.50")],
        "VARCHAR",
    ),
    "STRUCT and more fields": (pa.array([{"a": 1}]), pa.array([{"a": 1, "b": 2}]), "STRUCT(a BIGINT)", [], None),
    "FLOAT and DOUBLE": (pa.array([0.5], pa.float32()), pa.array([0.1]), "DOUBLE", [0.1], None),
}


@pytest.mark.parametrize("edge", PARQUET_EDGES)
def test_an_edge_of_parquet(tmp_path: Path, edge: str) -> None:
    """A value of another type is taken where it comes back as it was."""
    first, later, kind, values, wide = PARQUET_EDGES[edge]
    contents = []
    for column in (first, later, first):
        sink = io.BytesIO()
        pa.parquet.write_table(pa.table({"v": column}), sink)
        contents.append(sink.getvalue())
    for mode in ("rescue", "evolve"):
        dataset = Dataset(name="d", schema=mode)
        schema = first_schema(tmp_path, contents[0], "parquet", dataset)
        compare(tmp_path, [*contents, contents[1]], "parquet", dataset, schema)
        found = formats.read(tmp_path / "1", "x.parquet", dataset, schema)
        became = wide or kind if mode == "evolve" else kind
        assert found.schema.columns[0].type == became
        assert found.rows.num_rows == (len(later) if became == "VARCHAR" else len(values))
        if became != "VARCHAR":
            assert found.rows.column("v").to_pylist() == values


@pytest.mark.parametrize(
    "said",
    [
        {"columns": {"v": "BIGINT"}},
        {"derive": {"twice": "V * 2"}},
        {"checks": {"positive": '"v" > 0'}},
        {"checks": {"all": Check("sum(v) > 0", over="object")}},
        {"where": "v > 0"},
        {"report": {"total": "sum(v)"}},
        {"write": "merge", "key": ["v"]},
        {"write": "merge", "key": ["id"], "order_by": "v"},
        {"write": "replace_partition", "partitions": ["v"]},
        {"event_time": "v"},
    ],
    ids=["hint", "derive", "check", "object", "where", "report", "key", "order_by", "partitions", "event_time"],
)
def test_what_is_declared_on_keeps_its_type(tmp_path: Path, said: dict[str, Any]) -> None:
    """A column that an expression goes by never becomes text; another one may."""
    dataset = Dataset(name="d", schema="evolve", **said)
    assert not text_columns(dataset)("v")
    assert text_columns(dataset)("vat")
    assert not text_columns(replace(dataset, checks={"all": "COLUMNS('x') > 0"}))("vat")
    schema = first_schema(tmp_path, csv_of(["1", "2"]), "csv", dataset)
    (tmp_path / "later").write_bytes(csv_of(["3", "x"]))
    found = formats.read(tmp_path / "later", "x.csv", dataset, schema)
    assert found.schema == schema
    assert found.rejected.num_rows >= 1


def test_what_a_function_is_given_keeps_its_type() -> None:
    """Which columns it goes by is not known, so that none becomes text."""
    dataset = Dataset(name="d", schema="evolve")
    assert text_columns(dataset)("v")
    assert not text_columns(replace(dataset, transform=lambda rows: rows))("v")


def test_a_hint_is_taken_at_its_word(tmp_path: Path) -> None:
    """Who says DOUBLE has long numbers rounded, and who says BIGINT has zeros in front left out."""
    dataset = Dataset(name="d", columns={"v": "DOUBLE", "id": "BIGINT"}, schema="evolve")
    schema = first_schema(tmp_path, csv_of(["1", "2"]), "csv", dataset)
    (tmp_path / "later").write_bytes(f"id,v\n007,{LONG_NUMBER}\n".encode())
    assert formats.read(tmp_path / "later", "x.csv", dataset, schema).rows.select(["id", "v"]).to_pylist() == [
        {"id": 7, "v": 2.0**53}
    ]


def workbook(folder: Path, *rows: list[Any]) -> Path:
    book = openpyxl.Workbook()
    assert book.active is not None
    for row in rows:
        book.active.append(row)
    book.save(folder / "x.xlsx")
    return folder / "x.xlsx"


def test_a_bad_row_widens_nothing(tmp_path: Path) -> None:
    """What stands in a row that is put aside for something else says nothing of the column."""
    dataset = Dataset(name="d", schema="evolve")
    schema = formats.infer(workbook(tmp_path, ["id", "v"], [1, 2], [3, 4]), "x.xlsx", dataset)
    later = workbook(tmp_path, ["id", "v"], ["no number", "#N/A"], [5, 6])
    found = formats.read(later, "x.xlsx", dataset, schema)
    assert (found.schema, found.rejected.num_rows) == (schema, 1)


def test_a_column_with_long_numbers_stays_whole(tmp_path: Path) -> None:
    """Where rows from before would be rounded, fractions are put aside, or make text; read together as well."""
    for mode, kind, rows in (("rescue", "BIGINT", 1), ("evolve", "VARCHAR", 2)):
        dataset = Dataset(name="d", schema=mode)  # type: ignore[arg-type]
        schema = first_schema(tmp_path, csv_of(["1", "2"]), "csv", dataset)
        long = Schema(version=1, columns=schema.columns, dialect=schema.dialect | {LONG: ["v"]})
        together = compare(tmp_path, [csv_of(["1"]), csv_of(["2.5", "3"]), csv_of(["1"])], "csv", dataset, long)
        assert (1 in together) is (mode == "rescue")
        found = formats.read(tmp_path / "1", "x.csv", dataset, long)
        assert (found.schema.columns[1].type, found.rows.num_rows) == (kind, rows)
        assert found.schema.dialect[LONG] == ["v"]


@pytest.mark.parametrize(
    ("kind", "misfits", "long", "text", "expected"),
    [
        ("BIGINT", Misfits(failed=0), False, True, None),
        ("BIGINT", Misfits(failed=2, fractions=2), False, False, "DOUBLE"),
        ("BIGINT", Misfits(failed=2, fractions=1), False, False, None),
        ("BIGINT", Misfits(failed=2, fractions=2, not_double=1), False, False, None),
        ("BIGINT", Misfits(failed=2, fractions=2), True, True, "VARCHAR"),
        ("DATE", Misfits(failed=1), False, True, "VARCHAR"),
        ("STRUCT(a BIGINT)", Misfits(failed=1), False, True, None),
        ("BIGINT[]", Misfits(failed=1), False, True, None),
        ("JSON", Misfits(failed=1), False, True, None),
    ],
)
def test_the_lattice(kind: str, misfits: Misfits, long: bool, text: bool, expected: str | None) -> None:
    """Upwards only, and nested values never become text."""
    assert wider(kind, misfits, long=long, text=text) == expected


def test_no_time_is_lost_where_a_zone_is_known(tmp_path: Path) -> None:
    """An offset is part of the value where the first object had one."""
    dataset = Dataset(name="d")
    schema = first_schema(tmp_path, csv_of([f"{NOON}+00:00"]), "csv", dataset)
    (tmp_path / "later").write_bytes(csv_of([f"{NOON}+02:00"]))
    found = formats.read(tmp_path / "later", "x.csv", dataset, schema)
    assert found.rows.column("v").to_pylist() == [datetime(2024, 2, 13, 10, tzinfo=UTC)]


@settings(max_examples=examples(10), deadline=None, suppress_health_check=list(HealthCheck))
@given(contents=st.lists(csv_files(), min_size=4, max_size=10))
def test_csv_that_evolves_together_is_as_alone(tmp_path: Path, contents: list[bytes]) -> None:
    """Whatever is among them, as in the other modes."""
    dataset = Dataset(name="sales", checks={"named": "name <> 'nobody'"}, schema="evolve")
    compare(tmp_path, contents, "csv", dataset, first_schema(tmp_path, b"id,name,qty\n1,a,2\n", "csv", dataset))


@pytest.mark.hypothesis
@pytest.mark.parametrize("nested", ["flatten", "keep"])
def test_json_that_evolves_together_is_as_alone(tmp_path: Path, nested: Literal["flatten", "keep"]) -> None:
    """As with CSV, flattened and kept."""
    dataset = Dataset(name="sales", checks={"counted": "qty > 0"}, schema="evolve", nested=nested)
    schema = first_schema(tmp_path, b'{"id": 1, "name": "a", "qty": 2}', "ndjson", dataset)

    @settings(max_examples=examples(10), deadline=None, suppress_health_check=list(HealthCheck))
    @given(contents=st.lists(json_files(True), min_size=4, max_size=10))
    def check(contents: list[bytes]) -> None:
        compare(tmp_path, contents, "ndjson", dataset, schema)

    check()


@settings(max_examples=examples(10), deadline=None, suppress_health_check=list(HealthCheck))
@given(contents=FILES)
def test_each_object_is_read_by_what_became_wider_before(tmp_path: Path, contents: list[tuple[str, bytes]]) -> None:
    """A batch whose schema evolves gives what its objects give one by one."""
    dataset = Dataset(name="sales", schema="evolve")
    together = read_all(reader_of(tmp_path, contents, dataset), len(contents))
    with pytest.MonkeyPatch.context() as alone:
        alone.setattr(formats, "read_together", lambda *args, **more: {})
        assert together == read_all(reader_of(tmp_path, contents, dataset), len(contents))
