"""One webhook delivery: a line of an envelope as one row with fixed columns."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa

from penstock.declarations import Dataset
from penstock.envelope import decode_line
from penstock.errors import Unreadable
from penstock.formats.engine import cursor
from penstock.formats.json import DEEPEST, depth
from penstock.formats.names import quoted
from penstock.formats.plain import plain_file
from penstock.formats.result import RESCUED, ROW, ReadResult
from penstock.formats.shape import BAD, LINE, RAW, Value, shape
from penstock.model import Column, Schema

COLUMNS = {
    "delivery": "VARCHAR",
    "source": "VARCHAR",
    "received_at": "TIMESTAMP WITH TIME ZONE",
    "content_type": "VARCHAR",
    "headers": "JSON",
    "payload": "JSON",
}


def infer(dataset: Dataset) -> Schema:
    """Always the same columns."""
    columns = (Column(name=n, original=n, type=dataset.columns.get(n, kind)) for n, kind in COLUMNS.items())
    return Schema(version=1, columns=tuple(columns))


def read(path: Path, dataset: Dataset, schema: Schema) -> ReadResult:
    """The delivery as one row. Raises Unreadable when it is no line of an envelope or its body is no JSON."""
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
    fields = {
        "delivery": delivery.id,
        "source": delivery.source,
        "received_at": delivery.received_at.isoformat(),
        "content_type": delivery.content_type,
        "headers": json.dumps(delivery.headers),
        "payload": body,
    }
    with cursor() as connection:
        connection.register("line", pa.table({name: pa.array([value]) for name, value in fields.items()}))
        connection.execute(
            f"CREATE TEMP VIEW source AS SELECT *, CAST(1 AS BIGINT) AS {quoted(ROW)}, CAST(1 AS BIGINT) AS "
            f"{quoted(LINE)}, CAST(NULL AS VARCHAR) AS {quoted(BAD)}, payload AS {quoted(RAW)}, "
            f"CAST(NULL AS VARCHAR) AS {quoted(RESCUED)} FROM line"
        )
        values = [
            Value(column=column, expression=quoted(column.original) if column.original in fields else None)
            for column in schema.columns
        ]
        return shape(connection, dataset, schema, values)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
