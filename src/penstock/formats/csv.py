"""CSV and TSV: columns are matched by header name; a line that is no record of the file is put aside."""

from __future__ import annotations

import csv
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from penstock.declarations import Dataset
from penstock.errors import Unreadable
from penstock.formats.engine import cursor
from penstock.formats.names import flat_name, literal, normalised, quoted
from penstock.formats.plain import text_file
from penstock.formats.result import REJECTED, RESCUED, ROW, ReadResult
from penstock.formats.shape import BAD, LINE, RAW, Value, shape
from penstock.machine_faults import raise_machine_fault
from penstock.model import Column, Schema

# A line that never can be a record stands in for one whose open quote swallows the lines after it.
_STAND_IN = b"\x1d"
# Every pass over the file mends all open quotes it meets; a file that needs more passes is mostly rubbish.
_PASSES = 10
_LONGEST_LINE = 16_000_000

_REASONS = {
    "MISSING COLUMNS": "too few fields",
    "TOO MANY COLUMNS": "too many fields",
    "UNQUOTED VALUE": "bad quoting",
    "LINE SIZE OVER MAXIMUM": "line too long",
    "INVALID ENCODING": "not UTF-8",
}


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


def read(path: Path, dataset: Dataset, schema: Schema, *, delim: str | None = None) -> ReadResult:
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
        rejects: list[_Reject] = []
        if originals:
            rejects = _scan(stack, connection, text, dialect, len(originals))
        else:
            connection.execute("CREATE TEMP TABLE records (c0 VARCHAR)")
        _number(connection, rejects)
        values, rescued = _match(originals, schema)
        connection.execute(
            f"CREATE TEMP VIEW source AS SELECT * EXCLUDE (n), n AS {quoted(ROW)}, CAST(NULL AS BIGINT) AS "
            f"{quoted(LINE)}, {_record_json(originals)} AS {quoted(RAW)}, CAST(NULL AS VARCHAR) AS {quoted(BAD)}, "
            f"{rescued} AS {quoted(RESCUED)} FROM numbered"
        )
        result = shape(connection, dataset, schema, values)
        return _with_lines(result, rejects, text, dialect, len(originals))


class _Reject:
    """A line that is no record: its record number, reason and text."""

    def __init__(self, row: int, reason: str, raw: str) -> None:
        self.row, self.reason, self.raw = row, reason, raw


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
    escape = dialect["escape"] if dialect["escape"] != dialect["quote"] else None
    with text.open(encoding="utf-8", newline="") as file:
        lines = (line for line in islice(file, dialect["skip"], None) if line.strip("\r\n"))
        comment = dialect.get("comment")
        lines = (line for line in lines if not comment or not line.startswith(comment))
        reader = csv.reader(
            lines, delimiter=dialect["delim"], quotechar=dialect["quote"], escapechar=escape, doublequote=escape is None
        )
        try:
            fields = next(reader, [])
        except csv.Error as error:
            raise Unreadable(f"not CSV: its header: {error}") from None
    return fields if dialect["header"] else [f"column{i}" for i in range(len(fields))]


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


def _scan(
    stack: ExitStack, connection: duckdb.DuckDBPyConnection, text: Path, dialect: dict[str, Any], width: int
) -> list[_Reject]:
    """Fill the table `records` with the text fields c0, c1 … of the good lines; return the others."""
    mended: list[bytes] = []
    swallowed: dict[int, bytes] = {}
    current = text
    for _ in range(_PASSES):
        found = _load(connection, current, dialect, width)
        swallowed = {at: raw for kind, at, raw in ((f[0], f[2], f[3]) for f in found) if _swallows(kind, raw)}
        if not swallowed:
            break
        if current is text:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-")))
        after = folder / f"mended{len(mended)}"
        _mend(current, after, sorted(swallowed), mended, dialect["delim"] if width == 1 else "")
        current = after
    rejects = []
    blanks = _blanks(current, [at for _, _, at, _ in found]) if width > 1 else defaultdict(int)
    for kind, line, at, raw in found:
        reason, shown = _REASONS.get(kind, kind.lower()), raw.strip(b"\r\n")
        if shown.startswith(_STAND_IN):
            number = shown[1:].rstrip(dialect["delim"].encode())
            reason, shown = "bad quoting", mended[int(number)] if number.isdigit() else shown
        row = line - dialect["skip"] - dialect["header"] - blanks[at]
        rejects.append(_Reject(row, reason, shown.decode(errors="replace")))
    return rejects


def _swallows(kind: str, raw: bytes) -> bool:
    return kind == "UNQUOTED VALUE" and b"\n" in raw.strip(b"\r\n")


def _load(
    connection: duckdb.DuckDBPyConnection, text: Path, dialect: dict[str, Any], width: int
) -> list[tuple[str, int, int, bytes]]:
    """One pass: (kind, line as DuckDB counts, byte offset, raw) of each line that is no record, in order."""
    columns = ", ".join(f"'c{i}': 'VARCHAR'" for i in range(width))
    comment = f", comment={literal(dialect['comment'])}" if "comment" in dialect else ""
    connection.execute("DROP TABLE IF EXISTS records; DROP TABLE IF EXISTS reject_errors")
    connection.execute("DROP TABLE IF EXISTS reject_scans")
    size = min(_LONGEST_LINE, max(2_000_000, text.stat().st_size + 1))
    for strict in ("true", "false"):
        try:
            connection.execute(
                f"CREATE TEMP TABLE records AS SELECT * FROM read_csv({literal(str(text))}, auto_detect=false, "
                f"columns={{{columns}}}, delim={literal(dialect['delim'])}, quote={literal(dialect['quote'])}, "
                f"escape={literal(dialect['escape'])}, header={str(dialect['header']).lower()}, "
                f"skip={dialect['skip']}{comment}, strict_mode={strict}, max_line_size={size}, "
                f"compression='none', store_rejects=true, rejects_limit=0)"
            )
            break
        except duckdb.InvalidInputException:
            connection.execute("DROP TABLE IF EXISTS reject_errors; DROP TABLE IF EXISTS reject_scans")
            continue
        except duckdb.Error as error:
            raise_machine_fault(error)
            raise Unreadable(f"not CSV: {str(error).splitlines()[0][:80]}") from None
    else:
        raise Unreadable("not CSV: its lines cannot be told apart")
    rows = connection.execute(
        "SELECT arg_min(CAST(error_type AS VARCHAR), column_idx), line, min(line_byte_position) - 1, "
        "any_value(csv_line) FROM reject_errors GROUP BY line ORDER BY line"
    ).fetchall()
    return [(kind, line, at, (raw or "").encode()) for kind, line, at, raw in rows]


def _mend(text: Path, target: Path, offsets: Sequence[int], mended: list[bytes], tail: str) -> None:
    with text.open("rb") as source, target.open("wb") as file:
        for offset in offsets:
            _copy(source, file, offset - source.tell())
            line = source.readline()
            while line and not line.strip(b"\r\n"):
                file.write(line)
                line = source.readline()
            file.write(_STAND_IN + str(len(mended)).encode() + tail.encode() + b"\n")
            mended.append(line.rstrip(b"\r\n"))
        shutil.copyfileobj(source, file)


def _copy(source: Any, target: Any, count: int) -> None:
    while count > 0 and (chunk := source.read(min(count, 1 << 20))):
        target.write(chunk)
        count -= len(chunk)


def _blanks(text: Path, offsets: Sequence[int]) -> defaultdict[int, int]:
    """How many blank lines come before each byte offset: DuckDB counts them as lines, but they are no records."""
    counts: defaultdict[int, int] = defaultdict(int)
    if not offsets:
        return counts
    at = blank = 0
    wanted = iter(sorted(offsets))
    offset = next(wanted)
    with text.open("rb") as file:
        for line in file:
            # DuckDB's offset may be that of the blank lines before the line it means.
            while at >= offset and line.strip(b"\r\n"):
                counts[offset] = blank
                following = next(wanted, None)
                if following is None:
                    return counts
                offset = following
            blank += not line.strip(b"\r\n")
            at += len(line)
    counts[offset] = blank
    return counts


def _number(connection: duckdb.DuckDBPyConnection, rejects: list[_Reject]) -> None:
    """The view `numbered`: the records with their number `n` in the file, between those of the rejects."""
    if not rejects:
        connection.execute("CREATE TEMP VIEW numbered AS SELECT *, rowid + 1 AS n FROM records")
        return
    gaps = [(reject.row - index, index) for index, reject in enumerate(rejects, start=1)]
    connection.register("gaps", pa.table({"before": [g for g, _ in gaps], "rejects": [i for _, i in gaps]}))
    connection.execute(
        "CREATE TEMP TABLE steps AS SELECT before, max(rejects) AS rejects FROM gaps GROUP BY before ORDER BY before"
    )
    connection.execute(
        "CREATE TEMP VIEW numbered AS SELECT r.* EXCLUDE (k), k + coalesce(rejects, 0) AS n "
        "FROM (SELECT *, rowid + 1 AS k FROM records) r ASOF LEFT JOIN steps ON r.k > steps.before ORDER BY k"
    )


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


def _with_lines(
    result: ReadResult, rejects: Sequence[_Reject], text: Path, dialect: dict[str, Any], width: int
) -> ReadResult:
    """Add the lines that are no records, and give every rejected row its line and raw text where they are known."""
    bad = result.rejected.to_pylist()
    if not bad and not rejects:
        return result
    bad += [{ROW: reject.row, "line": None, "reason": reject.reason, "raw": reject.raw} for reject in rejects]
    bad.sort(key=lambda row: row[ROW])
    total = result.total + len(rejects)
    lines = _lines(text, dialect, width, total, {row[ROW] for row in bad})
    for row in bad:
        row["line"], row["raw"] = lines.get(row[ROW], (None, row["raw"]))
    return replace(result, rejected=pa.Table.from_pylist(bad, schema=REJECTED), total=total)


def _lines(text: Path, dialect: dict[str, Any], width: int, total: int, wanted: set[int]) -> dict[int, tuple[int, str]]:
    """Line number and text of the wanted records; nothing where records and lines do not match one to one."""
    found: dict[int, tuple[int, str]] = {}
    record = -int(dialect["header"])
    comment = dialect.get("comment", "").encode()
    with text.open("rb") as file:
        for number, line in enumerate(islice(file, dialect["skip"], None), start=dialect["skip"] + 1):
            bare = line.rstrip(b"\r\n")
            if (not bare and (width > 1 or record < 0)) or (comment and bare.startswith(comment)):
                continue
            record += 1
            if record in wanted:
                found[record] = (number, bare.decode(errors="replace"))
    return found if record == total else {}
