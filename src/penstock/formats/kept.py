"""Where shaped rows are kept until they are loaded: in memory, or on disk and mapped, when there are many."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path

import duckdb
import pyarrow as pa

# The bytes of an object, unpacked, from which on its rows are kept on disk.
LARGE = 64_000_000
# The rows of one of DuckDB's row groups: what comes in other portions is put together anew when it is loaded.
_ROWS_AT_ONCE = 122_880
# What DuckDB's errors begin with; as the error of a stream they are but the words of an OSError.
_KINDS = {
    "Conversion": duckdb.ConversionException,
    "Out of Range": duckdb.OutOfRangeException,
    "Invalid Input": duckdb.InvalidInputException,
    "Out of Memory": duckdb.OutOfMemoryException,
    "IO": duckdb.IOException,
}


class Keep:
    """Keeps the rows of the object `path`; `large` ones on the disk where it is, in files that end with their rows.

    Large is also what is made of more bytes, `size`, than rows are kept of in memory.
    """

    def __init__(self, path: Path, *, size: int = 0, large: bool = False) -> None:
        self.large = large or size > LARGE
        self._names = (path.with_name(f"{path.name}.rows{number}") for number in count())

    def read(self, found: duckdb.DuckDBPyRelation) -> pa.Table:
        """Every row of it, as a table. Raises DuckDB's errors, also in the middle."""
        if not self.large:
            return found.to_arrow_table()
        stream = found.to_arrow_reader(_ROWS_AT_ONCE)
        return self._on_disk(stream.schema, _with_its_errors(stream))

    def filter(self, rows: pa.Table, keep: pa.ChunkedArray) -> pa.Table:
        """The rows where `keep` is true."""
        if not self.large:
            return rows.filter(keep)
        wanted = rows.append_column("keep", keep)
        return self._on_disk(rows.schema, _chosen(wanted))

    def _on_disk(self, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> pa.Table:
        path = next(self._names)
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
        mapped = pa.memory_map(str(path))
        # What is mapped needs no name, and without one its space is free as soon as nothing holds the rows.
        path.unlink()
        return pa.ipc.open_file(mapped).read_all()


def _with_its_errors(stream: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    try:
        yield from stream
    except OSError as error:
        kind, separate, _ = str(error).partition(" Error: ")
        if not separate:
            raise
        raise _KINDS.get(kind, duckdb.Error)(str(error)) from None


def _chosen(rows: pa.Table) -> Iterator[pa.RecordBatch]:
    for batch in rows.to_batches(max_chunksize=_ROWS_AT_ONCE):
        yield batch.drop_columns(["keep"]).filter(batch.column("keep"))
