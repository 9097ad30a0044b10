"""CSV and TSV: columns are matched by header name; a line that is no record of the file is put aside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb

from penstock.declarations import Dataset
from penstock.errors import DeclarationError, Unreadable
from penstock.formats.csv_scan import Reject, number, reading, refuse_long_lines, scan, with_lines
from penstock.formats.csv_types import settled
from penstock.formats.dialect import declared, first_filled, header, of_this_file, sniffed
from penstock.formats.encodings import utf8_file
from penstock.formats.engine import cursor, little_memory, refuse_wide
from penstock.formats.kept import Keep
from penstock.formats.names import normalised, places_of
from penstock.formats.plain import text_file
from penstock.formats.result import RESCUED, ROW, ReadResult
from penstock.formats.shape import BAD, LINE, RAW, Value, shape
from penstock.model import Column, Schema
from penstock.quoting import literal, quoted

# Makes the view `source` over a relation with the fields c0, c1 … and their record's number n.
SourceOf = Callable[[duckdb.DuckDBPyConnection, str, Sequence[str], Schema], list[Value]]


def infer(path: Path, dataset: Dataset, *, delim: str | None = None) -> Schema:
    """The columns of the whole file and its dialect; no columns when it has no records. Raises Unreadable."""
    with _text(path, dataset) as text, cursor() as connection:
        if text.stat().st_size == 0:
            return Schema(version=1, columns=())
        refuse_long_lines(text)
        said = declared(dataset.csv, delim)
        dialect, types = sniffed(connection, text, said)
        originals = header(text, dialect | {"skip": first_filled(text, dialect["skip"])})
        refuse_wide(len(originals))
        if len(types) != len(originals):
            types = ["VARCHAR"] * len(originals)
        if not _has_records(text, dialect):
            return Schema(version=1, columns=(), dialect=dialect)
        names = normalised(originals)
        types, dialect = settled(connection, text, dialect, dict(zip(names, types, strict=True)), said)
        columns = tuple(
            Column(name=name, original=original, type=dataset.columns.get(name, kind))
            for name, original, kind in zip(names, originals, types, strict=True)
        )
        return Schema(version=1, columns=columns, dialect=dialect)


def read(path: Path, dataset: Dataset, schema: Schema, *, delim: str | None = None, large: bool = False) -> ReadResult:
    """The file's rows. Raises Unreadable."""
    said = declared(dataset.csv, delim) | {"hinted": list(dataset.columns)}
    with ExitStack() as stack:
        text = stack.enter_context(_text(path, dataset))
        connection = stack.enter_context(cursor())
        filled = text.stat().st_size > 0
        refuse_long_lines(text)
        dialect, originals = _as_it_is(connection, text, said, schema) if filled else (schema.dialect | said, [])
        refuse_wide(len(originals))
        keep = Keep(path, size=text.stat().st_size, large=large)
        result = read_records(stack, connection, text, dialect, originals, dataset, schema, keep)
        # What was declared, or is this file's own, is not to be remembered.
        return remembering(result, schema)


def remembering(result: ReadResult, schema: Schema) -> ReadResult:
    """The result, by whose schema the next object is read: with the dialect that was known before."""
    return replace(result, schema=replace(result.schema, dialect=schema.dialect))


def _text(path: Path, dataset: Dataset) -> AbstractContextManager[Path]:
    return text_file(path, to_utf8=partial(utf8_file, declared=dataset.csv.encoding))


def read_records(
    stack: ExitStack,
    connection: duckdb.DuckDBPyConnection,
    text: Path,
    dialect: dict[str, Any],
    originals: Sequence[str],
    dataset: Dataset,
    known: Schema,
    keep: Keep,
    *,
    source_of: SourceOf | None = None,
) -> ReadResult:
    """The records of a text by its dialect, as `source_of` makes values of them. Raises Unreadable."""
    source_of = source_of or source_by_name
    schema = replace(known, dialect=dialect)
    if originals and keep.large:
        result = _streamed(connection, text, dialect, originals, dataset, schema, keep, source_of)
        if result is not None:
            return result
        stack.enter_context(little_memory(connection))
    rejects: list[Reject] = []
    if originals:
        rejects = scan(stack, connection, text, dialect, len(originals))
    else:
        connection.execute("CREATE TEMP TABLE records (c0 VARCHAR)")
    number(connection, rejects)
    values = source_of(connection, "numbered", originals, schema)
    result = shape(connection, dataset, schema, values, keep)
    return with_lines(result, rejects, text, dialect, len(originals))


def _streamed(
    connection: duckdb.DuckDBPyConnection,
    text: Path,
    dialect: dict[str, Any],
    originals: Sequence[str],
    dataset: Dataset,
    schema: Schema,
    keep: Keep,
    source_of: SourceOf,
) -> ReadResult | None:
    """The rows in one pass that holds none; None when a line is no record, whose place only a table can tell."""
    lines = reading(text, dialect, len(originals))
    connection.execute(f"CREATE TEMP VIEW numbered AS SELECT *, row_number() OVER () AS n FROM {lines}")
    values = source_of(connection, "numbered", originals, schema)
    result = None
    # What the lines may do to DuckDB is not to be told from what an expression does; read from a table, it is.
    with suppress(DeclarationError):
        result = shape(connection, dataset, schema, values, keep)
    if result is None or connection.execute("SELECT 1 FROM reject_errors LIMIT 1").fetchone():
        connection.execute("DROP VIEW source; DROP VIEW numbered")
        return None
    return with_lines(result, [], text, dialect, len(originals))


def _has_records(text: Path, dialect: dict[str, Any]) -> bool:
    with text.open(encoding="utf-8") as file:  # whose lines may end with a carriage return alone
        filled = (line for line in islice(file, dialect["skip"], None) if line.strip())
        return len(list(islice(filled, 2))) > int(dialect["header"])


def _as_it_is(
    connection: duckdb.DuckDBPyConnection, text: Path, said: dict[str, Any], schema: Schema
) -> tuple[dict[str, Any], list[str]]:
    """The dialect to read a file that is not empty by, and its columns: as remembered, unless they do not fit it."""
    dialect = schema.dialect | said
    if "delim" not in dialect:  # of another format, or of a first object without records
        dialect |= sniffed(connection, text, said)[0]
    dialect["skip"] = first_filled(text, dialect["skip"])
    originals = header(text, dialect)
    if fits(originals, dialect, schema):
        return dialect, originals
    with suppress(Unreadable):
        other = dialect | of_this_file(sniffed(connection, text, said)[0])
        other["skip"] = first_filled(text, other["skip"])
        if other["header"] == dialect["header"] and fits(found := header(text, other), other, schema):
            return other, found
    return dialect, originals


def fits(originals: Sequence[str], dialect: dict[str, Any], schema: Schema) -> bool:
    """Whether a file's columns are, by their names or where they have none by their number, those of the schema."""
    if not originals or not schema.columns or "names" in dialect:
        return True
    known = any(place is not None for place in places_of(originals, [column.original for column in schema.columns]))
    return known and (dialect["header"] or len(originals) == len(schema.columns))


def source_by_name(
    connection: duckdb.DuckDBPyConnection,
    numbered: str,
    originals: Sequence[str],
    schema: Schema,
    *,
    line: str = "CAST(NULL AS BIGINT)",
    bad: str = "CAST(NULL AS VARCHAR)",
) -> list[Value]:
    """Make the view `source` over a relation with the fields c0, c1 … and their record's number n.

    `line` and `bad` are what it says of a record's line, and of what is wrong with it.
    """
    values, rescued = _match(originals, schema)
    connection.execute(
        f"CREATE TEMP VIEW source AS SELECT * EXCLUDE (n), n AS {quoted(ROW)}, {line} AS {quoted(LINE)}, "
        f"{_record_json(originals)} AS {quoted(RAW)}, {bad} AS {quoted(BAD)}, "
        f"{rescued} AS {quoted(RESCUED)} FROM {numbered}"
    )
    return values


def _match(originals: Sequence[str], schema: Schema) -> tuple[list[Value], str]:
    """Each schema column's field by header name, and the JSON of the rest."""
    places = places_of(originals, [column.original for column in schema.columns])
    values = [
        Value(column=column, expression=None if place is None else f"c{place}")
        for column, place in zip(schema.columns, places, strict=True)
    ]
    extra = sorted(set(range(len(originals))) - set(places))
    if not extra:
        return values, "CAST(NULL AS VARCHAR)"
    return values, _json_object([(originals[index], f"c{index}") for index in extra])


def _json_object(fields: Sequence[tuple[str, str]]) -> str:
    """JSON of the fields that are not null; NULL when there is none."""
    names, taken = [], set()
    for name, _ in fields:
        unique, number = name, 1
        while unique in taken:
            number += 1
            unique = f"{name}_{number}"
        taken.add(unique)
        names.append(unique)
    pairs = ", ".join(f"{literal(name)}, {value}" for name, (_, value) in zip(names, fields, strict=True))
    nothing = " AND ".join(f"{value} IS NULL" for _, value in fields)
    return f"CASE WHEN NOT ({nothing}) THEN CAST(json_merge_patch('{{}}', json_object({pairs})) AS VARCHAR) END"


def _record_json(originals: Sequence[str]) -> str:
    if not originals:
        return "CAST(NULL AS VARCHAR)"
    return _json_object([(original, f"c{index}") for index, original in enumerate(originals)])
