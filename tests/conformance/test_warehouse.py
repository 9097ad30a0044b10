"""What every warehouse must do."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from penstock import faults
from penstock.errors import LeaseLost, QueryRefused, QueryTooLong, TableMissing
from penstock.warehouse.base import LoadPart, LoadResult, Warehouse
from tests.conformance.warehouses import COLUMNS, ENDLESS, MAKERS, NOW, WarehouseBench, part, ref
from tests.waiting import wait_for

Load = Callable[..., LoadResult]


@pytest.fixture(params=sorted(MAKERS))
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[WarehouseBench]:
    with MAKERS[request.param](tmp_path) as made:
        yield made


@pytest.fixture
def warehouse(bench: WarehouseBench) -> Warehouse:
    return bench.warehouse


@pytest.fixture
def load(warehouse: Warehouse) -> Load:
    def run(*parts: LoadPart, token: int = 1, columns: Any = COLUMNS, dataset: str = "sales") -> LoadResult:
        return warehouse.load(dataset, columns, parts, token=token, run="r1", now=NOW)

    return run


def rows(warehouse: Warehouse, sql: str) -> list[tuple[Any, ...]]:
    return warehouse.query(sql, limit=1000).rows


A = part("a.csv", {"id": [1, 2], "name": ["x", None]})
B = part("b.csv", {"id": [3], "name": ["y"]})


def test_rows_and_markers_arrive_together(warehouse: Warehouse, load: Load) -> None:
    """A load brings the rows with their object, row number and time, and the marker."""
    assert load(A, B).loaded == (A.ref.name, B.ref.name)
    found = rows(
        warehouse, "SELECT id, name, _penstock_object, _penstock_row, _penstock_rescued FROM sales ORDER BY id"
    )
    assert found[1] == (2, None, "landing/sales/a.csv@1", 2, None)
    assert rows(warehouse, "SELECT DISTINCT _penstock_loaded_at FROM sales") == [(NOW,)]
    assert warehouse.count("sales") == 3
    assert warehouse.markers([A.ref.name, B.ref.name, "landing/sales/c.csv@1"]) == {A.ref.name, B.ref.name}
    marks = rows(warehouse, "SELECT object, dataset, rows, rejected, token, run FROM _penstock_objects ORDER BY object")
    assert marks[0] == (A.ref.name, "sales", 2, 0, 1, "r1")


def test_exactly_once(warehouse: Warehouse, load: Load) -> None:
    """A part that was loaded is not loaded again, alone or beside a new one."""
    load(A)
    again = load(A, B)
    assert (again.loaded, again.already) == ((B.ref.name,), (A.ref.name,))
    assert warehouse.count("sales") == 3


def test_nothing_is_there_before_the_first_load(warehouse: Warehouse) -> None:
    """An untouched warehouse has no markers and no rows."""
    assert warehouse.markers([A.ref.name]) == set()
    assert warehouse.count("sales") == 0


def test_greater_token_takes_over_and_a_stale_one_writes_nothing(warehouse: Warehouse, load: Load) -> None:
    """After a fence with a greater token, the older holder's load and fence abort."""
    load(A, token=1)
    warehouse.fence("sales", 5)
    with pytest.raises(LeaseLost):
        load(B, token=4)
    with pytest.raises(LeaseLost):
        warehouse.fence("sales", 4)
    assert warehouse.count("sales") == 2
    assert warehouse.markers([B.ref.name]) == set()
    assert load(B, token=5).loaded == (B.ref.name,)


def test_a_load_stores_its_token(warehouse: Warehouse, load: Load) -> None:
    """A load with a greater token fences off the smaller ones by itself, per dataset."""
    load(A, token=7)
    with pytest.raises(LeaseLost):
        load(B, token=6)
    other = part("a.csv", {"id": [1], "name": ["o"]}, dataset="other")
    assert load(other, token=1, dataset="other").loaded == (other.ref.name,)


def test_replace(warehouse: Warehouse, load: Load) -> None:
    """A new generation takes the place of the old one's rows, rejected rows and marker, and the old stays away."""
    old = part("a.csv", {"id": [1, 2], "name": ["x", "y"]}, rejected=[(3, 4, "check c", "raw")])
    load(old, B)
    new = part("a.csv", {"id": [9], "name": ["z"]}, generation=2, replaces=(old.ref.name,))
    load(new)
    assert rows(warehouse, "SELECT id FROM sales ORDER BY id") == [(3,), (9,)]
    assert rows(warehouse, "SELECT count(*) FROM sales__rejected") == [(0,)]
    assert warehouse.markers([old.ref.name, new.ref.name]) == {new.ref.name}
    late = load(old)
    assert (late.loaded, late.superseded) == ((), (old.ref.name,))
    assert rows(warehouse, "SELECT id FROM sales ORDER BY id") == [(3,), (9,)]


def test_replace_within_one_load(warehouse: Warehouse, load: Load) -> None:
    """Of two generations in one load only the replacing one has rows."""
    new = part("a.csv", {"id": [9], "name": ["z"]}, generation=2, replaces=(A.ref.name,))
    found = load(A, new)
    assert (found.loaded, found.superseded) == ((new.ref.name,), (A.ref.name,))
    assert rows(warehouse, "SELECT id FROM sales") == [(9,)]


def test_again_takes_the_place_of_its_own_rows(warehouse: Warehouse, load: Load) -> None:
    """What is loaded again replaces its rows, rejected rows and marker, and nothing else; without `again` it stays."""
    load(part("a.csv", {"id": [1, 2], "name": ["x", "y"]}, rejected=[(3, 4, "check c", "raw")]), B)
    once_more = part("a.csv", {"id": [7], "name": ["z"]}, again=True)
    assert load(once_more).loaded == (A.ref.name,)
    assert rows(warehouse, "SELECT id FROM sales ORDER BY id") == [(3,), (7,)]
    assert rows(warehouse, "SELECT count(*) FROM sales__rejected") == [(0,)]
    assert warehouse.loaded([A.ref.name]) == {A.ref.name: (1, 0)}
    assert load(once_more).loaded == (A.ref.name,)
    assert load(replace(once_more, again=False)).already == (A.ref.name,)
    assert warehouse.count("sales") == 2
    assert warehouse.damaged("sales") == []


def test_again_loads_what_is_not_there(warehouse: Warehouse, load: Load) -> None:
    """Asked for again although nothing of it is there, an object is loaded as any other."""
    assert load(replace(A, again=True)).loaded == (A.ref.name,)
    assert warehouse.count("sales") == 2


def test_again_does_not_bring_back_what_was_replaced(warehouse: Warehouse, load: Load) -> None:
    """A generation that a newer one replaced stays away, whoever asks for it again."""
    load(A)
    load(part("a.csv", {"id": [9], "name": ["z"]}, generation=2, replaces=(A.ref.name,)))
    assert load(replace(A, again=True)).superseded == (A.ref.name,)
    assert rows(warehouse, "SELECT id FROM sales") == [(9,)]


def test_what_was_replaced_is_remembered(warehouse: Warehouse, load: Load) -> None:
    """The warehouse names the generations that were replaced, also those that it never had."""
    assert warehouse.replaced([A.ref.name]) == set()
    load(A, B)
    never = "landing/sales/a.csv@2"
    load(part("a.csv", {"id": [9], "name": ["z"]}, generation=3, replaces=(A.ref.name, never)))
    assert warehouse.replaced([A.ref.name, never, B.ref.name]) == {A.ref.name, never}
    assert warehouse.replaced([]) == set()


@pytest.mark.parametrize(
    ("loss", "found"),
    [
        ("DELETE FROM sales WHERE id = 1", [A.ref.name]),
        ("DELETE FROM sales", [A.ref.name, B.ref.name]),
        ("DROP TABLE sales", [A.ref.name, B.ref.name]),
        ("INSERT INTO sales SELECT * FROM sales WHERE id = 3", [B.ref.name]),
        ("DELETE FROM sales__rejected", [B.ref.name]),
        (f"DELETE FROM _penstock_objects WHERE object = '{A.ref.name}'", [A.ref.name]),
        ("DELETE FROM _penstock_objects WHERE dataset = 'other'", []),
    ],
)
def test_damage_is_found(bench: WarehouseBench, load: Load, loss: str, found: list[str]) -> None:
    """Objects whose rows or rejected rows are not as many as their marker says are named, and no others."""
    assert bench.warehouse.damaged("sales") == []
    load(A, replace(B, rejected=part("b.csv", {"id": [1]}, rejected=[(2, 3, "r", "raw")]).rejected))
    load(part("e.csv", {"id": pa.array([], pa.int64()), "name": pa.array([], pa.string())}))
    load(part("a.csv", {"id": [1], "name": ["o"]}, dataset="other"), dataset="other")
    assert bench.warehouse.damaged("sales") == []
    bench.spoil(loss)
    assert bench.warehouse.damaged("sales") == found


# Loads as the holder of a token, and stops at the fault point that a file asks for.
_HOLDER = """
import sys

from tests.conformance.warehouses import COLUMNS, NOW, open_warehouse, part

kind, address, token = sys.argv[1:]
late = part("late.csv", {"id": [8], "name": ["late"]})
open_warehouse(kind, address).load("sales", COLUMNS, [late], token=int(token), run="old", now=NOW)
"""


def test_an_older_load_in_flight_does_not_outlive_a_newer_fence(
    bench: WarehouseBench, load: Load, tmp_path: Path
) -> None:
    """A holder that hangs before its commit and is killed leaves nothing, and its successor gets its fence."""
    load(A, token=1)
    seam = tmp_path / "faults" / "warehouse.before_commit"
    seam.parent.mkdir()
    seam.write_text("hang")
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, bench.kind, bench.address, "4"],
        env={**os.environ, "PENSTOCK_FAULTS": str(seam.parent)},
    )
    try:
        wait_for(
            lambda: seam.with_suffix(".before_commit.hit").exists() or holder.poll() is not None,
            seconds=30,
            what="the older load is before its commit",
        )
        assert holder.poll() is None
        with ThreadPoolExecutor(1) as pool:
            fenced = pool.submit(bench.warehouse.fence, "sales", 5)
            holder.kill()
            holder.wait(30)
            fenced.result(30)
    finally:
        holder.kill()
        holder.wait(30)
    late = part("late.csv", {"id": [8], "name": ["late"]})
    assert bench.warehouse.markers([late.ref.name]) == set()
    assert bench.warehouse.count("sales") == 2
    with pytest.raises(LeaseLost) as lost:
        load(late, token=4)
    assert lost.value.greater == 5
    with pytest.raises(LeaseLost) as lost:
        bench.warehouse.fence("sales", 3)
    assert lost.value.greater == 5
    assert load(late, token=5).loaded == (late.ref.name,)


def test_the_seams_of_a_load_are_its_own(warehouse: Warehouse, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fence passes no fault point, so that a seam that is armed for a load waits for one."""
    passed: list[str] = []
    monkeypatch.setattr(faults, "point", passed.append)
    warehouse.fence("sales", 1)
    assert passed == []
    load(A)
    assert passed == ["warehouse.before_commit", "warehouse.after_commit"]


def test_a_load_and_a_newer_fence_at_once(bench: WarehouseBench) -> None:
    """However they meet, a load is there whole and before the fence, or it is lost and not there at all."""
    lost = 0
    for number in range(12):
        late = part(f"{number}.csv", {"id": [number], "name": ["x"]})
        older, newer = 2 * number + 1, 2 * number + 2
        gate = threading.Barrier(2)

        def load(part: LoadPart = late, token: int = older, gate: threading.Barrier = gate) -> bool:
            gate.wait(30)
            try:
                bench.warehouse.load("sales", COLUMNS, [part], token=token, run="r", now=NOW)
            except LeaseLost:
                return False
            return True

        with ThreadPoolExecutor(1) as pool:
            loaded = pool.submit(load)
            gate.wait(30)
            bench.warehouse.fence("sales", newer)
            there = bench.warehouse.markers([late.ref.name])
            assert bool(there) == loaded.result(30)
        assert bench.warehouse.markers([late.ref.name]) == there
        lost += not there
    assert bench.warehouse.count("sales") == 12 - lost
    assert bench.warehouse.damaged("sales") == []


def test_first_loads_at_once(bench: WarehouseBench) -> None:
    """Four datasets that are loaded for the first time at the same moment are all loaded."""

    def load(name: str) -> LoadResult:
        one = part("a.csv", {"id": [1], "name": ["x"]}, dataset=name)
        return bench.warehouse.load(name, COLUMNS, [one], token=1, run="r", now=NOW)

    names = [f"d{number}" for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert [len(result.loaded) for result in pool.map(load, names)] == [1] * 4
    assert [bench.warehouse.count(name) for name in names] == [1] * 4


def test_rejected_rows_are_kept(warehouse: Warehouse, load: Load) -> None:
    """Rejected rows lie beside the table with line, reason and raw text."""
    load(part("a.csv", {"id": [1], "name": ["x"]}, rejected=[(2, 3, "id: not BIGINT: q", "q,y"), (3, None, "r", "{}")]))
    sql = (
        "SELECT _penstock_object, _penstock_row, line, reason, raw, _penstock_loaded_at FROM sales__rejected ORDER BY 2"
    )
    assert rows(warehouse, sql) == [
        (A.ref.name, 2, 3, "id: not BIGINT: q", "q,y", NOW),
        (A.ref.name, 3, None, "r", "{}", NOW),
    ]


def test_empty_part_gets_its_marker(warehouse: Warehouse, load: Load) -> None:
    """An object without rows is marked as loaded."""
    empty = part("e.csv", {"id": pa.array([], pa.int64()), "name": pa.array([], pa.string())})
    assert load(empty).loaded == (empty.ref.name,)
    assert load(empty).already == (empty.ref.name,)
    assert warehouse.count("sales") == 0


def test_a_marker_tells_what_was_loaded(warehouse: Warehouse, load: Load) -> None:
    """Of names that were loaded the marker has rows and rejected rows; before the first load there is nothing."""
    assert warehouse.loaded([A.ref.name]) == {}
    rejecting = part("r.csv", {"id": [9], "name": ["z"]}, rejected=[(2, 3, "check x", "9,z")])
    load(A, rejecting)
    assert warehouse.loaded([A.ref.name, rejecting.ref.name, "landing/sales/none.csv@1"]) == {
        A.ref.name: (2, 0),
        rejecting.ref.name: (1, 1),
    }


def test_added_column(warehouse: Warehouse, load: Load) -> None:
    """A column that the table lacks is added, and older rows have NULL there."""
    load(A)
    load(part("n.csv", {"id": [3], "name": ["z"], "price": [1.5]}), columns=(*COLUMNS, ("price", "DOUBLE")))
    assert rows(warehouse, "SELECT id, price FROM sales ORDER BY id") == [(1, None), (2, None), (3, 1.5)]


def test_widened_column(warehouse: Warehouse, load: Load) -> None:
    """BIGINT becomes DOUBLE when the schema says so, and parts of both kinds fit into one load after it."""
    load(A)
    wide = (("id", "DOUBLE"), ("name", "VARCHAR"))
    load(part("n.csv", {"id": [2.5], "name": ["z"]}), B, columns=wide)
    assert rows(warehouse, "SELECT id FROM sales ORDER BY id") == [(1.0,), (2.0,), (2.5,), (3.0,)]


def test_replace_while_the_table_changes(warehouse: Warehouse, load: Load) -> None:
    """A widened and an added column and a replaced generation fit into one load."""
    load(A)
    new = part("a.csv", {"id": [2.5], "name": ["z"], "q": [1]}, generation=2, replaces=(A.ref.name,))
    load(new, columns=(("id", "DOUBLE"), ("name", "VARCHAR"), ("q", "BIGINT")))
    assert rows(warehouse, "SELECT id, q FROM sales") == [(2.5, 1)]


def test_all_or_nothing(warehouse: Warehouse, load: Load) -> None:
    """When one part cannot be written, nothing of the load is there, the table's change and the token neither."""
    load(A, token=1)
    wrong = part("w.csv", {"id": ["not a number"], "name": ["y"]})
    columns = (*COLUMNS, ("more", "VARCHAR"))
    with pytest.raises(Exception, match="not a number"):
        load(replace(B, rows=B.rows.set_column(0, "id", pa.array(["3"]))), wrong, token=9, columns=columns)
    assert warehouse.count("sales") == 2
    assert warehouse.markers([B.ref.name, wrong.ref.name]) == set()
    assert "more" not in warehouse.query("SELECT * FROM sales", limit=1).columns
    assert load(B, token=1).loaded == (B.ref.name,)


def test_names_that_need_quoting(warehouse: Warehouse, load: Load) -> None:
    """Datasets and columns may be called like SQL's own words, and keys may hold quotes."""
    odd = part('it\'s "x".csv', {"select": [1], 'a"b': ["v"]}, dataset="order")
    load(odd, dataset="order", columns=(("select", "BIGINT"), ('a"b', "VARCHAR")))
    assert rows(warehouse, 'SELECT "select", "a""b", _penstock_object FROM "order"') == [(1, "v", odd.ref.name)]
    assert warehouse.count("order") == 1
    assert warehouse.markers([odd.ref.name]) == {odd.ref.name}
    again = replace(odd, ref=ref('it\'s "x".csv', 2, "order"), replaces=(odd.ref.name,))
    load(again, dataset="order", columns=(("select", "BIGINT"), ('a"b', "VARCHAR")))
    assert warehouse.count("order") == 1


def test_query_limits_its_answer(warehouse: Warehouse, load: Load) -> None:
    """A query gives at most `limit` rows and says when there were more."""
    load(A, B)
    short = warehouse.query("SELECT id FROM sales ORDER BY id", limit=2)
    assert (short.columns, short.rows, short.truncated) == (("id",), [(1,), (2,)], True)
    assert not warehouse.query("SELECT id FROM sales", limit=3).truncated


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM sales",
        "DROP TABLE sales",
        "CREATE TABLE t (a INT)",
        "INSERT INTO sales (id) VALUES (1)",
        "SELECT * FROM read_text('{file}')",
        "SELECT * FROM '{file}'",
        "COPY sales TO '{file}'",
        "ATTACH '{file}.db'",
        "SET enable_external_access = true",
        "SELECT 1; DROP TABLE sales",
        "SELECT nonsense FROM sales",
        "",
    ],
)
def test_query_refuses_writes_and_files(warehouse: Warehouse, load: Load, tmp_path: Path, sql: str) -> None:
    """A query neither writes nor reads what is outside the warehouse."""
    load(A)
    file = tmp_path / "secret.csv"
    file.write_text("a\n1\n")
    with pytest.raises(QueryRefused) as told:
        warehouse.query(sql.format(file=file), limit=10)
    assert not isinstance(told.value, TableMissing)
    assert warehouse.count("sales") == 2
    assert file.read_text() == "a\n1\n"


def test_a_table_that_is_not_there_yet_is_told_apart(warehouse: Warehouse, load: Load) -> None:
    """Before the first load of anything, and of one dataset; a column that is not there is another matter."""
    for loaded in (False, True):
        if loaded:
            load(A)
        with pytest.raises(TableMissing, match="no table later" if loaded else "no table later|no warehouse") as told:
            warehouse.query("SELECT count(*) FROM later", limit=1)
        assert "made with" in str(told.value)
        assert str(told.value).endswith("penstock status")
        assert "did you mean" not in str(told.value)


def test_query_is_stopped_after_its_time(bench: WarehouseBench, load: Load) -> None:
    """A query that takes too long is ended, and the warehouse is free again."""
    load(A)
    with pytest.raises(QueryTooLong):
        bench.warehouse.query(ENDLESS[bench.kind], limit=1, seconds=0.2)
    assert bench.warehouse.count("sales") == 2
