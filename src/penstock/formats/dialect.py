"""How a CSV is written: found by its own bytes, as remembered of the dataset's first, and as declared."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb

from penstock.dialects import Csv
from penstock.errors import Unreadable
from penstock.machine_faults import raise_machine_fault
from penstock.quoting import literal

# What else parts fields, where DuckDB found a comma: it prefers one that only stands in numbers.
_OTHER_DELIMITERS = (";", "\t", "|")
_LINES = 200
# DuckDB looks at lines of more bytes only when told to, which costs memory.
USUAL_LINE, LONGEST_LINE = 2_000_000, 16_000_000
# Python's own limit to a field is 128 KB.
csv.field_size_limit(2**31 - 1)
_DECIMAL = re.compile(r"\s*[+-]?[0-9.]+,[0-9]+\s*")
_TEXTS = ("delim", "quote", "escape", "dateformat", "timestampformat")
# What a file written in another way than the first one is looked at for; the rest is about its values.
_OF_THE_FILE = ("delim", "quote", "escape", "header", "skip", "comment")


def declared(how: Csv, delim: str | None) -> dict[str, Any]:
    """What a declaration says of the dialect; `delim` is what the format's name says of it."""
    quote = {} if how.quote is None else {"quote": how.quote, "escape": how.quote}
    header = how.header if isinstance(how.header, bool | None) else False
    names = None if isinstance(how.header, bool | None) else list(how.header)
    said = {
        "delim": how.delimiter or delim,
        "header": header,
        "names": names,
        "skip": how.skip,
        "null": list(how.null) or None,
        "dateformat": how.date,
        "timestampformat": how.timestamp,
        "decimal": how.decimal,
        # Found by itself, 1.234 may be either.
        "thousands": how.decimal == "," or None,
    }
    return {name: value for name, value in said.items() if value is not None} | quote


def sniffed(
    connection: duckdb.DuckDBPyConnection, text: Path, said: dict[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """The dialect of a file that is not empty, and its columns' types; `said` holds. Raises Unreadable."""
    dialect, types = _sniff(connection, text, said)
    if "delim" not in said and (better := _better_delimiter(text, dialect)):
        dialect, types = _sniff(connection, text, said | {"delim": better})
    if "skip" not in said and dialect["skip"] <= first_filled(text, 0):
        dialect["skip"] = 0  # only blank lines, which the next object need not have
    return dialect | said, types


def of_this_file(found: dict[str, Any]) -> dict[str, Any]:
    """What of a dialect belongs to the one file it was found in."""
    return {name: found[name] for name in _OF_THE_FILE if name in found}


def nulls(dialect: dict[str, Any]) -> str:
    """The option by which DuckDB takes the declared texts for no value."""
    if "null" not in dialect:
        return ""
    return f", nullstr=[{', '.join(literal(text) for text in ['', *dialect['null']])}]"


def header(text: Path, dialect: dict[str, Any]) -> list[str]:
    """The names of the file's columns; none when it has no line. Raises Unreadable."""
    with text.open(encoding="utf-8", newline="") as file:
        fields, _ = first_fields(_filled(islice(file, dialect["skip"], None), dialect), dialect)
    return fields


def first_fields(lines: Iterable[str], dialect: dict[str, Any]) -> tuple[list[str], int]:
    """The names of the columns, by the first record, and how many lines that is. Raises Unreadable."""
    reader = _reader(lines, dialect)
    fields: list[str]
    try:
        fields = next(reader, [])
    except csv.Error as error:
        raise Unreadable(f"not CSV: its header: {error}") from None
    if not fields or dialect["header"]:
        return fields, reader.line_num
    return list(dialect.get("names", [])) or [f"column{i}" for i in range(len(fields))], reader.line_num


def first_filled(text: Path, skip: int) -> int:
    """How many lines come before the first that is not blank, from line `skip` on."""
    with text.open("rb") as file:
        for number, line in enumerate(islice(file, skip, None), start=skip):
            if line.strip(b"\r\n"):
                return number
    return skip


def line_over(text: Path, most: int) -> int | None:
    """The byte at which the first line begins that has more than `most` bytes."""
    at, begin = 0, 0
    with text.open("rb") as file:
        # No chunk is as long as a line must be, so that only the first and the last line end in it matter.
        while chunk := file.read(most // 4):
            ends = [place for place in (chunk.find(b"\n"), chunk.find(b"\r")) if place >= 0]
            if at + min(ends, default=len(chunk)) - begin > most:
                return begin
            if ends:
                begin = at + max(chunk.rfind(b"\n"), chunk.rfind(b"\r")) + 1
            at += len(chunk)
    return None


def _filled(lines: Iterable[str], dialect: dict[str, Any]) -> Iterable[str]:
    comment = dialect.get("comment")
    return (line for line in lines if line.strip("\r\n") and not (comment and line.startswith(comment)))


def _reader(lines: Iterable[str], dialect: dict[str, Any]) -> Any:
    quote = dialect["quote"]
    escape = dialect["escape"] if quote and dialect["escape"] != quote else None
    if not quote:
        return csv.reader(lines, delimiter=dialect["delim"], quoting=csv.QUOTE_NONE)
    return csv.reader(lines, delimiter=dialect["delim"], quotechar=quote, escapechar=escape, doublequote=escape is None)


def _sniff(connection: duckdb.DuckDBPyConnection, text: Path, said: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    given = "".join(f", {name}={literal(said[name])}" for name in _TEXTS if name in said)
    given += "".join(f", {name}={str(said[name]).lower()}" for name in ("header", "skip") if name in said)
    given += nulls(said)
    if line_over(text, USUAL_LINE) is not None:
        given += f", max_line_size={LONGEST_LINE}"
    found: tuple[Any, ...] | None = None
    for more in ("", ", ignore_errors=true", ", ignore_errors=true, strict_mode=false"):
        try:
            sniff = connection.execute(
                "SELECT Delimiter, Quote, Escape, SkipRows, HasHeader, Columns, DateFormat, TimestampFormat, Comment "
                f"FROM sniff_csv(?, sample_size=-1{given}{more})",
                [str(text)],
            ).fetchone()
        except duckdb.Error as error:
            raise_machine_fault(error)
            continue
        found = sniff
        # Uneven rows make DuckDB fall back to one column; then look again, forgiving them.
        if sniff and (len(sniff[5]) > 1 or not set(sniff[5][0]["name"]) & set(",;\t|")):
            break
    if found is None:
        raise Unreadable("not CSV: no delimiter fits its lines")
    delimiter, quote, escape, skip, has_header, columns, dateformat, timestampformat, comment = found
    quote = '"' if quote in ("(empty)", "") else quote
    dialect: dict[str, Any] = {
        "delim": "," if delimiter == "(empty)" else delimiter,
        "quote": quote,
        "escape": quote if escape in ("(empty)", "") else escape,
        "header": bool(has_header),
        "skip": int(skip),
    }
    optional = {"dateformat": dateformat, "timestampformat": timestampformat, "comment": comment}
    dialect |= {key: value for key, value in optional.items() if value and value != "(empty)"}
    return dialect | said, [column["type"] for column in columns]


def _better_delimiter(text: Path, dialect: dict[str, Any]) -> str | None:
    """One that parts every line from the first on alike, where the comma that was found does not, or is in numbers."""
    if dialect["delim"] != ",":
        return None
    with text.open(encoding="utf-8", newline="") as file:
        lines = [line for line in islice(file, _LINES) if line.strip("\r\n")]
    parted = _steady(lines, dialect)
    for other in _OTHER_DELIMITERS:
        records = _steady(lines, dialect | {"delim": other})
        if records is None:
            continue
        commas = [field for record in records for field in record if "," in field]
        if parted is None or (commas and all(_DECIMAL.fullmatch(field) for field in commas)):
            return other
    return None


def _steady(lines: Sequence[str], dialect: dict[str, Any]) -> list[list[str]] | None:
    """The records, where each has the same number of fields, and more than one."""
    try:
        records = list(_reader(lines, dialect))
    except csv.Error:
        return None
    widths = {len(record) for record in records}
    return records if len(widths) == 1 and widths.pop() > 1 else None
