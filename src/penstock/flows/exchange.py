"""What a flow of one's own does beside its claim: land objects, ask the warehouse, keep things such as models.

All of it blocks: in an async flow `await asyncio.to_thread(penstock.land, key, data)`.
"""

from __future__ import annotations

import io
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pa_parquet

from penstock.errors import PenstockError
from penstock.flows.rows import as_table
from penstock.model import KEPT_PREFIX
from penstock.project import load_project
from penstock.settings import load_settings
from penstock.wiring import open_landing, open_ledger, open_store, open_warehouse

_QUERY_SECONDS = 600
_MOST_ROWS = 10_000_000


def land(key: str, data: Any) -> bool:
    """Put an object into the bucket for the dataset that takes its key, and wake it; returns whether it was new.

    `data` are bytes, a text, a `pathlib.Path` of a file, or rows (a pyarrow.Table, a DataFrame, a list of dicts), which
    become Parquet. When it returns the object is stored and recorded. The same bytes under the same key again are not
    new, so that a flow may try again. Raises Refused for a key that no dataset takes.
    """
    settings = load_settings()
    project = load_project(settings.project_dir, only=["flows"])
    with closing(open_ledger(settings)) as ledger:
        landing = open_landing(settings, project, open_store(settings), ledger)
        if isinstance(data, Path):
            with data.open("rb") as file:
                return landing.put(key, file, data.stat().st_size)
        content = _bytes(data)
        return landing.put(key, io.BytesIO(content), len(content))


def query(sql: str, limit: int | None = None) -> pa.Table:
    """What the warehouse answers, read only, and at most `limit` rows of it; types are found by the values.

    Raises TableMissing before the first load of what it asks about, QueryRefused, QueryTooLong, and PenstockError where
    all are wanted and they are more than ten million.
    """
    most = _MOST_ROWS if limit is None else limit
    found = open_warehouse(load_settings()).query(sql, limit=most, seconds=_QUERY_SECONDS)
    if limit is None and found.truncated:
        raise PenstockError(f"the answer has more than {_MOST_ROWS:,} rows: ask for less, or give a limit")
    columns = list(zip(*found.rows, strict=True)) or [() for _ in found.columns]
    return pa.Table.from_arrays([_array(values) for values in columns], names=list(found.columns))


def keep(name: str, data: bytes | Path) -> None:
    """Keep something of the project's own in the bucket, such as a model, in the place of what had the name before."""
    settings = load_settings()
    store, key = open_store(settings), _key(settings.project, name)
    if isinstance(data, Path):
        with data.open("rb") as file:
            store.put(settings.bucket, key, file, data.stat().st_size)
    else:
        store.put_bytes(settings.bucket, key, data)


def kept(name: str) -> bytes:
    """What was kept last under the name. Raises ObjectMissing."""
    settings = load_settings()
    return open_store(settings).read(settings.bucket, _key(settings.project, name))


def _key(project: str, name: str) -> str:
    if not name or name.startswith("/") or name.endswith("/") or ".." in name.split("/"):
        raise PenstockError(f"{name!r}: a name like 'models/current.bin'")
    return f"{KEPT_PREFIX}{project}/{name}"


def _bytes(data: Any) -> bytes:
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    if isinstance(data, str):
        return data.encode()
    sink = io.BytesIO()
    pa_parquet.write_table(as_table(data), sink)
    return sink.getvalue()


def _array(values: tuple[Any, ...]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError):
        # Such as a UUID, or numbers that are wider than Arrow's: as texts they lose nothing.
        return pa.array([None if value is None else _text(value) for value in values], pa.string())


def _text(value: Any) -> str:
    return format(value, "f") if isinstance(value, Decimal) else str(value)
