"""A dataset's report: additive aggregates over the rows of a load, and adding two of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa

from penstock.declarations import Dataset
from penstock.errors import DeclarationError, Unreadable
from penstock.formats.engine import cursor, in_words
from penstock.machine_faults import raise_machine_fault
from penstock.quoting import quoted


def report(rows: pa.Table, dataset: Dataset) -> dict[str, Any]:
    """Each aggregate of `dataset.report` over `rows`, JSON-able. Raises DeclarationError naming a faulty one."""
    if not dataset.report:
        return {}
    with cursor() as connection:
        connection.register("loaded", rows)
        wanted = ", ".join(f"({expression}\n) AS {quoted(name)}" for name, expression in dataset.report.items())
        try:
            row = connection.execute(f"SELECT {wanted} FROM loaded").fetchone()
        except duckdb.Error as error:
            raise_machine_fault(error)
            raise DeclarationError(f"dataset {dataset.name}: {_culprit(connection, dataset, error)}") from None
    assert row is not None
    return {name: _plain(value) for name, value in zip(dataset.report, row, strict=True)}


def refuse_unreportable(rows: pa.Table, dataset: Dataset) -> None:
    """Raise Unreadable where what `transform` made has not the columns that the report needs."""
    with cursor() as connection:
        connection.register("loaded", rows)
        for name, expression in dataset.report.items():
            try:
                connection.sql(f"SELECT ({expression}\n) FROM loaded")
            except duckdb.BinderException as error:
                raise Unreadable(f"transform: report {name} {expression!r}: {in_words(error)}") from None
            except duckdb.Error as error:
                raise_machine_fault(error)  # any other is the declaration's, and said when the report is made


def merge_reports(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """The report of both loads together: numbers add, mappings add key by key, an absent value counts as nothing."""
    return {name: _sum(a.get(name), b.get(name)) for name in [*a, *(name for name in b if name not in a)]}


def _sum(a: Any, b: Any) -> Any:
    if a is None or b is None:
        return b if a is None else a
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return merge_reports(a, b)
    if isinstance(a, int | float) and isinstance(b, int | float):
        return a + b
    return b


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _culprit(connection: duckdb.DuckDBPyConnection, dataset: Dataset, error: Exception) -> str:
    for name, expression in dataset.report.items():
        try:
            connection.execute(f"SELECT ({expression}\n) FROM loaded").fetchone()
        except duckdb.Error as found:
            raise_machine_fault(found)
            return f"report {name} {expression!r}: {in_words(found)}"
    return f"report: {in_words(error)}"
