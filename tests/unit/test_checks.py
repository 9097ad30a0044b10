"""Row checks, `where`, and what a rejected row is said to be wrong in; alone and read together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from penstock import formats
from penstock.checks import Check, accepted, not_null, unique
from penstock.declarations import Dataset
from penstock.errors import DeclarationError, Unreadable
from penstock.flows.judging import Judged, judge_all
from penstock.flows.reading import Reader
from penstock.formats import ReadResult
from penstock.formats.noted import Failing, failing, filtered
from penstock.model import Schema, State

CSV = "id,qty,kind\n1,5,a\n2,-3,a\n3,x,b\n4,7,b\n5,,c\n"


def read(folder: Path, content: str, dataset: Dataset, name: str = "a.csv", schema: Schema | None = None) -> ReadResult:
    path = folder / name
    path.write_text(content)
    return formats.read(path, name, dataset, schema or formats.infer(path, name, dataset))


def judged(folder: Path, content: str, dataset: Dataset) -> Judged:
    path = folder / "judged.csv"
    path.write_text(content)
    schema = formats.infer(path, path.name, dataset)
    reader = Reader({1: (path, path.name)}, dataset=dataset, remembered=lambda form: schema, progress=lambda: None)
    return judge_all(reader.read(1))


def wrong(result: ReadResult) -> list[tuple[Any, ...]]:
    return [(row["_penstock_row"], row["reason"], row["column"], row["check"]) for row in result.rejected.to_pylist()]


def test_a_rejected_row_names_its_column_and_check(tmp_path: Path) -> None:
    """The column that was not what it should be, else the check's; and the first check that fails."""
    dataset = Dataset(
        name="sales",
        columns={"qty": "BIGINT"},
        checks={"positive": "qty > 0", "known": accepted("kind", ["a", "b"]), "there": not_null("qty")},
    )
    assert wrong(read(tmp_path, CSV, dataset)) == [
        (2, "check positive", None, "positive"),
        (3, "qty: not BIGINT: x; check positive; check there", "qty", "positive"),
        (5, "check positive; check known; check there", None, "positive"),
    ]
    only = replace(dataset, checks={"known": accepted("kind", ["a"])})
    assert wrong(read(tmp_path, CSV, only)) == [
        (3, "qty: not BIGINT: x; check known", "qty", "known"),
        (4, "check known", "kind", "known"),
        (5, "check known", "kind", "known"),
    ]


def test_a_derived_column_that_fails_is_named(tmp_path: Path) -> None:
    """It is the column to blame, and its reason reads as before."""
    dataset = Dataset(name="sales", derive={"n": "CAST(kind AS INTEGER)"}, checks={"n": "n IS NOT NULL"})
    assert wrong(read(tmp_path, "id,kind\n1,a\n2,7\n", replace(dataset, columns={"kind": "VARCHAR"}))) == [
        (1, "derive n failed; check n", "n", "n")
    ]


def test_what_a_value_says_is_no_mark(tmp_path: Path) -> None:
    """A value with the control characters that stand around names blames nothing else."""
    dataset = Dataset(name="sales", columns={"qty": "BIGINT"}, checks={"c": "id > 0"})
    content = "id,qty\n1,\x1cevil\x1f\x1echeck no\x1f\n2,2\n"
    assert wrong(read(tmp_path, content, dataset)) == [(1, "qty: not BIGINT: evilcheck no", "qty", None)]


def test_warnings_are_loaded_and_counted(tmp_path: Path) -> None:
    """A row that fails a `warn` is loaded; it is counted unless something else puts it aside."""
    dataset = Dataset(
        name="sales",
        columns={"qty": "BIGINT"},
        checks={
            "positive": Check("qty > 0", "warn"),
            "known": Check("kind IN ('a', 'b')", "warn"),
            "not_four": Check("id <> 4", "row"),
        },
    )
    found = read(tmp_path, CSV, dataset)
    assert found.rows.column("id").to_pylist() == [1, 2, 5]
    assert wrong(found) == [(3, "qty: not BIGINT: x", "qty", None), (4, "check not_four", None, "not_four")]
    assert failing(found, dataset) == {
        "positive": Failing(rows=2, row=2, line=None),
        "known": Failing(rows=1, row=5, line=None),
    }
    assert judged(tmp_path, CSV, dataset).warnings(dataset) == {"positive": 2, "known": 1}


def test_a_row_that_no_object_may_have(tmp_path: Path) -> None:
    """Any row that fails a check of the severity `object` sends all of it to quarantine, and the first one is named."""
    dataset = Dataset(
        name="sales", checks={"positive": Check("qty  >\n 0", "object"), "warned": Check("id > 1", "warn")}
    )
    found = judged(tmp_path, "id,qty\n1,1\n2,0\n3,-1\n", dataset)
    assert (found.state, found.reason) == (
        State.QUARANTINED,
        "check positive: 2 rows fail qty > 0, the first in line 3",
    )
    assert judged(tmp_path, "id,qty\n1,1\n", dataset).state is State.LOADED
    # A row that cannot be read is one that fails.
    hinted = replace(dataset, columns={"qty": "BIGINT"})
    assert judged(tmp_path, "id,qty\n1,1\n2,x\n", hinted).reason == (
        "check positive: 1 row fails qty > 0, the first in line 3"
    )


def test_the_line_of_ndjson_is_named(tmp_path: Path) -> None:
    """Where a record's line is known, that is what is said."""
    dataset = Dataset(name="sales", checks={"positive": Check("qty > 0", "object")})
    found = read(tmp_path, '{"qty": 1}\n\n{"qty": 0}\n', dataset, "a.ndjson")
    assert failing(found, dataset)["positive"].place == "line 3"


def test_rows_are_passed_over(tmp_path: Path) -> None:
    """Rows for which `where` is not true are neither loaded nor rejected, unless they cannot be read."""
    dataset = Dataset(
        name="sales",
        columns={"qty": "BIGINT"},
        derive={"twice": "qty * 2"},
        where="twice > 0 AND kind <> 'b'",
        checks={"not_c": "kind <> 'c'", "never": Check("false", "warn")},
    )
    found = read(tmp_path, CSV, dataset)
    assert found.rows.column("id").to_pylist() == [1]
    assert wrong(found) == [(3, "qty: not BIGINT: x", "qty", None)]
    assert (found.total, filtered(found)) == (5, 3)
    assert failing(found, dataset) == {"never": Failing(rows=1, row=1, line=None)}


def test_a_window_does_not_see_what_is_passed_over(tmp_path: Path) -> None:
    """A row whose twin is passed over is the only one of its id."""
    dataset = Dataset(name="sales", where="kind = 'final'", checks={"once": unique("id")})
    content = "id,kind\n1,draft\n1,final\n2,final\n2,final\n"
    found = read(tmp_path, content, dataset)
    assert found.rows.column("_penstock_row").to_pylist() == [2, 3]
    assert (wrong(found), filtered(found), found.total) == ([(4, "check once", "id", "once")], 1, 4)


def test_a_where_that_fails_on_a_row(tmp_path: Path) -> None:
    """Such a row is put aside, and takes no other with it."""
    dataset = Dataset(name="sales", columns={"kind": "VARCHAR"}, where="CAST(kind AS INTEGER) > 1")
    found = read(tmp_path, "id,kind\n1,1\n2,x\n3,3\n", dataset)
    assert (found.rows.column("id").to_pylist(), wrong(found)) == ([3], [(2, "where failed", None, None)])
    assert filtered(found) == 1


def test_a_wrong_where_is_named(tmp_path: Path) -> None:
    """By its words, and what is wrong with them."""
    dataset = Dataset(name="sales", where="nowhere > 1")
    with pytest.raises(DeclarationError, match=r"dataset sales: where 'nowhere > 1'.*nowhere"):
        read(tmp_path, CSV, dataset)


def test_what_is_passed_over_counts_for_no_threshold(tmp_path: Path) -> None:
    """The share is of the rows that are wanted; of an object with none it is said why it is empty."""
    dataset = Dataset(name="sales", where="kind = 'a'", checks={"positive": "qty > 0"}, threshold=0.6)
    content = "id,qty,kind\n1,1,a\n2,0,a\n3,1,b\n4,1,b\n"
    found = judged(tmp_path, content, dataset)
    assert (found.state, found.reason) == (
        State.QUARANTINED,
        "1 of 2 rows are bad, and at least 60% must be good: check positive (1)",
    )
    none = judged(tmp_path, "id,qty,kind\n1,1,b\n", dataset)
    assert (none.state, none.reason, none.filtered) == (State.EMPTY, "of its 1 records 1 were passed over", 1)


def test_rows_of_a_merge_need_their_key(tmp_path: Path) -> None:
    """A row without it is put aside by the check `key`; a key that no column has is an error."""
    dataset = Dataset(name="sales", write="merge", key=["id", "kind"])
    found = read(tmp_path, "id,kind\n1,a\n,b\n3,\n", dataset)
    assert found.rows.column("id").to_pylist() == [1]
    assert wrong(found) == [(2, "check key", "id", "key"), (3, "check key", "id", "key")]
    for changes in ({"key": ["other"]}, {"select": ["id"]}, {"order_by": "other"}):
        with pytest.raises(DeclarationError, match=r"dataset sales: .*(key|order_by) names '(other|kind)', which no"):
            read(tmp_path, "id,kind\n1,a\n", replace(dataset, **changes))


def test_a_first_object_without_records_is_no_error(tmp_path: Path) -> None:
    """It has no columns that key, select and checks could name."""
    dataset = Dataset(name="sales", write="merge", key=["id"], select=["id"], checks={"a": "id > 0"}, where="id > 1")
    assert read(tmp_path, "[]", dataset, "a.json").total == 0


DATASETS = {
    "plain": Dataset(name="sales"),
    "row": Dataset(name="sales", checks={"positive": "qty > 0"}),
    "warn": Dataset(name="sales", checks={"positive": Check("qty > 0", "warn"), "b": Check("kind <> 'b'", "object")}),
    "where": Dataset(name="sales", where="kind <> 'a'", checks={"positive": "qty > 0"}),
    "all": Dataset(
        name="sales",
        where="kind <> 'c'",
        write="merge",
        key=["kind"],
        derive={"n": "CAST(coalesce(kind, '1') AS VARCHAR)"},
        checks={"positive": Check("qty > 0", "warn"), "four": "id <> 4", "one": Check("id <> 1", "object")},
    ),
    "failing": Dataset(
        name="sales", where="CAST(kind AS VARCHAR) <> 'c'", checks={"n": Check("CAST(kind AS INTEGER) > 0", "warn")}
    ),
    "window": Dataset(name="sales", where="row_number() OVER () > 1"),
}


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("form", ["csv", "ndjson"])
def test_together_as_alone(tmp_path: Path, name: str, form: str) -> None:
    """Objects read together give what each gives alone, notes included, and so does one whose rows are on disk."""
    dataset = DATASETS[name]
    contents = [CSV.replace("x", "6"), "id,qty,kind\n9,9,c\n", "id,qty,kind\n", CSV.replace("5,a", "-5,"), CSV]
    paths = [tmp_path / f"{number}.{form}" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_text(content if form == "csv" else _as_ndjson(content))
    first = next(path for path in paths if path.stat().st_size)
    schema = formats.infer(first, first.name, dataset)
    together = formats.read_together(paths, form, dataset, schema)
    assert together.keys() == (set() if name == "window" else together.keys() | {0, 1, 3})
    for index, path in enumerate(paths):
        if path.stat().st_size:
            alone = _all_of(formats.read(path, path.name, dataset, schema))
            assert _all_of(formats.read(path, path.name, dataset, schema, large=True)) == alone
            assert index not in together or _all_of(together[index]) == alone


def _as_ndjson(content: str) -> str:
    header, *lines = [line.split(",") for line in content.splitlines()]
    rows = [dict(zip(header, line, strict=True)) for line in lines]
    return "".join(
        json.dumps({name: (int(v) if v.lstrip("-").isdigit() else v or None) for name, v in row.items()}) + "\n"
        for row in rows
    )


def _all_of(found: ReadResult) -> Sequence[Any]:
    noted = found.noted.to_pylist() if found.noted is not None else []
    return (found.rows.to_pylist(), found.rejected.to_pylist(), noted, found.total, found.schema)


@pytest.mark.parametrize(
    "more",
    [
        {"checks": {"once": unique("id")}},
        {"checks": {"known": "id IN (SELECT unnest([1, 2, 3]))"}},
        {"checks": {"known": Check("id IN (SELECT unnest([1, 2, 3]))", "object")}},
        {"where": "id IN (SELECT unnest([1, 2, 3]))"},
        {"derive": {"day": "CAST(moment AS DATE)", "mark": "uuid()"}},
    ],
    ids=["window", "subquery", "noted", "where", "volatile"],
)
def test_a_row_that_fails_beside_what_sees_more_than_a_row(tmp_path: Path, more: dict[str, Any]) -> None:
    """DuckDB takes no TRY around windows, subqueries and volatile functions: the others say which row it is."""
    declared = {"columns": {"moment": "VARCHAR"}, "derive": {"day": "CAST(moment AS DATE)"}} | more
    found = judged(tmp_path, "id,moment\n1,2026-01-01\n2,2026-13-45\n3,\n", Dataset(name="sales", **declared))
    assert wrong(found.result) == [(2, "derive day failed", "day", None)]
    assert sorted(found.result.rows.column("id").to_pylist()) == [1, 3]


@pytest.mark.parametrize(
    ("declared", "what"),
    [
        ({"checks": {"most": "max(CAST(kind AS BIGINT)) OVER () > 0"}}, "check most"),
        ({"where": "CAST(kind AS BIGINT) IN (SELECT unnest([1, 2]))"}, "where"),
        (
            {"derive": {"n": "CAST(kind AS BIGINT) + random()"}, "checks": {"once": unique("id")}},
            "derive n or check once",
        ),
    ],
    ids=["window", "subquery", "volatile"],
)
def test_what_fails_on_the_data_of_no_row(tmp_path: Path, declared: dict[str, Any], what: str) -> None:
    """The object waits, with the expressions that it may be: the dataset does not stand still for it."""
    with pytest.raises(Unreadable, match=f"^{what} fails on the data, and it cannot be said in which row$"):
        judged(tmp_path, CSV, Dataset(name="sales", columns={"kind": "VARCHAR"}, **declared))


def test_a_faulty_expression_beside_one_that_fails(tmp_path: Path) -> None:
    """It is still the declaration that is to be mended."""
    derive = {"day": "CAST(kind AS DATE)", "n": "nowhere + 1"}
    with pytest.raises(DeclarationError, match="derive n 'nowhere"):
        judged(tmp_path, CSV, Dataset(name="sales", derive=derive, checks={"once": unique("id")}))
