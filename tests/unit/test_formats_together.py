"""Objects read together give what each gives alone, whatever is among them."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock import envelope
from penstock.declarations import Dataset
from penstock.errors import Unreadable
from penstock.formats import ReadResult, infer, read, read_together
from penstock.formats.plain import unpack_small
from penstock.model import Delivery, Schema
from tests.examples import examples

SALES = Dataset(
    name="sales",
    derive={"twice": "qty * 2", "share": "100 // qty"},
    checks={"named": "name <> 'nobody'"},
)
FIRST = b"id,name,qty\n1,a,2\n2,b,3\n"

GOOD = [b"1,a,2", b"2,b,3", b'5,"quoted, with ""quotes""",5', b'6,"on two\nlines",6', "7,\u00fcml\u00e4ut,1".encode()]
BAD = [b"3,nobody,4", b"4,d,0", b"7,g,2.5", b"x8,h,1", b"9,i,", b",,"]
ODD = [
    b"10,ragged",
    b"11,k,1,2",
    b'12,"x"y,3',
    b'13,in"side,3',
    b'14,in"side,"open',
    b'15,"open,3',
    b'",",16,"',
    b"16,lone\rcarriage,2",
    b"",
    b" ",
    b"17,\x1d3,1",
    b"\x1d0,,",
]
HEADERS = [
    b"qty,id,name",
    b"id,name,qty,more",
    b"id,name",
    b"other",
    b'"id","name","qty"',
    b"",
    b'id,"na\nme",qty',
    b'id,na"me,"q',
]
KINDS = ["gzip", "gzip", "gzip of gzip", "broken gzip", "mark", "rubbish", "empty", "utf-16", "mixed", "csv", "csv"]


@st.composite
def csv_files(draw: st.DrawFn) -> bytes:
    """Mostly ordinary CSVs, some odd ones, some rubbish."""
    odd = draw(st.integers(0, 9)) == 0
    kind = draw(st.sampled_from(KINDS)) if odd else "csv"
    end = draw(st.sampled_from([b"\n"] * 8 + [b"\r\n"] * 2 + [b"\r"]))
    header = draw(st.sampled_from(HEADERS)) if draw(st.integers(0, 5)) == 0 else b"id,name,qty"
    lines = draw(st.lists(st.sampled_from(GOOD * 4 + BAD * 2 + (ODD if draw(st.booleans()) else [])), max_size=5))
    lines.insert(0, header)
    content = end.join(lines) + (end if draw(st.booleans()) else b"")
    changes: dict[str, Callable[[], bytes]] = {
        "gzip": lambda: gzip.compress(content, mtime=0),
        "gzip of gzip": lambda: gzip.compress(gzip.compress(content, mtime=0), mtime=0),
        "broken gzip": lambda: gzip.compress(content, mtime=0)[:-5],
        "mark": lambda: b"\xef\xbb\xbf" + content,
        "mixed": lambda: content.replace(b"\n", b"\r\n", 1) + b"18,r,1\n",
        "rubbish": lambda: draw(st.binary(max_size=40)),
        "empty": lambda: b"",
        "utf-16": lambda: content.decode().encode("utf-16"),
    }
    return changes.get(kind, lambda: content)()


def alone(path: Path, key: str, dataset: Dataset, schema: Schema) -> ReadResult | str:
    try:
        return read(path, key, dataset, schema)
    except Unreadable as error:
        return str(error)


def as_value(result: ReadResult | str) -> Any:
    if isinstance(result, str):
        return result
    return (
        result.rows.schema,
        result.rows.to_pylist(),
        result.columns,
        result.rejected.to_pylist(),
        result.total,
        result.schema,
    )


def written(folder: Path, contents: Sequence[bytes]) -> list[Path]:
    paths = [folder / str(number) for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return paths


def compare(
    folder: Path, contents: Sequence[bytes], form: str, dataset: Dataset, schema: Schema
) -> dict[int, ReadResult]:
    """Whatever was read together, small gzips unpacked, is as it is alone; returns it."""
    unpacked = folder / "unpacked"
    unpacked.mkdir(exist_ok=True)
    copies = written(unpacked, contents)
    for path in copies:
        unpack_small(path, 200)
    together = read_together(copies, form, dataset, schema)
    paths = written(folder, contents)
    for index, found in together.items():
        assert as_value(found) == as_value(alone(paths[index], f"x.{form}", dataset, schema)), contents[index]
    return together


def first_schema(folder: Path, content: bytes, form: str, dataset: Dataset) -> Schema:
    (path,) = written(folder, [content])
    return infer(path, f"x.{form}", dataset)


@settings(
    max_examples=examples(15),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(contents=st.lists(csv_files(), min_size=6, max_size=14))
def test_csv_together_is_as_alone(tmp_path: Path, contents: list[bytes]) -> None:
    """Good files, bad rows, other headers, odd bytes and rubbish disturb one another in nothing."""
    compare(tmp_path, contents, "csv", SALES, first_schema(tmp_path, FIRST, "csv", SALES))


VALUES = st.sampled_from(["1", "2", "2.5", '"x"', "null", '{"deep": 1}', "[1, 2]", "true", '"\\u0000"', "1e400"])
KEYS = st.sampled_from(["id", "id", "name", "qty", "new", "a.b"])


@st.composite
def records(draw: st.DrawFn) -> str:
    """Mostly records, sometimes what is none."""
    if draw(st.integers(0, 15)) == 0:
        return draw(st.sampled_from(["not json", "[1]", "7", "", '{"open": ', "null", "[" * 600 + "]" * 600]))
    fields = draw(st.dictionaries(KEYS, VALUES, max_size=4))
    return "{" + ", ".join(f"{json.dumps(key)}: {value}" for key, value in {"id": "1", **fields}.items()) + "}"


@st.composite
def json_files(draw: st.DrawFn, lines: bool) -> bytes:
    """NDJSON or documents; some empty, marked, packed or no text."""
    found = draw(st.lists(records(), max_size=4))
    end = draw(st.sampled_from(["\n", "\n", "\r\n"]))
    text = end.join(found) if lines else draw(st.sampled_from(["[%s]", '{"items": [%s]}'])) % f",{end}".join(found)
    if not lines and len(found) == 1 and draw(st.booleans()):
        text = found[0]
    content = text.encode()
    match draw(st.integers(0, 20)):
        case 0:
            return b"\xef\xbb\xbf" + content + b"\n \r\n"
        case 1:
            return gzip.compress(content, mtime=0)
        case 2:
            return draw(st.binary(max_size=9))
    return content


JSON_FIRST = b'[{"id": 1, "name": "a", "qty": 2}]'


@pytest.mark.hypothesis
@pytest.mark.parametrize("form", ["json", "ndjson"])
@pytest.mark.parametrize("place", [None, "items"])
def test_json_together_is_as_alone(tmp_path: Path, form: str, place: str | None) -> None:
    """Other keys, other types, bad lines and documents without records disturb one another in nothing."""
    dataset = Dataset(name="sales", records=place if form == "json" else None, checks={"counted": "qty > 0"})
    schema = first_schema(tmp_path, JSON_FIRST, "json", Dataset(name="sales"))
    together = 0

    @settings(max_examples=examples(15), deadline=None, suppress_health_check=list(HealthCheck))
    @given(contents=st.lists(json_files(form == "ndjson"), min_size=4, max_size=10))
    def check(contents: list[bytes]) -> None:
        nonlocal together
        together += len(compare(tmp_path, contents, form, dataset, schema))

    check()
    assert together > 10


def parquet_file(columns: dict[str, list[Any]]) -> bytes:
    sink = io.BytesIO()
    pa.parquet.write_table(pa.table(columns), sink)
    return sink.getvalue()


def test_parquet_together_is_as_alone(tmp_path: Path) -> None:
    """Files with the same columns are read together; damaged, other, empty and packed ones hinder none."""
    first = parquet_file({"id": [1, 2], "name": ["a", None], "tags": [["x"], []]})
    contents = [
        first,
        parquet_file({"id": [3], "name": ["nobody"], "tags": [["y", "z"]]}),
        parquet_file({"id": [4, 5], "name": ["d", "e"], "more": [1.5, None]}),
        first[:-20],
        b"PAR1 rubbish PAR1",
        gzip.compress(first, mtime=0),
        parquet_file(
            {
                "id": pa.array([], pa.int64()),
                "name": pa.array([], pa.string()),
                "tags": pa.array([], pa.list_(pa.string())),
            }
        ),
        parquet_file({"id": [6, 7], "name": ["f", "g"], "more": [None, None]}),
        parquet_file({"id": [8, 9], "name": ["h", "i"], "more": [2.5, 3.5]}),
        parquet_file({"id": [2.5], "name": ["k"]}),
        parquet_file({"id": [3.5], "name": ["k"]}),
    ]
    dataset = Dataset(name="sales", checks={"named": "name <> 'nobody'"})
    together = compare(tmp_path, contents, "parquet", dataset, first_schema(tmp_path, first, "parquet", dataset))
    assert {0, 1, 6} <= set(together)
    assert {2, 8} <= set(together)


def test_a_damaged_page_hinders_no_other_file(tmp_path: Path) -> None:
    """A file whose metadata are right and whose pages are not is found by halves."""
    good = [parquet_file({"id": list(range(n, n + 50)), "name": [f"n{n}"] * 50}) for n in range(7)]
    damaged = bytearray(good[3])
    damaged[4:60] = b"\xff" * 56
    dataset = Dataset(name="sales")
    schema = first_schema(tmp_path, good[0], "parquet", dataset)
    together = compare(tmp_path, [*good[:3], bytes(damaged), *good[4:]], "parquet", dataset, schema)
    assert {0, 1, 2, 5, 6} <= set(together) <= {0, 1, 2, 4, 5, 6}


def test_deliveries_together_are_as_alone(tmp_path: Path) -> None:
    """A delivery without JSON, and a line that is none, are left to be read alone."""
    bodies = [b'{"a": 1}', b"no json", b"[1, 2]", b"[" * 600 + b"]" * 600, b"\xff", b'"text"']
    lines = [
        envelope.encode(
            [
                Delivery(
                    id=f"d{number}",
                    source="shop",
                    dataset="sales",
                    received_at=datetime(2026, 3, 1, 12, tzinfo=UTC),
                    content_type="application/json",
                    headers={"x": "y"},
                    body=body,
                )
            ]
        )
        for number, body in enumerate(bodies)
    ]
    dataset = Dataset(name="sales", format="delivery", checks={"first": "delivery <> 'd2'"})
    contents = [*lines, b"rubbish"]
    together = compare(tmp_path, contents, "delivery", dataset, first_schema(tmp_path, lines[0], "delivery", dataset))
    assert set(together) == {0, 2, 5}
    assert together[2].rejected.num_rows == 1


@pytest.mark.parametrize(
    "derive",
    [
        "count(*) OVER ()",
        "(SELECT 1)",
        "row_number() over ()",
        "_penstock_row + 1",
        '"_Penstock_ROW"',
        "unnamed_subquery",
        "COLUMNS('_pen.*w')",
    ],
)
def test_what_looks_at_other_rows_is_read_alone(tmp_path: Path, derive: str) -> None:
    """An expression that may see the whole object keeps objects apart."""
    dataset = Dataset(name="sales", derive={"n": derive})
    schema = first_schema(tmp_path, FIRST, "csv", dataset)
    assert compare(tmp_path, [FIRST, FIRST], "csv", dataset, schema) == {}


def test_a_check_of_the_rows_number_is_of_its_own_object(tmp_path: Path) -> None:
    """A check that names the row's number holds for every object's first row."""
    dataset = Dataset(name="sales", checks={"no units": "_penstock_row > 1"})
    schema = first_schema(tmp_path, FIRST, "csv", dataset)
    assert compare(tmp_path, [FIRST, FIRST], "csv", dataset, schema) == {}
    assert read(tmp_path / "1", "x.csv", dataset, schema).rejected.column("_penstock_row").to_pylist() == [1]


def test_an_object_that_disturbs_others_is_found(tmp_path: Path) -> None:
    """Of many ordinary objects only the odd ones are left to be read alone."""
    odd = {
        3: b'id,name,qty\n1,a"b,2\n2,"c,3\n',
        11: b"id,name,qty\n1,a\n",
        12: b'id,name,qty\n"1""",a"",2\n',
        30: b"\0",
    }
    contents = [odd.get(number, FIRST) for number in range(40)]
    schema = first_schema(tmp_path, FIRST, "csv", SALES)
    together = compare(tmp_path, contents, "csv", SALES, schema)
    assert set(range(40)) - set(odd) <= set(together)


@pytest.mark.parametrize(
    "name",
    ["file_index", "FILE_INDEX", "file_row_number", "File_Row_Number", "filename", "_penstock_row", "#bad", "c1"],
)
@pytest.mark.parametrize("kind", [pa.int64(), pa.string()])
def test_parquet_columns_called_like_others(tmp_path: Path, name: str, kind: pa.DataType) -> None:
    """A column with a name that DuckDB or penstock uses itself is data, and disturbs no row's number."""
    contents = [
        parquet_file({name: pa.array(["7", "8", "9"]).cast(kind), "v": [number, -number, number]}) for number in (1, 2)
    ]
    dataset = Dataset(name="sales", checks={"positive": "v > 0"})
    schema = first_schema(tmp_path, contents[0], "parquet", dataset)
    compare(tmp_path, contents, "parquet", dataset, schema)
    found = read(tmp_path / "1", "x.parquet", dataset, schema)
    assert found.rows.column(0).cast(pa.string()).to_pylist() == ["7", "9"]
    assert found.rows.column("_penstock_row").to_pylist() == [1, 3]
    assert [(row["_penstock_row"], row["reason"]) for row in found.rejected.to_pylist()] == [(2, "check positive")]
    assert json.loads(found.rejected.to_pylist()[0]["raw"])["v"] == -2


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_folder_is_no_column(tmp_path: Path, form: str) -> None:
    """Whatever the folder is called that objects lie in while they are read, they have their own columns only."""
    content = {"csv": FIRST, "parquet": parquet_file({"id": [1, 2], "qty": [2, 3]})}[form]
    plain, odd = tmp_path / "plain", tmp_path / "id=7" / "c0=8"
    plain.mkdir()
    odd.mkdir(parents=True)
    dataset = Dataset(name="sales")
    schema = first_schema(plain, content, form, dataset)
    assert first_schema(odd, content, form, dataset) == schema
    paths = written(odd, [content, content])
    expected = as_value(read(plain / "0", f"x.{form}", dataset, schema))
    assert as_value(read(paths[0], f"x.{form}", dataset, schema)) == expected
    assert as_value(read_together(paths, form, dataset, schema)[0]) == expected


def test_a_mark_before_the_first_record_is_none_of_its_text(tmp_path: Path) -> None:
    """Where no header stands between them, the byte order mark is not in a rejected row's raw text."""
    dataset = Dataset(name="sales", columns={"column0": "INTEGER"})
    schema = first_schema(tmp_path, b"1,2\n3,4\n5,6\n", "csv", dataset)
    assert schema.dialect["header"] is False
    contents = [b"\xef\xbb\xbfx,2\n3,4\n", b"x,2\n3,4\n", b"\xef\xbb\xbfx,2\n", b"y,2\n"]
    assert set(compare(tmp_path, contents, "csv", dataset, schema)) == {1, 3}
    assert read(tmp_path / "0", "x.csv", dataset, schema).rejected.column("raw").to_pylist() == ["x,2"]
