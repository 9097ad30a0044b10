"""One webhook delivery: a line of an envelope as one row with fixed columns."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import duckdb
import pyarrow as pa

from penstock.declarations import Dataset
from penstock.envelope import decode_line
from penstock.errors import Unreadable
from penstock.formats.engine import cursor
from penstock.formats.json import DEEPEST, depth
from penstock.formats.kept import Keep
from penstock.formats.plain import plain_file
from penstock.formats.result import RESCUED, ROW, ReadResult
from penstock.formats.shape import BAD, LINE, RAW, Value, shape, shape_together
from penstock.formats.together import Piece, take_apart
from penstock.model import Column, Schema
from penstock.quoting import quoted

COLUMNS = {
    "delivery": "VARCHAR",
    "source": "VARCHAR",
    "received_at": "TIMESTAMP WITH TIME ZONE",
    "content_type": "VARCHAR",
    "headers": "JSON",
    "payload": "JSON",
}


def infer(path: Path, dataset: Dataset) -> Schema:
    """Always the same columns, whatever the file."""
    del path
    columns = (Column(name=n, original=n, type=dataset.columns.get(n, kind)) for n, kind in COLUMNS.items())
    return Schema(version=1, columns=tuple(columns))


def read(path: Path, dataset: Dataset, schema: Schema, *, large: bool = False) -> ReadResult:
    """The delivery as one row. Raises Unreadable when it is no line of an envelope or its body is no JSON."""
    with cursor() as connection:
        values = _source_of(connection, [(1, _fields(path))], schema)
        return shape(connection, dataset, schema, values, Keep(path, size=path.stat().st_size, large=large))


def read_many(
    paths: Sequence[Path], dataset: Dataset, schema: Schema, *, progress: Callable[[], None], large: bool = False
) -> dict[int, ReadResult]:
    """By index, what `read` would give, for those that can be read."""
    progress()
    rows: list[tuple[int, dict[str, str]]] = []
    for index, path in enumerate(paths):
        with suppress(Unreadable):
            rows.append((index + 1, _fields(path)))
    if not rows:
        return {}
    with cursor() as connection:
        values = _source_of(connection, rows, schema)
        together, asking = shape_together(connection, dataset, schema, values, Keep(paths[0], large=large))
    return take_apart(together, [Piece(index=number - 1, before=number - 1, count=1) for number, _ in rows], asking)


def _fields(path: Path) -> dict[str, str]:
    with plain_file(path) as found:
        delivery = decode_line(found.read_bytes().rstrip(b"\n"))
    try:
        body = delivery.body.decode()
        too_deep = depth(body) > DEEPEST
        if not too_deep:
            json.loads(body, parse_constant=_no_constant)
    except ValueError:
        raise Unreadable("the delivery's body is no JSON") from None
    if too_deep:
        raise Unreadable(f"the delivery's body nests deeper than {DEEPEST} levels")
    return {
        "delivery": delivery.id,
        "source": delivery.source,
        "received_at": delivery.received_at.isoformat(),
        "content_type": delivery.content_type,
        "headers": json.dumps(delivery.headers),
        "payload": body,
    }


def _source_of(
    connection: duckdb.DuckDBPyConnection, rows: Sequence[tuple[int, dict[str, str]]], schema: Schema
) -> list[Value]:
    """Make the view `source` of numbered rows."""
    lines = {name: pa.array([fields[name] for _, fields in rows], pa.string()) for name in COLUMNS}
    connection.register("lines", pa.table({**lines, ROW: pa.array([number for number, _ in rows], pa.int64())}))
    connection.execute(
        f"CREATE TEMP VIEW source AS SELECT *, CAST(1 AS BIGINT) AS {quoted(LINE)}, "
        f"CAST(NULL AS VARCHAR) AS {quoted(BAD)}, payload AS {quoted(RAW)}, "
        f"CAST(NULL AS VARCHAR) AS {quoted(RESCUED)} FROM lines"
    )
    return [
        Value(column=column, expression=quoted(column.original) if column.original in COLUMNS else None)
        for column in schema.columns
    ]


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
