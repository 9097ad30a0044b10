"""Many small CSV objects in one read: DuckDB needs some 20 ms for each that it reads alone, whatever its size.

The lines of objects with the same header are put behind one another, with a mark after each object's. A mark that comes
out as a record of its own proves that DuckDB stood at the beginning of a record there, so that what lies between two
such marks was read as if it were alone. Whatever is not plain, or not proven, is left to be read alone.
"""

from __future__ import annotations

import codecs
import tempfile
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import duckdb

from penstock.declarations import Dataset
from penstock.errors import Unreadable
from penstock.formats.csv import fits, source_by_name
from penstock.formats.csv_scan import load, with_lines
from penstock.formats.dialect import declared, first_fields
from penstock.formats.encodings import is_utf8
from penstock.formats.engine import cursor
from penstock.formats.kept import Keep
from penstock.formats.packed import packing
from penstock.formats.result import ReadResult
from penstock.formats.shape import shape_together
from penstock.formats.together import Piece, take_apart
from penstock.model import Schema
from penstock.quoting import literal

# A control character that stands in no CSV; an object that holds it is read alone.
_MARK = "\x1d"
# Every pass leaves out at least one object; a group that needs more passes is read one by one.
_PASSES = 10


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """What objects must have in common: the header's line, the columns' names, the line end."""

    header: bytes
    originals: tuple[str, ...]
    end: bytes


def read_many(
    paths: Sequence[Path],
    dataset: Dataset,
    known: Schema,
    *,
    progress: Callable[[], None],
    delim: str | None = None,
    large: bool = False,
) -> dict[int, ReadResult]:
    """By index, what `csv.read` would give, for those that can be read together. Raises Unreadable."""
    if not known.dialect or not is_utf8(dataset.csv.encoding):
        return {}
    said = declared(dataset.csv, delim) | {"hinted": list(dataset.columns)}
    schema = replace(known, dialect=known.dialect | said)
    groups: dict[_Kind, list[tuple[int, bytes]]] = defaultdict(list)
    for index, path in enumerate(paths):
        if found := _plain(path.read_bytes(), schema.dialect):
            groups[found[0]].append((index, found[1]))
    results: dict[int, ReadResult] = {}
    for kind, bodies in groups.items():
        if len(bodies) > 1 and fits(kind.originals, schema.dialect, schema):
            keep = Keep(paths[0], large=large)
            results |= _read_group(kind, bodies, paths, dataset, schema, progress, keep, known)
    return results


def _plain(content: bytes, dialect: dict[str, Any]) -> tuple[_Kind, bytes] | None:
    """The object's kind and its records' lines; None unless every byte of it is as usual."""
    quote, escape = (dialect.get(name, "").encode() for name in ("quote", "escape"))
    if dialect["skip"] or "comment" in dialect or not quote or packing(content):
        return None
    marked = content.startswith(codecs.BOM_UTF8)
    content = content.removeprefix(codecs.BOM_UTF8)
    carriages, both, ends = content.count(b"\r"), content.count(b"\r\n"), content.count(b"\n")
    if not ends or carriages != both or b"\0" in content or _MARK.encode() in content:
        return None
    # With no header before it, the first record's raw text would begin with the mark.
    if content.count(quote) % 2 or (escape != quote and escape in content) or (marked and not dialect["header"]):
        return None
    if 0 < both < ends:
        content, both = content.replace(b"\r\n", b"\n"), 0
    end = b"\r\n" if both else b"\n"
    first, _, rest = content.partition(end)
    try:
        content.decode()
        # The second line shows whether the first record goes on there.
        fields, lines = first_fields([first.decode() + "\n", _MARK], dialect)
    except (UnicodeDecodeError, Unreadable):
        return None
    if not first.strip() or lines != 1 or len(fields) < 2:
        return None
    body = rest if dialect["header"] else content
    if body and not body.endswith(b"\n"):
        body += end
    kind = _Kind(header=first if dialect["header"] else b"", originals=tuple(fields), end=end)
    return kind, body


def _read_group(
    kind: _Kind,
    bodies: Sequence[tuple[int, bytes]],
    paths: Sequence[Path],
    dataset: Dataset,
    schema: Schema,
    progress: Callable[[], None],
    keep: Keep,
    known: Schema,
) -> dict[int, ReadResult]:
    width = len(kind.originals)
    with tempfile.TemporaryDirectory(prefix="penstock-") as folder, cursor() as connection:
        text = Path(folder) / "together"
        pieces: list[Piece] | None = None
        for _ in range(_PASSES):
            progress()
            pieces, doubtful = _load_together(connection, kind, bodies, schema.dialect, text)
            if not doubtful:
                break
            bodies = [body for place, body in enumerate(bodies) if place not in doubtful]
            if not bodies:
                return {}
        else:
            raise Unreadable("too many objects that disturb others")
        progress()
        connection.execute(
            f"CREATE TEMP VIEW numbered AS SELECT *, rowid + 1 AS n FROM records "
            f"WHERE c0 IS NULL OR NOT starts_with(c0, {literal(_MARK)})"
        )
        values = source_by_name(connection, "numbered", kind.originals, schema)
        together, asking = shape_together(connection, dataset, schema, values, keep)
        # What is read together widens nothing.
        results = take_apart(replace(together, schema=known), pieces, asking)
    return {index: with_lines(result, [], paths[index], schema.dialect, width) for index, result in results.items()}


def _load_together(
    connection: duckdb.DuckDBPyConnection,
    kind: _Kind,
    bodies: Sequence[tuple[int, bytes]],
    dialect: dict[str, Any],
    text: Path,
) -> tuple[list[Piece], set[int]]:
    """Fill the table `records`; returns each object's piece of it, and the places of those that are not proven.

    There are no pieces unless all are proven. Raises Unreadable.
    """
    width = len(kind.originals)
    blanks: bytes = dialect["delim"].encode() * (width - 1) + kind.end

    def mark(number: int) -> bytes:
        return f"{_MARK}{number}".encode() + blanks

    head = (kind.header + kind.end if dialect["header"] else b"") + mark(0)
    marked = [body + mark(place) for place, (_, body) in enumerate(bodies, start=1)]
    text.write_bytes(b"".join([head, *marked]))
    rejects = load(connection, text, dialect, width, strictly=True)
    at = {
        int(found[1:]): number
        for found, number in connection.execute(
            f"SELECT c0, rowid FROM records WHERE starts_with(c0, {literal(_MARK)})"
        ).fetchall()
    }
    places = range(len(bodies))
    if 0 not in at:
        return [], set(places)
    begins = list(accumulate((len(some) for some in marked), initial=len(head)))
    doubtful = {max(0, bisect_right(begins, offset) - 1) for _, _, offset, _ in rejects}
    # Of those in a row without a mark behind them, the first has swallowed the others.
    doubtful |= {place for place in places if place in at and place + 1 not in at}
    if doubtful:
        return [], doubtful
    return [
        Piece(index=index, before=at[place] + 1, count=at[place + 1] - at[place] - 1)
        for place, (index, _) in enumerate(bodies)
    ], set()
