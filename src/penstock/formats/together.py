"""What was read together, taken apart again: each object's rows as if it had been read alone."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import pyarrow as pa
import pyarrow.compute as pc

from penstock.errors import Unreadable
from penstock.formats.noted import passed_over
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
    bad = _counts(together.rejected, starts)
    over = _counts(passed_over(together), starts)
    good = [piece.count - some - others for piece, some, others in zip(pieces, bad, over, strict=True)]
    rows = _numbered_alone(together.rows, pieces, good)
    rejected = _numbered_alone(together.rejected, pieces, bad)
    noted: list[pa.Table | None] = [None] * len(pieces)
    if together.noted is not None:
        noted = [*_numbered_alone(together.noted, pieces, _counts(together.noted, starts))]
    alone = {bisect_right(starts, row - 1) - 1 for row in asking}
    return {
        piece.index: ReadResult(
            rows=rows[place],
            columns=together.columns,
            rejected=rejected[place],
            total=piece.count,
            schema=together.schema,
            noted=noted[place],
        )
        for place, piece in enumerate(pieces)
        if place not in alone
    }


def _counts(rows: pa.Table | None, starts: Sequence[int]) -> list[int]:
    counts = [0] * len(starts)
    for row in rows.column(ROW).to_pylist() if rows is not None else ():
        counts[bisect_right(starts, row - 1) - 1] += 1
    return counts


def _grows(numbers: pa.ChunkedArray) -> bool:
    steps = pc.pairwise_diff(numbers.combine_chunks())
    return bool(pc.all(pc.greater(steps, 0), min_count=0).as_py())


def _numbered_alone(rows: pa.Table, pieces: Sequence[Piece], counts: Sequence[int]) -> list[pa.Table]:
    before = [pa.repeat(pa.scalar(piece.before, pa.int64()), n) for piece, n in zip(pieces, counts, strict=True)]
    place = rows.schema.get_field_index(ROW)
    own = pc.subtract(rows.column(place), pa.chunked_array(before, pa.int64()).combine_chunks())
    rows = rows.set_column(place, rows.schema.field(place), own)
    return [rows.slice(end - n, n) for n, end in zip(counts, accumulate(counts), strict=True)]
