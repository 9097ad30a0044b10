"""Workbooks: a sheet's rows, typed as its cells are."""

from __future__ import annotations

import gzip
import io
import string
import zipfile
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock import Dataset, Excel
from penstock.errors import DeclarationError, Unreadable
from penstock.formats import ReadResult, detect, excel, infer, read
from tests.examples import examples


def written(*sheets: list[list[Any]], change: Callable[[Any], object] = lambda book: None) -> bytes:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for number, rows in enumerate(sheets, start=1):
        sheet = book.create_sheet(f"Sheet{number}")
        for row in rows:
            sheet.append(row)
    change(book)
    sink = io.BytesIO()
    book.save(sink)
    return sink.getvalue()


def load(folder: Path, content: bytes, **declared: Any) -> ReadResult:
    path = folder / "object"
    path.write_bytes(content)
    dataset = Dataset(name="sales", **declared)
    return read(path, "x.xlsx", dataset, infer(path, "x.xlsx", dataset))


ROWS: list[list[Any]] = [
    ["Id", "Price", "Ok", "Day", "At", "Hour", "Name", "Took", "Mixed"],
    [
        1,
        1.5,
        True,
        date(2024, 1, 2),
        datetime.fromisoformat("2024-01-02T03:04:05"),
        time(6, 7, 8),
        "a",
        timedelta(hours=30),
        1,
    ],
    [2, 2, False, date(1999, 12, 31), date(2024, 1, 2), time(0, 0), "007", timedelta(minutes=5), "x"],
]


def test_cells_have_their_types(tmp_path: Path) -> None:
    """Whole numbers, fractions, booleans, dates and times are such; a text is kept as it is."""
    found = load(tmp_path, written(ROWS))
    assert dict(found.columns) == {
        "id": "BIGINT",
        "price": "DOUBLE",
        "ok": "BOOLEAN",
        "day": "DATE",
        "at": "TIMESTAMP",
        "hour": "TIME",
        "name": "VARCHAR",
        "took": "VARCHAR",
        "mixed": "VARCHAR",
    }
    assert [list(row.values())[:-2] for row in found.rows.to_pylist()] == [
        [
            1,
            1.5,
            True,
            date(2024, 1, 2),
            datetime.fromisoformat("2024-01-02T03:04:05"),
            time(6, 7, 8),
            "a",
            "30:00:00",
            "1",
        ],
        [2, 2.0, False, date(1999, 12, 31), datetime.fromisoformat("2024-01-02"), time(0, 0), "007", "0:05:00", "x"],
    ]


def test_a_later_sheet_is_read_by_the_remembered_columns(tmp_path: Path) -> None:
    """By name, in any order; what does not fit rejects its row, with the sheet's line."""
    first, later = tmp_path / "first", tmp_path / "later"
    first.write_bytes(written([["id", "qty"], [1, 2]]))
    later.write_bytes(written([["qty", "new", "id"], [2.5, "y", 1], [3, None, "x"], [4, None, "01"]]))
    dataset = Dataset(name="sales")
    found = read(later, "x.xlsx", dataset, infer(first, "x.xlsx", dataset))
    assert found.rows.to_pylist() == [{"id": 1, "qty": 2.5, "_penstock_row": 1, "_penstock_rescued": '{"new":"y"}'}]
    assert [(row["line"], row["reason"]) for row in found.rejected.to_pylist()] == [
        (3, "id: not BIGINT: x"),
        (4, "id: not BIGINT: 01"),
    ]


def test_error_cells_reject_their_row(tmp_path: Path) -> None:
    """The reason names cell and error; other rows are loaded."""

    def change(book: Any) -> None:
        sheet = book["Sheet1"]
        sheet["B2"], sheet["B3"] = "#N/A", "#DIV/0!"
        sheet["B2"].data_type = sheet["B3"].data_type = "e"

    found = load(tmp_path, written([["id", "qty"], [1, 0], [2, 0], [3, 4]], change=change))
    assert found.rows.column("qty").to_pylist() == [4]
    assert [(row["line"], row["reason"]) for row in found.rejected.to_pylist()] == [(2, "B2: #N/A"), (3, "B3: #DIV/0!")]
    assert found.total == 3


def test_merged_cells_and_empty_rows(tmp_path: Path) -> None:
    """A merged cell's value is in its first; rows and columns with nothing in them are none."""

    def change(book: Any) -> None:
        sheet = book["Sheet1"]
        sheet.merge_cells("A2:A3")
        sheet["A50"].number_format = sheet["K2"].number_format = "0.00"

    found = load(
        tmp_path, written([["k", "v"], ["a", 1], [None, 2], [None, None], ["b", 3], [None, None]], change=change)
    )
    assert [list(row.values())[:3] for row in found.rows.to_pylist()] == [["a", 1, 1], [None, 2, 2], ["b", 3, 3]]
    assert dict(found.columns) == {"k": "VARCHAR", "v": "BIGINT"}


def test_the_header_may_stand_lower_or_not_at_all(tmp_path: Path) -> None:
    """As it is declared; columns without a name are numbered."""
    content = written([["A report"], [], ["id", None], [1, "x"]])
    found = load(tmp_path, content, excel=Excel(header_row=3))
    assert found.rows.to_pylist()[0] == {"id": 1, "column1": "x", "_penstock_row": 1, "_penstock_rescued": None}
    assert load(tmp_path, content, excel=Excel(header_row=None)).total == 3
    assert load(tmp_path, content, excel=Excel(header_row=99)).total == 0


@pytest.mark.parametrize(("sheet", "value"), [("Sheet2", 2), (2, 2), (1, 1), ("Sheet1", 1)])
def test_a_sheet_is_chosen(tmp_path: Path, sheet: str | int, value: int) -> None:
    """By its name or number."""
    found = load(tmp_path, written([["n"], [1]], [["n"], [2]]), excel=Excel(sheet=sheet))
    assert found.rows.column("n").to_pylist() == [value]


def test_which_sheet_is_asked_for(tmp_path: Path) -> None:
    """Where more than one is filled and none is said; empty and hidden ones do not count."""
    with pytest.raises(Unreadable, match=r"several sheets, 'Sheet1', 'Sheet2': say which: excel=Excel\(sheet="):
        load(tmp_path, written([["n"], [1]], [["n"], [2]]))
    assert load(tmp_path, written([], [["n"], [2]], [])).rows.column("n").to_pylist() == [2]

    def hide(book: Any) -> None:
        book["Sheet2"].sheet_state = "hidden"

    assert load(tmp_path, written([["n"], [1]], [["n"], [2]], change=hide)).rows.column("n").to_pylist() == [1]


@pytest.mark.parametrize("sheet", ["Sales", 3])
def test_a_sheet_that_is_not_there_is_said(tmp_path: Path, sheet: str | int) -> None:
    """With those that are."""
    with pytest.raises(Unreadable, match=f"no sheet {sheet!r}; there are 'Sheet1', 'Sheet2'"):
        load(tmp_path, written([["n"]], [["m"]]), excel=Excel(sheet=sheet))


@pytest.mark.parametrize("rows", [[], [["n"]], [[None, None], [None]]])
def test_no_rows(tmp_path: Path, rows: list[list[Any]]) -> None:
    """A sheet with a header only, or nothing, has no records and teaches no columns."""
    found = load(tmp_path, written(rows))
    assert (found.total, found.schema.columns) == (0, ())


def sparse(cell: str) -> bytes:
    """A workbook of two cells, far from one another."""
    content, sink = written([["n"], [1]]), io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as new:
        for part in old.infolist():
            data = old.read(part)
            if part.filename.endswith("sheet1.xml"):
                row = "".join(filter(str.isdigit, cell))
                data = data.replace(
                    b"</sheetData>", f'<row r="{row}"><c r="{cell}"><v>1</v></c></row></sheetData>'.encode()
                )
            new.writestr(part.filename, data)
    return sink.getvalue()


def bomb(size: int) -> bytes:
    """A workbook whose sheet unpacks to white space."""
    content, sink = written([["n"], [1]]), io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as new:
        for part in old.infolist():
            data = old.read(part)
            if part.filename.endswith("sheet1.xml"):
                data = data.replace(b"</sheetData>", b" " * size + b"</sheetData>")
            new.writestr(part.filename, data)
    return sink.getvalue()


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what it says that it unpacks to."""
    monkeypatch.setattr(excel, "_MOST_UNPACKED", 1_000_000)
    with pytest.raises(Unreadable, match="the workbook unpacks to"):
        load(tmp_path, bomb(2_000_000))


def test_a_sheet_of_billions_of_cells_ends_no_worker(tmp_path: Path) -> None:
    """Two cells in opposite corners ask for more memory than there is."""
    with pytest.raises(Unreadable, match="more memory"):
        load(tmp_path, sparse("XFD1048576"))


def test_the_memory_of_reading_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A workbook that is larger than that is refused."""
    monkeypatch.setattr(excel, "_MEMORY", 1_000_000)
    with pytest.raises(Unreadable, match=r"more memory|cannot be read"):
        load(tmp_path, written([["n"], *([number] for number in range(5000))]))


WHOLE = written(ROWS)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no workbook"),
        (b"id,name\n1,a\n", "no workbook"),
        (WHOLE[: len(WHOLE) // 2], "no workbook"),
        (b"PK\x05\x06" + bytes(18), "no workbook"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "no workbook|cannot be read"),
    ],
    ids=["empty", "text", "cut", "empty zip", "broken xls"],
)
def test_rubbish_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    """With a reason."""
    with pytest.raises(Unreadable, match=reason):
        load(tmp_path, content)


def test_a_thousand_columns_and_compressed(tmp_path: Path) -> None:
    """Wide sheets are read, and those that were compressed once more."""
    content = written([[f"c{n}" for n in range(300)], list(range(300))])
    found = load(tmp_path, gzip.compress(content))
    assert found.rows.to_pylist()[0]["c299"] == 299
    assert detect("in/Sales.XLSX.gz", Dataset(name="sales")) == "excel"


@pytest.mark.parametrize(
    "declared", [{"sheet": 0}, {"sheet": ""}, {"sheet": True}, {"header_row": 0}, {"header_row": "1"}]
)
def test_a_wrong_option_is_named(declared: dict[str, Any]) -> None:
    """It is an error of the declaration."""
    with pytest.raises(DeclarationError, match=f"excel: {next(iter(declared))}"):
        Excel(**declared)


TEXTS = st.text(string.ascii_letters + string.digits + " .,;\u00fc\u20ac\n\"'&<", min_size=1, max_size=8).filter(
    str.strip
)
COLUMNS = st.sampled_from(
    [
        st.integers(-(2**53) + 1, 2**53 - 1),
        st.booleans(),
        st.dates(date(1901, 1, 1), date(2200, 1, 1)),
        TEXTS.map(lambda text: f"t{text}t"),
    ]
)


@settings(
    max_examples=examples(8),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data(), kinds=st.lists(COLUMNS, min_size=1, max_size=4))
def test_what_openpyxl_writes_is_read_back(tmp_path: Path, data: st.DataObject, kinds: list[Any]) -> None:
    """Every value comes back equal."""
    rows = data.draw(st.lists(st.tuples(*kinds), min_size=1, max_size=6))
    content = written([[f"c{n}" for n in range(len(kinds))], *map(list, rows)])
    assert [tuple(row.values())[:-2] for row in load(tmp_path, content).rows.to_pylist()] == rows
