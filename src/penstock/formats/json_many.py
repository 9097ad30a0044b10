"""Many small JSON objects, or deliveries, in one read: one table of the records of all, numbered through."""

from __future__ import annotations

import codecs
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from penstock.declarations import Dataset
from penstock.errors import Unreadable
from penstock.formats.engine import cursor
from penstock.formats.json import (
    Strange,
    leaves_of,
    mark_too_deep,
    records_of_judged,
    records_of_lines,
    source_of,
    strange_in,
    trimmed_lines,
)
from penstock.formats.json_document import where_records_are
from penstock.formats.kept import Keep
from penstock.formats.packed import packing
from penstock.formats.result import ReadResult
from penstock.formats.shape import shape_together
from penstock.formats.together import Piece, take_apart
from penstock.model import Schema


def read_many(
    paths: Sequence[Path],
    dataset: Dataset,
    schema: Schema,
    *,
    lines: bool,
    progress: Callable[[], None],
    large: bool = False,
) -> dict[int, ReadResult]:
    """By index, what `json.read` would give, for those that can be read together. Raises Unreadable."""
    contents = {index: text for index, path in enumerate(paths) if (text := _plain(path.read_bytes())) is not None}
    if len(contents) < 2:
        return {}
    results: dict[int, ReadResult] = {}
    keep = Keep(paths[0], large=large)
    with cursor() as connection:
        progress()
        if lines:
            _from_lines(connection, contents)
        else:
            _from_documents(connection, contents, dataset)
        mark_too_deep(connection)
        pieces = _pieces(connection)
        for strange, indexes in _alike(connection, dataset, schema, pieces).items():
            progress()
            connection.register("wanted", pa.table({"file": pa.array(indexes, pa.int64())}))
            connection.execute(
                "CREATE OR REPLACE TEMP TABLE chosen AS "
                "SELECT * FROM records WHERE file IN (SELECT file FROM wanted) ORDER BY record"
            )
            values = source_of(connection, "chosen", schema, strange)
            together, asking = shape_together(connection, dataset, schema, values, keep)
            results |= take_apart(together, [pieces[index] for index in indexes], asking)
    return results


def _plain(content: bytes) -> str | None:
    if not content.strip() or packing(content) or b"\0" in content:
        return None
    if 0 < content.count(b"\r\n") < content.count(b"\n"):
        content = content.replace(b"\r\n", b"\n")
    try:
        return content.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError:
        return None


def _from_lines(connection: duckdb.DuckDBPyConnection, contents: dict[int, str]) -> None:
    texts = pa.array(contents.values(), pa.large_string())
    each = [text.count("\n") + 1 for text in contents.values()]
    table = pa.table(
        {
            "file": pa.concat_arrays(
                [pa.repeat(pa.scalar(i, pa.int64()), n) for i, n in zip(contents, each, strict=True)]
            ),
            "line": pa.concat_arrays([pa.array(range(1, n + 1), pa.int64()) for n in each]),
            "raw": trimmed_lines(texts),
        }
    )
    table = table.filter(pc.not_equal(table.column("raw"), ""))
    records_of_lines(connection, [table.append_column("record", pa.array(range(1, table.num_rows + 1), pa.int64()))])


def _from_documents(connection: duckdb.DuckDBPyConnection, contents: dict[int, str], dataset: Dataset) -> None:
    whole = pa.table({"file": pa.array(contents, pa.int64()), "doc": pa.array(contents.values(), pa.large_string())})
    connection.register("whole", whole)
    where = where_records_are(dataset)
    connection.execute(
        f"CREATE TEMP TABLE documents AS SELECT file, {where} AS found, json_type({where}) AS kind "
        "FROM (SELECT * FROM whole WHERE json_valid(doc)) ORDER BY file"
    )
    connection.unregister("whole")
    connection.execute(
        "CREATE TEMP TABLE parts AS SELECT file, CAST(unnest(CASE kind WHEN 'ARRAY' THEN json_extract(found, '$[*]') "
        "ELSE [CAST(found AS JSON)] END) AS VARCHAR) AS raw FROM documents WHERE kind IN ('ARRAY', 'OBJECT')"
    )
    connection.execute(
        "CREATE TEMP TABLE judged AS SELECT file, rowid + 1 AS record, CAST(NULL AS BIGINT) AS line, raw, "
        "CASE WHEN json_type(raw) <> 'OBJECT' THEN 'not a JSON object' END AS bad FROM parts"
    )
    records_of_judged(connection)


def _pieces(connection: duckdb.DuckDBPyConnection) -> dict[int, Piece]:
    """Of each file that has records. Raises Unreadable unless each one's are together."""
    found = connection.execute(
        "SELECT file, min(record) - 1, count(*), max(record) FROM records GROUP BY file ORDER BY file"
    ).fetchall()
    ends = list(accumulate(count for _, _, count, _ in found))
    if ends != [last for _, _, _, last in found]:
        raise Unreadable("the records of the objects are mixed")
    return {file: Piece(index=file, before=before, count=count) for file, before, count, _ in found}


def _alike(
    connection: duckdb.DuckDBPyConnection, dataset: Dataset, schema: Schema, pieces: dict[int, Piece]
) -> dict[Strange, list[int]]:
    """The files by what is strange in them, in order."""
    structures = dict(
        connection.execute(
            "SELECT file, json_group_structure(CAST(doc AS JSON)) FROM records WHERE doc IS NOT NULL GROUP BY file"
        ).fetchall()
    )
    known: dict[str | None, Strange | None] = {}
    alike: dict[Strange, list[int]] = defaultdict(list)
    for file in pieces:
        structure = structures.get(file)
        if structure not in known:
            try:
                known[structure] = strange_in(leaves_of(structure, dataset), schema)
            except Unreadable:
                known[structure] = None
        strange = known[structure]
        if strange is not None:
            alike[strange].append(file)
    return alike
