"""The rows of a query taken apart: those to load, those put aside with their raw text, and what is noted of some."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from penstock.declarations import Dataset
from penstock.formats.asking import BAD, NOTE, PASSED_OVER, told
from penstock.formats.kept import Keep
from penstock.formats.result import NOTED, REJECTED, RESCUED, ROW, ReadResult
from penstock.model import Schema
from penstock.quoting import quoted

# Names no normalised column can have.
LINE, RAW = "#line", "#raw"


def all_good(found: pa.Table) -> bool:
    """Whether there is nothing to take apart."""
    return bool(pc.all(pc.equal(found.column(BAD), ""), min_count=0).as_py()) and (
        NOTE not in found.column_names or bool(pc.all(pc.equal(found.column(NOTE), ""), min_count=0).as_py())
    )


def separated(
    connection: duckdb.DuckDBPyConnection,
    dataset: Dataset,
    found: pa.Table,
    columns: Sequence[tuple[str, str]],
    schema: Schema,
    keep: Keep,
) -> ReadResult:
    """The good rows, those that are put aside with what `source` says of them, and what is noted of others."""
    good = pc.equal(found.column(BAD), "")
    bad = keep.filter(found.select([ROW, LINE, BAD]), pc.invert(good))
    noted = None
    if NOTE in found.column_names:
        note = found.column(NOTE)
        noted = keep.filter(found.select([ROW, LINE, NOTE]), pc.not_equal(note, "")).rename_columns(NOTED.names)
        good = pc.and_(good, pc.not_equal(note, PASSED_OVER))
    rejected = _with_raw(connection, dataset, bad, keep)
    return result_of(keep.filter(found, good), columns, schema, rejected, total=found.num_rows, noted=noted)


def _with_raw(connection: duckdb.DuckDBPyConnection, dataset: Dataset, bad: pa.Table, keep: Keep) -> pa.Table:
    # The raw text may be costly to make, so it is made for the bad rows only.
    connection.register("bad", bad)
    relation = connection.sql(
        f"SELECT b.{quoted(ROW)} AS row, b.{quoted(LINE)} AS line, {told(f'b.{quoted(BAD)}', dataset)}, "
        f"s.{quoted(RAW)} FROM bad b JOIN source s ON s.{quoted(ROW)} = b.{quoted(ROW)} ORDER BY 1"
    )
    names = [ROW, "line", "reason", "column", "check", "raw"]
    return keep.read(relation).rename_columns(names).select(REJECTED.names).cast(REJECTED)


def result_of(
    good: pa.Table,
    columns: Sequence[tuple[str, str]],
    schema: Schema,
    rejected: pa.Table,
    *,
    total: int | None = None,
    noted: pa.Table | None = None,
) -> ReadResult:
    """What reading gives; all `good` rows are of as many records unless `total` says of how many."""
    rows = good.select([name for name, _ in columns] + [ROW, RESCUED])
    total = good.num_rows if total is None else total
    return ReadResult(rows=rows, columns=tuple(columns), rejected=rejected, total=total, schema=schema, noted=noted)
