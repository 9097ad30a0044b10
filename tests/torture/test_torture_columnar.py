"""Parquet and Arrow IPC with every type that pyarrow writes, and values at the ends of their ranges."""

from __future__ import annotations

import io
import uuid
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from tests.torture.trying import tried

NOON = 1_700_000_000
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}

# By name: the values, the type that they get, and how the first of them reads.
TYPES: dict[str, tuple[Any, str, Any]] = {
    "bool": (pa.array([True, None]), "BOOLEAN", True),
    **{
        f"int{bits}": (pa.array([-(2 ** (bits - 1)), None], f"int{bits}"), "BIGINT", -(2 ** (bits - 1)))
        for bits in (8, 16, 32, 64)
    },
    **{f"uint{bits}": (pa.array([2**bits - 1, None], f"uint{bits}"), "BIGINT", 2**bits - 1) for bits in (8, 16, 32)},
    "uint64": (pa.array([2**64 - 1, None], pa.uint64()), "DECIMAL(20,0)", str(2**64 - 1)),
    "float16": (pa.array([1.5, None], pa.float16()), "DOUBLE", 1.5),
    "float32": (pa.array([float("inf"), None], pa.float32()), "DOUBLE", "inf"),
    "float64": (pa.array([-0.0, None]), "DOUBLE", -0.0),
    "nan": (pa.array([float("nan"), None]), "DOUBLE", "nan"),
    "decimal32": (pa.array([Decimal("-1.2"), None], pa.decimal32(5, 1)), "DECIMAL(5,1)", "-1.2"),
    "decimal64": (pa.array([Decimal("1.2"), None], pa.decimal64(12, 1)), "DECIMAL(12,1)", "1.2"),
    "decimal128": (
        pa.array([Decimal("9" * 28 + "." + "9" * 10), None], pa.decimal128(38, 10)),
        "DECIMAL(38,10)",
        "9" * 28 + "." + "9" * 10,
    ),
    "decimal256 of 38 digits": (pa.array([Decimal("1.5"), None], pa.decimal256(38, 2)), "DECIMAL(38,2)", "1.50"),
    "date32": (pa.array([date(1, 1, 1), None]), "DATE", "0001-01-01"),
    "date64": (pa.array([date(9999, 12, 31), None], pa.date64()), "DATE", "9999-12-31"),
    "a date after 9999": (pa.array([10**7, None], pa.date32()), "DATE", "29349-01-26"),
    "a date before 1": (pa.array([-(10**6), None], pa.date32()), "DATE", "0769-02-04 (BC)"),
    "time32[s]": (pa.array([time(1, 2, 3), None], pa.time32("s")), "TIME", "01:02:03"),
    "time32[ms]": (pa.array([time(23, 59, 59, 999000), None], pa.time32("ms")), "TIME", "23:59:59.999"),
    "time64[us]": (pa.array([time(1, 2, 3, 4), None], pa.time64("us")), "TIME", "01:02:03.000004"),
    "time64[ns]": (pa.array([86399999999999, None], pa.time64("ns")), "TIME_NS", "23:59:59.999999999"),
    **{
        f"timestamp[{unit}]": (
            pa.array([NOON * each, None], pa.timestamp(unit)),
            "TIMESTAMP_NS" if unit == "ns" else "TIMESTAMP",
            "2023-11-14 22:13:20",
        )
        for unit, each in UNITS.items()
    },
    **{
        f"timestamp[{unit}, zone]": (
            pa.array([NOON * each, None], pa.timestamp(unit, "America/New_York")),
            "TIMESTAMP WITH TIME ZONE",
            "2023-11-14 22:13:20+00",
        )
        for unit, each in UNITS.items()
    },
    "timestamp[us, offset]": (
        pa.array([0, None], pa.timestamp("us", "+05:30")),
        "TIMESTAMP WITH TIME ZONE",
        "1970-01-01 00:00:00+00",
    ),
    **{f"duration[{unit}]": (pa.array([5, None], pa.duration(unit)), "BIGINT", 5) for unit in UNITS},
    "string": (pa.array(["\0\U0001f600", None]), "VARCHAR", "\0\U0001f600"),
    "large_string": (pa.array(["x" * 65_536, None], pa.large_string()), "VARCHAR", "x" * 65_536),
    "string_view": (pa.array(["x", None], pa.string_view()), "VARCHAR", "x"),
    "binary": (pa.array([b"\0\xffx", None]), "BLOB", "\\x00\\xFFx"),
    "large_binary": (pa.array([b"", None], pa.large_binary()), "BLOB", ""),
    "binary_view": (pa.array([b"x", None], pa.binary_view()), "BLOB", "x"),
    "fixed_size_binary": (pa.array([b"abcd", None], pa.binary(4)), "BLOB", "abcd"),
    "uuid": (pa.array([uuid.UUID(int=5).bytes, None], pa.uuid()), "UUID", str(uuid.UUID(int=5))),
    "json": (pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a":1}', None])), "JSON", '{"a":1}'),
    "dictionary": (pa.array(["a", None]).dictionary_encode(), "VARCHAR", "a"),
    "dictionary of numbers": (pa.array([5, None]).dictionary_encode(), "BIGINT", 5),
    "list": (pa.array([[1, None], None]), "BIGINT[]", "[1, NULL]"),
    "large_list": (pa.array([["a"], None], pa.large_list(pa.string())), "VARCHAR[]", "[a]"),
    "fixed_size_list": (pa.array([[1, 2], None], pa.list_(pa.int32(), 2)), "INTEGER[]", "[1, 2]"),
    "list_view": (pa.array([[1], None], pa.list_view(pa.int64())), "BIGINT[]", "[1]"),
    "struct": (pa.array([{"a": 1, "b": "x"}, None]), "STRUCT(a BIGINT, b VARCHAR)", "{'a': 1, 'b': x}"),
    "map": (pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())), "MAP(VARCHAR, BIGINT)", "{k=1}"),
    "null": (pa.nulls(2), "VARCHAR", None),
}


def written(form: str, table: pa.Table) -> bytes:
    sink = io.BytesIO()
    if form == "parquet":
        pa.parquet.write_table(table, sink)
    else:
        with (pa.ipc.new_stream if form == "arrows" else pa.ipc.new_file)(sink, table.schema) as writer:
            writer.write_table(table)
    return sink.getvalue()


@pytest.mark.parametrize("form", ["parquet", "arrow", "arrows"])
@pytest.mark.parametrize("case", TYPES)
def test_every_type_that_can_be_read_is(tmp_path: Path, form: str, case: str) -> None:
    """With its values, beside which no value is no value."""
    values, kind, first = TYPES[case]
    found = tried(tmp_path, f"x.{form}", written(form, pa.table({"id": [1, 2], "v": values})))
    assert (found.state, found.types) == ("loaded", {"id": "BIGINT", "v": kind})
    assert (str(found.column), found.rejected) == (str([first, None]), [])


@pytest.mark.parametrize(
    ("form", "values", "reason"),
    [
        ("parquet", pa.array([Decimal("1.5")], pa.decimal256(40, 2)), "40 digits, more than the 38"),
        ("arrow", pa.array([Decimal("15")], pa.decimal256(76, 0)), "76 digits, more than the 38"),
        ("parquet", pa.array([[Decimal("1.5")]], pa.list_(pa.decimal256(40, 2))), "40 digits, more than the 38"),
        ("arrow", pa.array([pa.MonthDayNano([1, 2, 3])]), "type month_day_nano_interval of the column 'v'"),
        ("arrow", pa.array([{}], pa.struct([])), "type struct<> of the column 'v'"),
        (
            "arrow",
            pa.array([Decimal("1200")], pa.decimal128(5, -2)),
            "Scale must be a non-negative integer",
        ),
        ("arrow", pa.array([2**63 - 1], pa.timestamp("s")), "timestamp"),
        ("parquet", pa.array([2**62], pa.timestamp("ms")), "Timestamp(MS)"),
        (
            "arrow",
            pa.RunEndEncodedArray.from_arrays(pa.array([1], pa.int32()), pa.array(["a"])),
            "type run_end_encoded",
        ),
    ],
    ids=[
        "decimal256",
        "76 digits",
        "decimal256 in a list",
        "interval",
        "empty struct",
        "negative scale",
        "seconds out of range",
        "milliseconds out of range",
        "run ends",
    ],
)
def test_what_no_column_could_hold_is_refused(tmp_path: Path, form: str, values: Any, reason: str) -> None:
    """With its column or its type in the reason; a wrong number is never loaded."""
    found = tried(tmp_path, f"x.{form}", written(form, pa.table({"id": [1], "v": values})))
    assert (found.state, found.rows) == ("quarantined", [])
    assert reason in found.reason


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_a_column_that_had_nothing_takes_a_later_text(tmp_path: Path, form: str) -> None:
    """Of a column without a type nothing is known."""
    found = tried(tmp_path, f"x.{form}", written(form, pa.table({"v": pa.nulls(3)})))
    assert (found.types, found.column) == ({"v": "VARCHAR"}, [None] * 3)


@pytest.mark.parametrize("form", ["parquet", "arrow", "arrows"])
@pytest.mark.parametrize("part", [0, 3, 0.5, -1], ids=["none", "three bytes", "half", "all but a byte"])
def test_what_was_cut_off_is_refused(tmp_path: Path, form: str, part: float) -> None:
    """Or empty, where nothing came."""
    whole = written(form, pa.table({"id": list(range(1000))}))
    found = tried(tmp_path, f"x.{form}", whole[: int(len(whole) * part) if part == 0.5 else int(part)])
    assert (found.state, found.rows) == ("empty" if part == 0 else "quarantined", [])
    assert found.reason
