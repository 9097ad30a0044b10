"""What was read together, taken apart again: each object's rows as if it had been read alone."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import pyarrow as pa
import pyarrow.compute as pc

from penstock.errors import Unreadable
from penstock.formats.result import ROW, ReadResult


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Where an object's records are among those that were read together: `count` of them, after number `before`."""

    index: int
    before: int
    count: int


def take_apart(together: ReadResult, pieces: Sequence[Piece], asking: Sequence[int]) -> dict[int, ReadResult]:
    """By index, each object's own result; `pieces` in the order of their records, which `together` numbers.

    Left out, to be read alone, are the objects of the records `asking` for a wider schema. Raises Unreadable when it
    cannot be told which rows are whose.
    """
    numbers = together.rows.column(ROW)
    if together.total != sum(piece.count for piece in pieces) or not _grows(numbers):
        raise Unreadable("the rows of the objects are mixed")
    starts = [piece.before for piece in pieces]
    bad = [0] * len(pieces)
    for row in together.rejected.column(ROW).to_pylist():
        bad[bisect_right(starts, row - 1) - 1] += 1
    rows = _numbered_alone(together.rows, pieces, [piece.count - less for piece, less in zip(pieces, bad, strict=True)])
    rejected = _numbered_alone(together.rejected, pieces, bad)
    alone = {bisect_right(starts, row - 1) - 1 for row in asking}
    return {
        piece.index: ReadResult(
            rows=rows[place],
            columns=together.columns,
            rejected=rejected[place],
            total=piece.count,
            schema=together.schema,
        )
        for place, piece in enumerate(pieces)
        if place not in alone
    }


def _grows(numbers: pa.ChunkedArray) -> bool:
    steps = pc.pairwise_diff(numbers.combine_chunks())
    return bool(pc.all(pc.greater(steps, 0), min_count=0).as_py())


def _numbered_alone(rows: pa.Table, pieces: Sequence[Piece], counts: Sequence[int]) -> list[pa.Table]:
    before = [pa.repeat(pa.scalar(piece.before, pa.int64()), n) for piece, n in zip(pieces, counts, strict=True)]
    place = rows.schema.get_field_index(ROW)
    own = pc.subtract(rows.column(place), pa.chunked_array(before, pa.int64()).combine_chunks())
    rows = rows.set_column(place, rows.schema.field(place), own)
    return [rows.slice(end - n, n) for n, end in zip(counts, accumulate(counts), strict=True)]
