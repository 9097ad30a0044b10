"""Whether the rejected rows of a loaded object are still the records they were, by the declaration as it is now."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pyarrow as pa

from penstock import formats
from penstock.checks import Check
from penstock.declarations import Dataset
from penstock.errors import Unreadable
from penstock.formats import ReadResult
from penstock.formats.result import REJECTED, ROW
from penstock.model import ObjectRef, Schema
from penstock.warehouse.base import Warehouse

# A list of more numbers takes longer than the records between the first and the last.
_LISTED = 1000
# Line and raw text, by a record's number.
Records = dict[int, tuple[int | None, str | None]]


def see_the_same_records(
    ref: ObjectRef, path: Path, name: str, dataset: Dataset, read: ReadResult, there: Warehouse
) -> None:
    """Raise Unreadable unless each row that was rejected has the number, the line and the text that it had.

    A declaration that divides the object otherwise would bring a row that is in the table already, and lose another.
    """
    before = there.rejected(dataset.name, ref.name)
    if not before:
        return
    now = records(path, name, dataset, read.schema, before)
    if any(_told(*now.get(number, (None, None))) != _told(*told) for number, told in before.items()):
        raise Unreadable(
            "the declaration numbers its records otherwise than when it was loaded, so it is not known which of them "
            f"were rejected; to load all of it anew: penstock replay {ref.key} --force"
        )


def with_raw(rejected: pa.Table, path: Path, name: str, dataset: Dataset, schema: Schema) -> pa.Table:
    """The rejected rows with line and text where they have none, as those that a transform spoiled."""
    bare = {row[ROW] for row in rejected.select([ROW, "raw"]).to_pylist() if row["raw"] is None}
    if not bare:
        return rejected
    found = records(path, name, dataset, schema, bare)
    rows = rejected.to_pylist()
    for row in rows:
        if row[ROW] in bare:
            row["line"], row["raw"] = found.get(row[ROW], (row["line"], None))
    return pa.Table.from_pylist(rows, schema=REJECTED)


def records(path: Path, name: str, dataset: Dataset, schema: Schema, numbers: Collection[int]) -> Records:
    """Line and text of some of an object's records, good or not, as they would be told of rejected rows."""
    others = f"NOT BETWEEN {min(numbers)} AND {max(numbers)}"
    if len(numbers) <= _LISTED:
        others = f"NOT IN ({', '.join(map(str, sorted(numbers)))})"
    bare = replace(
        dataset,
        checks={"asked_for": Check(f"{ROW} {others}")},
        derive={},
        where=None,
        select=(),
        transform=None,
        report={},
        write="append",
        key=(),
        order_by=None,
        partitions=(),
        event_time=None,
        lateness=timedelta(0),
    )
    found = formats.read(path, name, bare, schema).rejected.select([ROW, "line", "raw"])
    return {row[ROW]: (row["line"], row["raw"]) for row in found.to_pylist() if row[ROW] in numbers}


def _told(line: int | None, raw: str | None) -> tuple[int | None, str | None]:
    # As PostgreSQL keeps it.
    return line, raw and raw.replace("\0", "\ufffd")
