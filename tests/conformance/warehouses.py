"""The warehouses the conformance suite runs on, and what it loads into them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from penstock.formats.result import REJECTED
from penstock.model import ObjectRef
from penstock.warehouse.base import LoadPart, Warehouse
from penstock.warehouse.duckdb import DuckDBWarehouse

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
COLUMNS = (("id", "BIGINT"), ("name", "VARCHAR"))


def duckdb_warehouse(folder: Path) -> Warehouse:
    return DuckDBWarehouse(folder / "deep" / "warehouse.duckdb", wait_seconds=10)


MAKERS = {"duckdb": duckdb_warehouse}


def ref(key: str, generation: int = 1, dataset: str = "sales") -> ObjectRef:
    return ObjectRef(
        id=1, dataset=dataset, bucket="landing", key=f"{dataset}/{key}", generation=generation, etag="e", size=1
    )


def part(
    key: str,
    values: dict[str, Sequence[Any]],
    *,
    generation: int = 1,
    dataset: str = "sales",
    rejected: Sequence[tuple[int, int | None, str, str]] = (),
    replaces: tuple[str, ...] = (),
) -> LoadPart:
    count = len(next(iter(values.values())))
    rows = pa.table(
        {
            **{name: pa.array(column) for name, column in values.items()},
            "_penstock_row": pa.array(range(1, count + 1), pa.int64()),
            "_penstock_rescued": pa.nulls(count, pa.string()),
        }
    )
    bad = pa.Table.from_pylist([dict(zip(REJECTED.names, row, strict=True)) for row in rejected], schema=REJECTED)
    return LoadPart(ref=ref(key, generation, dataset), rows=rows, rejected=bad, replaces=replaces)
