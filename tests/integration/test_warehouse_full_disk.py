"""The DuckDB warehouse on a disk that is full, and in a process without memory."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from penstock.errors import LeaseLost, WarehouseUnavailable
from penstock.warehouse.base import LoadPart
from penstock.warehouse.duckdb import DuckDBWarehouse
from tests.conformance.warehouses import COLUMNS, NOW, part


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "none", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def _part(key: str, count: int) -> LoadPart:
    dice = random.Random(key)  # noqa: S311 - numbers that do not pack
    return part(
        key, {"id": [dice.getrandbits(62) for _ in range(count)], "name": [str(dice.random()) for _ in range(count)]}
    )


def _load(house: DuckDBWarehouse, one: LoadPart) -> None:
    house.load("sales", COLUMNS, [one], token=1, run="r", now=NOW)


def test_a_full_disk_waits_and_blames_nobody(small_disk: Path) -> None:
    """A load that the disk cannot hold is WarehouseUnavailable and says what to do; all before it stays, whole."""
    house = DuckDBWarehouse(small_disk / "w.duckdb", wait_seconds=1)
    _load(house, _part("first.csv", 100))
    for _ in range(2):
        with pytest.raises(WarehouseUnavailable, match=r"No space left on device.*make room"):
            _load(house, _part("big.csv", 500_000))
    assert (house.count("sales"), house.damaged("sales")) == (100, [])
    fill = os.open(small_disk / "fill", os.O_CREAT | os.O_WRONLY)
    try:
        while os.statvfs(small_disk).f_bavail:
            os.write(fill, bytes(4096))
    finally:
        os.close(fill)
    with pytest.raises(WarehouseUnavailable, match="make room"):
        _load(DuckDBWarehouse(small_disk / "new.duckdb", wait_seconds=1), _part("first.csv", 1))
    # The file keeps the size that the failed load gave it: room is made beside it.
    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
    _load(house, _part("next.csv", 100))
    assert house.count("sales") == 200


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (duckdb.TransactionException("TransactionContext Error: Failed to commit: No space left on device"), "room"),
        (duckdb.IOException("IO Error: Corrupt database file"), "disk"),
        (duckdb.FatalException("FATAL Error: database has been invalidated"), "disk"),
        (duckdb.OutOfMemoryException("Out of Memory Error: could not allocate block"), "free memory"),
        (OSError(30, "Read-only file system"), "who may read and write"),
        (MemoryError("no more"), "free memory"),
    ],
)
def test_what_the_machine_does_is_transient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    """Disk and memory, whoever reports them and however, are WarehouseUnavailable with advice."""
    house = DuckDBWarehouse(tmp_path / "w.duckdb")
    _load(house, _part("first.csv", 1))

    def fail(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("penstock.warehouse.duckdb_tables.mark", fail)
        with pytest.raises(WarehouseUnavailable, match=words):
            _load(house, _part("next.csv", 1))
    assert house.count("sales") == 1


@pytest.mark.parametrize("error", [duckdb.ConversionException("Conversion Error: x"), LeaseLost("x"), KeyError("x")])
def test_what_the_rows_do_comes_out_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Nothing else becomes transient."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("penstock.warehouse.duckdb_tables.mark", fail)
    with pytest.raises(type(error)):
        _load(DuckDBWarehouse(tmp_path / "w.duckdb"), _part("next.csv", 1))
