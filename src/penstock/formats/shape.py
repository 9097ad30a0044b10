"""From source values to the table's rows: casts, derived columns, checks. One SQL query over a relation `source`.

A format leaves a temporary table or view `source` with the columns ROW, LINE, RAW, BAD (a reason, or null) and
RESCUED, and says by `Value` where each source column is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from penstock.declarations import Dataset
from penstock.errors import DeclarationError, Unreadable
from penstock.formats.asking import (
    BAD,
    NOTE,
    about_column,
    aside,
    asked,
    notes,
    noting,
    stands_alone,
    unmarked,
)
from penstock.formats.engine import AT_WORK, BY_THE_DATA, in_words, many_columns
from penstock.formats.kept import Keep
from penstock.formats.lattice import LONG, Misfits, back_and_forth, lossless, may_be_text, text_columns, wider
from penstock.formats.numbers import FRACTION, GROUPED_FRACTION, comma_of, fraction_of, pointed, whole_of
from penstock.formats.result import REJECTED, RESCUED, ROW, ReadResult
from penstock.formats.separating import LINE, RAW, all_good, result_of, separated
from penstock.machine_faults import first_line, raise_machine_fault
from penstock.model import Column, Schema
from penstock.quoting import literal, quoted

__all__ = ["BAD", "LINE", "RAW", "SHOWN", "Value", "shape", "shape_together"]

SHOWN = 40

_INTEGERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"}
_INTEGERS |= {"INT", "LONG", "SHORT"}
_FRACTIONS = re.compile(r"^(DOUBLE|FLOAT|REAL|DECIMAL)")
_TIME_FORMS = {"DATE": "dateformat", "TIMESTAMP": "timestampformat", "TIMESTAMP WITH TIME ZONE": "zonedformat"}


@dataclass(frozen=True, kw_only=True)
class Value:
    """Where a column's values are in `source`: an SQL expression, None when the object lacks the column.

    `text` values are VARCHAR and cast strictly; `typed` ones have the DuckDB type `type`.
    """

    column: Column
    expression: str | None
    kind: Literal["text", "typed"] = "text"
    type: str = "VARCHAR"

    def cast(self, dialect: dict[str, object], *, hinted: bool = False) -> str:
        """The value as its column's type; NULL when that cannot be, or would lose some of it unless `hinted`."""
        target = self.column.type
        if self.expression is None:
            return f"CAST(NULL AS {target})"
        if self.kind == "typed":
            return self._cast_typed(target, dialect, hinted=hinted)
        if target.upper() == "VARCHAR":
            return self.expression
        return self._cast_text(self.expression, target, dialect, hinted=hinted)

    def _cast_text(self, text: str, target: str, dialect: dict[str, object], *, hinted: bool) -> str:
        comma = comma_of(dialect, self.column.name)
        if target.upper() in _INTEGERS:
            return whole_of(text, target, comma, zeros=not hinted)
        if comma and _FRACTIONS.match(target.upper()):
            number = fraction_of(text, target, comma)
            return number if hinted else lossless(text, target, number, plain=pointed(text, comma))
        form = dialect.get(_TIME_FORMS.get(target.upper(), ""))
        plain = f"TRY_CAST({text} AS {target})"
        if not hinted:
            plain = lossless(text, target, plain)
        if form:
            # It takes `infinity` for the first of January 1900.
            formed = f"CAST(try_strptime({text}, {literal(str(form))}) AS {target})"
            return f"coalesce(CASE WHEN regexp_matches({text}, '[0-9]') THEN {formed} END, {plain})"
        return plain

    def _cast_typed(self, target: str, dialect: dict[str, object], *, hinted: bool) -> str:
        assert self.expression is not None
        if self.type == target:
            return self.expression
        if target.upper() == "JSON":
            return f"to_json({self.expression})"
        cast = f"TRY_CAST({self.expression} AS {target})"
        if not hinted and target.upper() != "VARCHAR":
            if self.type == "VARCHAR":
                return self._cast_text(self.expression, target, dialect, hinted=False)
            return back_and_forth(self.expression, self.type, target, cast)
        if target.upper() in _INTEGERS and _FRACTIONS.match(self.type):
            return f"CASE WHEN {self.expression} = trunc({self.expression}) THEN {cast} END"
        return cast

    def fraction(self, dialect: dict[str, object]) -> str:
        """True for a value that is a number but no integer."""
        assert self.expression is not None
        double = f"TRY_CAST({self.expression} AS DOUBLE)"
        if self.kind == "typed":
            return f"isfinite({double})" if _FRACTIONS.match(self.type) else "false"
        comma = comma_of(dialect, self.column.name)
        if comma in ("found", "declared"):
            return f"regexp_full_match({self.expression}, {literal(FRACTION)})"
        grouped = f"regexp_full_match({self.expression}, {literal(GROUPED_FRACTION)}) OR " if comma else ""
        form = r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*"
        integer = r"\s*[+-]?[0-9]+\s*"
        return (
            f"({grouped}regexp_full_match({self.expression}, {literal(form)}) AND isfinite({double}) "
            f"AND NOT regexp_full_match({self.expression}, {literal(integer)}))"
        )


def shape(
    connection: duckdb.DuckDBPyConnection, dataset: Dataset, schema: Schema, values: Sequence[Value], keep: Keep
) -> ReadResult:
    """Evaluate `source`. Raises DeclarationError naming dataset and expression when one of them is faulty."""
    try:
        found, columns = _evaluate(connection, dataset, schema, values, keep)
    except DeclarationError:
        if schema.columns:
            raise
        # An object without records has no columns either that expressions could name.
        bare = replace(dataset, derive={}, checks={}, where=None, select=(), write="append", key=(), order_by=None)
        found, columns = _evaluate(connection, bare, schema, values, keep)
        if pc.any(pc.equal(found.column(BAD), "")).as_py():
            raise
    if all_good(found):
        return result_of(found, columns, schema, REJECTED.empty_table())
    wider = _widened(connection, dataset, schema, values)
    if wider is not None:
        types = {column.name: column for column in wider.columns}
        moved = [replace(value, column=types[value.column.name]) for value in values]
        return shape(connection, dataset, wider, moved, keep)
    return separated(connection, dataset, found, columns, schema, keep)


def shape_together(
    connection: duckdb.DuckDBPyConnection, dataset: Dataset, schema: Schema, values: Sequence[Value], keep: Keep
) -> tuple[ReadResult, list[int]]:
    """As `shape` over the records of several objects, widening nothing; also the records that may ask for that."""
    found, columns = _evaluate(connection, dataset, schema, values, keep)
    if all_good(found):
        return result_of(found, columns, schema, REJECTED.empty_table()), []
    asking = connection.execute(
        f"SELECT {quoted(ROW)} FROM source WHERE {_asks(dataset, schema, values)} ORDER BY 1"
    ).fetchall()
    return separated(connection, dataset, found, columns, schema, keep), [row for (row,) in asking]


def _evaluate(
    connection: duckdb.DuckDBPyConnection, dataset: Dataset, schema: Schema, values: Sequence[Value], keep: Keep
) -> tuple[pa.Table, list[tuple[str, str]]]:
    whole: dict[str, str] = {}
    plain = _query(dataset, schema, values, guarded=lambda expression: False)
    try:
        try:
            return _run(connection, plain, dataset, schema, keep)
        except AT_WORK:
            # An expression failed on some row's data: find those rows, which TRY does at a price.
            whole = _whole(connection, dataset, schema, values)
            sql = _query(dataset, schema, values, guarded=lambda expression: expression not in whole.values())
            return _run(connection, sql, dataset, schema, keep)
    except duckdb.Error as error:
        raise_machine_fault(error)
        if isinstance(error, BY_THE_DATA) and _binds(connection, plain):
            what = " or ".join([*whole, *_no_conditions(connection, dataset, schema, values)])
            said = f"{what} fails on the data" if what else f"a value cannot be read ({_without_values(error)})"
            raise Unreadable(f"{said}, and it cannot be said in which row") from None
        culprit = _culprit(connection, dataset, schema, values)
        raise DeclarationError(f"dataset {dataset.name}: {culprit or in_words(error)}") from None


def _whole(
    connection: duckdb.DuckDBPyConnection, dataset: Dataset, schema: Schema, values: Sequence[Value]
) -> dict[str, str]:
    """By what they are, the expressions that DuckDB takes no TRY around: windows, subqueries, what is volatile."""
    return {
        what: expression
        for what, expression, rows in _asked_of(dataset, schema, values)
        if not _binds(connection, f"SELECT TRY({{'v': ({expression}\n)}}) FROM ({rows})")
    }


def _no_conditions(
    connection: duckdb.DuckDBPyConnection, dataset: Dataset, schema: Schema, values: Sequence[Value]
) -> list[str]:
    """The conditions that are not BOOLEAN by themselves: not every value can be made so, and no TRY is around that."""
    found = []
    for what, expression, rows in _asked_of(dataset, schema, values):
        kind = connection.sql(f"SELECT ({expression}\n) FROM ({rows})").types[0]
        if not what.startswith("derive ") and kind != "BOOLEAN":
            found.append(f"{what} {expression!r}, which is {kind} and should be true or false,")
    return found


def _asked_of(dataset: Dataset, schema: Schema, values: Sequence[Value]) -> list[tuple[str, str, str]]:
    """Each expression over one row: what it is, itself, and SQL of the rows that it is asked of."""
    inner = _casts(dataset, schema, values)
    names = {column.name for column in schema.columns}
    asked_of: list[tuple[str, str, str]] = []
    for name, expression in dataset.derive.items():
        asked_of.append((f"derive {name}", expression, inner))
        inner = _with_column(inner, name, f"({expression}\n)", replaces=name in names)
        names.add(name)
    if dataset.where is not None:
        asked_of.append(("where", dataset.where, inner))
    checks = [*aside(dataset), *noting(dataset)]
    return asked_of + [(f"check {name}", check.predicate, inner) for name, check in checks]


def _binds(connection: duckdb.DuckDBPyConnection, sql: str) -> bool:
    try:
        connection.sql(sql)
    except duckdb.Error as error:
        raise_machine_fault(error)
        return False
    return True


def _run(
    connection: duckdb.DuckDBPyConnection, sql: str, dataset: Dataset, schema: Schema, keep: Keep
) -> tuple[pa.Table, list[tuple[str, str]]]:
    with many_columns(connection, len(schema.columns)):
        relation = connection.sql(sql)
        types = dict(zip(relation.columns, map(str, relation.types), strict=True))
        columns = [(name, types[name]) for name in _kept(dataset, schema)]
        return keep.read(relation), columns


def _kept(dataset: Dataset, schema: Schema) -> list[str]:
    names = [column.name for column in schema.columns]
    names += [name for name in dataset.derive if name not in names]
    kept = list(dataset.select) or names
    asked_for = [("select", name, names) for name in dataset.select]
    if dataset.transform is None:
        asked_for += [("key", name, kept) for name in dataset.key]
        asked_for += [("order_by", name, kept) for name in [dataset.order_by] if name is not None]
    for what, name, there in asked_for:
        if name not in there:
            raise DeclarationError(f"dataset {dataset.name}: {what} names {name!r}, which no column has")
    return kept


def _query(dataset: Dataset, schema: Schema, values: Sequence[Value], *, guarded: Callable[[str], bool]) -> str:
    inner = _casts(dataset, schema, values)
    bad = [quoted(BAD)]
    names = {column.name for column in schema.columns}
    for name, expression in dataset.derive.items():
        value = f"({expression}\n)"
        if guarded(expression):
            step = quoted(f"#derive {name}")
            inner = f"SELECT *, TRY({{'v': {value}}}) AS {step} FROM ({inner})"
            failed = literal(f"derive {about_column(name)} failed")
            bad.append(f"CASE WHEN {step} IS NULL THEN {failed} END")
            value = f"{step}.v"
        inner = _with_column(inner, name, value, replaces=name in names)
        names.add(name)
    wanted = f"({dataset.where}\n) IS TRUE" if dataset.where is not None else None
    if dataset.where is not None and guarded(dataset.where):
        inner = f"SELECT *, TRY({{'v': ({dataset.where}\n)}}) AS {quoted('#where')} FROM ({inner})"
        bad.append(f"CASE WHEN {quoted('#where')} IS NULL THEN 'where failed' END")
        wanted = f"{quoted('#where')}.v IS TRUE"
    kept = "".join(f"{quoted(name)}, " for name in _kept(dataset, schema))
    note = f", {quoted(NOTE)}" if notes(dataset) else ""
    # A window gives back the rows in an order of its own.
    order = f" ORDER BY {quoted(ROW)}" if stands_alone(dataset) else ""
    return (
        f"SELECT {kept}{quoted(ROW)}, {quoted(RESCUED)}, {quoted(LINE)}, {quoted(BAD)}{note} "
        f"FROM ({asked(inner, dataset, bad, wanted=wanted, guarded=guarded)}){order}"
    )


def _with_column(inner: str, name: str, value: str, *, replaces: bool) -> str:
    if replaces:
        return f"SELECT * REPLACE ({value} AS {quoted(name)}) FROM ({inner})"
    return f"SELECT *, {value} AS {quoted(name)} FROM ({inner})"


def _casts(dataset: Dataset, schema: Schema, values: Sequence[Value]) -> str:
    columns, texts, failures = [], [], [quoted(BAD)]
    for place, value in enumerate(values):
        cast = value.cast(schema.dialect, hinted=value.column.name in dataset.columns)
        name, text = quoted(value.column.name), quoted(f"#value {place}")
        columns.append(f"{cast} AS {name}")
        if value.expression is None or cast == value.expression:
            continue
        texts.append(f"{value.expression} AS {text}")
        reason = f"{about_column(value.column.name)}: not {value.column.type}: "
        shown = unmarked(f"left(CAST({text} AS VARCHAR), {SHOWN})")
        failures.append(f"CASE WHEN {name} IS NULL AND {text} IS NOT NULL THEN {literal(reason)} || {shown} END")
    own = [quoted(ROW), quoted(LINE), quoted(RESCUED)]
    inner = f"SELECT {', '.join([*own, quoted(BAD), *columns, *texts])} FROM source"
    if not texts:
        return inner
    # Over what was cast, and not beside it: DuckDB would look for what the two have in common, column by column.
    reason = f"nullif(concat_ws('; ', {', '.join(failures)}), '') AS {quoted(BAD)}"
    names = [quoted(value.column.name) for value in values]
    return f"SELECT {', '.join([*own, reason, *names])} FROM ({inner})"


def _widened(
    connection: duckdb.DuckDBPyConnection, dataset: Dataset, schema: Schema, values: Sequence[Value]
) -> Schema | None:
    text = text_columns(dataset)
    candidates = _may_widen(dataset, schema, values)
    if not candidates:
        return None
    counts = []
    for value in candidates:
        failed = _failed(value, schema)
        counts.append(failed)
        numbers = _is_whole(value)
        counts.append(f"{failed} AND {value.fraction(schema.dialect)}" if numbers else "false")
        counts.append(_failed(_as_double(value), schema) if numbers else "false")
    asked = ", ".join(f"count(*) FILTER (WHERE {count})" for count in counts)
    with many_columns(connection, len(values)):
        row = connection.execute(f"SELECT {asked} FROM source WHERE {quoted(BAD)} IS NULL").fetchone()
    assert row is not None
    kinds = {}
    for value, *found in zip(candidates, row[::3], row[1::3], row[2::3], strict=True):
        misfits = Misfits(failed=found[0], fractions=found[1], not_double=found[2])
        name = value.column.name
        kind = wider(value.column.type, misfits, long=_is_long(schema, name), text=text(name))
        if kind is not None:
            kinds[name] = kind
    if not kinds:
        return None
    columns = (replace(column, type=kinds.get(column.name, column.type)) for column in schema.columns)
    return replace(schema, columns=tuple(columns))


def _asks(dataset: Dataset, schema: Schema, values: Sequence[Value]) -> str:
    """The SQL for a record whose object may ask for a wider schema."""
    text = text_columns(dataset)
    asks = []
    for value in _may_widen(dataset, schema, values):
        failed = _failed(value, schema)
        asks.append(failed if text(value.column.name) else f"{failed} AND {value.fraction(schema.dialect)}")
    return f"{quoted(BAD)} IS NULL AND ({' OR '.join(f'({one})' for one in asks) or 'false'})"


def _may_widen(dataset: Dataset, schema: Schema, values: Sequence[Value]) -> list[Value]:
    text = text_columns(dataset)
    return [
        value
        for value in values
        if value.expression
        and value.column.name not in dataset.columns
        and (
            (_is_whole(value) and not _is_long(schema, value.column.name))
            or (text(value.column.name) and may_be_text(value.column.type))
        )
    ]


def _is_whole(value: Value) -> bool:
    return value.column.type == "BIGINT"


def _is_long(schema: Schema, name: str) -> bool:
    return name in schema.dialect.get(LONG, ())


def _as_double(value: Value) -> Value:
    return replace(value, column=replace(value.column, type="DOUBLE"))


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
            return f"columns {value.column.name} {value.column.type!r}: {in_words(error)}"
    inner = f"{_casts(dataset, schema, values)} LIMIT 0"
    names = {column.name for column in schema.columns}
    for name, expression in dataset.derive.items():
        inner = _with_column(inner, name, f"({expression}\n)", replaces=name in names)
        names.add(name)
        if reason := _refused(connection, inner):
            return f"derive {name} {expression!r}: {reason}"
    if dataset.where is not None and (reason := _refused(connection, f"SELECT ({dataset.where}\n) FROM ({inner})")):
        return f"where {dataset.where!r}: {reason}"
    for name, check in [*aside(dataset), *noting(dataset)]:
        predicate = check.predicate
        if reason := _refused(connection, f"SELECT ({predicate}\n) IS NOT TRUE FROM ({inner})"):
            return f"check {name} {predicate!r}: {reason}"
    return None


def _refused(connection: duckdb.DuckDBPyConnection, sql: str) -> str | None:
    try:
        connection.sql(sql).fetchall()
    except duckdb.Error as error:
        raise_machine_fault(error)
        return in_words(error)
    return None


def _without_values(error: Exception) -> str:
    return re.sub(r"'[^']*'|\"[^\"]*\"|[0-9]+", "…", first_line(error))
