"""How a preview looks on a terminal. Pure, but for rich's tables; nothing here reads rich's markup."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from penstock.cli.previewing import Preview, Taken, first_rows
from penstock.cli.show import printable
from penstock.formats.names import json_keys
from penstock.formats.result import ROW
from penstock.model import State

_LONGEST = 60
_RAW = 200
_COLUMNS = 200
# Below this a column of a table is no longer to be read.
_NARROWEST = 10

_EFFECTS = {"warn": "a warning", "row": "put aside", "object": "quarantine"}

_VERDICTS = {
    State.LOADED: ("would be loaded", "green"),
    State.EMPTY: ("would be empty", "yellow"),
    State.QUARANTINED: ("would go to quarantine", "red"),
}


def preview_lines(preview: Preview, *, file: str, rows: int, width: int, said: str) -> list[RenderableType]:
    """Everything, from what takes the file to the verdict. `said` tells where the schema is from."""
    target = preview.target
    lines: list[RenderableType] = [Text(f"{one_line(file)} → dataset {target.dataset.name} ({target.why})", "bold")]
    result = preview.result
    if preview.form:
        dialect = result.schema.dialect if result else {}
        told = ", ".join(f"{key} {value!r}" for key, value in dialect.items())
        lines.append(Text(f"format {preview.form}{': ' + printable(told) if told else ''}"))
    if result:
        lines += [Text(said), Text(), *_columns(preview)]
        found = first_rows(result.rows, rows)
        if found:
            lines += [Text(), Text(f"The first {len(found):,} of {result.rows.num_rows:,} good rows", "bold")]
            lines += row_lines(found, width)
        lines += [*_rescued(preview), *_rejected(preview, rows), *_checks(preview)]
        if preview.filtered:
            lines += [Text(), Text(f"{preview.filtered:,} of {result.total:,} rows are passed over by where")]
        if preview.report:
            lines += [Text(), Text("Report", "bold")]
            lines += [Text(f"  {name}: {one_line(value, _RAW)}") for name, value in preview.report.items()]
    return [*lines, Text(), *_verdict(preview)]


def row_lines(rows: Sequence[dict[str, Any]], width: int) -> list[RenderableType]:
    """A table where it fits the terminal, else each row as lines of name and value."""
    names = list(rows[0])
    if len(names) * (_NARROWEST + 2) <= width:
        return [text_table(names, [[row[name] for name in names] for row in rows])]
    lines: list[RenderableType] = []
    longest = min(max(map(len, names)), 30)
    for number, row in enumerate(rows, start=1):
        lines.append(Text(f"row {number}", "dim"))
        for name in names[:_COLUMNS]:
            label = f"  {name:<{longest}}  "
            lines.append(Text(label + one_line(row[name], max(_NARROWEST, width - len(label)))))
        if len(names) > _COLUMNS:
            lines.append(Text(f"  … and {len(names) - _COLUMNS:,} more columns; all of them: --json"))
    return lines


def text_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    """A table of values as they are: escaped, shortened, and without thousands separators in what may be ids."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[index], int | float) for row in rows)
        made.add_column(Text(one_line(column)), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(one_line(value)) for value in row))
    return made


def one_line(value: Any, longest: int = _LONGEST) -> str:
    """A value on one line, with what a terminal would obey escaped, and cut to `longest`."""
    if value is None:
        return ""
    text = str(value)[: longest + 1]
    text = printable(text).replace("\n", "\\n").replace("\t", "\\t")
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _columns(preview: Preview) -> list[RenderableType]:
    shown = preview.columns[:_COLUMNS]
    rows = [(one.name, one.type, one.typed, _place(one), one.empty) for one in shown]
    lines: list[RenderableType] = [text_table(["column", "type", "typed by", "read from", "empty"], rows)]
    if len(preview.columns) > _COLUMNS:
        lines.append(Text(f"… and {len(preview.columns) - _COLUMNS:,} more columns; all of them: --json"))
    return lines


def _place(column: Taken) -> str:
    made = column.typed in ("derived", "path", "transform")
    return column.made_from if made else ".".join(json_keys(column.made_from))


def _rescued(preview: Preview) -> list[RenderableType]:
    if not preview.rescued:
        return []
    names = ", ".join(one_line(name) for name in preview.rescued_names[:20])
    more = ", …" if len(preview.rescued_names) > 20 else ""
    told = f"{preview.rescued:,} rows have what no column takes, kept in _penstock_rescued: {names}{more}"
    return [Text(), Text(told, "yellow")]


def _rejected(preview: Preview, rows: int) -> list[RenderableType]:
    assert preview.result is not None
    rejected, total = preview.result.rejected, preview.result.total
    if not rejected.num_rows:
        return []
    found = rejected.slice(0, rows).to_pylist()
    first = f", of which these are the first {len(found):,}" if len(found) < rejected.num_rows else ""
    lines: list[RenderableType] = [
        Text(),
        Text(f"{rejected.num_rows:,} of {total:,} rows are rejected{first}", "bold"),
    ]
    for one in found:
        place = f"line {one['line']}" if one["line"] is not None else f"row {one[ROW]}"
        lines.append(Text(f"{place}: {one_line(one['reason'], _RAW)}"))
        if one["raw"] is not None:
            lines.append(Text(f"  {one_line(one['raw'], _RAW)}", "dim"))
    return lines


def _checks(preview: Preview) -> list[RenderableType]:
    if not preview.checks:
        return []
    lines: list[RenderableType] = []
    by_row = [one for one in preview.checks if one.over == "row"]
    if by_row:
        rows = [(one.name, one.predicate, _EFFECTS[one.severity], one.failing) for one in by_row]
        lines += [Text(), text_table(["check", "a row is good when", "else", "rows failing"], rows)]
    by_object = [one for one in preview.checks if one.over == "object"]
    if by_object:
        told = [(one.name, one.predicate, _EFFECTS[one.severity], one.told or "holds") for one in by_object]
        lines += [Text(), text_table(["check", "the file is good when", "else", "now"], told)]
    return lines


def _verdict(preview: Preview) -> list[RenderableType]:
    words, style = _VERDICTS[preview.state]
    told = f"It {words}"
    if preview.state is State.LOADED and preview.result:
        told += f": {preview.result.rows.num_rows:,} rows"
        if bad := preview.result.rejected.num_rows:
            least = (
                f"; at least {threshold:.0%} must be good" if (threshold := preview.target.dataset.threshold) else ""
            )
            told += f", and {bad:,} rejected{least}"
    else:
        told += f": {one_line(preview.reason, 10 * _RAW)}"
    notes = [Text(f"Note: {one_line(note, _RAW)}", "yellow") for note in preview.notes]
    return [*notes, Text(f"{told}. Nothing was loaded now.", style)]
