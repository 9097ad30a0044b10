"""What every warehouse must do with rows that take the place of others: merged by key, and by partition."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from penstock import faults
from penstock.errors import DeclarationError, DoesNotFit
from penstock.warehouse.base import APPEND, LoadPart, LoadResult, Write
from tests.conformance.warehouses import MAKERS, NOW, WarehouseBench, part

COLUMNS = (("id", "BIGINT"), ("day", "VARCHAR"), ("v", "BIGINT"))
BY_ID = Write(key=("id",))
NEWEST = Write(key=("id",), order_by="v")
BY_DAY = Write(partitions=("day",))
Load = Callable[..., LoadResult]


@pytest.fixture(params=sorted(MAKERS))
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[WarehouseBench]:
    with MAKERS[request.param](tmp_path) as made:
        yield made


@pytest.fixture
def load(bench: WarehouseBench) -> Load:
    def run(*parts: LoadPart, write: Write = BY_ID, columns: Any = COLUMNS) -> LoadResult:
        return bench.warehouse.load("sales", columns, parts, token=1, run="r1", now=NOW, write=write)

    return run


def arrived(
    number: int, values: Sequence[tuple[Any, Any, Any]], *, key: str = "", at: datetime | None = NOW, **more: Any
) -> LoadPart:
    """An object that came as the `number`-th; `values` are id, day and v."""
    types = (pa.int64(), pa.string(), pa.int64())
    columns = {name: pa.array([row[place] for row in values], types[place]) for place, (name, _) in enumerate(COLUMNS)}
    made = part(key or f"{number}.csv", columns, **more)
    return replace(made, ref=replace(made.ref, id=number, arrived_at=at))


def table(bench: WarehouseBench) -> list[tuple[Any, ...]]:
    sql = "SELECT id, day, v FROM sales ORDER BY id NULLS FIRST, day NULLS FIRST, v NULLS FIRST"
    return bench.warehouse.query(sql, limit=1000).rows


def markers(bench: WarehouseBench) -> dict[str, tuple[int, int, int]]:
    found = bench.warehouse.query("SELECT object, rows, rejected, gone FROM _penstock_objects", limit=1000).rows
    return {name.rpartition("/")[2].partition("@")[0]: tuple(rest) for name, *rest in found}


def test_a_key_that_arrives_again_takes_the_place_of_what_was_there(bench: WarehouseBench, load: Load) -> None:
    """Whole rows are replaced by key, other keys stay, and nothing counts as damaged."""
    load(arrived(1, [(1, "mo", 10), (2, "mo", 20)]))
    load(arrived(2, [(2, None, None), (3, "tu", 30)]))
    assert table(bench) == [(1, "mo", 10), (2, None, None), (3, "tu", 30)]
    assert markers(bench) == {"1.csv": (2, 0, 1), "2.csv": (2, 0, 0)}
    assert bench.warehouse.damaged("sales") == []
    names = [f"landing/sales/{number}.csv@1" for number in (1, 2)]
    assert bench.warehouse.loaded(names) == dict.fromkeys(names, (2, 0))
    assert bench.warehouse.gone([*names, "landing/sales/never.csv@1"]) == {names[0]: 1, names[1]: 0}


def test_what_is_lost_from_a_merged_table_is_still_damage(bench: WarehouseBench, load: Load) -> None:
    """Rows that others took the place of are not missed, and those that went by themselves are."""
    load(arrived(1, [(1, "mo", 10), (2, "mo", 20)]), arrived(2, [(2, "tu", 30)]))
    assert bench.warehouse.damaged("sales") == []
    bench.spoil("DELETE FROM sales WHERE id = 1")
    assert bench.warehouse.damaged("sales") == ["landing/sales/1.csv@1"]


@pytest.mark.parametrize("write", [BY_ID, BY_DAY], ids=["key", "partitions"])
def test_an_older_object_that_comes_late_does_not_overwrite(bench: WarehouseBench, load: Load, write: Write) -> None:
    """By arrival and not by load: first the time of arrival counts, then the sequence."""
    load(arrived(5, [(1, "mo", 5)], key="a.csv"), write=write)
    load(arrived(4, [(1, "mo", 4)], key="b.csv"), write=write)
    load(arrived(9, [(1, "mo", 9)], key="c.csv", at=NOW - timedelta(seconds=1)), write=write)
    assert table(bench) == [(1, "mo", 5)]
    assert markers(bench)["c.csv"] == (1, 0, 1)
    load(arrived(1, [(1, "mo", 1)], at=NOW + timedelta(microseconds=1)), write=write)
    assert table(bench) == [(1, "mo", 1)]
    assert bench.warehouse.damaged("sales") == []


def test_the_greatest_of_a_column_wins_before_any_arrival(bench: WarehouseBench, load: Load) -> None:
    """By `order_by` NULL is the least, equal ones go by arrival, and of one object the last row stays."""
    load(arrived(1, [(1, "a", 7), (2, "a", None), (3, "a", 1), (3, "b", 1), (3, "c", 0)]), write=NEWEST)
    assert table(bench) == [(1, "a", 7), (2, "a", None), (3, "b", 1)]
    load(arrived(2, [(1, "late", 6), (2, "b", -1), (3, "d", 1)]), write=NEWEST)
    assert table(bench) == [(1, "a", 7), (2, "b", -1), (3, "d", 1)]
    assert markers(bench) == {"1.csv": (5, 0, 4), "2.csv": (3, 0, 1)}


def test_nulls_of_a_key_are_equal(bench: WarehouseBench, load: Load) -> None:
    """Also where only some columns of a key are NULL."""
    both = Write(key=("id", "day"))
    load(arrived(1, [(None, None, 1), (None, "mo", 2), (1, None, 3), (1, "mo", 4)]), write=both)
    load(arrived(2, [(None, None, 11), (None, "mo", 12), (1, None, 13)]), write=both)
    assert table(bench) == [(None, None, 11), (None, "mo", 12), (1, None, 13), (1, "mo", 4)]
    assert bench.warehouse.damaged("sales") == []


def test_text_is_ordered_by_its_bytes(bench: WarehouseBench, load: Load) -> None:
    """Whatever language the database speaks: capitals before small letters, and those before what is not ASCII."""
    write = Write(key=("id",), order_by="day")
    load(arrived(1, [(1, "ä", 1), (2, "a", 1)]), arrived(2, [(1, "z", 2), (2, "B", 2)]), write=write)
    assert table(bench) == [(1, "ä", 1), (2, "a", 1)]


def test_a_partition_is_replaced_as_a_whole(bench: WarehouseBench, load: Load) -> None:
    """All rows of a day that arrives take the place of all that are there, NULL is a day too, and other days stay."""
    load(arrived(1, [(1, "mo", 1), (2, "mo", 1), (3, "tu", 1), (4, None, 1)]), write=BY_DAY)
    load(arrived(2, [(9, "mo", 2), (8, None, 2), (8, None, 2)]), write=BY_DAY)
    assert table(bench) == [(3, "tu", 1), (8, None, 2), (8, None, 2), (9, "mo", 2)]
    assert markers(bench) == {"1.csv": (4, 0, 3), "2.csv": (3, 0, 0)}
    assert bench.warehouse.damaged("sales") == []


def test_of_two_objects_of_a_load_the_later_has_the_partition(bench: WarehouseBench, load: Load) -> None:
    """In whichever order they are given."""
    load(arrived(2, [(2, "mo", 2)]), arrived(1, [(1, "mo", 1), (1, "tu", 1)]), write=BY_DAY)
    assert table(bench) == [(1, "tu", 1), (2, "mo", 2)]


def test_loaded_again_an_object_is_merged_anew(bench: WarehouseBench, load: Load) -> None:
    """What is left of it goes first; its rows that lose now are counted from 0."""
    load(arrived(1, [(1, "old", 1), (2, "old", 1), (3, "old", 1)]), arrived(2, [(2, "new", 2)]))
    once_more = arrived(1, [(1, "mended", 1), (2, "mended", 1)], again=True)
    for _ in range(2):
        load(once_more)
        assert table(bench) == [(1, "mended", 1), (2, "new", 2)]
        assert markers(bench) == {"1.csv": (2, 0, 1), "2.csv": (1, 0, 0)}
    assert bench.warehouse.damaged("sales") == []


def test_rows_without_a_marker_are_the_oldest(bench: WarehouseBench, load: Load) -> None:
    """They give way to whatever comes."""
    load(arrived(9, [(1, "mo", 1), (2, "mo", 1)]))
    bench.spoil("DELETE FROM _penstock_objects")
    load(arrived(1, [(1, "tu", 2)], at=NOW - timedelta(days=1000)))
    assert table(bench) == [(1, "tu", 2), (2, "mo", 1)]


def test_a_table_that_was_appended_to_begins_to_merge(bench: WarehouseBench, load: Load) -> None:
    """Rows that were there twice are one when their key arrives, and others stay as they are until then."""
    load(arrived(1, [(1, "a", 1), (1, "b", 1), (2, "a", 1), (2, "b", 1)]), write=APPEND)
    load(arrived(2, [(1, "c", 2)]))
    assert table(bench) == [(1, "c", 2), (2, "a", 1), (2, "b", 1)]
    load(arrived(3, [(1, "d", 3)]), write=APPEND)
    assert len(table(bench)) == 4
    assert bench.warehouse.damaged("sales") == []


def test_the_key_may_become_wider_while_it_merges(bench: WarehouseBench, load: Load) -> None:
    """A number that got a fraction is the same key as before."""
    load(arrived(1, [(1, "mo", 1), (2, "mo", 1)]))
    wider = part("t.csv", {"id": [2.0, 2.5], "day": ["tu", "tu"], "v": [2, 2]})
    load(replace(wider, ref=replace(wider.ref, id=2, arrived_at=NOW)), columns=(("id", "DOUBLE"), *COLUMNS[1:]))
    load(arrived(3, [(1, "we", 3)]), columns=COLUMNS)
    assert table(bench) == [(1.0, "we", 3), (2.0, "tu", 2), (2.5, "tu", 2)]
    assert bench.warehouse.damaged("sales") == []


@pytest.mark.parametrize(
    ("write", "column", "kind", "value"),
    [
        (Write(key=("id",)), "id", "VARCHAR", "2"),
        (Write(key=("id",)), "id", "BOOLEAN", True),
        (Write(key=("id",), order_by="V"), "v", "VARCHAR", "10"),
        (Write(partitions=("id",)), "id", "VARCHAR", "2"),
        (Write(key=("day",)), "day", "DOUBLE", 1.0),
        (Write(key=("id",), order_by="day"), "day", "BIGINT", 10),
    ],
    ids=["key", "key boolean", "order_by", "partitions", "text key", "text order_by"],
)
def test_what_rows_are_merged_by_does_not_become_text(
    bench: WarehouseBench, load: Load, write: Write, column: str, kind: str, value: Any
) -> None:
    """As texts '10' is less than '9' and 1.0 is not 1: the load is refused with the column's name, nothing changes."""
    load(arrived(1, [(1, "mo", 9)]), write=write)
    values: dict[str, Sequence[Any]] = {"id": [1], "day": ["mo"], "v": [1], column: [value]}
    other = part("t.csv", values)
    with pytest.raises(DoesNotFit, match=column):
        load(other, columns=tuple((name, kind if name == column else old) for name, old in COLUMNS), write=write)
    assert table(bench) == [(1, "mo", 9)]
    load(arrived(2, [(1, "mo", 10)]), write=write)
    assert table(bench) == [(1, "mo", 10)]


def test_a_key_too_long_for_an_index_stops_nobody(bench: WarehouseBench, load: Load) -> None:
    """A row from before the table merged stays, and those after it are merged, index or not."""
    endless = secrets.token_hex(9000)
    load(arrived(1, [(1, endless, 1)]), write=APPEND)
    by_day = Write(key=("day",))
    load(arrived(2, [(2, "mo", 2)]), write=by_day)
    load(arrived(3, [(3, "mo", 3), (3, endless, 3)]), write=by_day)
    assert sorted(row[0::2] for row in table(bench)) == [(3, 3), (3, 3)]
    assert bench.warehouse.damaged("sales") == []


@pytest.mark.parametrize(
    "write", [Write(key=("id", "nope")), Write(key=("id",), order_by="nope"), Write(partitions=("nope",))]
)
def test_a_column_that_is_not_there_is_the_declarations_fault(bench: WarehouseBench, load: Load, write: Write) -> None:
    """The error names it, and nothing is loaded; an object without rows has no need of it."""
    with pytest.raises(DeclarationError, match=r"sales.*'nope'"):
        load(arrived(1, [(1, "mo", 1)]), write=write)
    assert bench.warehouse.count("sales") == 0
    assert load(arrived(2, []), write=write).loaded == ("landing/sales/2.csv@1",)


def test_names_of_keys_may_need_quoting(bench: WarehouseBench) -> None:
    """Keys may be called like SQL's own words, or hold what has a meaning in it."""
    names = ("select", 'a"b', "100%s", "User")
    columns = tuple((name, "BIGINT") for name in names)
    write = Write(key=("select", 'a"b', "100%s"), order_by="user")
    for number in (1, 2):
        values: dict[str, Sequence[int]] = {"select": [1], 'a"b': [1], "100%s": [1], "User": [number]}
        one = part(f"it's {number} %s.csv", values, dataset="order")
        bench.warehouse.load("order", columns, [one], token=1, run="r", now=NOW, write=write)
    assert bench.warehouse.query('SELECT "User" FROM "order"', limit=9).rows == [(2,)]
    assert bench.warehouse.damaged("order") == []


@pytest.mark.parametrize("name", ["rowid", "id"])
def test_of_rows_made_of_one_record_the_last_stays(bench: WarehouseBench, name: str) -> None:
    """Where a transform made several rows with a number; where they cannot be told apart, nothing is loaded."""
    one = part("a.csv", {name: [7, 7, 7], "v": [1, 2, 3]})
    one = replace(one, rows=one.rows.set_column(2, "_penstock_row", pa.array([1, 1, 1])))
    columns = ((name, "BIGINT"), ("v", "BIGINT"))

    def load() -> LoadResult:
        return bench.warehouse.load("sales", columns, [one], token=1, run="r", now=NOW, write=Write(key=(name,)))

    if (bench.kind, name) == ("duckdb", "rowid"):
        with pytest.raises(DeclarationError, match="rowid"):
            load()
        assert bench.warehouse.count("sales") == 0
    else:
        load()
        assert bench.warehouse.query("SELECT v FROM sales", limit=9).rows == [(3,)]


@pytest.mark.parametrize("name", ["rowid", "ctid", "object", "c", "lost"])
def test_a_key_may_be_called_like_what_the_warehouse_itself_says(bench: WarehouseBench, name: str) -> None:
    """Whatever a database calls its rows' places, or a statement of ours its parts, is free for columns."""
    columns = ((name, "BIGINT"), ("v", "BIGINT"))
    for number in (1, 2):
        one = part(f"{number}.csv", {name: [7, 7, number], "v": [1, 2, number]})
        one = replace(one, ref=replace(one.ref, id=number))
        bench.warehouse.load("sales", columns, [one], token=1, run="r", now=NOW, write=Write(key=(name,)))
    found = bench.warehouse.query("SELECT _penstock_object, v FROM sales ORDER BY 1, 2", limit=9).rows
    assert found == [("landing/sales/1.csv@1", 1), ("landing/sales/2.csv@1", 2), ("landing/sales/2.csv@1", 2)]
    assert bench.warehouse.damaged("sales") == []


def test_a_fault_before_the_commit_leaves_all_as_it_was(
    bench: WarehouseBench, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What had been taken out is there again, and so are the markers; the load can be repeated."""
    load(arrived(1, [(1, "a", 1), (2, "a", 1)]))
    before = (table(bench), markers(bench))

    def fail(seam: str) -> None:
        raise faults.Injected(seam)

    newer = arrived(2, [(1, "b", 2), (3, "b", 2)])
    with monkeypatch.context() as patch:
        patch.setattr(faults, "point", fail)
        with pytest.raises(faults.Injected):
            load(newer)
    assert (table(bench), markers(bench)) == before
    load(newer)
    assert table(bench) == [(1, "b", 2), (2, "a", 1), (3, "b", 2)]


# Merges, and stops at the fault point that a file asks for.
_KILLED = """
import sys

from tests.conformance.test_warehouse_merging import BY_ID, COLUMNS, arrived
from tests.conformance.warehouses import NOW, open_warehouse

newer = arrived(2, [(1, "b", 2), (3, "b", 2)])
open_warehouse(*sys.argv[1:]).load("sales", COLUMNS, [newer], token=1, run="r", now=NOW, write=BY_ID)
"""


def test_a_merge_that_is_killed_leaves_all_as_it_was(bench: WarehouseBench, load: Load, tmp_path: Path) -> None:
    """Killed before its commit, a process leaves rows and markers as they were."""
    load(arrived(1, [(1, "a", 1), (2, "a", 1)]))
    before = (table(bench), markers(bench))
    seam = tmp_path / "faults" / "warehouse.before_commit"
    seam.parent.mkdir()
    seam.write_text("kill")
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, bench.kind, bench.address],
        env={**os.environ, "PENSTOCK_FAULTS": str(seam.parent)},
        timeout=60,
        check=False,
    )
    assert done.returncode == -9
    assert (table(bench), markers(bench)) == before
    load(arrived(2, [(1, "b", 2), (3, "b", 2)]))
    assert table(bench) == [(1, "b", 2), (2, "a", 1), (3, "b", 2)]


def test_the_order_of_loads_does_not_matter_with_many_rows(bench: WarehouseBench, load: Load) -> None:
    """More rows than a block of DuckDB's, of which most lose within their own load."""
    count = 130_000
    older = arrived(1, [(number % 50_000, "old", number) for number in range(count)])
    newer = arrived(2, [(number, "new", number) for number in range(40_000)])
    load(newer)
    load(older)
    sql = "SELECT day, count(*), sum(v) FROM sales GROUP BY 1 ORDER BY 1"
    assert bench.warehouse.query(sql, limit=9).rows == [
        ("new", 40_000, sum(range(40_000))),
        ("old", 10_000, sum(range(90_000, 100_000))),
    ]
    assert markers(bench) == {"1.csv": (count, 0, count - 10_000), "2.csv": (40_000, 0, 0)}
    assert bench.warehouse.damaged("sales") == []
