"""Objects whose rows are kept on disk are read as those whose rows are in memory."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet
import pytest

from penstock.declarations import Dataset
from penstock.errors import DeclarationError, Unreadable
from penstock.formats import csv, infer, kept, read
from penstock.formats.kept import Keep
from penstock.model import Schema

FIRST = b"id,name,qty\n1,a,2\n2,b,3\n"
LINES = [b"%d,n%d,%d" % (number, number, number % 7 + 1) for number in range(5000)]


@pytest.fixture(params=[0, 10**9], ids=["large", "small"])
def bound(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Every object is large, or none."""
    monkeypatch.setattr(kept, "LARGE", request.param)
    monkeypatch.setattr(csv, "LARGE", request.param)
    return int(request.param)


def values(path: Path, key: str, dataset: Dataset, schema: Schema) -> Any:
    try:
        found = read(path, key, dataset, schema)
    except (Unreadable, DeclarationError) as error:
        return repr(error)
    return (found.rows.schema, found.rows.to_pylist(), found.rejected.to_pylist(), found.total, found.schema)


def parquet_of(columns: dict[str, Any]) -> bytes:
    sink = io.BytesIO()
    pa.parquet.write_table(pa.table(columns), sink)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("key", "content"),
    [
        ("x.csv", b"\n".join([b"id,name,qty", *LINES])),
        ("x.csv", b"\r\n".join([b"qty,more,id", *LINES, b'1,"two\r\nlines",x'])),
        ("x.csv", b"\n".join([b"id,name,qty", *LINES, b"x,y,z", b"1,nobody,2", b"1,zero,0"])),
        ("x.csv", b"\n".join([b"id,name,qty", *LINES, b"1,fraction,2.5"])),
        ("x.csv", b"\n".join([b"id,name,qty", *LINES, b"ragged", b'1,"open,2', *LINES])),
        ("x.csv", b"\n".join([b"id,name,qty", *LINES, b'"on\ntwo",lines,2', b"1,nobody,3"])),
        ("x.csv", b"id,name,qty\n"),
        ("x.csv", b""),
        ("x.csv", b"id\n" + b"9" * 100_000),
        ("x.ndjson", b"\n".join(b'{"id": %d, "name": "n", "new": 1}' % number for number in range(3000)) + b"\n{\n"),
        ("x.parquet", parquet_of({"id": [1, 2, None], "name": ["a", "nobody", "c"], "more": [1.5, None, 2.5]})),
        ("x.parquet", parquet_of({"id": list(range(3000)), "name": ["n"] * 3000})[:-100]),
        ("x.parquet", bytearray(parquet_of({"id": list(range(3000)), "name": ["n"] * 3000})).replace(b"\x01", b"\xff")),
    ],
)
def test_large_or_small_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, content: bytes) -> None:
    """Rows, numbers, rejected rows, widening and errors do not depend on where the rows are kept."""
    dataset = Dataset(name="sales", derive={"share": "100 // qty"}, checks={"named": "name <> 'nobody'"})
    first, path = tmp_path / "first", tmp_path / "object"
    first.write_bytes(FIRST)
    path.write_bytes(content)
    schema = infer(first, "x.csv", dataset)
    found = []
    for most in (0, 10**9):
        monkeypatch.setattr(kept, "LARGE", most)
        monkeypatch.setattr(csv, "LARGE", most)
        found.append(values(path, key, dataset, schema))
    assert found[0] == found[1]


def test_rows_of_a_large_object_are_on_disk(tmp_path: Path, bound: int) -> None:
    """From the bound on they lie beside the object, and below it nothing does."""
    path = tmp_path / "object"
    path.write_bytes(b"\n".join([b"id,name,qty", *LINES]))
    dataset = Dataset(name="sales")
    found = read(path, "x.csv", dataset, infer(path, "x.csv", dataset))
    assert found.rows.num_rows == len(LINES)
    assert [file.name for file in tmp_path.iterdir() if file != path] == (["object.rows0"] if bound == 0 else [])


@pytest.mark.parametrize(
    ("expression", "kind"),
    [
        ("CAST(CASE WHEN i = 900000 THEN 'x' ELSE '1' END AS INTEGER)", duckdb.ConversionException),
        ("CASE WHEN i = 900000 THEN error('told') ELSE i END", duckdb.InvalidInputException),
    ],
)
def test_an_error_in_the_middle_is_duckdbs(tmp_path: Path, expression: str, kind: type[Exception]) -> None:
    """What fails when rows are on their way to the disk already is the error it is in memory."""
    (tmp_path / "object").write_bytes(b"")
    for large in (True, False):
        relation = duckdb.connect().sql(f"SELECT {expression} AS v FROM range(1000000) t(i)")
        with pytest.raises(kind):
            Keep(tmp_path / "object", large=large).read(relation)
