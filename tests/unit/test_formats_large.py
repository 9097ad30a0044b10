"""Objects whose rows are kept on disk are read as those whose rows are in memory."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet
import pytest

from penstock.declarations import Dataset
from penstock.errors import DeclarationError, Unreadable
from penstock.formats import (
    ReadResult,
    csv_scan,
    engine,
    infer,
    json,
    json_document,
    kept,
    read,
    read_together,
    size_unpacked,
)
from penstock.formats.kept import Keep
from penstock.model import Column, Schema

FIRST = b"id,name,qty\n1,a,2\n2,b,3\n"
LINES = [b"%d,n%d,%d" % (number, number, number % 7 + 1) for number in range(5000)]


@pytest.fixture(params=[0, 10**9], ids=["large", "small"])
def bound(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Every object is large, or none."""
    monkeypatch.setattr(kept, "LARGE", request.param)
    return int(request.param)


def values(path: Path, key: str, dataset: Dataset, schema: Schema) -> Any:
    try:
        found = read(path, key, dataset, schema)
    except (Unreadable, DeclarationError) as error:
        return repr(error)
    return (found.rows.schema, found.rows.to_pylist(), found.rejected.to_pylist(), found.total, found.schema)


def mapped() -> bool:
    """Whether any rows on disk are held."""
    return ".rows" in Path("/proc/self/maps").read_text()


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
        found.append(values(path, key, dataset, schema))
    assert found[0] == found[1]


RECORDS = b",\n ".join(b'{"id": %d, "name": "n\\u00e9", "tags": [1.50, {"a": null}]}' % number for number in range(500))


@pytest.mark.parametrize(
    "content",
    [
        b"[" + RECORDS + b"]",
        b"\xef\xbb\xbf\r\n [" + RECORDS + b',1,"x",null,[2],{"id":1,"id":2},{"id":"text","new":{"a":1}}]\n ',
        b"[]",
        b"[ \n ]",
        b"",
        b'{"id": 1}',
        b"5",
        b"[" + RECORDS + b",]",
        b"[" + RECORDS + b",",
        b"[" + RECORDS + b",[1,2]",
        b"[" + RECORDS,
        b"[" + RECORDS + b"] more",
        b"[" + RECORDS + b"][" + RECORDS + b"]",
        b"[{'id': 1}]",
        b'[{"id": NaN}]',
        b"[" + RECORDS + b',{"name": "' + b"x" * 17_000_000 + b'"}]',
        b'[{"name": ' + b"[" * 600 + b"]" * 600 + b"}]",
    ],
    ids=lambda content: repr(content[:12] + content[-12:]),
)
@pytest.mark.parametrize("records", [None, "found.here"])
def test_an_array_is_read_one_record_after_another_or_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, records: str | None
) -> None:
    """What is read, rejected and refused does not depend on it; only the memory does."""
    if records:
        content = b'{"meta": [0], "found": {"here": ' + content.removeprefix(b"\xef\xbb\xbf") + b"}}"
    # Brackets in a name are no pattern.
    first, path = tmp_path / "first", tmp_path / "[o]bject"
    first.write_bytes(b'{"id": 1, "name": "a", "tags": []}')
    path.write_bytes(content)
    dataset = Dataset(name="sales", records=records)
    schema = infer(first, "x.ndjson", Dataset(name="sales"))
    found = []
    for most in (0, 10**9):
        monkeypatch.setattr(kept, "LARGE", most)
        try:
            inferred: Any = infer(path, "x.json", dataset)
        except Unreadable as error:
            inferred = repr(error)
        found.append((inferred, values(path, "x.json", dataset, schema)))
    assert found[0] == found[1]


@pytest.mark.parametrize(("records", "whole"), [(None, False), ("here", True)])
def test_only_an_array_at_the_top_is_never_in_memory_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, records: str | None, whole: bool
) -> None:
    """A document that must be read whole is refused from a size on, with what to do; an array is not."""
    path = tmp_path / "object"
    path.write_bytes(b'{"here": [' + RECORDS + b"]}" if whole else b"[" + RECORDS + b"]")
    monkeypatch.setattr(kept, "LARGE", 0)
    monkeypatch.setattr(json_document, "LARGEST", 10_000)
    dataset = Dataset(name="sales", records=records)
    if not whole:
        assert read(path, "x.json", dataset, infer(path, "x.json", dataset)).rows.num_rows == 500
        return
    with pytest.raises(Unreadable, match="more than the 10000 that are read at once; send its records as one array"):
        infer(path, "x.json", dataset)


def test_records_for_which_little_memory_is_too_little_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With as much as it takes, as those of a small object."""
    path = tmp_path / "object"
    path.write_bytes(b"".join(b'{"id": %d, "text": "%s"}\n' % (number, b"x" * 10_000) for number in range(2100)))
    dataset = Dataset(name="sales")
    known = infer(path, "x.ndjson", dataset)
    small = values(path, "x.ndjson", dataset, known)
    tries = []
    shaped = json._shaped

    def counted(*given: Any, little: bool, **more: Any) -> ReadResult:
        tries.append(little)
        return shaped(*given, little=little, **more)

    monkeypatch.setattr(json, "_shaped", counted)
    monkeypatch.setattr(kept, "LARGE", 0)
    assert values(path, "x.ndjson", dataset, known) == small
    monkeypatch.setattr(engine, "_LITTLE", "8MB")
    assert values(path, "x.ndjson", dataset, known) == small
    assert infer(path, "x.ndjson", dataset) == known
    assert tries == [True, True, False]


def test_lines_are_large_by_their_number_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record takes memory beside its text."""
    path = tmp_path / "object"
    path.write_bytes(b'{"a":1}\n' * 10_000)
    monkeypatch.setattr(kept, "LARGE", 200_000)
    dataset = Dataset(name="sales")
    found = read(path, "x.ndjson", dataset, infer(path, "x.ndjson", dataset))
    assert mapped()
    assert found.rows.num_rows == 10_000


def test_rows_of_a_large_object_are_on_disk(tmp_path: Path, bound: int) -> None:
    """From the bound on they are mapped from the object's disk, as long as they are needed, and below it nothing is."""
    path = tmp_path / "object"
    path.write_bytes(b"\n".join([b"id,name,qty", *LINES, b"ragged,1"]))
    dataset = Dataset(name="sales", checks={"some": "qty < 7"})
    found: ReadResult | None = read(path, "x.csv", dataset, infer(path, "x.csv", dataset))
    assert found is not None
    assert found.rows.num_rows + found.rejected.num_rows == len(LINES) + 1
    assert mapped() == (bound == 0)
    assert list(tmp_path.iterdir()) == [path]
    found = None
    assert not mapped()


@pytest.mark.parametrize(
    ("key", "content"),
    [
        ("x.csv", gzip.compress(b"id,name\n" + b"1,a\n" * 10_000, mtime=0)),
        ("x.ndjson", gzip.compress(b'{"id": 1, "name": "a"}\n' * 2_000, mtime=0)),
        ("x.parquet", parquet_of({"id": [1] * 10_000, "name": ["a"] * 10_000})),
        ("x.parquet", gzip.compress(parquet_of({"id": [1] * 10_000, "name": ["a"] * 10_000}), mtime=0)),
    ],
    ids=["csv.gz", "ndjson.gz", "parquet", "parquet.gz"],
)
def test_large_is_what_is_large_when_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, content: bytes
) -> None:
    """Where the rows are kept depends on what an object holds, however well it is packed."""
    path = tmp_path / "object"
    path.write_bytes(content)
    assert len(content) < 10_000
    dataset = Dataset(name="sales")
    schema = infer(path, key, dataset)
    for most, on_disk in ((20_000, True), (1_000_000, False)):
        monkeypatch.setattr(kept, "LARGE", most)
        found = read(path, key, dataset, schema)
        assert found.rows.num_rows >= 2_000
        assert mapped() is on_disk
        del found


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_a_line_over_the_longest_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: bytes, place: int
) -> None:
    """Wherever it is, it makes the object unreadable: no row is lost without a word; one below that is data."""
    monkeypatch.setattr(csv_scan, "_LONGEST_LINE", 2_000_000)
    first, path = tmp_path / "first", tmp_path / "object"
    first.write_bytes(b"id,name\n1,a\n")
    dataset = Dataset(name="sales")
    schema = infer(first, "x.csv", dataset)
    for longest, found in ((1_900_000, 400_001), (2_000_001, None), (6_000_000, None)):
        lines = [b"1,short"] * 400_000
        lines.insert(place * 130_000, b"1," + b"y" * longest)
        path.write_bytes(end.join([b"id,name", *lines]))
        if found is None:
            with pytest.raises(Unreadable, match="longest"):
                read(path, "x.csv", dataset, schema)
        else:
            assert read(path, "x.csv", dataset, schema).rows.num_rows == found


def test_a_parquet_file_without_metadata_is_as_large_as_it_is(tmp_path: Path) -> None:
    """What is wrong with it is said when it is read."""
    path = tmp_path / "object"
    path.write_bytes(b"PAR1 rubbish")
    assert size_unpacked(path, "parquet") == 12


@pytest.mark.parametrize(
    ("form", "content"),
    [
        ("csv", b"id,name\n1,a\n2,nobody\n3,c\n"),
        ("json", b'[{"id": 1, "name": "a"}, {"id": 2, "name": "nobody"}, {"id": 3, "name": "c"}]'),
        ("ndjson", b'{"id": 1, "name": "a"}\n{"id": 2, "name": "nobody"}\n{"id": 3, "name": "c"}\n'),
        ("parquet", parquet_of({"id": [1, 2, 3], "name": ["a", "nobody", "c"]})),
    ],
)
def test_small_objects_rows_may_be_kept_on_disk(tmp_path: Path, form: str, content: bytes) -> None:
    """Read alone or together, they are the same there."""
    paths = [tmp_path / name for name in ("a", "b", "c")]
    for path in paths:
        path.write_bytes(content)
    dataset = Dataset(name="sales", checks={"named": "name <> 'nobody'"})
    schema = infer(paths[0], f"x.{form}", dataset)
    expected = [read(path, f"x.{form}", dataset, schema) for path in paths]
    assert not mapped()
    alone = [read(path, f"x.{form}", dataset, schema, large=True) for path in paths]
    assert mapped()
    assert alone == expected
    del alone
    assert not mapped()
    together = read_together(paths, form, dataset, schema, large=True)
    assert mapped()
    assert [together[number] for number in range(3)] == expected
    assert expected[0].rejected.num_rows == 1


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


def test_a_large_csv_with_a_bad_line_needs_little_memory_on_many_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Buffers, which no limit makes smaller, are few; afterwards DuckDB has its threads again."""
    monkeypatch.setattr(kept, "LARGE", 0)
    with duckdb.connect(":memory:", config={"threads": "8", "temp_directory": str(tmp_path / "spill")}) as database:
        monkeypatch.setattr(engine, "_database", lambda _: database)
        path = tmp_path / "object"
        line = b"1,%s,2\n" % (b"x" * 1000)
        path.write_bytes(b"id,name,qty\nragged\n" + line * 40_000)
        schema = Schema(
            version=1,
            columns=tuple(Column(name=name, original=name, type="VARCHAR") for name in ("id", "name", "qty")),
            dialect={"delim": ",", "quote": '"', "escape": '"', "header": True, "skip": 0},
        )
        found = read(path, "x.csv", Dataset(name="sales"), schema)
        assert (found.rows.num_rows, found.rejected.num_rows) == (40_000, 1)
        with engine.little_memory(database):
            assert database.sql("SELECT current_setting('threads')").fetchall() == [(2,)]
        assert database.sql("SELECT current_setting('threads')").fetchall() == [(8,)]


def test_an_open_quote_takes_no_line_from_a_large_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line with it is put aside, however many come behind it."""
    monkeypatch.setattr(kept, "LARGE", 0)
    first, path = tmp_path / "first", tmp_path / "object"
    first.write_bytes(b"id,name\n1,a\n")
    path.write_bytes(b'id,name\n1,"open\n' + b"0,%s\n" % (b"x" * 98) * 400_000 + b'2,"q"\n')
    dataset = Dataset(name="sales")
    found = read(path, "x.csv", dataset, infer(first, "x.csv", dataset))
    assert found.rows.num_rows == 400_001
    assert [(row["line"], row["raw"]) for row in found.rejected.to_pylist()] == [(2, '1,"open')]
