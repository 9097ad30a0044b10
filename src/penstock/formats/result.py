"""What reading one object gives."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from penstock.model import Schema

ROW = "_penstock_row"
RESCUED = "_penstock_rescued"

REJECTED = pa.schema(
    [
        (ROW, pa.int64()),
        ("line", pa.int64()),
        ("reason", pa.string()),
        ("raw", pa.string()),
        ("column", pa.string()),
        ("check", pa.string()),
    ]
)

# Rows that were passed over or failed a check that puts none aside: `formats/noted.py` tells what `note` says.
NOTED = pa.schema([(ROW, pa.int64()), ("line", pa.int64()), ("note", pa.string())])


@dataclass(frozen=True, kw_only=True)
class ReadResult:
    """One object's rows.

    `rows`: the table's columns in order, then `_penstock_row` (from 1) and `_penstock_rescued` (JSON text or null).
    `columns`: name and DuckDB type of the table's columns, without penstock's own two; Arrow shows JSON as text.
    `rejected`: `_penstock_row`, `line` (null where unknown), `reason`, `raw`, and the first `column` or `check` that is
    to blame (null where there is none).
    `total`: records seen, good, bad and passed over. `schema`: the one that was given, or a widened copy of it.
    `noted`: as NOTED; None where there is nothing to note.
    """

    rows: pa.Table
    columns: tuple[tuple[str, str], ...]
    rejected: pa.Table
    total: int
    schema: Schema
    noted: pa.Table | None = None


def verdict(total: int, rejected: int, threshold: float) -> bool:
    """Whether the share of good rows reaches the threshold (0 to 1); an object without rows does."""
    return total == 0 or (total - rejected) / total >= threshold
