"""A dataset's own function over an object's good rows."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from penstock import formats
from penstock.checks import Check, row_count
from penstock.declarations import Dataset
from penstock.errors import Unreadable
from penstock.flows.judging import Judged, judge_all
from penstock.flows.reading import Reader
from penstock.model import State

CSV = "id,qty\n1,5\n2,x\n3,7\n"


def judged(folder: Path, content: str, transform: Callable[..., Any], **more: Any) -> Judged:
    dataset = Dataset(name="sales", transform=transform, **({"columns": {"qty": "BIGINT"}} | more))
    path = folder / ("a.csv" if content[0] != "{" else "a.ndjson")
    path.write_text(content)
    schema = formats.infer(path, path.name, dataset)
    reader = Reader({1: (path, path.name)}, dataset=dataset, remembered=lambda form: schema, progress=lambda: None)
    return judge_all(reader.read(1))


def doubled(rows: pa.Table) -> pa.Table:
    return rows.append_column("twice", pc.multiply(rows.column("qty"), 2)).drop_columns(["qty"])


def test_its_columns_are_the_table_s(tmp_path: Path) -> None:
    """It sees the good rows only; its columns and their types are those of the table."""
    found = judged(tmp_path, CSV, doubled).result
    assert found.columns == (("id", "BIGINT"), ("twice", "BIGINT"))
    assert found.rows.to_pylist() == [
        {"id": 1, "twice": 10, "_penstock_row": 1, "_penstock_rescued": None},
        {"id": 3, "twice": 14, "_penstock_row": 3, "_penstock_rescued": None},
    ]
    assert found.rejected.num_rows == 1


def test_types_are_the_widest_of_their_sort(tmp_path: Path) -> None:
    """So that the next object's are no others; a column of nothing has no type, unless it is hinted."""

    def many(rows: pa.Table) -> pa.Table:
        values = {
            "small": pa.array([1, 2], pa.int8()),
            "large": pa.array([1, 2**64 - 1], pa.uint64()),
            "half": pa.array([1.0, 2.0], pa.float32()),
            "word": pa.array(["a", "b"]).dictionary_encode(),
            "nothing": pa.nulls(2),
            "qty": pa.nulls(2),
            "at": pa.array([1, 2], pa.timestamp("ms")),
        }
        return pa.table(values | {"_penstock_row": rows.column("_penstock_row")})

    assert judged(tmp_path, CSV, many).result.columns == (
        ("small", "BIGINT"),
        ("large", "DECIMAL(20,0)"),
        ("half", "DOUBLE"),
        ("word", "VARCHAR"),
        ("qty", "BIGINT"),
        ("at", "TIMESTAMP"),
    )


def test_what_was_rescued_stays_with_its_record(tmp_path: Path) -> None:
    """Whatever the order, and how many rows are made of one."""

    def turned(rows: pa.Table) -> pa.Table:
        assert "_penstock_rescued" not in rows.column_names
        return rows.take([2, 0, 0])

    path = tmp_path / "b.csv"
    path.write_text("id,qty,more\n1,1,x\n2,2,y\n3,3,z\n")
    dataset = Dataset(name="sales", transform=turned)
    (tmp_path / "first.csv").write_text("id,qty\n1,1\n")
    schema = formats.infer(tmp_path / "first.csv", "first.csv", dataset)
    reader = Reader({1: (path, "b.csv")}, dataset=dataset, remembered=lambda form: schema, progress=lambda: None)
    rows = judge_all(reader.read(1)).result.rows
    assert rows.column("_penstock_row").to_pylist() == [3, 1, 1]
    assert [json.loads(text)["more"] for text in rows.column("_penstock_rescued").to_pylist()] == ["z", "x", "x"]


def test_json_arrives_as_text(tmp_path: Path) -> None:
    """An array of JSON is the text that says it."""

    def counted(rows: pa.Table) -> pa.Table:
        numbers = [len(json.loads(text)) for text in rows.column("tags").to_pylist()]
        return rows.set_column(rows.schema.get_field_index("tags"), "tags", pa.array(numbers))

    found = judged(tmp_path, '{"id": 1, "tags": [1, 2]}\n{"id": 2, "tags": []}\n', counted, columns={})
    assert found.result.rows.column("tags").to_pylist() == [2, 0]


def boom(rows: pa.Table) -> pa.Table:
    raise KeyError("colour")


@pytest.mark.parametrize(
    ("transform", "reason"),
    [
        (boom, r"^transform: KeyError: 'colour'$"),
        (lambda rows: None, r"must return a pyarrow.Table, and returned nothing$"),
        (lambda rows: rows.to_pylist(), r"must return a pyarrow.Table, and returned builtins.list$"),
        (lambda rows: rows.drop_columns(["_penstock_row"]), "has no _penstock_row, which says which record"),
        (lambda rows: rows.select(["_penstock_row"]), "has no columns of its own"),
        (lambda rows: rows.append_column("Two Words", rows["id"]), "column 'Two Words' .*: use a-z, 0-9 and _"),
        (lambda rows: rows.append_column("id", rows["id"]), "two columns of one name"),
        (lambda rows: rows.set_column(2, "_penstock_row", pa.array([1, 2])), "a _penstock_row that no row had"),
        (lambda rows: rows.set_column(2, "_penstock_row", pa.array([1, None])), "a _penstock_row that no row had"),
        (lambda rows: rows.set_column(2, "_penstock_row", pa.array(["a", "b"])), "transform: ArrowInvalid"),
    ],
    ids=["raises", "nothing", "list", "row", "empty", "name", "twice", "other-row", "null-row", "text-row"],
)
def test_a_function_that_does_not_keep_to_it(tmp_path: Path, transform: Callable[..., Any], reason: str) -> None:
    """The object waits, with what is wrong in plain words."""
    with pytest.raises(Unreadable, match=reason):
        judged(tmp_path, CSV, transform)


def test_what_the_machine_does_is_not_the_object_s(tmp_path: Path) -> None:
    """A full disk or memory holds the object up, and does not quarantine it; a file it does not find does."""

    def failing(error: Exception) -> Callable[[pa.Table], pa.Table]:
        def fail(rows: pa.Table) -> pa.Table:
            raise error

        return fail

    with pytest.raises(OSError, match="No space left"):
        judged(tmp_path, CSV, failing(OSError(28, "No space left on device")))
    with pytest.raises(MemoryError):
        judged(tmp_path, CSV, failing(MemoryError()))
    with pytest.raises(Unreadable, match=r"^transform: FileNotFoundError: .*rates\.csv"):
        judged(tmp_path, CSV, lambda rows: Path("/nowhere/rates.csv").read_text())


@pytest.mark.parametrize(
    "error",
    [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError],
    ids=["exit", "interrupt", "generator", "cancelled"],
)
@pytest.mark.parametrize("apart", [False, True], ids=["main-thread", "thread"])
def test_what_the_function_raises_is_no_cancellation(tmp_path: Path, error: type[BaseException], apart: bool) -> None:
    """Whatever it is and wherever it runs, the object waits; else every run would be taken for a cancelled one."""

    def leave(rows: pa.Table) -> pa.Table:
        raise error

    reasons: list[str] = []

    def judge() -> None:
        with pytest.raises(Unreadable) as caught:
            judged(tmp_path, CSV, leave)
        reasons.append(str(caught.value))

    if apart:
        thread = threading.Thread(target=judge)
        thread.start()
        thread.join()
    else:
        judge()
    assert [reason.split(":")[:2] for reason in reasons] == [["transform", f" {error.__name__}"]]


def test_a_signal_is_none_of_the_function_s(tmp_path: Path) -> None:
    """What a signal's handler raises while the function is at work ends the run, and blames no object."""

    def ask_to_end(rows: pa.Table) -> pa.Table:
        os.kill(os.getpid(), signal.SIGUSR1)
        return rows

    def end(number: int, frame: object) -> None:
        raise SystemExit(9)

    before = signal.signal(signal.SIGUSR1, end)
    try:
        with pytest.raises(SystemExit):
            judged(tmp_path, CSV, ask_to_end)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_rows_without_a_key_are_put_aside_after_it(tmp_path: Path) -> None:
    """The function may make the key; where it does not, its rows are rejected."""

    def keyed(rows: pa.Table) -> pa.Table:
        return rows.append_column("k", pa.array(["a", None, "c"])).append_column("l", pa.array([1, 1, None]))

    found = judged(tmp_path, "id,qty\n1,1\n2,2\n3,3\n", keyed, write="merge", key=["k", "l"]).result
    assert found.rows.column("id").to_pylist() == [1]
    assert [(row["_penstock_row"], row["check"], row["column"]) for row in found.rejected.to_pylist()] == [
        (2, "key", "k"),
        (3, "key", "k"),
    ]
    with pytest.raises(Unreadable, match="has no 'm', which is of the key"):
        judged(tmp_path, CSV, keyed_none, write="merge", key=["m"])


def keyed_none(rows: pa.Table) -> pa.Table:
    return rows


def test_an_object_of_which_nothing_is_left(tmp_path: Path) -> None:
    """It is empty where the function returns no rows; the function is not asked where there are none."""
    found = judged(tmp_path, "id,qty\n1,1\n2,2\n", lambda rows: rows.slice(0, 0))
    assert (found.state, found.reason) == (
        State.EMPTY,
        "of its 2 records 0 were passed over, and transform returned none",
    )
    bad = judged(tmp_path, "id,qty\n1,x\n", boom)
    assert (bad.state, bad.result.columns, bad.result.rejected.num_rows) == (State.LOADED, (), 1)


def test_checks_over_the_object_are_asked_after_it(tmp_path: Path) -> None:
    """They are over what is loaded."""
    found = judged(tmp_path, CSV, lambda rows: rows.slice(0, 1), checks={"two": row_count(2)})
    assert found.state is State.QUARANTINED


def test_event_times_must_be_times(tmp_path: Path) -> None:
    """A column of another type, or none, may be this object's only: it waits, and the dataset does not."""
    with pytest.raises(Unreadable, match=r"event_time 'id' is BIGINT, and must be TIMESTAMP"):
        judged(tmp_path, CSV, doubled, event_time="id")
    with pytest.raises(Unreadable, match="event_time names 'qty', which no column has"):
        judged(tmp_path, CSV, doubled, event_time="qty")


@pytest.mark.parametrize(
    ("declared", "reason"),
    [
        ({"write": "merge", "key": ["id"], "order_by": "gone"}, "order_by names 'gone', which no column has"),
        ({"write": "merge", "key": ["id"], "order_by": "nothing"}, "order_by names 'nothing', .*no value in any row"),
        ({"event_time": "nothing"}, "event_time names 'nothing', .*no value in any row"),
        ({"checks": {"sum": Check("sum(gone) > 0", over="object")}}, r"^transform: check sum 'sum\(gone\) > 0'.*gone"),
        ({"report": {"sum": "sum(gone)"}}, r"^transform: report sum 'sum\(gone\)'.*gone"),
    ],
    ids=["order-by", "null-order-by", "null-event-time", "check", "report"],
)
def test_a_result_that_lacks_what_is_declared(tmp_path: Path, declared: dict[str, Any], reason: str) -> None:
    """It may be this object's only, so that the object waits and not the dataset."""
    with pytest.raises(Unreadable, match=reason):
        judged(tmp_path, CSV, lambda rows: rows.append_column("nothing", pa.nulls(len(rows))), **declared)


def test_a_column_of_nothing(tmp_path: Path) -> None:
    """It makes no column of the table; checks and the report find NULL. There must be a value in some column."""
    sums = {"checks": {"none": Check("sum(qty) IS NULL", over="object")}, "report": {"qty": "sum(qty)"}, "columns": {}}

    def without(rows: pa.Table) -> pa.Table:
        return rows.set_column(1, "qty", pa.nulls(len(rows)))

    found = judged(tmp_path, CSV, without, **sums)
    assert (found.state, found.result.columns) == (State.LOADED, (("id", "BIGINT"),))
    assert formats.report(found.result.rows, Dataset(name="sales", report={"qty": "sum(qty)"})) == {"qty": None}
    with pytest.raises(Unreadable, match="no value in any column"):
        judged(tmp_path, CSV, lambda rows: without(rows).drop_columns(["id"]), **sums)
    assert judged(tmp_path, "id\n1\n", lambda rows: pa.table({"_penstock_row": [], "v": []})).state is State.EMPTY
