"""Arrow IPC: files and streams, as Parquet."""

from __future__ import annotations

import io
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock import Dataset
from penstock.errors import Unreadable
from penstock.formats import ReadResult, detect, infer, read
from tests.examples import examples

SALES = Dataset(name="sales")


def packed(table: pa.Table, kind: str, compression: str | None = None) -> bytes:
    sink = io.BytesIO()
    if kind == "parquet":
        pa.parquet.write_table(table, sink)
        return sink.getvalue()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    opened = pa.ipc.new_file if kind == "file" else pa.ipc.new_stream
    with opened(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=2)
    return sink.getvalue()


def load(folder: Path, content: bytes, key: str, dataset: Dataset = SALES) -> ReadResult:
    path = folder / "object"
    path.write_bytes(content)
    return read(path, key, dataset, infer(path, key, dataset))


MANY = pa.table(
    {
        "id": pa.array([1, 2, None], pa.int32()),
        "big": pa.array([2**64 - 1, 0, None], pa.uint64()),
        "name": pa.array(["a", "", None]).dictionary_encode(),
        "long": pa.array(["x", "y", None], pa.large_string()),
        "price": pa.array([Decimal("1.25"), Decimal("-2.50"), None], pa.decimal128(10, 2)),
        "ratio": pa.array([float("nan"), float("inf"), None]),
        "day": pa.array([date(2024, 1, 2), date(1600, 1, 1), None]),
        "at": pa.array(["2024-01-02T03:04:05.000006", "1970-01-01", None]).cast(pa.timestamp("us")),
        "zoned": pa.array(["2024-01-02T00:00Z", "1970-01-01T00:00Z", None]).cast(pa.timestamp("us", "UTC")),
        "tags": pa.array([["x"], [], None]),
        "deep": pa.array([{"a": 1}, {"a": None}, None]),
        "ok": pa.array([True, False, None]),
        "raw": pa.array([b"\0\xff", b"", None]),
    }
)


@pytest.mark.parametrize("kind", ["file", "stream"])
@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
def test_arrow_is_as_parquet(tmp_path: Path, kind: str, compression: str | None) -> None:
    """Types, values and row numbers are those of the same table in Parquet."""
    found = load(tmp_path, packed(MANY, kind, compression), "x.arrow")
    expected = load(tmp_path, packed(MANY, "parquet"), "x.parquet")
    assert (found.columns, found.total, found.schema) == (expected.columns, 3, expected.schema)
    assert str(found.rows.to_pylist()) == str(expected.rows.to_pylist())
    assert found.rows.column("_penstock_row").to_pylist() == [1, 2, 3]


@pytest.mark.parametrize("suffix", [".arrow", ".feather", ".ipc", ".arrows", ".ARROW", ".arrow.gz"])
def test_a_name_says_that_it_is_arrow(suffix: str) -> None:
    """By any of its suffixes, compressed too."""
    assert detect(f"in/x{suffix}", SALES) == "arrow"


def test_a_later_object_is_read_by_the_remembered_columns(tmp_path: Path) -> None:
    """What is missing is NULL, what is new is rescued, and checks reject rows."""
    first, later = tmp_path / "first", tmp_path / "later"
    first.write_bytes(packed(pa.table({"id": [1], "qty": [2]}), "file"))
    later.write_bytes(packed(pa.table({"id": [7, 8], "new": ["x", None]}), "stream"))
    dataset = Dataset(name="sales", checks={"seven": "id = 7"})
    found = read(later, "x.arrow", dataset, infer(first, "x.arrow", dataset))
    assert found.rows.to_pylist() == [{"id": 7, "qty": None, "_penstock_row": 1, "_penstock_rescued": '{"new":"x"}'}]
    assert found.rejected.column("reason").to_pylist() == ["check seven"]


def test_no_rows(tmp_path: Path) -> None:
    """A table without rows has columns and no records."""
    assert load(tmp_path, packed(MANY.slice(0, 0), "file"), "x.arrow").total == 0


def test_values_are_looked_at_too(tmp_path: Path) -> None:
    """A text that is no UTF-8 is refused, and not handed on."""
    content = packed(pa.table({"name": ["a text of some length"]}), "file").replace(b"of some", b"of \xff\xff\xff\xff")
    with pytest.raises(Unreadable, match=r"not Arrow: .*UTF8"):
        load(tmp_path, content, "x.arrow")


FILE, STREAM = packed(MANY, "file"), packed(MANY, "stream")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not Arrow"),
        (b"rubbish" * 50, "not Arrow"),
        (b"FEA1....FEA1", "version 1"),
        (FILE[:-20], "not Arrow"),
        (STREAM[: len(STREAM) // 2], "not Arrow|cut off"),
        (STREAM[:-8], "cut off"),
        (packed(pa.table({"t": pa.array([None], pa.month_day_nano_interval())}), "file"), "interval of the column 't'"),
        (packed(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]), "file"), "the same name"),
    ],
    ids=["empty", "rubbish", "feather 1", "cut file", "cut stream", "no end", "interval", "same names"],
)
def test_what_is_not_read_is_said(tmp_path: Path, content: bytes, reason: str) -> None:
    """With a reason, and never as fewer rows."""
    with pytest.raises(Unreadable, match=reason):
        load(tmp_path, content, "x.arrow")


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, len(FILE) - 1), byte=st.integers(0, 255), kind=st.sampled_from(["file", "stream"]))
def test_a_damaged_byte_ends_nothing_else(tmp_path: Path, at: int, byte: int, kind: str) -> None:
    """It is read, or refused."""
    content = bytearray(FILE if kind == "file" else STREAM)
    content[at % len(content)] = byte
    found: Any = None
    try:
        found = load(tmp_path, bytes(content), "x.arrow")
    except Unreadable:
        assert found is None
