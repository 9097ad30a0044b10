"""Arrow IPC, file and stream: its values as Parquet's, batch by batch, since DuckDB reads no Arrow from a file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pa_parquet

from penstock.declarations import Dataset
from penstock.errors import Unreadable
from penstock.formats import parquet
from penstock.formats.plain import LARGEST_UNPACKED, plain_file
from penstock.formats.result import ReadResult
from penstock.model import Schema

_FILE, _OLD_FEATHER = b"ARROW1", b"FEA1"
# Without it, a stream that was cut off between two batches would look whole.
_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"
_ROWS_AT_ONCE = 122_880


def infer(path: Path, dataset: Dataset) -> Schema:
    """The columns, as Parquet's. Raises Unreadable."""
    with _as_parquet(path) as found:
        return parquet.infer(found, dataset)


def read(path: Path, dataset: Dataset, schema: Schema, *, large: bool = False) -> ReadResult:
    """The rows, as Parquet's. Raises Unreadable."""
    with _as_parquet(path) as found:
        return parquet.read(found, dataset, schema, large=large)


@contextmanager
def _as_parquet(path: Path) -> Iterator[Path]:
    with plain_file(path) as found, tempfile.TemporaryDirectory(prefix="penstock-") as folder:
        copy = Path(folder) / "rows"
        try:
            _convert(found, copy)
        except MemoryError:
            raise
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # the disk, and not the data
                raise
            raise Unreadable(f"not Arrow: {str(error).splitlines()[0][:120]}") from None
        yield copy


def _convert(path: Path, copy: Path) -> None:
    with ExitStack() as stack:
        source = stack.enter_context(pa.memory_map(str(path)) if path.stat().st_size else pa.BufferReader(b""))
        head = source.read(len(_FILE))
        source.seek(0)
        if head.startswith(_OLD_FEATHER):
            raise Unreadable("Feather of version 1, which is not read; write it as version 2")
        schema, batches = _file(source) if head == _FILE else _stream(path, source)
        writer = stack.enter_context(pa_parquet.ParquetWriter(copy, _writable(schema), compression="zstd"))
        size = 0
        for batch in batches:
            batch.validate(full=True)
            size += batch.nbytes
            if size > LARGEST_UNPACKED:
                raise Unreadable(f"the Arrow data unpack to more than {LARGEST_UNPACKED} bytes")
            writer.write_table(pa.Table.from_batches([batch]), row_group_size=_ROWS_AT_ONCE)


def _file(source: pa.NativeFile) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    reader = pa.ipc.open_file(source)
    return reader.schema, (reader.get_batch(number) for number in range(reader.num_record_batches))


def _stream(path: Path, source: pa.NativeFile) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - len(_END_OF_STREAM)))
        end = file.read()
    reader = pa.ipc.open_stream(source)
    if end != _END_OF_STREAM:
        raise Unreadable("an Arrow stream without the mark of its end: it may have been cut off")
    return reader.schema, iter(reader)


def _writable(schema: pa.Schema) -> pa.Schema:
    """The schema itself. Raises Unreadable naming a column of a type that has no place in a table."""
    for field in schema:
        try:
            pa_parquet.ParquetWriter(pa.BufferOutputStream(), pa.schema([field])).close()
        except pa.ArrowException:
            raise Unreadable(f"Arrow's type {field.type} of the column {field.name!r} is not read") from None
    if len(set(schema.names)) < len(schema.names):
        raise Unreadable("two of the Arrow data's columns have the same name")
    return schema
