"""Inputs that are large in one direction: each ends within its time and its memory, in a process of its own.

The memory is what the process held at most, as the kernel counts it, over what it held before; what is mapped from disk
counts too.
"""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from penstock import Dataset
from penstock.formats import infer
from tests.torture.trying import tried

MEGABYTE = 1_000_000
CELL = 50 * MEGABYTE
SECONDS = 120

_PROGRAM = """
import json, resource, sys
from pathlib import Path
from tests.torture import trying
trying.SECONDS = 1000
trying._ROWS = 1
def most():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
folder, name, declared = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
trying.tried(folder, "warm.csv", b"a,b\\n1,2\\n")
before = most()
path = folder / name
target = trying.Target(dataset=trying.Dataset(name="torture", **declared), why="asked", key=f"torture/{name}")
found = trying.outcome(trying.look(path, target, lambda form: None))
print(json.dumps({"state": found.state, "reason": found.reason, "columns": len(found.types), "memory": most() - before,
    "lengths": [len(str(value)) for value in found.rows[0]] if found.rows else [], "rejected": len(found.rejected)}))
"""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A file's name and content, how it ends, and the bytes that reading it may take."""

    name: str
    content: bytes
    state: str
    reason: str = ""
    memory: int
    lengths: tuple[int, ...] | None = None
    rejected: int = 0


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pa.parquet.write_table(table, sink)
    return sink.getvalue()


def _many_lines() -> bytes:
    return b'id,a\n1,"' + (b"x" * (MEGABYTE - 1) + b"\n") * 50 + b'"\n2,y\n'


def _many_columns() -> bytes:
    names = ",".join(f"c{number}" for number in range(10_000))
    return f"{names}\n{names}\n".encode()


def _columns_that_are_read() -> bytes:
    header = ",".join(f"c{number}" for number in range(4096))
    line = ",".join(["7", "t", "1.5", "2024-01-02"] * 1024)
    return (header + "\n" + f"{line}\n" * 100).encode()


# Made when they are wanted: together they are some 400 MB.
CASES: dict[str, Callable[[], Case]] = {
    "a cell in CSV": lambda: Case(
        name="x.csv",
        content=b"id,a\n1," + b"x" * CELL + b"\n2,y\n",
        state="quarantined",
        reason="16000000 bytes of the longest",
        memory=200 * MEGABYTE,
    ),
    "a cell of 10 MB in CSV": lambda: Case(
        name="x.csv",
        content=b'id,a\n1,"' + b"x" * 10 * MEGABYTE + b'"\n2,y\n',
        state="loaded",
        memory=900 * MEGABYTE,
        lengths=(1, 10 * MEGABYTE),
    ),
    "a cell of many lines in CSV": lambda: Case(
        name="x.csv", content=_many_lines(), state="loaded", memory=900 * MEGABYTE, rejected=1
    ),
    "a cell in NDJSON": lambda: Case(
        name="x.ndjson",
        content=b'{"id":1,"a":"' + b"x" * CELL + b'"}\n{"id":2}\n',
        state="loaded",
        memory=1500 * MEGABYTE,
        lengths=(1, CELL),
    ),
    "lines in NDJSON": lambda: Case(
        name="x.ndjson", content=b'{"a":1}\n' * 5_000_000, state="loaded", memory=800 * MEGABYTE, lengths=(1,)
    ),
    "records in a JSON array": lambda: Case(
        name="x.json",
        content=b"[" + b",".join([b'{"a":1,"text":"' + b"x" * 100 + b'"}'] * 1_500_000) + b"]",
        state="loaded",
        memory=800 * MEGABYTE,
        lengths=(1, 100),
    ),
    "a cell in Parquet": lambda: Case(
        name="x.parquet",
        content=parquet(pa.table({"id": [1], "a": ["x" * CELL]})),
        state="loaded",
        memory=900 * MEGABYTE,
        lengths=(1, CELL),
    ),
    "columns in CSV": lambda: Case(
        name="x.csv",
        content=_many_columns(),
        state="quarantined",
        reason="10000 columns, more than the 4096",
        memory=500 * MEGABYTE,
    ),
    "columns in Parquet": lambda: Case(
        name="x.parquet",
        content=parquet(pa.table({f"c{number}": [number] for number in range(10_000)})),
        state="quarantined",
        reason="10000 columns, more than the 4096",
        memory=500 * MEGABYTE,
    ),
    "as many columns as are read": lambda: Case(
        name="x.csv", content=_columns_that_are_read(), state="loaded", memory=900 * MEGABYTE
    ),
}


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("which", CASES)
def test_what_is_large_ends_within_its_bounds(tmp_path: Path, which: str) -> None:
    """A cell of 50 MB, 10,000 columns: loaded right, or refused with a reason, in bounded time and memory."""
    case = CASES[which]()
    (tmp_path / case.name).write_bytes(case.content)
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(tmp_path), case.name, "{}"],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["state"] == case.state, found
    assert case.reason in found["reason"]
    assert found["rejected"] == case.rejected
    assert found["memory"] < case.memory, found
    if case.lengths is not None:
        assert tuple(found["lengths"]) == case.lengths


def test_many_keys_are_looked_through_at_once(tmp_path: Path) -> None:
    """A thousand columns of numbers are found in a time that does not grow with their square."""
    path = tmp_path / "x.ndjson"
    line = json.dumps({f"key{place}": 10**17 + place if place % 2 else place + 0.5 for place in range(1000)})
    path.write_text(f"{line}\n" * 100)
    began = time.process_time()
    assert len(infer(path, path.name, Dataset(name="torture")).columns) == 1000
    assert time.process_time() - began < 4


def test_too_many_columns_are_refused_at_once(tmp_path: Path) -> None:
    """Not after what it would take to read them."""
    names = ",".join(f"c{number}" for number in range(4097))
    found = tried(tmp_path, "x.csv.gz", gzip.compress(f"{names}\n{names}\n".encode()))
    assert "4097 columns, more than the 4096" in found.reason
