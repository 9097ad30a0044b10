"""What every warehouse must do with an object of which only the rejected rows are to be loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from penstock.formats.result import REJECTED
from penstock.warehouse.base import APPEND, LoadPart, LoadResult, Write
from tests.conformance.warehouses import COLUMNS, MAKERS, NOW, WarehouseBench, part, ref

Load = Callable[..., LoadResult]
NAME = "landing/sales/a.csv@1"


@pytest.fixture(params=sorted(MAKERS))
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[WarehouseBench]:
    with MAKERS[request.param](tmp_path) as made:
        yield made


@pytest.fixture
def load(bench: WarehouseBench) -> Load:
    def run(*parts: LoadPart, write: Write = APPEND) -> LoadResult:
        return bench.warehouse.load("sales", COLUMNS, parts, token=1, run="r1", now=NOW, write=write)

    return run


def read(rows: Sequence[tuple[int, int, str]], rejected: Sequence[int] = (), *, mended: bool = True) -> LoadPart:
    """The object as it is read now: number, id and name of its good rows, and numbers of the others."""
    good = pa.table(
        {
            "id": pa.array([row[1] for row in rows], pa.int64()),
            "name": pa.array([row[2] for row in rows], pa.string()),
            "_penstock_row": pa.array([row[0] for row in rows], pa.int64()),
            "_penstock_rescued": pa.nulls(len(rows), pa.string()),
        }
    )
    bad = pa.Table.from_pylist([{"_penstock_row": number, "reason": "r", "raw": "x"} for number in rejected], REJECTED)
    # As a run passes it on: what was asked for again, of which only the rejected rows.
    return LoadPart(ref=ref("a.csv"), rows=good, rejected=bad, again=mended, only_rejected=mended)


def state(bench: WarehouseBench) -> tuple[Any, ...]:
    def ask(sql: str) -> list[tuple[Any, ...]]:
        return bench.warehouse.query(sql, limit=1000).rows

    return (
        ask("SELECT _penstock_row, id, name FROM sales WHERE _penstock_object LIKE '%a.csv%' ORDER BY 1"),
        ask("SELECT _penstock_row FROM sales__rejected ORDER BY 1"),
        ask(f"SELECT rows, rejected, gone FROM _penstock_objects WHERE object = '{NAME}'"),
    )


def test_only_what_is_not_there_is_added(bench: WarehouseBench, load: Load) -> None:
    """Rows that are in the table stay as they are, those that are good now come, and the rest stays rejected; twice."""
    load(read([(1, 1, "as it was"), (4, 4, "as it was")], [2, 3, 5], mended=False))
    for _ in range(2):
        assert load(read([(1, 1, "otherwise"), (2, 2, "mended"), (3, 3, "mended")], [4, 5])).loaded == (NAME,)
        assert state(bench) == (
            [(1, 1, "as it was"), (2, 2, "mended"), (3, 3, "mended"), (4, 4, "as it was")],
            [(5,)],
            [(4, 1, 0)],
        )
        assert bench.warehouse.loaded([NAME]) == {NAME: (4, 1)}
        assert bench.warehouse.damaged("sales") == []


def test_what_was_not_rejected_is_not_added(bench: WarehouseBench, load: Load) -> None:
    """Records that were passed over when the object was loaded stay away, good or not."""
    load(read([(1, 1, "x")], [2], mended=False))
    load(read([(1, 1, "x"), (2, 2, "mended"), (3, 3, "passed over")], [4]))
    assert state(bench) == ([(1, 1, "x"), (2, 2, "mended")], [], [(2, 0, 0)])


def test_rejected_rows_are_told_with_line_and_text(bench: WarehouseBench, load: Load) -> None:
    """By their numbers; none of another object, and none where there is no table."""
    assert bench.warehouse.rejected("sales", NAME) == {}
    assert bench.warehouse.columns("sales") == {}
    load(read([(1, 1, "x")], [2, 3], mended=False))
    assert bench.warehouse.rejected("sales", NAME) == {2: (None, "x"), 3: (None, "x")}
    assert bench.warehouse.rejected("sales", "landing/sales/b.csv@1") == {}
    assert bench.warehouse.columns("sales")["id"] == "BIGINT"


def test_nothing_new_leaves_all_as_it_is(bench: WarehouseBench, load: Load) -> None:
    """Also where no row is good, and where none is in the table."""
    for rows, rejected in (([(1, 1, "x")], [2]), ([], [1, 2])):
        load(replace(read(rows, rejected), only_rejected=False))
        before = state(bench)
        load(read(rows, rejected))
        assert state(bench) == before


def test_without_a_marker_it_is_an_ordinary_load(bench: WarehouseBench, load: Load) -> None:
    """All of it comes, and of rows that lost their marker none is there twice."""
    load(read([(1, 1, "x")], [2]))
    assert state(bench) == ([(1, 1, "x")], [(2,)], [(1, 1, 0)])
    bench.spoil("DELETE FROM _penstock_objects")
    load(read([(1, 1, "y"), (2, 2, "y")]))
    assert state(bench) == ([(1, 1, "y"), (2, 2, "y")], [], [(2, 0, 0)])


def test_mended_rows_compete_as_any(bench: WarehouseBench, load: Load) -> None:
    """By arrival: over older ones they win, against newer ones they lose, and the marker tells how many; twice."""
    by_id = Write(key=("id",))
    older = part("older.csv", {"id": [2], "name": ["older"]})
    newer = part("newer.csv", {"id": [1, 3], "name": ["newer", "newer"]})
    load(replace(older, ref=replace(older.ref, id=0)), write=by_id)
    load(read([(1, 1, "old")], [2, 3], mended=False), write=by_id)
    load(replace(newer, ref=replace(newer.ref, id=2)), write=by_id)
    for _ in range(2):
        load(read([(1, 1, "old"), (2, 2, "mended"), (3, 3, "mended")]), write=by_id)
        assert state(bench) == ([(2, 2, "mended")], [], [(3, 0, 2)])
        found = bench.warehouse.query("SELECT id, name FROM sales ORDER BY id", limit=9).rows
        assert found == [(1, "newer"), (2, "mended"), (3, "newer")]
        assert bench.warehouse.damaged("sales") == []


def test_what_was_replaced_stays_away(bench: WarehouseBench, load: Load) -> None:
    """A generation that a newer one replaced does not come back by its rejected rows."""
    load(read([(1, 1, "x")], [2], mended=False))
    load(part("a.csv", {"id": [9], "name": ["z"]}, generation=2, replaces=(NAME,)))
    assert load(read([(1, 1, "x"), (2, 2, "x")])).superseded == (NAME,)
    assert bench.warehouse.count("sales") == 1
