"""From source values to the table's rows: casts, derived columns, checks. One SQL query over a relation `source`.

A format leaves a temporary table or view `source` with the columns ROW, LINE, RAW, BAD (a reason, or null) and
RESCUED, and says by `Value` where each source column is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from penstock.declarations import Dataset
from penstock.errors import DeclarationError
from penstock.formats.kept import Keep
from penstock.formats.names import literal, quoted
from penstock.formats.numbers import FRACTION, comma_of, fraction_of, keeps_zeros, whole_of
from penstock.formats.result import REJECTED, RESCUED, ROW, ReadResult
from penstock.machine_faults import raise_machine_fault
from penstock.model import Column, Schema

# Names no normalised column can have.
LINE, RAW, BAD = "#line", "#raw", "#bad"
SHOWN = 40

_INTEGERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"}
_INTEGERS |= {"INT", "LONG", "SHORT"}
_FRACTIONS = re.compile(r"^(DOUBLE|FLOAT|REAL|DECIMAL)")
# A window or a subquery sees other rows, `unnest` makes more of them, and the rest can see the number of the row.
_MORE_THAN_A_ROW = re.compile(
    rf"\b(over|select|from|table|unnest|generate_subscripts|columns|unnamed_subquery|{ROW})\b", re.IGNORECASE
)
_TIME_FORMS = {"DATE": "dateformat", "TIMESTAMP": "timestampformat", "TIMESTAMP WITH TIME ZONE": "zonedformat"}
_AT_WORK = (duckdb.ConversionException, duckdb.OutOfRangeException, duckdb.InvalidInputException)


@dataclass(frozen=True, kw_only=True)
class Value:
    """Where a column's values are in `source`: an SQL expression, None when the object lacks the column.

    `text` values are VARCHAR and cast strictly; `typed` ones have the DuckDB type `type`.
    """

    column: Column
    expression: str | None
    kind: Literal["text", "typed"] = "text"
    type: str = "VARCHAR"

    def cast(self, dialect: dict[str, object]) -> str:
        """The value as its column's type; NULL when that cannot be."""
        target = self.column.type
        if self.expression is None:
            return f"CAST(NULL AS {target})"
        if self.kind == "typed":
            return self._cast_typed(target)
        return self.expression if target.upper() == "VARCHAR" else self._cast_text(self.expression, target, dialect)

    def _cast_text(self, text: str, target: str, dialect: dict[str, object]) -> str:
        comma = comma_of(dialect, self.column.name)
        if target.upper() in _INTEGERS:
            return whole_of(text, target, comma, zeros=keeps_zeros(dialect, self.column.name))
        if comma and _FRACTIONS.match(target.upper()):
            return fraction_of(text, target, comma)
        form = dialect.get(_TIME_FORMS.get(target.upper(), ""))
        plain = f"TRY_CAST({text} AS {target})"
        if form:
            return f"coalesce(CAST(try_strptime({text}, {literal(str(form))}) AS {target}), {plain})"
        return plain

    def _cast_typed(self, target: str) -> str:
        assert self.expression is not None
        if self.type == target:
            return self.expression
        if target.upper() == "JSON":
            return f"to_json({self.expression})"
        cast = f"TRY_CAST({self.expression} AS {target})"
        if target.upper() in _INTEGERS and _FRACTIONS.match(self.type):
            return f"CASE WHEN {self.expression} = trunc({self.expression}) THEN {cast} END"
        return cast

    def fraction(self, dialect: dict[str, object]) -> str:
        """True for a value that is a number but no integer."""
        assert self.expression is not None
        double = f"TRY_CAST({self.expression} AS DOUBLE)"
        if self.kind == "typed":
            return f"isfinite({double})" if _FRACTIONS.match(self.type) else "false"
        if comma_of(dialect, self.column.name):
            return f"regexp_full_match({self.expression}, {literal(FRACTION)})"
        form = r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*"
        integer = r"\s*[+-]?[0-9]+\s*"
        return (
            f"(regexp_full_match({self.expression}, {literal(form)}) AND isfinite({double}) "
            f"AND NOT regexp_full_match({self.expression}, {literal(integer)}))"
        )


def shape(
    connection: duckdb.DuckDBPyConnection, dataset: Dataset, schema: Schema, values: Sequence[Value], keep: Keep
) -> ReadResult:
    """Evaluate `source`. Raises DeclarationError naming dataset and expression when one of them is faulty."""
    found, columns = _evaluate(connection, dataset, schema, values, keep)
    if _all_good(found):
        return _result(found, columns, schema, REJECTED.empty_table())
    wider = _widened(connection, dataset, schema, values)
    if wider is not None:
        types = {column.name: column for column in wider.columns}
        moved = [replace(value, column=types[value.column.name]) for value in values]
        return shape(connection, dataset, wider, moved, keep)
    return _separated(connection, found, columns, schema, keep)


def shape_together(
    connection: duckdb.DuckDBPyConnection, dataset: Dataset, schema: Schema, values: Sequence[Value], keep: Keep
) -> tuple[ReadResult, list[int]]:
    """As `shape` over the records of several objects, widening nothing; also the records that may ask for that."""
    found, columns = _evaluate(connection, dataset, schema, values, keep)
    if _all_good(found):
        return _result(found, columns, schema, REJECTED.empty_table()), []
    fractions = [
        f"({_failed(value, schema)} AND {value.fraction(schema.dialect)})" for value in _may_widen(dataset, values)
    ]
    asking = connection.execute(
        f"SELECT {quoted(ROW)} FROM source WHERE {' OR '.join(fractions) or 'false'} ORDER BY 1"
    ).fetchall()
    return _separated(connection, found, columns, schema, keep), [row for (row,) in asking]


def stands_alone(dataset: Dataset) -> bool:
    """Whether an expression of the declaration may see more of an object than the values of one row."""
    return any(
        _MORE_THAN_A_ROW.search(text)
        for text in [*dataset.derive.values(), *(check.predicate for check in dataset.row_checks.values())]
    )


def _all_good(found: pa.Table) -> bool:
    return bool(pc.all(pc.equal(found.column(BAD), ""), min_count=0).as_py())


def _separated(
    connection: duckdb.DuckDBPyConnection,
    found: pa.Table,
    columns: Sequence[tuple[str, str]],
    schema: Schema,
    keep: Keep,
) -> ReadResult:
    good = pc.equal(found.column(BAD), "")
    bad = keep.filter(found.select([ROW, LINE, BAD]), pc.invert(good))
    return _result(keep.filter(found, good), columns, schema, _with_raw(connection, bad, keep))


def _with_raw(connection: duckdb.DuckDBPyConnection, bad: pa.Table, keep: Keep) -> pa.Table:
    # The raw text may be costly to make, so it is made for the bad rows only.
    connection.register("bad", bad)
    relation = connection.sql(
        f"SELECT b.{quoted(ROW)}, b.{quoted(LINE)}, b.{quoted(BAD)}, s.{quoted(RAW)}, NULL::VARCHAR, NULL::VARCHAR "
        f"FROM bad b JOIN source s ON s.{quoted(ROW)} = b.{quoted(ROW)} ORDER BY 1"
    )
    return keep.read(relation).rename_columns(REJECTED.names).cast(REJECTED)


def _result(good: pa.Table, columns: Sequence[tuple[str, str]], schema: Schema, rejected: pa.Table) -> ReadResult:
    rows = good.select([name for name, _ in columns] + [ROW, RESCUED])
    total = good.num_rows + rejected.num_rows
    return ReadResult(rows=rows, columns=tuple(columns), rejected=rejected, total=total, schema=schema)


def _evaluate(
    connection: duckdb.DuckDBPyConnection, dataset: Dataset, schema: Schema, values: Sequence[Value], keep: Keep
) -> tuple[pa.Table, list[tuple[str, str]]]:
    try:
        try:
            return _run(connection, _query(dataset, schema, values, guarded=False), dataset, schema, keep)
        except _AT_WORK:
            # An expression failed on some row's data: find those rows, which TRY does at a price.
            return _run(connection, _query(dataset, schema, values, guarded=True), dataset, schema, keep)
    except duckdb.Error as error:
        raise_machine_fault(error)
        culprit = _culprit(connection, dataset, schema, values)
        raise DeclarationError(f"dataset {dataset.name}: {culprit or _first_line(error)}") from None


def _run(
    connection: duckdb.DuckDBPyConnection, sql: str, dataset: Dataset, schema: Schema, keep: Keep
) -> tuple[pa.Table, list[tuple[str, str]]]:
    relation = connection.sql(sql)
    types = dict(zip(relation.columns, map(str, relation.types), strict=True))
    columns = [(name, types[name]) for name in _kept(dataset, schema)]
    return keep.read(relation), columns


def _kept(dataset: Dataset, schema: Schema) -> list[str]:
    names = [column.name for column in schema.columns]
    names += [name for name in dataset.derive if name not in names]
    if missing := [name for name in dataset.select if name not in names]:
        raise DeclarationError(f"dataset {dataset.name}: select names {missing[0]!r}, which no column has")
    return list(dataset.select) or names


def _query(dataset: Dataset, schema: Schema, values: Sequence[Value], *, guarded: bool) -> str:
    inner = _casts(dataset, schema, values)
    bad = [quoted(BAD)]
    names = {column.name for column in schema.columns}
    for name, expression in dataset.derive.items():
        value = f"({expression}\n)"
        if guarded:
            step = quoted(f"#derive {name}")
            inner = f"SELECT *, TRY({{'v': {value}}}) AS {step} FROM ({inner})"
            bad.append(f"CASE WHEN {step} IS NULL THEN {literal(f'derive {name} failed')} END")
            value = f"{step}.v"
        inner = _with_column(inner, name, value, replaces=name in names)
        names.add(name)
    for name, check in dataset.row_checks.items():
        predicate = check.predicate
        value = f"TRY(({predicate}\n))" if guarded else f"({predicate}\n)"
        bad.append(f"CASE WHEN {value} IS NOT TRUE THEN {literal(f'check {name}')} END")
    kept = "".join(f"{quoted(name)}, " for name in _kept(dataset, schema))
    reason = f"concat_ws('; ', {', '.join(bad)})" if len(bad) > 1 else f"coalesce({bad[0]}, '')"
    return (
        f"SELECT {kept}{quoted(ROW)}, {quoted(RESCUED)}, {quoted(LINE)}, {quoted(BAD)} "
        f"FROM (SELECT * REPLACE ({reason} AS {quoted(BAD)}) FROM ({inner}))"
    )


def _with_column(inner: str, name: str, value: str, *, replaces: bool) -> str:
    if replaces:
        return f"SELECT * REPLACE ({value} AS {quoted(name)}) FROM ({inner})"
    return f"SELECT *, {value} AS {quoted(name)} FROM ({inner})"


def _casts(dataset: Dataset, schema: Schema, values: Sequence[Value]) -> str:
    columns, failures = [], [quoted(BAD)]
    for value in values:
        cast = value.cast(schema.dialect)
        columns.append(f"{cast} AS {quoted(value.column.name)}")
        if value.expression is None or cast == value.expression:
            continue
        reason = f"{value.column.name}: not {value.column.type}: "
        shown = f"left(CAST({value.expression} AS VARCHAR), {SHOWN})"
        failures.append(
            f"CASE WHEN {value.expression} IS NOT NULL AND {cast} IS NULL THEN {literal(reason)} || {shown} END"
        )
    reason = f"nullif(concat_ws('; ', {', '.join(failures)}), '')" if len(failures) > 1 else failures[0]
    own = f"{quoted(ROW)}, {quoted(LINE)}, {quoted(RESCUED)}, {reason} AS {quoted(BAD)}"
    return f"SELECT {', '.join([own, *columns])} FROM source"


def _widened(
    connection: duckdb.DuckDBPyConnection, dataset: Dataset, schema: Schema, values: Sequence[Value]
) -> Schema | None:
    candidates = _may_widen(dataset, values)
    if not candidates:
        return None
    counts = []
    for value in candidates:
        failed = _failed(value, schema)
        counts.append(f"count(*) FILTER (WHERE {failed})")
        counts.append(f"count(*) FILTER (WHERE {failed} AND {value.fraction(schema.dialect)})")
    row = connection.execute(f"SELECT {', '.join(counts)} FROM source").fetchone()
    assert row is not None
    wide = {
        value.column.name
        for value, failed, fractions in zip(candidates, row[::2], row[1::2], strict=True)
        if failed and failed == fractions
    }
    if not wide:
        return None
    columns = (replace(column, type="DOUBLE") if column.name in wide else column for column in schema.columns)
    return replace(schema, columns=tuple(columns))


def _may_widen(dataset: Dataset, values: Sequence[Value]) -> list[Value]:
    return [
        value
        for value in values
        if value.expression and value.column.type == "BIGINT" and value.column.name not in dataset.columns
    ]


def _failed(value: Value, schema: Schema) -> str:
    return f"{value.expression} IS NOT NULL AND {value.cast(schema.dialect)} IS NULL"


def _culprit(
    connection: duckdb.DuckDBPyConnection, dataset: Dataset, schema: Schema, values: Sequence[Value]
) -> str | None:
    for value in values:
        try:
            connection.execute(f"SELECT CAST(NULL AS {value.column.type})")
        except duckdb.Error as error:
            raise_machine_fault(error)
            return f"columns {value.column.name} {value.column.type!r}: {_first_line(error)}"
    inner = f"{_casts(dataset, schema, values)} LIMIT 0"
    names = {column.name for column in schema.columns}
    for name, expression in dataset.derive.items():
        inner = _with_column(inner, name, f"({expression}\n)", replaces=name in names)
        names.add(name)
        if reason := _refused(connection, inner):
            return f"derive {name} {expression!r}: {reason}"
    for name, check in dataset.row_checks.items():
        predicate = check.predicate
        if reason := _refused(connection, f"SELECT ({predicate}\n) IS NOT TRUE FROM ({inner})"):
            return f"check {name} {predicate!r}: {reason}"
    return None


def _refused(connection: duckdb.DuckDBPyConnection, sql: str) -> str | None:
    try:
        connection.sql(sql).fetchall()
    except duckdb.Error as error:
        raise_machine_fault(error)
        return _first_line(error)
    return None


def _first_line(error: Exception) -> str:
    if isinstance(error, _AT_WORK):
        return "it fails on the data"  # DuckDB's own words would hold values
    return str(error).strip().split("\n", 1)[0]
