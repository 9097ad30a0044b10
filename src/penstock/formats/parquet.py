"""Parquet: its own schema, nested types kept."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb

from penstock.declarations import Dataset
from penstock.errors import Unreadable
from penstock.formats.engine import cursor
from penstock.formats.names import literal, normalised, quoted
from penstock.formats.plain import plain_file
from penstock.formats.result import RESCUED, ROW, ReadResult
from penstock.formats.shape import BAD, LINE, RAW, Value, shape
from penstock.machine_faults import raise_machine_fault
from penstock.model import Column, Schema

MAGIC = b"PAR1"
_NUMBER = "#number"


def infer(path: Path, dataset: Dataset) -> Schema:
    """The file's own columns; integers become BIGINT where they fit. Raises Unreadable."""
    with plain_file(path) as found, cursor() as connection:
        types = _types(connection, found)
        columns = tuple(
            Column(name=name, original=original, type=dataset.columns.get(name, _widest(kind)))
            for name, (original, kind) in zip(normalised(types), types.items(), strict=True)
        )
        return Schema(version=1, columns=columns)


def read(path: Path, dataset: Dataset, schema: Schema) -> ReadResult:
    """The file's rows. Raises Unreadable."""
    with plain_file(path) as found, cursor() as connection:
        types = _types(connection, found)
        values = [
            Value(
                column=column,
                expression=quoted(column.original) if column.original in types else None,
                kind="typed",
                type=types.get(column.original, "VARCHAR"),
            )
            for column in schema.columns
        ]
        extra = [original for original in types if original not in {column.original for column in schema.columns}]
        connection.execute(
            f"CREATE TEMP VIEW source AS SELECT *, {_NUMBER_SQL} AS {quoted(ROW)}, CAST(NULL AS BIGINT) AS "
            f"{quoted(LINE)}, CAST(NULL AS VARCHAR) AS {quoted(BAD)}, {_json(list(types))} AS {quoted(RAW)}, "
            f"{_json(extra)} AS {quoted(RESCUED)} FROM ({_scan(found, types)})"
        )
        try:
            return shape(connection, dataset, schema, values)
        except (duckdb.Error, OSError) as error:
            raise_machine_fault(error)
            raise Unreadable(f"not Parquet: {type(error).__name__}") from None


_NUMBER_SQL = f"{quoted(_NUMBER)} + 1"


def _scan(path: Path, types: dict[str, str]) -> str:
    columns = ", ".join(quoted(original) for original in types)
    file = f"read_parquet({literal(str(path))}, file_row_number=true)"
    return f"SELECT {columns}, file_row_number AS {quoted(_NUMBER)} FROM {file}"


def _types(connection: duckdb.DuckDBPyConnection, path: Path) -> dict[str, str]:
    with path.open("rb") as file:
        if file.read(4) != MAGIC:
            raise Unreadable("not Parquet: it does not begin with PAR1")
    try:
        relation = connection.sql(f"SELECT * FROM read_parquet({literal(str(path))})")
        # A pass over every value finds a damaged page here, where it is the object's fault and nobody's SQL. A count
        # alone would be answered from the file's statistics.
        connection.execute(f"SELECT max(hash(COLUMNS(*))) FROM read_parquet({literal(str(path))})").fetchall()
    except duckdb.Error as error:
        raise_machine_fault(error)
        raise Unreadable(f"not Parquet: {_reason(error)}") from None
    return dict(zip(relation.columns, map(str, relation.types), strict=True))


def _reason(error: duckdb.Error) -> str:
    line = str(error).strip().splitlines()[0]
    return re.sub(r"\s*(in )?(file )?[\"']?/\S+", "", line)[:120]


def _widest(kind: str) -> str:
    if kind in ("TINYINT", "SMALLINT", "INTEGER", "UTINYINT", "USMALLINT", "UINTEGER"):
        return "BIGINT"
    if kind == "UBIGINT":
        return "DECIMAL(20,0)"
    return "VARCHAR" if kind.startswith("ENUM") else kind


def _json(originals: list[str]) -> str:
    if not originals:
        return "CAST(NULL AS VARCHAR)"
    pairs = ", ".join(f"{literal(original)}, {quoted(original)}" for original in originals)
    nothing = " AND ".join(f"{quoted(original)} IS NULL" for original in originals)
    return f"CASE WHEN NOT ({nothing}) THEN CAST(json_object({pairs}) AS VARCHAR) END"
