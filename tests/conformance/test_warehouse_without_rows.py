"""Objects that bring no rows at all, as those do with which a flow of one's own is done: markers alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from penstock.formats.transform import NO_ROWS
from penstock.warehouse.base import APPEND, Write
from tests.conformance.warehouses import COLUMNS, MAKERS, NOW, WarehouseBench, part


@pytest.fixture(params=sorted(MAKERS))
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[WarehouseBench]:
    with MAKERS[request.param](tmp_path) as made:
        yield made


@pytest.mark.parametrize(
    "write", [APPEND, Write(key=("id",)), Write(partitions=("id",))], ids=["append", "key", "part"]
)
def test_a_marker_without_any_column(bench: WarehouseBench, write: Write) -> None:
    """It is there before any column is known, nothing is damaged by it, and later rows bring their columns."""
    warehouse = bench.warehouse
    nothing = replace(part("a.png", {"id": []}), rows=NO_ROWS)
    rows = part("b.png", {"id": [1], "name": ["x"]})
    assert warehouse.load("sales", [], [nothing], token=1, run="r1", now=NOW, write=write).loaded == (nothing.ref.name,)
    assert warehouse.loaded([nothing.ref.name]) == {nothing.ref.name: (0, 0)}
    assert (warehouse.count("sales"), warehouse.damaged("sales")) == (0, [])
    warehouse.load("sales", COLUMNS, [nothing, rows], token=1, run="r1", now=NOW, write=write)
    assert warehouse.query("SELECT id, name FROM sales", limit=9).rows == [(1, "x")]
    assert warehouse.damaged("sales") == []
