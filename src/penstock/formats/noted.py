"""What is noted of an object's rows besides those that are put aside: passed over, or failing a check. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from penstock.declarations import Dataset
from penstock.formats.asking import PASSED_OVER, REFUSED, noting
from penstock.formats.result import ROW, ReadResult


@dataclass(frozen=True, kw_only=True)
class Failing:
    """How many rows fail a check, and the first of them; its line where that is known."""

    rows: int
    row: int
    line: int | None

    @property
    def place(self) -> str:
        """Where the first one is."""
        return f"line {self.line}" if self.line is not None else f"row {self.row}"


def passed_over(result: ReadResult) -> pa.Table | None:
    """The rows that are neither loaded nor rejected."""
    if result.noted is None:
        return None
    return result.noted.filter(pc.equal(result.noted.column("note"), PASSED_OVER))


def filtered(result: ReadResult) -> int:
    """How many rows were passed over."""
    over = passed_over(result)
    return over.num_rows if over is not None else 0


def failing(result: ReadResult, dataset: Dataset) -> dict[str, Failing]:
    """What fails of the checks that put no row aside, by name and in the declaration's order."""
    checks = noting(dataset)
    if result.noted is None or not checks:
        return {}
    found: dict[int, Failing] = {}
    for note, fails in _by_note(result.noted).items():
        for number in (int(text.removeprefix(REFUSED)) for text in note.split()):
            found[number] = _both(found[number], fails) if number in found else fails
    return {name: found[number] for number, (name, _) in enumerate(checks) if number in found}


def refused_rows(result: ReadResult) -> set[int]:
    """The rows that a reason may name, which their lines are looked up for."""
    if result.noted is None:
        return set()
    return {fails.row for note, fails in _by_note(result.noted).items() if REFUSED in note}


def with_their_lines(result: ReadResult, lines: Mapping[int, int]) -> ReadResult:
    """The result with the lines of some rows in what is noted of them."""
    if result.noted is None or not lines:
        return result
    place = result.noted.schema.get_field_index("line")
    known = result.noted.column(place)
    for row, line in lines.items():
        known = pc.if_else(pc.equal(result.noted.column(ROW), row), pa.scalar(line, pa.int64()), known)
    return replace(result, noted=result.noted.set_column(place, result.noted.schema.field(place), known))


def _by_note(noted: pa.Table) -> dict[str, Failing]:
    notes = noted.column("note")
    found = {}
    for one in pc.value_counts(notes.combine_chunks()):
        note = one["values"].as_py()
        if note != PASSED_OVER:
            place = pc.index(notes, note).as_py()
            row, line = (noted.column(name)[place].as_py() for name in (ROW, "line"))
            found[note] = Failing(rows=one["counts"].as_py(), row=row, line=line)
    return found


def _both(a: Failing, b: Failing) -> Failing:
    first = a if a.row < b.row else b
    return Failing(rows=a.rows + b.rows, row=first.row, line=first.line)
