"""What the machine does wrong is never the data's fault."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from penstock.declarations import Dataset
from penstock.errors import Unreadable
from penstock.formats import engine, infer, read, report
from penstock.machine_faults import machine_fault
from penstock.model import Column, Schema

FULL = 'Could not write file "/w.duckdb": No space left on device'
SALES = Dataset(name="sales")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (duckdb.IOException(f"IO Error: {FULL}"), errno.ENOSPC),
        (duckdb.TransactionException(f"TransactionContext Error: Failed to commit: {FULL}"), errno.ENOSPC),
        (duckdb.FatalException(f"FATAL Error: Failed to create checkpoint because of error: {FULL}"), errno.ENOSPC),
        (duckdb.IOException('IO Error: Cannot open file "/a": Permission denied'), errno.EACCES),
        (duckdb.IOException('IO Error: Could not read from file "/a": Input/output error'), errno.EIO),
        (OSError(errno.EMFILE, "Too many open files"), errno.EMFILE),
        (OSError(f"IO Error: {FULL}"), errno.ENOSPC),
        (duckdb.IOException('IO Error: Could not read enough bytes from file "/a"'), None),
        (duckdb.ConversionException(f'Conversion Error: Could not convert string "{FULL}" to INT32'), None),
        (duckdb.TransactionException("TransactionContext Error: Failed to commit: something else"), None),
        (OSError("don't know what type"), None),
    ],
)
def test_disk_and_permissions_are_the_machines(error: Exception, code: int | None) -> None:
    """The system's own words tell, in the classes that quote it; values that say the same do not."""
    fault = machine_fault(error)
    assert (fault.errno if isinstance(fault, OSError) else None) == code


def test_memory_is_the_machines() -> None:
    """DuckDB's, Arrow's and Python's ways to say that memory ran out are one."""
    for error in (duckdb.OutOfMemoryException("Out of Memory Error: x"), pa.ArrowMemoryError("x"), MemoryError()):
        assert isinstance(machine_fault(error), MemoryError)


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The engine has too little memory for anything, and nowhere to spill."""
    config: dict[str, str | bool | int | float | list[str]] = {
        "temp_directory": "",
        "memory_limit": "2MB",
        "threads": "1",
    }
    with duckdb.connect(":memory:", config=config) as connection:
        monkeypatch.setattr(engine, "_database", lambda _: connection)
        yield


def _parquet(path: Path) -> None:
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT range AS id, md5(range::VARCHAR) AS name FROM range(300000)) TO '{path}' (FORMAT parquet)"
        )


def _csv(path: Path) -> None:
    path.write_text("id,name\n" + "".join(f"{i},{i * 7919:040d}\n" for i in range(150_000)))


def _ndjson(path: Path) -> None:
    path.write_text("".join(f'{{"id": {i}, "name": "{i * 7919:040d}"}}\n' for i in range(150_000)))


@pytest.mark.parametrize(("key", "make"), [("a.parquet", _parquet), ("a.csv", _csv), ("a.ndjson", _ndjson)])
@pytest.mark.usefixtures("little_memory")
def test_a_read_without_memory_blames_no_object(tmp_path: Path, key: str, make: Callable[[Path], None]) -> None:
    """Where memory runs out while an object is read, the object is not called unreadable, nor its SQL faulty."""
    path = tmp_path / key
    make(path)
    dialect = {"delim": ",", "quote": '"', "escape": '"', "header": True, "skip": 0} if key == "a.csv" else {}
    original = "$." if key.endswith("json") else ""
    columns = tuple(
        Column(name=name, original=original + name, type=kind) for name, kind in (("id", "BIGINT"), ("name", "VARCHAR"))
    )
    with pytest.raises(MemoryError, match="Out of Memory"):
        read(path, key, SALES, Schema(version=1, columns=columns, dialect=dialect))


@pytest.mark.usefixtures("little_memory")
def test_sniffing_and_reports_without_memory_blame_nobody(tmp_path: Path) -> None:
    """The first object's schema, and a report's SQL, fail as memory does."""
    path = tmp_path / "a.csv"
    _csv(path)
    with pytest.raises(MemoryError):
        infer(path, "a.csv", SALES)
    rows = pa.table({"id": pa.array(range(300_000), pa.int64())})
    with pytest.raises(MemoryError):
        report(rows, Dataset(name="sales", report={"n": "count(DISTINCT md5(id::VARCHAR))"}))


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), duckdb.IOException(f"IO Error: {FULL}")])
def test_a_disk_that_fails_is_not_the_parquets_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """An I/O error while rows are made of a Parquet file comes out as an OSError."""
    path = tmp_path / "a.parquet"
    _parquet(path)
    schema = infer(path, "a.parquet", SALES)

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("penstock.formats.parquet.shape", fail)
    with pytest.raises(OSError, match=r"Input/output error|No space left"):
        read(path, "a.parquet", SALES, schema)


def test_a_cut_parquet_is_still_the_objects_fault(tmp_path: Path) -> None:
    """A file whose pages are not where its footer says is unreadable, and no SQL is called faulty."""
    path = tmp_path / "a.parquet"
    _parquet(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:8] + whole[len(whole) // 2 :])
    schema = infer(path, "a.parquet", SALES)  # from its footer, which is whole
    with pytest.raises(Unreadable, match="not Parquet"):
        read(path, "a.parquet", SALES, schema)
