"""Checks over an object as a whole, and the control files that they may ask for."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from penstock import formats
from penstock.checks import Check, matches, row_count
from penstock.declarations import Dataset, Ready
from penstock.errors import DeclarationError, Unreadable
from penstock.flows.judging import Judged, judge_all, judge_nothing
from penstock.flows.reading import Reader
from penstock.formats.control import LARGEST, equal, parsed
from penstock.formats.object_checks import MISSING, ControlFile, ask
from penstock.model import Schema, State

ROWS = pa.table({"id": [1, 2, 3], "amount": [1.5, 2.5, None]})
READY = Ready(beside=".ctl")


def dataset_of(checks: Mapping[str, str | Check], **more: Any) -> Dataset:
    return Dataset(name="sales", checks=checks, ready=READY, **more)


def judged(folder: Path, content: str, dataset: Dataset, control: ControlFile | None = None) -> Judged:
    path = folder / "a.csv"
    path.write_text(content)
    schema: Schema | None = formats.infer(path, path.name, dataset)
    if schema and not schema.columns:
        schema = None
    reader = Reader({1: (path, path.name)}, dataset=dataset, remembered=lambda form: schema, progress=lambda: None)
    return judge_all(reader.read(1), control)


def test_an_object_is_asked_as_a_whole(tmp_path: Path) -> None:
    """Of its good rows after `select`: what fails sends it to quarantine, or warns."""
    dataset = dataset_of(
        {"enough": row_count(2, 3), "sum": Check("sum(twice) > 10", "warn", over="object"), "positive": "id > 0"},
        derive={"twice": "id * 2"},
        select=["twice"],
    )
    assert judged(tmp_path, "id\n1\n2\n0\n3\n", dataset).state is State.LOADED
    few = judged(tmp_path, "id\n1\n0\n", dataset)
    assert (few.state, few.reason) == (
        State.QUARANTINED,
        "check enough: not count(*) >= 2 AND count(*) <= 3, of 1 good rows",
    )
    assert judged(tmp_path, "id\n1\n2\n", dataset).warnings(dataset) == {"sum": 1}


def test_an_empty_object_is_asked_too(tmp_path: Path) -> None:
    """One with a header only, and one without a byte: what has no columns to be asked of fails as NULL does."""
    dataset = dataset_of({"some": row_count(1)})
    assert judged(tmp_path, "id\n", dataset).state is State.QUARANTINED
    assert judge_nothing(dataset, "it has 0 bytes", None) == (
        State.QUARANTINED,
        "it has 0 bytes; check some: not count(*) >= 1, of 0 good rows",
    )
    assert judge_nothing(dataset_of({"few": row_count(0, 5)}), "it has 0 bytes", None)[0] is State.EMPTY
    sums = dataset_of({"sum": Check("sum(amount) > 0", over="object")})
    assert judge_nothing(sums, "it has 0 bytes", None)[0] is State.QUARANTINED
    told = dataset_of({"sum": matches("sum(amount)", "total")})
    assert judge_nothing(told, "it has 0 bytes", ControlFile("a", content=b"total=0"))[0] is State.EMPTY
    assert judge_nothing(told, "it has 0 bytes", ControlFile("a", content=b"total=5"))[0] is State.QUARANTINED


def test_what_the_control_file_says(tmp_path: Path) -> None:
    """The aggregate must be what stands there; what differs is named."""
    dataset = dataset_of({"complete": matches("count(*)", "rows"), "sum": matches("sum(amount)", "total")})
    control = ControlFile("sales/a.csv.ctl", content=b'{"rows": 3, "total": 4.0}')
    assert ask(ROWS, dataset, control) == {}
    other = ControlFile("sales/a.csv.ctl", content=b"rows: 4\ntotal = 4,0\n")
    assert ask(ROWS, dataset, other) == {
        "complete": "count(*) is 3, and its control file says rows 4",
        "sum": "sum(amount) is 4.0, and its control file says total 4,0",
    }
    found = judged(tmp_path, "id,amount\n1,2\n", dataset, other)
    assert found.state is State.QUARANTINED
    assert found.reason == (
        "check complete: count(*) is 1, and its control file says rows 4; "
        "check sum: sum(amount) is 2, and its control file says total 4,0"
    )


@pytest.mark.parametrize(
    ("control", "reason"),
    [
        (ControlFile("a.ctl", missing=MISSING), "its control file a.ctl is not there; put it there and replay"),
        (ControlFile("a.ctl", content=b"{"), r"a\.ctl cannot be used: it begins with { and is no JSON object; mend it"),
        (ControlFile("a.ctl", content=b"{}"), r"a\.ctl has no 'rows', only nothing; mend it, or the check, and replay"),
        (ControlFile("a.ctl", content=b"n=1\nm=2"), r"a\.ctl has no 'rows', only m, n; mend it"),
        (ControlFile("a.ctl", content=b"3 rows"), "no lines like name=value"),
        (ControlFile("a.ctl", content=b" \n"), "it is empty"),
        (ControlFile("a.ctl", content=b"\xff\xfe1"), "it is not UTF-8"),
        (ControlFile("a.ctl", content=b"1" * (LARGEST + 1)), "it has more than 1,000,000 bytes"),
        (ControlFile("a.ctl", content=b'{"a":' * 100_000), "is no JSON object"),
    ],
    ids=["missing", "broken", "empty-object", "others", "words", "empty", "utf-16", "large", "deep"],
)
def test_a_control_file_that_is_no_help(control: ControlFile, reason: str) -> None:
    """The reason says what is wrong, and what to do."""
    with pytest.raises(Unreadable, match=reason):
        ask(ROWS, dataset_of({"complete": matches("count(*)", "rows")}), control)


@pytest.mark.parametrize(
    ("content", "values"),
    [
        (b"\xef\xbb\xbf17\r\n", {"rows": Decimal(17)}),
        (b'{"rows": 17, "total": 0.1, "day": "x"}', {"rows": 17, "total": Decimal("0.1"), "day": "x"}),
        (b"rows=17\r\n\r\n total : 12:30 \n", {"rows": "17", "total": "12:30"}),
        (b"url: a=b", {"url": "a=b"}),
    ],
    ids=["number", "json", "lines", "colon-first"],
)
def test_control_files(content: bytes, values: dict[str, Any]) -> None:
    """A JSON object, lines, or a number alone."""
    assert parsed(content) == values


@pytest.mark.parametrize(
    ("found", "said", "same"),
    [
        (3, "3.0", True),
        (3, Decimal("3.0000000000001"), False),
        (2**63 - 1, str(2**63 - 1), True),
        (2**63 - 1, str(2**63), False),
        (Decimal("10.10"), "10.1", True),
        (Decimal("10.10"), 10.1, False),
        (0.1 + 0.2, Decimal("0.3"), True),
        (0.1 + 0.2 - 0.3, 0, True),
        (1000000.0, "1000000.01", False),
        (3, "three", False),
        (3, "1_0", False),
        (3, None, False),
        (None, None, True),
        (None, 0, False),
        (True, "TRUE", True),
        (True, 1, True),
        ("2026-03-01", "2026-03-01", True),
        (float("nan"), "nan", False),
    ],
    ids=str,
)
def test_equal(found: Any, said: Any, same: bool) -> None:
    """Numbers are compared as numbers, whole ones and decimals exactly, others all but."""
    assert equal(found, said) is same


def test_a_faulty_expression_is_the_declaration_s(tmp_path: Path) -> None:
    """It is named; of a first object, which may be as wrong, it is the object that waits."""
    dataset = dataset_of({"sum": Check("sum(nowhere) > 1", over="object")})
    with pytest.raises(DeclarationError, match=r"dataset sales: check sum 'sum\(nowhere\) > 1': .*nowhere"):
        judged(tmp_path, "id\n1\n", dataset)
    reader = Reader(
        {1: (tmp_path / "a.csv", "a.csv")}, dataset=dataset, remembered=lambda form: None, progress=lambda: None
    )
    with pytest.raises(Unreadable, match="the first object does not fit its declaration"):
        judge_all(reader.read(1))


def test_an_expression_that_fails_on_the_data(tmp_path: Path) -> None:
    """It fails, and the others are asked all the same."""
    dataset = dataset_of({"n": Check("sum(CAST(kind AS INTEGER)) > 1", over="object"), "rows": row_count(2)})
    found = judged(tmp_path, "id,kind\n1,a\n2,b\n", replace(dataset, columns={"kind": "VARCHAR"}))
    assert found.reason == "check n: not sum(CAST(kind AS INTEGER)) > 1, of 2 good rows"


def test_lines_of_a_control_file_with_much_space(tmp_path: Path) -> None:
    """A line takes no longer than its length, also where it is none; name and value are without the space around."""
    space = b" " * 100_000
    started = time.process_time()
    assert parsed(b"rows" + space + b"=" + space + b"3") == {"rows": "3"}
    for line in (b"x" + space + b"y", b"  = 3", b":3"):
        with pytest.raises(Unreadable, match="no lines like name=value"):
            parsed(line)
    assert time.process_time() - started < 1
