"""Workbooks: both calendars, error cells, merged cells, formulas, and sheets that are larger than they look."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from openpyxl.utils.datetime import CALENDAR_MAC_1904, CALENDAR_WINDOWS_1900

from tests.torture.trying import tried

ERRORS = ["#DIV/0!", "#N/A", "#NAME?", "#NULL!", "#NUM!", "#REF!", "#VALUE!"]
_NAMES = (
    'xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0" '
    'xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0" '
    'xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0" '
    'xmlns:calcext="urn:org:documentfoundation:names:experimental:calc:xmlns:calcext:1.0"'
)
_OPEN_DOCUMENT = "application/vnd.oasis.opendocument.spreadsheet"


def xlsx(rows: list[list[Any]], change: Callable[[Any], object] = lambda book: None) -> bytes:
    book = openpyxl.Workbook()
    change(book)
    for row in rows:
        book.active.append(row)
    sink = io.BytesIO()
    book.save(sink)
    return sink.getvalue()


def ods(*rows: str) -> bytes:
    """A sheet of these rows' XML, as LibreOffice writes it."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as parts:
        parts.writestr("mimetype", _OPEN_DOCUMENT)
        manifest = 'xmlns:manifest="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0"'
        entry = f'<manifest:file-entry manifest:full-path="/" manifest:media-type="{_OPEN_DOCUMENT}"/>'
        parts.writestr("META-INF/manifest.xml", f"<manifest:manifest {manifest}>{entry}</manifest:manifest>")
        parts.writestr(
            "content.xml",
            f"<office:document-content {_NAMES}><office:body><office:spreadsheet>"
            f'<table:table table:name="S">{"".join(rows)}</table:table>'
            "</office:spreadsheet></office:body></office:document-content>",
        )
    return sink.getvalue()


def row(*cells: str, times: int = 1) -> str:
    return f'<table:table-row table:number-rows-repeated="{times}">{"".join(cells)}</table:table-row>'


def cell(kind: str, value: str, shown: str = "", more: str = "") -> str:
    named = {"float": f'office:value="{value}"', "date": f'office:date-value="{value}"'}.get(kind, "")
    text = f"<text:p>{shown or value}</text:p>"
    return f'<table:table-cell office:value-type="{kind}" {named} {more}>{text}</table:table-cell>'


@pytest.mark.parametrize("epoch", [CALENDAR_WINDOWS_1900, CALENDAR_MAC_1904], ids=["1900", "1904"])
def test_days_are_the_same_in_both_calendars(tmp_path: Path, epoch: datetime) -> None:
    """Those before March 1900 too, where the older one counts a day that never was."""
    days = [date(9999, 12, 31), date(2024, 2, 29), date(1904, 1, 2)]
    days += [date(1900, 3, 1), date(1900, 2, 28), date(1900, 1, 1)] if epoch == CALENDAR_WINDOWS_1900 else []

    def change(book: Any) -> None:
        book.epoch = epoch

    content = xlsx([["id", "day"], *([number, day] for number, day in enumerate(days))], change)
    found = tried(tmp_path, "x.xlsx", content)
    assert found.types["day"] == "DATE"
    assert found.column == [day.isoformat() for day in days]


def test_cells_of_every_kind(tmp_path: Path) -> None:
    """Each has its type; a formula is what it came to when the file was saved, and nothing when nobody computed it."""
    names = ["at", "hour", "took", "ok", "number", "formula", "text"]
    values = [
        datetime.fromisoformat("2024-02-29T12:30:15"),
        time(1, 2, 3),
        timedelta(hours=30),
        True,
        0.1,
        "=1+1",
        "007",
    ]
    found = tried(tmp_path, "x.xlsx", xlsx([names, values]))
    assert list(found.types.values())[:5] == ["TIMESTAMP", "TIME", "VARCHAR", "BOOLEAN", "DOUBLE"]
    assert found.rows == [("2024-02-29 12:30:15", "01:02:03", "30:00:00", True, 0.1, None, "007")]


def test_every_error_cell_puts_its_row_aside(tmp_path: Path) -> None:
    """With the cell and what stands in it; the other rows are loaded."""
    rows = [[number, error] for number, error in enumerate([*ERRORS, "fine"])]
    found = tried(tmp_path, "x.xlsx", xlsx([["id", "value"], *rows]))
    assert found.rows == [(7, "fine")]
    assert found.rejected == [(number, f"B{number}: {error}") for number, error in enumerate(ERRORS, start=2)]


def test_an_error_cell_of_open_document_puts_its_row_aside(tmp_path: Path) -> None:
    """Where it would read as the number or the empty text that stands beside the error."""
    error = 'table:formula="of:=1/0" calcext:value-type="error"'
    content = ods(
        row(cell("string", "id"), cell("string", "value")),
        row(cell("float", "1"), cell("float", "5")),
        row(cell("float", "2"), cell("float", "0", "#DIV/0!", error), times=2),
        row(cell("float", "3"), cell("string", "", "#N/A", error)),
        row(cell("float", "4"), cell("float", "6")),
    )
    found = tried(tmp_path, "x.ods", content)
    assert found.rows == [(1, 5), (4, 6)]
    assert found.rejected == [(3, "#DIV/0!"), (4, "#DIV/0!"), (5, "#N/A; value: not BIGINT: #N/A")]


def test_merged_cells_have_their_value_in_the_first(tmp_path: Path) -> None:
    """Of a header, too, whose other columns are numbered."""
    book = openpyxl.load_workbook(io.BytesIO(xlsx([["id", "a", "b"], [1, "x", "y"], [2, "z", None]])))
    book.active.merge_cells("B2:B3")
    book.active.merge_cells("A1:B1")
    sink = io.BytesIO()
    book.save(sink)
    found = tried(tmp_path, "x.xlsx", sink.getvalue())
    assert list(found.types) == ["id", "column1", "b"]
    assert found.rows == [(1, "x", "y"), (2, None, None)]


def test_empty_rows_to_the_end_of_the_sheet_are_none(tmp_path: Path) -> None:
    """A million of them cost nothing."""
    empty = '<table:table-cell table:number-columns-repeated="16384"/>'
    content = ods(row(cell("string", "id")), row(cell("float", "1")), row(empty, times=1_048_570))
    assert tried(tmp_path, "x.ods", content).rows == [(1,)]


def test_a_sheet_of_billions_of_values_is_refused(tmp_path: Path) -> None:
    """A few bytes say so many; the memory of the run is not touched."""
    many = '<table:table-cell office:value-type="float" office:value="1" table:number-columns-repeated="16384"/>'
    found = tried(tmp_path, "x.ods", ods(row(cell("string", "id")), row(many, times=1_048_570)))
    assert (found.state, found.rows) == ("quarantined", [])
    assert "workbook" in found.reason


def test_more_columns_than_are_read_are_refused(tmp_path: Path) -> None:
    """The reason says how many there may be, and what to do."""
    found = tried(tmp_path, "x.xlsx", xlsx([[f"c{n}" for n in range(5000)], list(range(5000))]))
    assert found.state == "quarantined"
    assert "5000 columns, more than the 4096" in found.reason
