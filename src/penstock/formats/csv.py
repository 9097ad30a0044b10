"""CSV and TSV: columns are matched by header name; a line that is no record of the file is put aside."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb

from penstock.declarations import Dataset
from penstock.errors import DeclarationError, Unreadable
from penstock.formats.csv_scan import Reject, number, reading, refuse_long_lines, scan, with_lines
from penstock.formats.engine import cursor, little_memory
from penstock.formats.kept import Keep
from penstock.formats.names import flat_name, literal, normalised, quoted
from penstock.formats.plain import text_file
from penstock.formats.result import RESCUED, ROW, ReadResult
from penstock.formats.shape import BAD, LINE, RAW, Value, shape
from penstock.machine_faults import raise_machine_fault
from penstock.model import Column, Schema


def infer(path: Path, dataset: Dataset, *, delim: str | None = None) -> Schema:
    """The columns of the whole file and its dialect; no columns when it has no records. Raises Unreadable."""
    with text_file(path) as text, cursor() as connection:
        if text.stat().st_size == 0:
            return Schema(version=1, columns=())
        dialect, types = _sniff(connection, text, delim)
        if dialect["skip"] <= _first_filled(text, 0):
            dialect["skip"] = 0  # only blank lines, which the next object need not have
        originals = _header(text, dialect)
        if len(types) != len(originals):
            types = ["VARCHAR"] * len(originals)
        if not _has_records(text, dialect):
            return Schema(version=1, columns=(), dialect=dialect)
        columns = tuple(
            Column(name=name, original=original, type=dataset.columns.get(name, kind))
            for name, original, kind in zip(normalised(originals), originals, types, strict=True)
        )
        return Schema(version=1, columns=columns, dialect=dialect)


def read(path: Path, dataset: Dataset, schema: Schema, *, delim: str | None = None, large: bool = False) -> ReadResult:
    """The file's rows. Raises Unreadable."""
    with ExitStack() as stack:
        text = stack.enter_context(text_file(path))
        connection = stack.enter_context(cursor())
        dialect = dict(schema.dialect)
        if not dialect and text.stat().st_size:
            dialect, _ = _sniff(connection, text, delim)
        if dialect:
            dialect["skip"] = _first_filled(text, dialect["skip"])
        originals = _header(text, dialect) if text.stat().st_size else []
        keep = Keep(path, size=text.stat().st_size, large=large)
        refuse_long_lines(text)
        if originals and keep.large:
            result = _streamed(connection, text, dialect, originals, dataset, schema, keep)
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


def _sniff(connection: duckdb.DuckDBPyConnection, text: Path, delim: str | None) -> tuple[dict[str, Any], list[str]]:
    given = f", delim={literal(delim)}" if delim else ""
    found: tuple[Any, ...] | None = None
    for more in ("", ", ignore_errors=true", ", ignore_errors=true, strict_mode=false"):
        try:
            sniffed = connection.execute(
                "SELECT Delimiter, Quote, Escape, SkipRows, HasHeader, Columns, DateFormat, TimestampFormat, Comment "
                f"FROM sniff_csv(?, sample_size=-1{given}{more})",
                [str(text)],
            ).fetchone()
        except duckdb.Error as error:
            raise_machine_fault(error)
            continue
        found = sniffed
        # Uneven rows make DuckDB fall back to one column; then look again, forgiving them.
        if sniffed and (len(sniffed[5]) > 1 or not set(sniffed[5][0]["name"]) & set(",;\t|")):
            break
    if found is None:
        raise Unreadable("not CSV: no delimiter fits its lines")
    delimiter, quote, escape, skip, header, columns, dateformat, timestampformat, comment = found
    quote = '"' if quote in ("(empty)", "") else quote
    dialect: dict[str, Any] = {
        "delim": delim or ("," if delimiter == "(empty)" else delimiter),
        "quote": quote,
        "escape": quote if escape in ("(empty)", "") else escape,
        "header": bool(header),
        "skip": int(skip),
    }
    optional = {"dateformat": dateformat, "timestampformat": timestampformat, "comment": comment}
    dialect |= {key: value for key, value in optional.items() if value and value != "(empty)"}
    return dialect, [column["type"] for column in columns]


def _header(text: Path, dialect: dict[str, Any]) -> list[str]:
    with text.open(encoding="utf-8", newline="") as file:
        lines = (line for line in islice(file, dialect["skip"], None) if line.strip("\r\n"))
        comment = dialect.get("comment")
        fields, _ = first_fields((line for line in lines if not comment or not line.startswith(comment)), dialect)
    return fields


def first_fields(lines: Iterable[str], dialect: dict[str, Any]) -> tuple[list[str], int]:
    """The names of the columns, by the first record, and how many lines that is. Raises Unreadable."""
    escape = dialect["escape"] if dialect["escape"] != dialect["quote"] else None
    reader = csv.reader(
        lines, delimiter=dialect["delim"], quotechar=dialect["quote"], escapechar=escape, doublequote=escape is None
    )
    try:
        fields = next(reader, [])
    except csv.Error as error:
        raise Unreadable(f"not CSV: its header: {error}") from None
    return fields if dialect["header"] else [f"column{i}" for i in range(len(fields))], reader.line_num


def _first_filled(text: Path, skip: int) -> int:
    """How many lines come before the first that is not blank, from line `skip` on."""
    with text.open("rb") as file:
        for number, line in enumerate(islice(file, skip, None), start=skip):
            if line.strip(b"\r\n"):
                return number
    return skip


def _has_records(text: Path, dialect: dict[str, Any]) -> bool:
    with text.open("rb") as file:
        filled = (line for line in islice(file, dialect["skip"], None) if line.strip())
        return len(list(islice(filled, 2))) > int(dialect["header"])


def source_of(
    connection: duckdb.DuckDBPyConnection, numbered: str, originals: Sequence[str], schema: Schema
) -> list[Value]:
    """Make the view `source` over a relation with the fields c0, c1 … and their record's number n."""
    values, rescued = _match(originals, schema)
    connection.execute(
        f"CREATE TEMP VIEW source AS SELECT * EXCLUDE (n), n AS {quoted(ROW)}, CAST(NULL AS BIGINT) AS "
        f"{quoted(LINE)}, {_record_json(originals)} AS {quoted(RAW)}, CAST(NULL AS VARCHAR) AS {quoted(BAD)}, "
        f"{rescued} AS {quoted(RESCUED)} FROM {numbered}"
    )
    return values


def _match(originals: Sequence[str], schema: Schema) -> tuple[list[Value], str]:
    """Each schema column's field by header name (the second of a name is the second), and the JSON of the rest."""
    places: dict[str, list[int]] = defaultdict(list)
    for index, original in enumerate(originals):
        places[original].append(index)
    values = []
    for column in schema.columns:
        left = places[column.original] or places[flat_name(column.original)]
        place = left.pop(0) if left else None
        values.append(Value(column=column, expression=None if place is None else f"c{place}"))
    extra = sorted(index for left in places.values() for index in left)
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
