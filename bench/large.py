"""One large CSV and one large Parquet; against DuckDB writing the same table from local disk."""

from __future__ import annotations

import time
from pathlib import Path

import duckdb

from bench import processes, rows
from bench.figures import Figure, Result, Target, Wrong
from bench.session import Session
from bench.world import World
from penstock.wiring import open_store

_SIZES = {"csv": 2_000_000_000, "parquet": 500_000_000}
_QUICK = {"csv": 4_000_000, "parquet": 2_000_000}
_SAMPLE = 100_000
_PART = 64 * 1024 * 1024
_MOST_ANONYMOUS_MB = 1000.0
_LONGEST = 900.0


def run(session: Session) -> Result:
    """The CSV first, then the Parquet, in a project of their own each."""
    result = Result(
        name="large",
        title="One large CSV, one large Parquet",
        method=(
            "PUT into the bucket by an S3 client; seconds run from the PUT's end to the ledger's record of the load. "
            "The download (the same object by one GET, to the same disk) is measured by itself and taken off. DuckDB "
            "writes the same table into a new file from the local copy: the columns with their types given, the "
            "object's name, the row's number, the moment, and a NULL for what was rescued. Memory is looked at every "
            "0.2 s; anonymous is what no file backs."
        ),
    )
    verified = []
    for form in ("csv", "parquet"):
        with session.running(f"large-{form}") as world:
            verified.append(_one(session, world, form, result))
    result.verified = "; ".join(verified)
    return result


def _one(session: Session, world: World, form: str, result: Result) -> str:
    dataset = f"large_{form}"
    path = world.folder / f"large.{form}"
    session.say(f"making a {form} file")
    ids = _make(path, world.ids, session.pick(_SIZES, _QUICK)[form])
    size = path.stat().st_size
    _first(world, dataset, form)
    before = world.count(dataset)
    session.say(f"DuckDB writes {len(ids):,} rows from {size / 1e6:,.0f} MB of {form}")
    alone = _duckdb(world.folder / "alone.duckdb", path, form, len(ids))
    key = f"{dataset}/{ids.start}.{form}"
    world.minio().fput_object(world.settings.bucket, key, str(path), part_size=_PART)
    session.say("penstock loads it")
    with processes.watched(world.folder) as peaks:
        at = time.time()
        world.wait_loaded(dataset, before + 1, seconds=_LONGEST)
    took = world.last_load(dataset, key) - at
    verified = world.verify(dataset, ids, objects=1)
    download = _download(world, key, path)
    world.check()
    shown = f"one {form} of {size / 1e6:,.0f} MB"
    result.figures += [
        Figure(
            name=f"large_{form}",
            what=f"{shown}, without the download",
            value=max(0.0, took - download),
            unit="s",
            against="DuckDB from local disk",
            peer=alone,
            target=Target(on="times", bound=2.0),
            note=f"{took:.1f} s in all, {download:.1f} s of it the download; {len(ids):,} rows",
        ),
        Figure(
            name=f"large_{form}_memory",
            what=f"{shown}, most anonymous memory of a process of the worker's",
            value=peaks.worker_anonymous,
            unit="MB",
            target=Target(on="value", bound=_MOST_ANONYMOUS_MB),
            note=f"resident, file-backed pages with it: {peaks.worker:.0f} MB",
        ),
    ]
    result.detail[form] = {"bytes": size, "rows": len(ids), "seconds": took, "download": download, "alone": alone}
    return verified


def _make(path: Path, ids: rows.Ids, size: int) -> range:
    """A file of about so many bytes: how many rows that takes is told by a sample."""
    sample = path.with_name(f"sample{path.suffix}")
    rows.write_large(sample, rows.Ids(next=ids.next), _SAMPLE)
    count = int(size / sample.stat().st_size * _SAMPLE)
    sample.unlink()
    return rows.write_large(path, ids, count)


def _first(world: World, dataset: str, form: str) -> None:
    """A small file of the same kind before, so that the schema is known."""
    if form == "csv":
        world.warm(dataset)
    elif not world.count(dataset):
        first = world.folder / "first.parquet"
        rows.write_large(first, world.ids, 1)
        world.put(f"{dataset}/first.parquet", first.read_bytes())
        world.wait_loaded(dataset, 1, seconds=60)


def _duckdb(file: Path, source: Path, form: str, expected: int) -> float:
    read = (
        f"read_csv('{source}', header = true, auto_detect = false, columns = {rows.COLUMNS!r})"
        if form == "csv"
        else f"read_parquet('{source}')"
    )
    file.unlink(missing_ok=True)
    began = time.monotonic()
    with duckdb.connect(str(file)) as connection:
        connection.execute(
            f"CREATE TABLE alone AS SELECT *, 'landing/large/{source.name}@1' AS _penstock_object, "
            "row_number() OVER () AS _penstock_row, now() AS _penstock_loaded_at, NULL::VARCHAR AS _penstock_rescued "
            f"FROM {read}"
        )
    took = time.monotonic() - began
    with duckdb.connect(str(file), read_only=True) as connection:
        found = connection.execute("SELECT count(*) FROM alone").fetchone()
    file.unlink()
    if found != (expected,):
        raise Wrong(f"DuckDB wrote {found} rows of {expected}")
    return took


def _download(world: World, key: str, original: Path) -> float:
    store, bucket = open_store(world.settings), world.settings.bucket
    target = world.folder / "downloaded"
    stat = store.stat(bucket, key)
    began = time.monotonic()
    store.get(bucket, key, target, etag=stat.etag)
    took = time.monotonic() - began
    if target.stat().st_size != original.stat().st_size:
        raise Wrong(f"{key} came back with another size")
    target.unlink()
    return took
