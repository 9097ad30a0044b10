"""Very many files dropped into the folder at once; against the pace at which the store takes PUTs."""

from __future__ import annotations

import time

from bench import processes, rows
from bench.figures import Figure, Result, Target
from bench.session import Session
from penstock.wiring import open_store

_ROWS = 10
_LIMIT_BUCKET = "put-limit"
_MOST_RUNS = 20
_MOST_MB = 400.0


def run(session: Session) -> Result:
    """Drop them, and wait until all are loaded."""
    count = session.pick(10_000, 150)
    with session.running("burst") as world:
        world.warm("burst")
        before = world.count("burst")
        first = world.ids.next
        drafts = world.folder / "drafts"
        drafts.mkdir(exist_ok=True)
        items = [(key.rpartition("/")[2], data) for key, data in rows.files(world.ids, count, _ROWS, f"burst/{first}")]
        ids = range(first, world.ids.next)
        for name, data in items:
            (drafts / name).write_bytes(data)
        session.say(f"the PUT limit, with {count} objects")
        open_store(world.settings).ensure_bucket(_LIMIT_BUCKET)
        limit = world.put_all(items, bucket=_LIMIT_BUCKET)
        session.say(f"{count} files at once")
        runs_before = world.count_runs("burst")
        with processes.watched(world.folder) as peaks:
            at = time.time()
            for name, _ in items:
                (drafts / name).rename(world.settings.inbox / "burst" / f"{first}-{name}")
            moved = time.time() - at
            world.wait_loaded("burst", before + count, seconds=600, every=0.25)
        took = world.last_load("burst", f"burst/{first}-") - at
        verified = world.verify("burst", ids, objects=count)
        recorded = max(load.recorded for key, load in world.loads("burst").items() if f"/{first}-" in key) - at
        runs = world.count_runs("burst") - runs_before
        world.check()
    return Result(
        name="burst",
        title=f"{count:,} files dropped into the folder at once",
        method=(
            f"Files of {_ROWS} rows are renamed into the watched folder one after the other, without a pause. The PUT "
            "limit is 8 threads that PUT the same bytes into another bucket of the same store, just before. Memory is "
            "looked at every 0.2 s: the worker's figure is the larger of its largest process (resident) and of all its "
            "processes together (PSS)."
        ),
        figures=[
            Figure(
                name="burst",
                what=f"{count:,} files → loaded",
                value=took,
                unit="s",
                against="PUT limit of the store",
                peer=limit,
                note=f"moving them in took {moved:.1f} s, the last was recorded after {recorded:.1f} s",
            ),
            Figure(
                name="burst_rate",
                what="files recorded a second",
                value=count / recorded,
                unit="/s",
                against="PUT limit of the store",
                peer=count / limit,
            ),
            Figure(
                name="burst_runs",
                what="flow runs for it",
                value=runs,
                unit="",
                target=Target(on="value", bound=_MOST_RUNS),
            ),
            Figure(
                name="burst_memory",
                what="most memory of the worker",
                value=peaks.worker,
                unit="MB",
                target=Target(on="value", bound=_MOST_MB),
                note=_memory_note(peaks),
            ),
        ],
        detail={"resident": peaks.resident, "anonymous": peaks.anonymous, "together": peaks.together},
        verified=verified,
    )


def _memory_note(peaks: processes.Peaks) -> str:
    each = ", ".join(f"{kind} {peaks.resident.get(kind, 0.0):.0f} MB" for kind in processes.WORKER)
    return f"resident: {each}; together {peaks.together:.0f} MB"
