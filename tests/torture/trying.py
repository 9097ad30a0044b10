"""One file, read, checked and judged as a run would, and what came of it in plain values."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock import Dataset
from penstock.cli.previewing import Preview, Target, first_rows, look

# What none of the small ones may take; they take some hundredths.
SECONDS = 20
_ROWS = 1000


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a file: verdict and reason, types by column, rows, and the rejected with their line."""

    state: str
    reason: str
    types: dict[str, str]
    rows: list[tuple[Any, ...]]
    rejected: list[tuple[int | None, str]]
    rescued: int

    @property
    def column(self) -> list[Any]:
        """The values of the last column."""
        return [row[-1] for row in self.rows]


def tried(folder: Path, name: str, content: bytes | str, **declared: Any) -> Outcome:
    """The outcome of a first object of that name; any error but a verdict comes out."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    target = Target(dataset=Dataset(name="torture", **declared), why="asked", key=f"torture/{name}")
    began = time.monotonic()
    found = look(path, target, lambda form: None)
    assert time.monotonic() - began < SECONDS, "it takes too long"
    return outcome(found)


def outcome(found: Preview) -> Outcome:
    """The preview in plain values."""
    result = found.result
    rows = first_rows(result.rows, _ROWS) if result else []
    rejected = result.rejected.to_pylist() if result else []
    assert result is None or result.total == result.rows.num_rows + result.rejected.num_rows, "a row went missing"
    return Outcome(
        state=found.state.value,
        reason=found.reason or "",
        types={column.name: column.type for column in found.columns},
        rows=[tuple(row.values()) for row in rows],
        rejected=[(row["line"], row["reason"]) for row in rejected],
        rescued=found.rescued,
    )
