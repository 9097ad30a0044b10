"""The rows of a load's parts as one table."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime
from typing import Any

import pyarrow as pa

from penstock.model import ObjectRef
from penstock.warehouse.base import OBJECT, LoadPart, plan_load, steps
from penstock.warehouse.rows import agreed, as_kinds, missing, together

NOTHING = pa.table({"id": pa.array([], pa.int64())})


def part(number: int, **columns: list[Any]) -> LoadPart:
    ref = ObjectRef(id=number, dataset="d", bucket="b", key=f"k{number}", generation=1, etag="e", size=1)
    return LoadPart(ref=ref, rows=pa.table(columns) if columns else NOTHING, rejected=NOTHING)


def test_each_row_names_its_object() -> None:
    """Parts without rows leave nothing, columns that a part lacks are null, and integers give way to fractions."""
    parts = [part(1, id=[1, 2]), part(2), part(3, id=[2.5], name=["c"]), part(4, id=[4])]
    found = together(parts, [one.rows for one in parts])
    assert found.to_pylist() == [
        {"id": 1.0, "name": None, OBJECT: "b/k1@1"},
        {"id": 2.0, "name": None, OBJECT: "b/k1@1"},
        {"id": 2.5, "name": "c", OBJECT: "b/k3@1"},
        {"id": 4.0, "name": None, OBJECT: "b/k4@1"},
    ]


def test_no_rows_at_all() -> None:
    """The table has its columns all the same."""
    found = together([part(1), part(2)], [NOTHING, NOTHING])
    assert (found.num_rows, found.column_names) == (0, ["id", OBJECT])


def test_many_small_parts_become_one_piece_and_large_ones_are_not_copied() -> None:
    """A reader of the table meets few pieces, and a part that is mapped from disk stays there."""
    small = [part(number, id=[number]) for number in range(50)]
    assert together(small, [one.rows for one in small]).column("id").num_chunks == 1
    large = [part(number, id=list(range(20_000))) for number in range(2)]
    found = together(large, [one.rows for one in large])
    assert found.column("id").chunk(0).buffers()[1].address == large[0].rows.column("id").chunk(0).buffers()[1].address


def test_only_what_is_missing_is_left() -> None:
    """Rows, good and rejected, that were rejected and whose numbers are not there; the part is the same otherwise."""
    numbers = [1, 2, 2, 3]
    one = replace(
        part(1, id=[10, 20, 21, 30], _penstock_row=numbers), rejected=pa.table({"_penstock_row": [4, 5]}), again=True
    )
    found = missing(one, pa.chunked_array([[2], [4]], pa.int64()), [1, 2, 4, 5])
    assert (found.rows.column("id").to_pylist(), found.rejected.column("_penstock_row").to_pylist()) == ([10], [5])
    assert (found.ref, found.again) == (one.ref, True)
    assert missing(one, pa.chunked_array([], pa.int64()), [1, 2, 3]).rows.num_rows == 4


def test_the_columns_of_a_load_hold_all_of_its_values() -> None:
    """Whichever comes first: a fraction beside a whole number that DOUBLE would round makes text of both."""
    small, large, half = (pa.table({"v": [value]}) for value in (1, 2**60 + 1, 0.5))
    for parts in ([(large, "BIGINT"), (half, "DOUBLE")], [(half, "DOUBLE"), (large, "BIGINT")]):
        own = [([("v", kind)], rows) for rows, kind in parts]
        kinds = agreed(own)
        assert kinds == {"v": "VARCHAR"}
        texts = [as_kinds(rows, columns, kinds).column("v").to_pylist() for columns, rows in own]
        assert sorted(texts) == [["0.5"], ["1152921504606846977"]]
    assert agreed([([("v", "BIGINT")], small), ([("v", "DOUBLE")], half)]) == {"v": "DOUBLE"}


def test_types_that_arrow_does_not_join_are_cast() -> None:
    """Each part has the load's types, so that they are one table."""
    moment, day = datetime(2026, 1, 1, 10, 20), date(2026, 1, 2)  # noqa: DTZ001
    parts = [([("v", "TIMESTAMP")], pa.table({"v": [moment]})), ([("v", "DATE")], pa.table({"v": [day]}))]
    cast = [as_kinds(rows, columns, agreed(parts)) for columns, rows in parts]
    found = pa.concat_tables(cast, promote_options="permissive").column("v").to_pylist()
    assert found == [moment, datetime(2026, 1, 2)]  # noqa: DTZ001


def test_what_goes_first_and_what_is_only_mended() -> None:
    """Only rejected rows of what has a marker pass by it and leave its rows; without one it is loaded as asked."""
    mended, lost = (replace(part(number), again=True, only_rejected=True) for number in (1, 2))
    again, known = replace(part(3), again=True), part(4)
    there = {"b/k1@1", "b/k3@1", "b/k4@1"}
    fresh, result = plan_load([mended, lost, again, known], there=there, replaced=())
    assert fresh == [mended, lost, again]
    assert (result.loaded, result.already) == (("b/k1@1", "b/k2@1", "b/k3@1"), ("b/k4@1",))
    assert steps(fresh, there=there) == (["b/k2@1", "b/k3@1"], ["b/k1@1"])
