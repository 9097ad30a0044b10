"""The DuckDB warehouse with real processes that take turns at the file, hold it, or are killed."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock.errors import WarehouseLocked
from penstock.warehouse.duckdb import DuckDBWarehouse
from tests.waiting import wait_for

WRITER = """
import sys
from datetime import datetime, timezone
from pathlib import Path
import pyarrow as pa
from penstock.formats.result import REJECTED
from penstock.model import ObjectRef
from penstock.warehouse.base import LoadPart
from penstock.warehouse.duckdb import DuckDBWarehouse

path, who, loads, size = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
house = DuckDBWarehouse(path)
for number in range(loads):
    ref = ObjectRef(id=1, dataset=who, bucket="b", key=f"{who}/{number}", generation=1, etag="e", size=1)
    rows = pa.table({"id": pa.array(range(size), pa.int64()), "_penstock_row": pa.array(range(1, size + 1), pa.int64()),
                     "_penstock_rescued": pa.nulls(size, pa.string())})
    part = LoadPart(ref=ref, rows=rows, rejected=REJECTED.empty_table())
    print("begin", ref.name, flush=True)
    found = house.load(who, [("id", "BIGINT")], [part], token=1, run="r", now=datetime.now(timezone.utc))
    print("loaded", *found.loaded, flush=True)
"""

HOLDER = """
import sys, duckdb
connection = duckdb.connect(sys.argv[1])
print("holding", flush=True)
sys.stdin.read()
"""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    running: list[subprocess.Popen[str]] = []

    def run(script: str, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", script, *map(str, arguments)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        running.append(process)
        return process

    yield run
    for process in running:
        if process.poll() is None:
            process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()


def test_processes_taking_turns_lose_nothing(tmp_path: Path, start: Start) -> None:
    """Every load that four processes at one file were told of is there once."""
    path = tmp_path / "w.duckdb"
    writers = [start(WRITER, path, f"w{i}", 15, 3) for i in range(4)]
    loaded = []
    for writer in writers:
        out, _ = writer.communicate(timeout=240)
        assert writer.returncode == 0
        loaded += [line.split()[1] for line in out.splitlines() if line.startswith("loaded ")]
    assert len(loaded) == len(set(loaded)) == 60
    house = DuckDBWarehouse(path)
    assert house.markers(loaded) == set(loaded)
    for i in range(4):
        found = house.query(f"SELECT count(*), count(DISTINCT (_penstock_object, _penstock_row)) FROM w{i}", limit=1)
        assert found.rows == [(45, 45)]
    assert house.query("SELECT count(*) FROM _penstock_objects", limit=1).rows == [(60,)]


@pytest.mark.parametrize("moment", ["begun", "written"])
def test_kill_in_the_middle_of_a_load(tmp_path: Path, start: Start, moment: str) -> None:
    """After kill -9 within a load the file opens, and holds all of each part or nothing of it."""
    path, size = tmp_path / "w.duckdb", 300_000
    writer = start(WRITER, path, "w0", 50, size)
    assert writer.stdout
    for line in writer.stdout:
        if line.startswith("loaded "):
            break
    assert writer.stdout.readline().startswith("begin ")
    if moment == "written":
        wal = Path(f"{path}.wal")
        wait_for(lambda: wal.exists() or path.stat().st_size > 20_000_000, what="bytes of the load on disk")
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    house = DuckDBWarehouse(path, wait_seconds=10)
    parts = house.query("SELECT _penstock_object, count(*) FROM w0 GROUP BY 1", limit=100).rows
    assert parts
    assert {count for _, count in parts} == {size}
    names = [name for name, _ in parts]
    assert house.markers([*names, "b/w0/49@1"]) == set(names)
    house.fence("w0", 2)
    assert house.count("w0") == size * len(parts)


def test_foreign_holder_is_named(tmp_path: Path, start: Start) -> None:
    """A process that holds the file without the lock file is named by pid and command; after its end all goes on."""
    path = tmp_path / "w.duckdb"
    DuckDBWarehouse(path).fence("sales", 1)
    holder = start(HOLDER, path)
    assert holder.stdout
    assert holder.stdout.readline() == "holding\n"
    house = DuckDBWarehouse(path, wait_seconds=0.3)
    with pytest.raises(WarehouseLocked, match=rf"process {holder.pid} \(.*python"):
        house.fence("sales", 2)
    holder.communicate()
    house.fence("sales", 2)
    found = house.query("SELECT token FROM _penstock_fences", limit=5)
    assert json.dumps(found.rows) == "[[2]]"


LOCKER = """
import sys, filelock
with filelock.FileLock(sys.argv[1]):
    print("holding", flush=True)
    sys.stdin.read()
"""


def test_who_holds_the_lock_file_is_named(tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process with the lock is named by pid and command; where the system does not tell, as another one."""
    path = tmp_path / "w.duckdb"
    house = DuckDBWarehouse(path, wait_seconds=0.2)
    house.fence("sales", 1)
    locker = start(LOCKER, f"{path}.lock")
    assert locker.stdout
    assert locker.stdout.readline() == "holding\n"
    with pytest.raises(WarehouseLocked, match=rf"process {locker.pid} \(.*filelock"):
        house.fence("sales", 2)
    monkeypatch.setattr("penstock.holders._LOCKS", tmp_path / "none")
    with pytest.raises(WarehouseLocked, match="held by another process and"):
        house.fence("sales", 2)
    locker.communicate()
    house.fence("sales", 2)


def test_held_lock_file_is_waited_for_and_reported(tmp_path: Path) -> None:
    """A held lock file ends in WarehouseLocked after `wait_seconds`, and the file is the owner's alone."""
    from filelock import FileLock

    path = tmp_path / "w.duckdb"
    house = DuckDBWarehouse(path, wait_seconds=0.2)
    house.fence("sales", 1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with FileLock(f"{path}.lock"), pytest.raises(WarehouseLocked, match=rf"process {os.getpid()} \("):
        house.count("sales")
    assert house.count("sales") == 0
