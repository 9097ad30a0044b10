"""The warehouses the conformance suite runs on, and what it loads into them."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from penstock.formats.result import REJECTED
from penstock.model import ObjectRef
from penstock.warehouse.base import LoadPart, Warehouse
from penstock.warehouse.duckdb import DuckDBWarehouse
from penstock.warehouse.postgres import PostgresWarehouse
from tests.real_postgres import shared_postgres

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
COLUMNS = (("id", "BIGINT"), ("name", "VARCHAR"))


# More work than any of them does in a second.
ENDLESS = {
    "duckdb": "SELECT count(*) FROM range(100000000000) a WHERE a.range % 7 = 8",
    "postgres": "SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 100000) b WHERE a + b = 0",
}


@dataclass(frozen=True, kw_only=True)
class WarehouseBench:
    """A warehouse to test. `address` opens it in another process by `open_warehouse`; `spoil` runs any SQL in it."""

    kind: str
    address: str
    warehouse: Warehouse
    spoil: Callable[[str], None]


def open_warehouse(kind: str, address: str) -> Warehouse:
    """One more on the same file or database."""
    if kind == "postgres":
        return PostgresWarehouse(address, wait_seconds=20)
    return DuckDBWarehouse(Path(address), wait_seconds=20)


@contextmanager
def duckdb_bench(folder: Path) -> Iterator[WarehouseBench]:
    path = folder / "deep" / "warehouse.duckdb"

    def spoil(sql: str) -> None:
        with duckdb.connect(path) as connection:
            connection.execute(sql)

    yield WarehouseBench(kind="duckdb", address=str(path), warehouse=open_warehouse("duckdb", str(path)), spoil=spoil)


@contextmanager
def postgres_bench(folder: Path) -> Iterator[WarehouseBench]:
    server, password = shared_postgres(), ordinary_role()
    with server.database() as name:
        server.execute(f"ALTER DATABASE {name} OWNER TO warehouse")
        url = f"postgresql://warehouse:{password}@127.0.0.1:{server.port}/{name}"

        def spoil(sql: str) -> None:
            server.execute(sql, name)

        yield WarehouseBench(kind="postgres", address=url, warehouse=open_warehouse("postgres", url), spoil=spoil)


@cache
def ordinary_role() -> str:
    """The password of the role `warehouse`, which may do nothing but in its own databases."""
    password = secrets.token_hex(16)
    shared_postgres().execute(f"CREATE ROLE warehouse LOGIN PASSWORD '{password}'")
    return password


MAKERS: dict[str, Callable[[Path], AbstractContextManager[WarehouseBench]]] = {
    "duckdb": duckdb_bench,
    "postgres": postgres_bench,
}


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
    rejected: Sequence[tuple[Any, ...]] = (),
    replaces: tuple[str, ...] = (),
    again: bool = False,
) -> LoadPart:
    """Of `rejected` the last values may be left out, as REJECTED has them."""
    count = len(next(iter(values.values())))
    rows = pa.table(
        {
            **{name: pa.array(column) for name, column in values.items()},
            "_penstock_row": pa.array(range(1, count + 1), pa.int64()),
            "_penstock_rescued": pa.nulls(count, pa.string()),
        }
    )
    bad = pa.Table.from_pylist([dict(zip(REJECTED.names, row, strict=False)) for row in rejected], schema=REJECTED)
    return LoadPart(ref=ref(key, generation, dataset), rows=rows, rejected=bad, replaces=replaces, again=again)
