"""Lines of a log by a pattern: its named groups are the columns, and a line that does not match is put aside.

DuckDB's regular expressions take time in proportion to the line, whatever the pattern (they are RE2's).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import duckdb

from penstock.declarations import Dataset
from penstock.dialects import LOG_PATTERNS
from penstock.errors import DeclarationError, Unreadable
from penstock.formats.csv import read_records, remembering
from penstock.formats.csv_scan import reading, refuse_long_lines
from penstock.formats.engine import cursor
from penstock.formats.kept import Keep
from penstock.formats.numbers import WHOLE_WITHOUT_ZEROS
from penstock.formats.plain import text_file
from penstock.formats.result import RESCUED, ROW, ReadResult
from penstock.formats.shape import BAD, LINE, RAW, Value
from penstock.machine_faults import raise_machine_fault
from penstock.model import Column, Schema
from penstock.quoting import literal, quoted

# A line is one field of a CSV whose delimiter stands in no log.
_LINES: dict[str, Any] = {"delim": "\x1f", "quote": "", "escape": "", "header": False, "skip": 0}
_APACHES_TIME = "%d/%b/%Y:%H:%M:%S %z"
_ZONED = "TIMESTAMP WITH TIME ZONE"
_KNOWN = {"time": _ZONED, "status": "BIGINT", "bytes": "BIGINT"}
# What an inferred column is, when all its values are such, and the first that it is.
_FORMS = {
    "BIGINT": f"regexp_full_match(#, {literal(WHOLE_WITHOUT_ZEROS)}) AND TRY_CAST(# AS BIGINT) IS NOT NULL",
    "DOUBLE": r"regexp_full_match(#, '[+-]?(0|[1-9][0-9]{0,14})(\.[0-9]+)?')",
    _ZONED: f"try_strptime(#, {literal(_APACHES_TIME)}) IS NOT NULL OR (regexp_full_match(#, "
    r"'[0-9]{4}-[0-9]{2}-[0-9]{2}[T ].*(Z|[+-][0-9]{2}(:?[0-9]{2})?)') "
    f"AND TRY_CAST(# AS {_ZONED}) IS NOT NULL)",
    "TIMESTAMP": r"regexp_full_match(#, '[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][^Z+]*') "
    "AND TRY_CAST(# AS TIMESTAMP) IS NOT NULL",
}


def infer(path: Path, dataset: Dataset) -> Schema:
    """A column for each named group; of a pattern that ships, with known types. Raises Unreadable."""
    names = [name for name in _groups(dataset) if name]
    with text_file(path) as text, cursor() as connection:
        if not text.stat().st_size:
            return Schema(version=1, columns=())
        found = _inferred(connection, text, dataset, names)
        if dataset.pattern in LOG_PATTERNS:
            found |= {name: _KNOWN.get(name, "VARCHAR") for name in names}
        columns = (Column(name=n, original=n, type=dataset.columns.get(n, kind)) for n, kind in found.items())
        return Schema(version=1, columns=tuple(columns))


def read(path: Path, dataset: Dataset, schema: Schema, *, large: bool = False) -> ReadResult:
    """The lines as rows. Raises Unreadable, and DeclarationError for a pattern that DuckDB does not take."""
    with ExitStack() as stack:
        text = stack.enter_context(text_file(path))
        connection = stack.enter_context(cursor())
        size = text.stat().st_size
        refuse_long_lines(text)
        dialect = _LINES | {"zonedformat": _APACHES_TIME, "hinted": list(dataset.columns)}
        _refuse_pattern(connection, dataset)
        result = read_records(
            stack,
            connection,
            text,
            dialect,
            ["line"] if size else [],
            dataset,
            schema,
            Keep(path, size=size, large=large),
            source_of=partial(_source_of, dataset=dataset),
        )
        return remembering(result, schema)


def _source_of(
    connection: duckdb.DuckDBPyConnection, numbered: str, originals: Sequence[str], schema: Schema, *, dataset: Dataset
) -> list[Value]:
    """Make the view `source` over the relation of lines `c0`, and their numbers `n`; blank ones are none."""
    del originals
    pattern = literal(_anchored(dataset))
    connection.execute(
        f"CREATE TEMP VIEW source AS SELECT n AS {quoted(ROW)}, n AS {quoted(LINE)}, c0 AS {quoted(RAW)}, "
        f"CASE WHEN NOT regexp_matches(c0, {pattern}) THEN 'does not match the pattern' END AS {quoted(BAD)}, "
        f"CAST(NULL AS VARCHAR) AS {quoted(RESCUED)}, regexp_extract(c0, {pattern}, {_names(dataset)}) AS found "
        f"FROM {numbered} WHERE trim(c0) <> ''"
    )
    known = set(_groups(dataset))
    return [
        Value(column=column, expression=_value(column.original) if column.original in known else None)
        for column in schema.columns
    ]


def _inferred(
    connection: duckdb.DuckDBPyConnection, text: Path, dataset: Dataset, names: Sequence[str]
) -> dict[str, str]:
    _refuse_pattern(connection, dataset)
    refuse_long_lines(text)
    pattern = literal(_anchored(dataset))
    counts = ", ".join(
        f"count({_value(name)}), " + ", ".join(f"count(*) FILTER (WHERE {form})" for form in _forms(_value(name)))
        for name in names
    )
    try:
        row = connection.execute(
            f"SELECT count(*), {counts} FROM (SELECT regexp_extract(c0, {pattern}, {_names(dataset)}) AS found "
            f"FROM {reading(text, _LINES, 1)} WHERE regexp_matches(c0, {pattern}))"
        ).fetchone()
    except duckdb.Error as error:
        raise_machine_fault(error)
        raise Unreadable(f"its lines cannot be told apart: {str(error).splitlines()[0][:80]}") from None
    finally:
        connection.execute("DROP TABLE IF EXISTS reject_errors; DROP TABLE IF EXISTS reject_scans")
    assert row is not None
    if not row[0]:
        raise Unreadable("no line matches the pattern")
    found = {}
    for place, name in enumerate(names):
        filled, *each = row[1 + place * (len(_FORMS) + 1) :][: len(_FORMS) + 1]
        kinds = (kind for kind, count in zip(_FORMS, each, strict=True) if filled and count == filled)
        found[name] = next(kinds, "VARCHAR")
    return found


def _forms(value: str) -> list[str]:
    return [form.replace("#", value) for form in _FORMS.values()]


def _refuse_pattern(connection: duckdb.DuckDBPyConnection, dataset: Dataset) -> None:
    try:
        connection.execute(f"SELECT regexp_extract('', {literal(_anchored(dataset))}, {_names(dataset)})")
    except duckdb.Error as error:
        raise_machine_fault(error)
        reason = str(error).splitlines()[0].partition(": ")[2]
        raise DeclarationError(f"dataset {dataset.name}: pattern: {reason}") from None


def _anchored(dataset: Dataset) -> str:
    pattern = dataset.pattern or ""
    return rf"^(?:{LOG_PATTERNS.get(pattern, pattern)})\s*$"


def _groups(dataset: Dataset) -> list[str]:
    """The names of the pattern's groups, in order; nothing for one without a name."""
    groups = re.compile(_anchored(dataset))
    names = {place: name for name, place in groups.groupindex.items()}
    return [names.get(place, "") for place in range(1, groups.groups + 1)]


def _names(dataset: Dataset) -> str:
    return f"[{', '.join(literal(name or f'#{place}') for place, name in enumerate(_groups(dataset)))}]"


def _value(name: str) -> str:
    """What a group matched; nothing, or the dash that stands for it, is no value."""
    return f"nullif(nullif(found.{quoted(name)}, ''), '-')"
