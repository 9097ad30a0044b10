"""The rows of a load's parts as one table, and those of a part that are not in the warehouse yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from penstock.warehouse.base import OBJECT, ROW, LoadPart

# Of parts smaller than this, to copy all into one costs less than to read the many.
_SMALL_PART = 10_000


def together(parts: Sequence[LoadPart], tables: Sequence[pa.Table]) -> pa.Table:
    """Tables of the parts as one, with the name of each row's object; columns that some lack are null there."""
    filled = [(part.ref.name, rows) for part, rows in zip(parts, tables, strict=True) if rows.num_rows]
    if not filled:
        filled = [(parts[0].ref.name, tables[0])]
    places = [pa.repeat(pa.scalar(place, pa.int32()), rows.num_rows) for place, (_, rows) in enumerate(filled)]
    objects = pa.DictionaryArray.from_arrays(pa.concat_arrays(places), pa.array([name for name, _ in filled]))
    rows = pa.concat_tables([rows for _, rows in filled], promote_options="permissive")
    if rows.num_rows < _SMALL_PART * len(filled):
        rows = rows.combine_chunks()
    return rows.append_column(OBJECT, objects)


def missing(part: LoadPart, there: pa.ChunkedArray) -> LoadPart:
    """The part without the rows, good and rejected, whose numbers are `there` already."""
    kept = there.combine_chunks()

    def rest(rows: pa.Table) -> pa.Table:
        return rows.filter(pc.invert(pc.is_in(rows.column(ROW), value_set=kept)))

    return replace(part, rows=rest(part.rows), rejected=rest(part.rejected))
