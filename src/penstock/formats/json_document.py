"""A JSON document and the records in it: read whole, or, where it is large, one after another from disk."""

from __future__ import annotations

import codecs
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa

from penstock.declarations import Dataset
from penstock.errors import Unreadable
from penstock.formats.engine import cursor
from penstock.formats.names import json_pointer
from penstock.quoting import literal

# To read a document whole, or to take an array out of one, needs some six times its bytes of memory.
LARGEST = 512 * 1024**2
_SPACE = b" \t\r\n"
_LOOKED_AT = 64 * 1024


@contextmanager
def array_alone(text: Path, dataset: Dataset) -> Iterator[Path | None]:
    """A file with nothing but the array of the records, for `records_of_array`; none where they are in no array.

    Of a document that is one array this is the document. Raises Unreadable where it would have to be read whole, and is
    too large for that.
    """
    with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
        array = Path(folder) / "array"
        if not dataset.records:
            # By a name of its own: DuckDB would take brackets in a name for a pattern.
            array.symlink_to(text.absolute())
        else:
            _refuse_large(text)
            array.write_bytes(_extracted(text.read_bytes(), dataset))
        yield array if _is_array(array) else None


def records_of_array(connection: duckdb.DuckDBPyConnection, array: Path) -> bool:
    """Make the table `judged` of the records of an array; False when it has to be read whole to be understood.

    Then it is broken, or has a record of more than 16 MB. DuckDB reads on behind a `]` that comes too early: such a
    document, which is refused when it is read whole, brings all of its records.
    """
    try:
        connection.execute(
            "CREATE OR REPLACE TEMP TABLE parts AS SELECT CAST(json_extract(json, '$') AS VARCHAR) AS raw "
            f"FROM read_json_objects({literal(str(array))}, format = 'array', compression = 'uncompressed')"
        )
    except duckdb.InvalidInputException:
        return False
    _judge(connection)
    return True


def records_of_document(connection: duckdb.DuckDBPyConnection, text: Path, dataset: Dataset) -> None:
    """Make the table `judged` of the records of a document. Raises Unreadable."""
    _refuse_large(text)
    connection.execute("CREATE OR REPLACE TEMP TABLE document (doc VARCHAR)")
    if (content := text.read_bytes()).strip():
        connection.register("whole", _table(content))
        connection.execute("INSERT INTO document FROM whole")
        connection.unregister("whole")
    where = where_records_are(dataset)
    if connection.execute("SELECT count(*) FROM document WHERE NOT json_valid(doc)").fetchone() != (0,):
        raise Unreadable("not a whole JSON document")
    kinds = connection.execute(f"SELECT json_type({where}) FROM document").fetchall()
    if kinds and kinds[0][0] not in ("ARRAY", "OBJECT"):
        place = f"no array or object at {dataset.records!r}" if dataset.records else "neither array nor object"
        raise Unreadable(f"the JSON document has no records: {place}")
    each = f"unnest(json_extract({where}, '$[*]'))" if kinds and kinds[0][0] == "ARRAY" else where
    connection.execute(f"CREATE OR REPLACE TEMP TABLE parts AS SELECT CAST({each} AS VARCHAR) AS raw FROM document")
    connection.execute("DROP TABLE document")
    _judge(connection)


def where_records_are(dataset: Dataset) -> str:
    """The SQL for a document's records."""
    if not dataset.records:
        return "doc"
    return f"json_extract(doc, {literal(json_pointer(dataset.records.split('.')))})"


def _judge(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(
        "CREATE TEMP TABLE judged AS SELECT rowid + 1 AS record, CAST(NULL AS BIGINT) AS line, raw, "
        "CASE WHEN json_type(raw) <> 'OBJECT' THEN 'not a JSON object' END AS bad FROM parts"
    )
    connection.execute("DROP TABLE parts")


def _extracted(content: bytes, dataset: Dataset) -> bytes:
    with cursor() as connection:
        connection.register("whole", _table(content))
        row = connection.execute(
            f"SELECT encode(CAST({where_records_are(dataset)} AS VARCHAR)) FROM whole WHERE json_valid(doc)"
        ).fetchone()
    found: bytes | None = row[0] if row else None
    return found or b""


def _table(content: bytes) -> pa.Table:
    return pa.table({"doc": pa.array([content], pa.large_binary()).cast(pa.large_string())})


def _is_array(path: Path) -> bool:
    """Whether it begins and ends as one; what was cut off after a comma would pass for whole otherwise."""
    with path.open("rb") as file:
        head = file.read(_LOOKED_AT).removeprefix(codecs.BOM_UTF8).lstrip(_SPACE)
        file.seek(max(0, path.stat().st_size - _LOOKED_AT))
        return head.startswith(b"[") and file.read().rstrip(_SPACE).endswith(b"]")


def _refuse_large(text: Path) -> None:
    if (size := text.stat().st_size) > LARGEST:
        raise Unreadable(
            f"a JSON document of {size} bytes is more than the {LARGEST} that are read at once; send its records as "
            "one array, or as NDJSON: those are read one after another"
        )
