"""Parquet: its own schema, nested types kept."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import duckdb
import pyarrow as pa
import pyarrow.parquet as pa_parquet

from penstock.declarations import Dataset
from penstock.errors import DeclarationError, Unreadable
from penstock.formats.engine import cursor, refuse_wide
from penstock.formats.kept import Keep
from penstock.formats.names import normalised, places_of
from penstock.formats.plain import plain_file
from penstock.formats.result import RESCUED, ROW, ReadResult
from penstock.formats.shape import BAD, LINE, RAW, Value, shape, shape_together
from penstock.formats.together import Piece, take_apart
from penstock.machine_faults import first_line, raise_machine_fault
from penstock.model import Column, Schema
from penstock.quoting import literal, quoted

T = TypeVar("T")

MAGIC = b"PAR1"
_NUMBER = "#number"
# What a value takes in memory at least: of one that repeats itself a file holds next to nothing.
_VALUE, _TEXT = 8, 16
# DuckDB's own columns, which a file's of the same name hide.
_DUCKDBS = {"file_index", "file_row_number", "filename"}
# The most that a DECIMAL of DuckDB has.
_DIGITS = 38
# No file has so many rows, and no group of files so many that their numbers would not be BIGINTs.
_APART = 2**40


def infer(path: Path, dataset: Dataset) -> Schema:
    """The file's own columns; integers become BIGINT where they fit. Raises Unreadable."""
    with plain_file(path) as found, cursor() as connection:
        types = _types(connection, [found])
        empty = _without_type(found)
        columns = tuple(
            Column(
                name=name,
                original=original,
                type=dataset.columns.get(name, "VARCHAR" if original in empty else _widest(kind)),
            )
            for name, (original, kind) in zip(normalised(types), types.items(), strict=True)
        )
        return Schema(version=1, columns=columns)


def read(path: Path, dataset: Dataset, schema: Schema, *, large: bool = False) -> ReadResult:
    """The file's rows. Raises Unreadable."""
    with plain_file(path) as found, cursor() as connection:
        keep = Keep(path, size=size_unpacked(found), large=large)
        return _shaped(connection, [found], dataset, schema, partial(shape, keep=keep))


def size_unpacked(path: Path) -> int:
    """The bytes of the file's values by its metadata, for repeated ones at least that of a number or short text."""
    try:
        found = pa_parquet.read_metadata(path)
    except (pa.ArrowException, OSError):
        return path.stat().st_size  # it is said when the file is read
    groups = (found.row_group(group) for group in range(found.num_row_groups))
    values = sum(_size(group.column(place)) for group in groups for place in range(found.num_columns))
    return max(path.stat().st_size, values)


def _size(column: pa_parquet.ColumnChunkMetaData) -> int:
    least = _TEXT if column.physical_type == "BYTE_ARRAY" else _VALUE
    return max(int(column.total_uncompressed_size), least * int(column.num_values))


def read_many(
    paths: Sequence[Path], dataset: Dataset, schema: Schema, *, progress: Callable[[], None], large: bool = False
) -> dict[int, ReadResult]:
    """By index, what `read` would give, for those of which others have the very same columns. Raises Unreadable."""
    alike: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for index, path in enumerate(paths):
        with suppress(pa.ArrowException, OSError):
            found = pa_parquet.read_metadata(path)
            if not any(_top(found.schema.column(place).path) in _DUCKDBS for place in range(found.num_columns)):
                alike[str(found.schema).split("\n", 1)[1]].append((index, found.num_rows))
    results: dict[int, ReadResult] = {}
    with cursor() as connection:
        for files in alike.values():
            if len(files) > 1:
                progress()
                some = [paths[index] for index, _ in files]
                keep = Keep(some[0], large=large)
                together, asking = _shaped(connection, some, dataset, schema, partial(shape_together, keep=keep))
                pieces = [
                    Piece(index=index, before=place * _APART, count=count) for place, (index, count) in enumerate(files)
                ]
                results |= take_apart(together, pieces, asking)
    return results


def _shaped(
    connection: duckdb.DuckDBPyConnection,
    paths: Sequence[Path],
    dataset: Dataset,
    schema: Schema,
    by: Callable[[duckdb.DuckDBPyConnection, Dataset, Schema, Sequence[Value]], T],
) -> T:
    """The rows of files with the same columns; those of the second are numbered from _APART on, and so forth."""
    types = _types(connection, paths)
    places = {original: f"c{place}" for place, original in enumerate(types)}
    kinds = list(types.items())
    own = places_of(list(types), [column.original for column in schema.columns])
    values = [
        Value(
            column=column,
            expression=None if place is None else f"c{place}",
            kind="typed",
            type="VARCHAR" if place is None else kinds[place][1],
        )
        for column, place in zip(schema.columns, own, strict=True)
    ]
    extra = {original: expression for place, (original, expression) in enumerate(places.items()) if place not in own}
    try:
        connection.execute(
            f"CREATE OR REPLACE TEMP VIEW source AS SELECT *, {quoted(_NUMBER)} + 1 AS {quoted(ROW)}, "
            f"CAST(NULL AS BIGINT) AS {quoted(LINE)}, CAST(NULL AS VARCHAR) AS {quoted(BAD)}, "
            f"{_json(places)} AS {quoted(RAW)}, {_json(extra)} AS {quoted(RESCUED)} FROM ({_scan(paths, places)})"
        )
    except duckdb.Error as error:
        raise_machine_fault(error)
        raise Unreadable(f"not Parquet: {_reason(error)}") from None
    if dataset.select:
        _look_through(connection, paths)  # what is not selected is not read
    try:
        return by(connection, dataset, schema, values)
    except DeclarationError:
        _look_through(connection, paths)
        raise
    except (duckdb.Error, OSError) as error:
        raise_machine_fault(error)
        raise Unreadable(f"not Parquet: {type(error).__name__}") from None


def _scan(paths: Sequence[Path], places: dict[str, str]) -> str:
    """The files' rows with their number; the columns have names of ours, lest one of theirs be taken for another."""
    columns = ", ".join(f"{quoted(original)} AS {place}" for original, place in places.items())
    if len(paths) > 1:
        number = f"CAST(file_index AS BIGINT) * {_APART} + file_row_number"
    elif "file_row_number" in {original.lower() for original in places}:
        return f"SELECT {columns}, row_number() OVER () - 1 AS {quoted(_NUMBER)} FROM {_reading(paths)}"
    else:
        number = "file_row_number"
    return f"SELECT {columns}, {number} AS {quoted(_NUMBER)} FROM {_reading(paths, ', file_row_number=true')}"


def _reading(paths: Sequence[Path], more: str = "") -> str:
    # A folder may be called `a=1`, and is no column of the file for it.
    return f"read_parquet([{', '.join(literal(str(path)) for path in paths)}], hive_partitioning=false{more})"


def _types(connection: duckdb.DuckDBPyConnection, paths: Sequence[Path]) -> dict[str, str]:
    for path in paths:
        with path.open("rb") as file:
            if file.read(4) != MAGIC:
                raise Unreadable("not Parquet: it does not begin with PAR1")
    try:
        relation = connection.sql(f"SELECT * FROM {_reading(paths[:1])}")
    except duckdb.Error as error:
        raise_machine_fault(error)
        raise Unreadable(f"not Parquet: {_reason(error)}") from None
    types = dict(zip(relation.columns, map(str, relation.types), strict=True))
    refuse_wide(len(types))
    if any("DOUBLE" in kind for kind in types.values()):
        _refuse_long_decimals(paths[0])
    return types


def _refuse_long_decimals(path: Path) -> None:
    """Raise Unreadable for decimals of more digits than DuckDB's: it makes DOUBLEs of them, and some of them wrong."""
    with suppress(pa.ArrowException, OSError):  # what is damaged is said when it is read
        found = pa_parquet.read_metadata(path).schema
        for place in range(len(found)):
            column = found.column(place)
            if column.logical_type.type == "DECIMAL" and column.precision > _DIGITS:
                raise Unreadable(
                    f"the numbers of its column {column.path!r} may have {column.precision} digits, more than the "
                    f"{_DIGITS} that are read; write them as text or with fewer"
                )


def _without_type(path: Path) -> set[str]:
    """The columns that had no value of any kind when they were written: a later object's may be text."""
    with suppress(pa.ArrowException, OSError):
        return {field.name for field in pa_parquet.read_schema(path) if pa.types.is_null(field.type)}
    return set()


def _look_through(connection: duckdb.DuckDBPyConnection, paths: Sequence[Path]) -> None:
    """Find a damaged page, which is the object's fault and nobody's SQL. Raises Unreadable."""
    try:
        # A count alone would be answered from the file's statistics.
        connection.execute(f"SELECT max(hash(COLUMNS(*))) FROM {_reading(paths)}").fetchall()
    except duckdb.Error as error:
        raise_machine_fault(error)
        raise Unreadable(f"not Parquet: {_reason(error)}") from None


def _reason(error: duckdb.Error) -> str:
    line = first_line(error)
    return re.sub(r"\s*(in )?(file )?[\"']?/\S+", "", line)[:120]


def _widest(kind: str) -> str:
    if kind in ("TINYINT", "SMALLINT", "INTEGER", "UTINYINT", "USMALLINT", "UINTEGER"):
        return "BIGINT"
    if kind == "FLOAT":  # a later DOUBLE would be rounded
        return "DOUBLE"
    if kind == "UBIGINT":
        return "DECIMAL(20,0)"
    return "VARCHAR" if kind.startswith("ENUM") else kind


def _top(path: str) -> str:
    return path.partition(".")[0].lower()


def _json(places: dict[str, str]) -> str:
    if not places:
        return "CAST(NULL AS VARCHAR)"
    pairs = ", ".join(f"{literal(original)}, {place}" for original, place in places.items())
    nothing = " AND ".join(f"{place} IS NULL" for place in places.values())
    return f"CASE WHEN NOT ({nothing}) THEN CAST(json_object({pairs}) AS VARCHAR) END"
