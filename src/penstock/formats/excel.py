"""Excel's and OpenDocument's workbooks: one sheet's rows under a row of names."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from penstock.declarations import Dataset
from penstock.errors import Unreadable
from penstock.formats.csv import remembering, source_by_name
from penstock.formats.engine import cursor, refuse_wide
from penstock.formats.kept import Keep
from penstock.formats.names import normalised
from penstock.formats.plain import plain_file
from penstock.formats.result import ReadResult
from penstock.formats.shape import shape
from penstock.model import Column, Schema

# What a workbook may unpack to, and what reading it may take: some ten million cells, ten times as much as its text.
_MOST_UNPACKED = 1024**3
_MEMORY = 3 * 1024**3
_SECONDS = 600
_PROGRAM = Path(__file__).with_name("workbook.py")


@dataclass(frozen=True, kw_only=True)
class _Sheet:
    """The sheet's rows as the texts c0, c1 …, its columns' names, and the types of what is in them."""

    path: Path
    originals: tuple[str, ...]
    kinds: tuple[frozenset[str], ...]
    total: int


def infer(path: Path, dataset: Dataset) -> Schema:
    """The sheet's columns, by what all its cells are. Raises Unreadable."""
    with _sheet(path, dataset) as sheet:
        if not sheet.total:
            return Schema(version=1, columns=())
        columns = tuple(
            Column(name=name, original=original, type=dataset.columns.get(name, _type(kinds)))
            for name, original, kinds in zip(normalised(sheet.originals), sheet.originals, sheet.kinds, strict=True)
        )
        return Schema(version=1, columns=columns)


def read(path: Path, dataset: Dataset, schema: Schema, *, large: bool = False) -> ReadResult:
    """The sheet's rows. Raises Unreadable."""
    with _sheet(path, dataset) as sheet, cursor() as connection:
        with pa.memory_map(str(sheet.path)) as mapped:
            rows = pa.ipc.open_file(mapped).read_all()
            connection.register("numbered", rows)
            values = source_by_name(connection, "numbered", sheet.originals, schema, line="line", bad="bad")
            keep = Keep(path, size=sheet.path.stat().st_size, large=large)
            told = Schema(version=schema.version, columns=schema.columns, dialect={"hinted": list(dataset.columns)})
            result = shape(connection, dataset, told, values, keep)
            connection.unregister("numbered")
        return remembering(result, schema)


@contextmanager
def _sheet(path: Path, dataset: Dataset) -> Iterator[_Sheet]:
    with plain_file(path) as found, tempfile.TemporaryDirectory(prefix="penstock-") as folder:
        _refuse_bomb(found)
        target = Path(folder) / "rows"
        how = {"sheet": dataset.excel.sheet, "header_row": dataset.excel.header_row}
        said = _converted(found, target, json.dumps(how))
        names: Sequence[str | None] = said["names"]
        # Columns right of the table, without a name and a value, are none.
        width = max(
            (n for n, (name, kinds) in enumerate(zip(names, said["kinds"], strict=True), 1) if name or kinds), default=0
        )
        refuse_wide(width)
        yield _Sheet(
            path=target,
            originals=tuple(name or f"column{place}" for place, name in enumerate(names[:width])),
            kinds=tuple(frozenset(kinds) for kinds in said["kinds"][:width]),
            total=said["total"],
        )


def _converted(path: Path, target: Path, how: str) -> dict[str, Any]:
    command = [sys.executable, "-P", str(_PROGRAM), str(path), str(target), str(_MEMORY), how]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise Unreadable(f"reading the workbook takes longer than {_SECONDS} seconds") from None
    try:
        said: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        if b"memory allocation" in done.stderr or b"MemoryError" in done.stderr or b"capacity overflow" in done.stderr:
            raise Unreadable("the workbook asks for more memory than a workbook may; save the sheet as CSV") from None
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"status {done.returncode}"]
        raise Unreadable(f"the workbook cannot be read: {last[0][:120]}") from None
    if "wrong" in said:
        raise Unreadable(f"not an Excel sheet to be read: {said['wrong']}")
    return said


def _refuse_bomb(path: Path) -> None:
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as parts:
            size = sum(part.file_size for part in parts.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise Unreadable(f"no workbook, or a damaged one: {error}") from None
    if size > _MOST_UNPACKED:
        raise Unreadable(f"the workbook unpacks to {size} bytes, more than the {_MOST_UNPACKED} that one may")


def _type(kinds: frozenset[str]) -> str:
    for kind, members in {"DOUBLE": {"BIGINT", "DOUBLE"}, "TIMESTAMP": {"DATE", "TIMESTAMP"}}.items():
        if kind in kinds and kinds <= members:
            return kind
    return next(iter(kinds)) if len(kinds) == 1 else "VARCHAR"
