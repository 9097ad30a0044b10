"""A sheet of a workbook → an Arrow file of texts. A program of its own, which a hostile workbook may end.

It is started by `excel.py` with a limit to its memory: a few bytes can ask for a sheet of 17 billion cells, and the
library ends the process that it cannot get the memory for. The limit holds for what hostile XML does, too. Nothing else
of penstock is imported.
"""

from __future__ import annotations

import json
import re
import resource
import sys
import zipfile
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa
import python_calamine

_ROWS_AT_ONCE = 10_000
_MOST_COLUMNS = 16_384
# Where floating point begins to skip whole numbers.
_EXACT = 2**53
_MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_PLACED = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
_ERROR_CELL = re.compile(rb"""\st\s*=\s*["']e["']|:value-type\s*=\s*["']error["']""")
_TABLE = "{urn:oasis:names:tc:opendocument:xmlns:table:1.0}"
_TEXT = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}p"
# LibreOffice's own mark of a formula that came to an error, beside which the cell has a value as any other.
_OWN_KIND = "{urn:org:documentfoundation:names:experimental:calc:xmlns:calcext:1.0}value-type"


class _WrongError(Exception):
    """What is said of the workbook."""


def main() -> None:
    """Arguments: the workbook, the file to write, bytes of memory, and as JSON the sheet and the header's row."""
    workbook, target, memory, how = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
    try:
        found = _convert(Path(workbook), Path(target), **json.loads(how))
    except _WrongError as error:
        found = {"wrong": str(error)}
    except python_calamine.PasswordError:
        found = {"wrong": "it is protected by a password"}
    except python_calamine.CalamineError as error:
        found = {"wrong": f"it is no workbook, or a damaged one: {str(error)[:120]}"}
    sys.stdout.write(json.dumps(found))


def _convert(path: Path, target: Path, sheet: str | int | None, header_row: int | None) -> dict[str, Any]:
    with path.open("rb") as file:
        workbook = python_calamine.load_workbook(file)
        name = _name_of(workbook, sheet)
        errors = _errors(path, name)
        rows = enumerate(workbook.get_sheet_by_name(name).iter_rows(), start=1)
        header = next((row for number, row in rows if number == header_row), None) if header_row else None
        return _write(target, header, rows, errors, begins=bool(header_row))


def _name_of(workbook: Any, wanted: str | int | None) -> str:
    names: list[str] = workbook.sheet_names
    listed = ", ".join(repr(name) for name in names)
    if isinstance(wanted, str):
        if wanted not in names:
            raise _WrongError(f"it has no sheet {wanted!r}; there are {listed}")
        return wanted
    if wanted is not None:
        if wanted > len(names):
            raise _WrongError(f"it has no sheet {wanted}; there are {listed}")
        return names[wanted - 1]
    visible = [each.name for each in workbook.sheets_metadata if str(each.visible).endswith("Visible")]
    visible = [name for name in visible if name in names]
    filled = [name for name in visible if _is_filled(workbook, name)] if len(visible) > 1 else visible
    if len(filled) > 1:
        raise _WrongError(f"it has several sheets, {', '.join(map(repr, filled))}: say which: excel=Excel(sheet=…)")
    return (filled or visible or names)[0] if names else ""


def _is_filled(workbook: Any, name: str) -> bool:
    try:
        return workbook.get_sheet_by_name(name).end is not None
    except python_calamine.CalamineError:
        return False  # a chart's


def _write(
    target: Path,
    header: list[Any] | None,
    rows: Iterator[tuple[int, list[Any]]],
    errors: dict[int, str],
    *,
    begins: bool,
) -> dict[str, Any]:
    first = next(rows, None)
    width = max(len(header or []), len(first[1]) if first else 0)
    if width > _MOST_COLUMNS:
        raise _WrongError(f"it has more than {_MOST_COLUMNS} columns")
    kinds: list[set[str]] = [set() for _ in range(width)]
    names = [_text(cell)[0] for cell in header or []] + [None] * (width - len(header or []))
    schema = pa.schema(
        [("n", pa.int64()), ("line", pa.int64()), ("bad", pa.string())]
        + [(f"c{place}", pa.string()) for place in range(width)]
    )
    total = 0
    with pa.OSFile(str(target), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        batch: list[list[Any]] = []
        for number, row in _chained(first, rows):
            texts = []
            bad = errors.get(number)
            for place, cell in enumerate(row):
                text, kind = _text(cell)
                texts.append(text)
                if kind and bad is None:  # what an error cell reads as says nothing of its column
                    kinds[place].add(kind)
            if bad is None and not any(text is not None for text in texts):
                continue
            total += 1
            batch.append([total, number, bad, *texts, *[None] * (width - len(texts))])
            if len(batch) == _ROWS_AT_ONCE:
                writer.write_batch(_batch(batch, schema))
                batch = []
        if batch:
            writer.write_batch(_batch(batch, schema))
    return {"names": names, "kinds": [sorted(each) for each in kinds], "total": total, "header": begins}


def _chained(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    if first is not None:
        yield first
    yield from rest


def _batch(rows: list[list[Any]], schema: pa.Schema) -> pa.RecordBatch:
    columns = zip(*rows, strict=True)
    return pa.record_batch([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)


def _text(cell: Any) -> tuple[str | None, str | None]:
    """A cell's value as text, and the type that it has."""
    found: tuple[str | None, str | None] = (str(cell), "VARCHAR")
    match cell:
        case None | "":
            found = (None, None)
        case bool():
            found = (str(cell).lower(), "BOOLEAN")
        case int() | float() if cell == cell // 1 and abs(cell) < _EXACT:
            found = (str(int(cell)), "BIGINT")
        case int() | float():
            found = (repr(cell), "DOUBLE")
        case datetime():
            found = (cell.isoformat(sep=" "), "TIMESTAMP")
        case date():
            found = (cell.isoformat(), "DATE")
        case time():
            found = (cell.isoformat(), "TIME")
        case timedelta():
            found = (_duration(cell), "VARCHAR")
    return found


def _duration(value: timedelta) -> str:
    seconds = int(value.total_seconds())
    sign = "-" if seconds < 0 else ""
    minutes, seconds = divmod(abs(seconds), 60)
    return f"{sign}{minutes // 60}:{minutes % 60:02}:{seconds:02}"


def _errors(path: Path, sheet: str) -> dict[int, str]:
    """By row, what stands in its error cells, which the library shows as empty; of an .xlsx or .ods only."""
    if not zipfile.is_zipfile(path):
        return {}
    with zipfile.ZipFile(path) as parts:
        if "content.xml" in parts.namelist():
            return _errors_of_open_document(parts, sheet) if _has_errors(parts, "content.xml") else {}
        place = _part(parts, sheet)
        if place is None or not _has_errors(parts, place):
            return {}
        found: dict[int, list[str]] = {}
        row = 0
        with parts.open(place) as xml:
            for event, element in ElementTree.iterparse(xml, events=("start", "end")):  # noqa: S314
                if element.tag == f"{_MAIN}row" and event == "start":
                    row = int(element.get("r", row + 1))
                elif element.tag == f"{_MAIN}c" and event == "end" and element.get("t") == "e":
                    value = element.findtext(f"{_MAIN}v", "an error")
                    found.setdefault(row, []).append(f"{element.get('r', '')}: {value}")
                elif element.tag == f"{_MAIN}row":
                    element.clear()
        return {number: "; ".join(cells) for number, cells in found.items()}


def _errors_of_open_document(parts: zipfile.ZipFile, sheet: str) -> dict[int, str]:
    found: dict[int, str] = {}
    row, wanted = 0, False
    with parts.open("content.xml") as xml:
        for event, element in ElementTree.iterparse(xml, events=("start", "end")):  # noqa: S314
            if element.tag == f"{_TABLE}table" and event == "start":
                row, wanted = 0, element.get(f"{_TABLE}name") == sheet
            elif element.tag == f"{_TABLE}table-row" and event == "end":
                times = int(element.get(f"{_TABLE}number-rows-repeated", 1))
                cells = [cell for cell in element if cell.get(_OWN_KIND) == "error"] if wanted else []
                if cells:
                    said = "; ".join(cell.findtext(_TEXT) or "an error" for cell in cells)
                    found |= dict.fromkeys(range(row + 1, row + times + 1), said)
                row += times
                element.clear()
    return found


def _has_errors(parts: zipfile.ZipFile, place: str) -> bool:
    tail = b""
    with parts.open(place) as xml:
        while chunk := xml.read(1 << 20):
            if _ERROR_CELL.search(tail + chunk):
                return True
            tail = chunk[-16:]
    return False


def _part(parts: zipfile.ZipFile, sheet: str) -> str | None:
    if "xl/workbook.xml" not in parts.namelist():
        return None
    workbook = ElementTree.fromstring(parts.read("xl/workbook.xml"))  # noqa: S314
    relations = ElementTree.fromstring(parts.read("xl/_rels/workbook.xml.rels"))  # noqa: S314
    ids = [each.get(_PLACED) for each in workbook.iter(f"{_MAIN}sheet") if each.get("name") == sheet]
    targets = [each.get("Target", "") for each in relations if ids and each.get("Id") == ids[0]]
    if not targets:
        return None
    place = targets[0].removeprefix("/") if targets[0].startswith("/") else f"xl/{targets[0]}"
    return place if place in parts.namelist() else None


if __name__ == "__main__":
    main()
