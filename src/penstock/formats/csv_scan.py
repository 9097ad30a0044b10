"""One pass of DuckDB over the lines of a CSV: the good ones as a table of texts, the others with their reasons."""

from __future__ import annotations

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

from penstock.errors import Unreadable
from penstock.formats.dialect import LONGEST_LINE, USUAL_LINE, line_over, nulls
from penstock.formats.noted import refused_rows, with_their_lines
from penstock.formats.result import REJECTED, ROW, ReadResult
from penstock.machine_faults import raise_machine_fault
from penstock.quoting import literal

# A line that never can be a record stands in for one whose open quote swallows the lines after it.
_STAND_IN = b"\x1d"
# Every pass over the file mends all open quotes it meets; a file that needs more passes is mostly rubbish.
_PASSES = 10
_LONGEST_LINE = LONGEST_LINE
# Of more rejected rows than these, lines and raw texts are not looked up: they would all be in memory.
_MOST_LOOKED_UP = 200_000

_REASONS = {
    "MISSING COLUMNS": "too few fields",
    "TOO MANY COLUMNS": "too many fields",
    "UNQUOTED VALUE": "bad quoting",
    "LINE SIZE OVER MAXIMUM": "line too long",
    "INVALID ENCODING": "not UTF-8",
}


class Reject:
    """A line that is no record: its record number, reason and text."""

    def __init__(self, row: int, reason: str, raw: str) -> None:
        self.row, self.reason, self.raw = row, reason, raw


def scan(
    stack: ExitStack, connection: duckdb.DuckDBPyConnection, text: Path, dialect: dict[str, Any], width: int
) -> list[Reject]:
    """Fill the table `records` with the text fields c0, c1 … of the good lines; return the others."""
    mended: list[bytes] = []
    swallowed: dict[int, bytes] = {}
    current = text
    for _ in range(_PASSES):
        found = load(connection, current, dialect, width)
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
        rejects.append(Reject(row, reason, shown.decode(errors="replace")))
    return rejects


def refuse_long_lines(text: Path) -> None:
    """Raise Unreadable for a line over the longest: DuckDB leaves some of them out and does not say so."""
    if (begin := line_over(text, _LONGEST_LINE - 2)) is not None:
        raise Unreadable(f"the line at byte {begin + 1} has more than the {_LONGEST_LINE} bytes of the longest")


def _swallows(kind: str, raw: bytes) -> bool:
    return kind in ("UNQUOTED VALUE", "LINE SIZE OVER MAXIMUM") and b"\n" in raw.strip(b"\r\n")


def load(
    connection: duckdb.DuckDBPyConnection,
    text: Path,
    dialect: dict[str, Any],
    width: int,
    *,
    strictly: bool = False,
) -> list[tuple[str, int, int, bytes]]:
    """One pass: (kind, line as DuckDB counts, byte offset, raw) of each line that is no record, in order.

    Where its lines cannot be told apart by DuckDB's strict rules, looser ones are tried, unless `strictly`. Raises
    Unreadable.
    """
    connection.execute("DROP TABLE IF EXISTS records; DROP TABLE IF EXISTS reject_errors")
    connection.execute("DROP TABLE IF EXISTS reject_scans")
    for strict in (True,) if strictly else (True, False):
        try:
            lines = reading(text, dialect, width, strict=strict)
            connection.execute(f"CREATE TEMP TABLE records AS SELECT * FROM {lines}")
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
        "SELECT CAST(coalesce(arg_min(error_type, column_idx), any_value(error_type)) AS VARCHAR), line, "
        "min(line_byte_position) - 1, any_value(csv_line) FROM reject_errors GROUP BY line ORDER BY line"
    ).fetchall()
    return [(kind, line, at, (raw or "").encode()) for kind, line, at, raw in rows]


def reading(text: Path, dialect: dict[str, Any], width: int, *, strict: bool = True) -> str:
    """The SQL that reads the file's records as the texts c0, c1 …, and tells of other lines in `reject_errors`."""
    columns = ", ".join(f"'c{i}': 'VARCHAR'" for i in range(width))
    comment = f", comment={literal(dialect['comment'])}" if "comment" in dialect else ""
    size = min(_LONGEST_LINE, max(USUAL_LINE, text.stat().st_size + 1))
    return (
        f"read_csv({literal(str(text))}, auto_detect=false, columns={{{columns}}}, "
        f"delim={literal(dialect['delim'])}, quote={literal(dialect['quote'])}, escape={literal(dialect['escape'])}, "
        f"header={str(dialect['header']).lower()}, skip={dialect['skip']}{comment}, strict_mode={str(strict).lower()}, "
        f"max_line_size={size}, compression='none'{nulls(dialect)}, "
        "store_rejects=true, rejects_limit=0, hive_partitioning=false)"
    )


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


def number(connection: duckdb.DuckDBPyConnection, rejects: list[Reject]) -> None:
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


def with_lines(
    result: ReadResult, rejects: Sequence[Reject], text: Path, dialect: dict[str, Any], width: int
) -> ReadResult:
    """Add the lines that are no records, and give every rejected row its line and raw text where they are known."""
    named = refused_rows(result)
    if not rejects and (not (result.rejected.num_rows or named) or result.rejected.num_rows > _MOST_LOOKED_UP):
        return result
    bad = result.rejected.to_pylist()
    bad += [{ROW: reject.row, "line": None, "reason": reject.reason, "raw": reject.raw} for reject in rejects]
    bad.sort(key=lambda row: row[ROW])
    total = result.total + len(rejects)
    lines = _lines(text, dialect, width, total, named | {row[ROW] for row in bad})
    result = with_their_lines(result, {row: lines[row][0] for row in named if row in lines})
    for row in bad:
        row["line"], row["raw"] = lines.get(row[ROW], (row["line"], row["raw"]))
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
