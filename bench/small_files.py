"""Many small CSVs that are in the bucket already → loaded once; against GET and one read without any bookkeeping."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import duckdb
import urllib3

from bench import rows
from bench.figures import Figure, Result, Target, Wrong, middle, spread
from bench.session import Session
from bench.world import World

ROWS = 100
_GETTERS = 32
_LONGEST = 300.0


def run(session: Session) -> Result:
    """Load the same again and again, beside the raw limit each time."""
    count, rounds = session.pick(2000, 40), session.pick(3, 1)
    limits, loads, finds, wholes = [], [], [], []
    with session.running("small", sweep_seconds=3600) as world, warm_and_silenced(world, "known", "found"):
        known = world.count("known")
        verified = ""
        for number in range(1, rounds + 1):
            session.say(f"{count} CSVs, round {number} of {rounds}")
            ids, keys = put_files(world, f"known/{number}-{world.ids.next}", count)
            limits.append(raw_limit(world, keys, session.new_folder("raw"), count * ROWS))
            prefix = keys[0].rpartition("/")[0] + "/"
            began = time.monotonic()
            world.sweep(prefix)
            finds.append(time.monotonic() - began)
            at = world.run_by_hand("known")
            world.wait_loaded("known", known + number * count, seconds=_LONGEST)
            loads.append(world.last_load("known", prefix) - at)
            verified = world.verify("known", ids, objects=count)
            wholes.append(find_and_load(world, count)[0])
        world.check()
    limit = middle(limits)
    against = "32-thread GET + one DuckDB read"
    return Result(
        name="small",
        title=f"{count:,} CSVs of {ROWS} rows in the bucket → loaded once",
        method=(
            f"Medians of {rounds} rounds, each on new objects and beside its own raw limit: {_GETTERS} threads GET "
            "every object to a file, then one `read_csv` with a known schema is inserted into a DuckDB file; it lists "
            "nothing, checks nothing and remembers nothing. Penstock's time is from creating the flow run until the "
            "ledger records the last load, with the objects recorded before; the second figure is from the beginning "
            "of a sweep that finds them, with the runs that follow from it."
        ),
        figures=[
            Figure(
                name="small_files",
                what=f"{count:,} CSVs, recorded → loaded",
                value=middle(loads),
                unit="s",
                against=against,
                peer=limit,
                target=Target(on="times", bound=2.0),
            ),
            Figure(
                name="small_files_found",
                what=f"{count:,} CSVs, found by a sweep and loaded",
                value=middle(wholes),
                unit="s",
                against=against,
                peer=limit,
            ),
            Figure(
                name="small_files_find",
                what=f"{count:,} CSVs, found by a sweep and recorded",
                value=middle(finds),
                unit="s",
            ),
        ],
        spread={"raw limit": spread(limits), "recorded → loaded": spread(loads), "found → loaded": spread(wholes)},
        verified=f"{verified}; so was each other round",
    )


@contextmanager
def warm_and_silenced(world: World, *datasets: str) -> Iterator[None]:
    """First files are loaded, and from then on the store tells of nothing new."""
    world.warm(*datasets)
    with world.silenced():
        yield


def find_and_load(world: World, count: int) -> tuple[float, list[str]]:
    """PUT files of which nobody is told, let a sweep find them, wait until they are loaded; seconds and keys."""
    before = world.count("found")
    ids, keys = put_files(world, f"found/{world.ids.next}", count)
    at = time.time()
    prefix = keys[0].rpartition("/")[0] + "/"
    world.sweep(prefix)
    world.wait_loaded("found", before + count, seconds=_LONGEST)
    took = world.last_load("found", prefix) - at
    world.verify("found", ids, objects=count)
    return took, keys


def put_files(world: World, folder: str, count: int) -> tuple[range, list[str]]:
    """PUT so many CSVs into the bucket; their ids and keys."""
    first = world.ids.next
    items = list(rows.files(world.ids, count, ROWS, folder))
    world.put_all(items)
    return range(first, world.ids.next), [key for key, _ in items]


def raw_limit(world: World, keys: Sequence[str], folder: Path, expected: int) -> float:
    """Seconds to bring these objects into a DuckDB table and nothing else."""
    folder.mkdir()
    client = world.minio(http_client=urllib3.PoolManager(maxsize=_GETTERS))
    bucket = world.settings.bucket

    def get(item: tuple[int, str]) -> str:
        number, key = item
        path = folder / f"{number}.csv"
        answer = client.get_object(bucket, key)
        try:
            path.write_bytes(answer.data)
        finally:
            answer.release_conn()
        return str(path)

    began = time.monotonic()
    with ThreadPoolExecutor(_GETTERS) as pool:
        paths = list(pool.map(get, enumerate(keys)))
    with duckdb.connect(str(folder / "raw.duckdb")) as connection:
        own = ", ".join(f"{name} {kind}" for name, kind in rows.COLUMNS.items())
        connection.execute(f"CREATE TABLE raw ({own})")
        connection.execute(
            "INSERT INTO raw SELECT * FROM read_csv(?, header = true, auto_detect = false, columns = "
            f"{rows.COLUMNS!r})",
            [paths],
        )
    took = time.monotonic() - began
    with duckdb.connect(str(folder / "raw.duckdb")) as connection:
        found = connection.execute("SELECT count(*) FROM raw").fetchone()
    if found != (expected,):
        raise Wrong(f"the raw limit read {found} rows of {expected}")
    return took
