"""What an independent writer wrote comes back equal, whatever the values: of its own accord, with nothing declared."""

from __future__ import annotations

import csv
import io
import json
import math
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock import Dataset
from penstock.formats import infer, read
from tests.examples import examples

NORMAL = settings(
    max_examples=examples(15),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
BIGINT = st.integers(-(2**63), 2**63 - 1)
MICROSECONDS = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31))  # noqa: DTZ001 - Arrow's have no zone either
ANY_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=20)


def load(folder: Path, name: str, content: bytes) -> list[dict[str, Any]]:
    path = folder / name
    path.write_bytes(content)
    dataset = Dataset(name="sales")
    result = read(path, name, dataset, infer(path, name, dataset))
    assert not result.rejected.num_rows
    rows: list[dict[str, Any]] = result.rows.drop_columns(["_penstock_row", "_penstock_rescued"]).to_pylist()
    return rows


def same(one: Any, other: Any) -> bool:
    """Equal, where a NaN equals a NaN and a zero below zero no other."""
    if isinstance(one, float) and isinstance(other, float):
        return (math.isnan(one) and math.isnan(other)) or (
            one == other and math.copysign(1, one) == math.copysign(1, other)
        )
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    return bool(one == other)


# Words, as which nothing else could be meant, with all that must be quoted in them.
WORDS = st.text(st.sampled_from(" ,;|\t'\"\n\u00e4\u20ac"), max_size=4).map(lambda text: f"w{text}w")
FRACTIONS = st.integers(-(10**6), 10**6).map(lambda number: number + 0.5)
ROWS = st.lists(st.tuples(BIGINT, WORDS, FRACTIONS, st.dates(date(1000, 1, 1))), min_size=2, max_size=6)


@NORMAL
@given(
    rows=ROWS,
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
    end=st.sampled_from(["\n", "\r\n"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC]),
)
def test_csv(
    tmp_path: Path, rows: list[tuple[Any, ...]], delimiter: str, end: str, encoding: str, quoting: Any
) -> None:
    """Delimiter, quotes, encoding, header and types are found."""
    sink = io.StringIO()
    writer = csv.writer(sink, delimiter=delimiter, lineterminator=end, quoting=quoting)
    writer.writerows([("number", "word", "fraction", "day"), *rows])
    found = load(tmp_path, "x.csv", sink.getvalue().encode(encoding))
    assert [tuple(row.values()) for row in found] == rows


SCALARS: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.int64(), BIGINT),
    (pa.int8(), st.integers(-128, 127)),
    (pa.uint64(), st.integers(0, 2**64 - 1).map(Decimal)),
    (pa.float64(), st.floats()),
    (pa.float32(), st.floats(width=32)),
    (pa.bool_(), st.booleans()),
    (pa.string(), ANY_TEXT),
    (pa.large_string(), ANY_TEXT),
    (pa.binary(), st.binary(max_size=20)),
    (pa.date32(), st.dates()),
    (pa.time64("us"), st.times()),
    (pa.timestamp("us"), MICROSECONDS),
    (pa.timestamp("us", "UTC"), MICROSECONDS.map(lambda at: at.replace(tzinfo=UTC))),
    (pa.decimal128(38, 10), st.decimals(-(10**20), 10**20, places=10)),
]
COLUMN = st.sampled_from(SCALARS).flatmap(
    lambda made: st.tuples(
        st.sampled_from([made[0], pa.list_(made[0]) if made[0] != pa.uint64() else made[0]]), st.just(made[1])
    )
)


@pytest.mark.parametrize("form", ["parquet", "arrow", "arrows"])
@NORMAL
@given(data=st.data(), columns=st.lists(COLUMN, min_size=1, max_size=4), count=st.integers(1, 5))
def test_parquet_and_arrow(
    tmp_path: Path, form: str, data: st.DataObject, columns: list[tuple[pa.DataType, Any]], count: int
) -> None:
    """Every value of every type, alone and in lists, beside those that are none."""
    arrays, expected = {}, {}
    for place, (kind, values) in enumerate(columns):
        each = st.lists(st.none() | values, max_size=3) if pa.types.is_list(kind) else values
        expected[f"c{place}"] = data.draw(st.lists(st.none() | each, min_size=count, max_size=count))
        plain = [int(v) if kind == pa.uint64() and v is not None else v for v in expected[f"c{place}"]]
        arrays[f"c{place}"] = pa.array(plain, kind)
    table, sink = pa.table(arrays), io.BytesIO()
    if form == "parquet":
        pa.parquet.write_table(table, sink)
    else:
        with (pa.ipc.new_stream if form == "arrows" else pa.ipc.new_file)(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    found = load(tmp_path, f"x.{form}", sink.getvalue())
    wanted = [{name: values[row] for name, values in expected.items()} for row in range(count)]
    assert same(found, wanted), (found, wanted)


RECORDS = st.lists(
    st.fixed_dictionaries(
        {
            "id": BIGINT,
            "ratio": st.floats(allow_nan=False, allow_infinity=False),
            "name": ANY_TEXT.map(lambda text: f"w{text}"),
            "ok": st.booleans() | st.none(),
        }
    ),
    min_size=1,
    max_size=5,
)


@pytest.mark.parametrize("form", ["json", "ndjson"])
@NORMAL
@given(records=RECORDS, ascii_only=st.booleans(), indent=st.sampled_from([None, 2]))
def test_json(tmp_path: Path, form: str, records: list[dict[str, Any]], ascii_only: bool, indent: int | None) -> None:
    """Escaped or not, in an array or in lines."""
    if form == "ndjson":
        content = "".join(json.dumps(record, ensure_ascii=ascii_only) + "\n" for record in records)
    else:
        content = json.dumps(records, ensure_ascii=ascii_only, indent=indent)
    found = load(tmp_path, f"x.{form}", content.encode())
    assert same(found, records), (found, records)


def test_what_is_compared_is_told_apart() -> None:
    """`same` tells what Python's own comparison does not."""
    assert same([float("nan"), {"a": 0.0}], [float("nan"), {"a": 0.0}])
    assert not same(0.0, -0.0)
    assert not same([1], [1, 2])
    assert not same(time(1), time(2))
