"""What becomes of an object that was read: loaded, empty, or in quarantine with the reason. Pure."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa

from penstock import formats
from penstock.declarations import Dataset
from penstock.formats import ReadResult
from penstock.formats.evolve import is_rescued, rescued_names
from penstock.formats.result import RESCUED
from penstock.model import Schema, State


def judge(result: ReadResult, dataset: Dataset) -> tuple[State, str | None]:
    """What is to become of an object that was read so; the reason unless it is loaded."""
    if result.rows.num_rows and _is_strange(result.rows, result.schema):
        return State.QUARANTINED, f"it has none of the columns of {dataset.name}"
    if dataset.schema == "freeze" and is_rescued(result.rows):
        return (
            State.QUARANTINED,
            f"the schema is frozen, and it has other columns: {', '.join(rescued_names(result.rows))}",
        )
    if not result.total:
        return State.EMPTY, "it has no records"
    bad = result.rejected.num_rows
    if not formats.verdict(result.total, bad, dataset.threshold):
        return State.QUARANTINED, (
            f"{bad} of {result.total} rows are bad, and at least {dataset.threshold:.0%} must be good: "
            f"{_most_common(result.rejected)}"
        )
    return State.LOADED, None


def _is_strange(rows: pa.Table, schema: Schema) -> bool:
    """Whether no column of the schema has a value in any row, and what the rows did hold was rescued."""
    if rows.column(RESCUED).null_count:
        return False
    names = [column.name for column in schema.columns if column.name in rows.column_names]
    return bool(names) and all(rows.column(name).null_count == rows.num_rows for name in names)


def _most_common(rejected: pa.Table, most: int = 3) -> str:
    counted = Counter(rejected.column("reason").to_pylist()).most_common(most + 1)
    named = ", ".join(f"{reason} ({count})" for reason, count in counted[:most])
    return named + (", …" if len(counted) > most else "")
