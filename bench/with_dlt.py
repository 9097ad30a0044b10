"""The same many small CSVs, by dlt's filesystem source into DuckDB."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

from bench.figures import Figure, Result, Target, Wrong
from bench.session import Session
from bench.small_files import ROWS, find_and_load, warm_and_silenced
from bench.world import World

_TITLE = "The same CSVs by dlt"
_LONGEST = 600


def run(session: Session) -> Result:
    """Both once, over the same objects: dlt takes the better part of a minute."""
    if importlib.util.find_spec("dlt") is None:
        return Result(name="dlt", title=_TITLE, skipped="dlt is not installed; `make bench` brings it")
    count = session.pick(2000, 40)
    with session.running("dlt", sweep_seconds=3600) as world, warm_and_silenced(world, "found"):
        session.say(f"{count} CSVs by penstock, then by dlt")
        ours, keys = find_and_load(world, count)
        folder = keys[0].rpartition("/")[0]
        theirs, loaded = _dlt(session, world, folder)
        world.check()
    if loaded != count * ROWS:
        raise Wrong(f"dlt loaded {loaded} rows of {count * ROWS}")
    return Result(
        name="dlt",
        title=_TITLE,
        method=(
            "dlt's `filesystem` source with `incremental` on the modification date and its DuckDB reader (which hands "
            "on Arrow tables), into a new DuckDB file: `pipeline.run` alone, without imports and start-up. Penstock's "
            "time has all in it: finding by a sweep, recording, the flow run, the load. Each was measured once."
        ),
        figures=[
            Figure(
                name="dlt",
                what=f"{count:,} CSVs, found by a sweep and loaded",
                value=ours,
                unit="s",
                against="dlt",
                peer=theirs,
                target=Target(on="faster", bound=10.0, at_least=True),
            )
        ],
        verified=f"{count * ROWS:,} rows each, ours once for each (object, row)",
    )


def _dlt(session: Session, world: World, folder: str) -> tuple[float, int]:
    home = session.new_folder("dlt")
    home.mkdir()
    settings = world.settings
    env = {
        **os.environ,
        "BENCH_S3_URL": f"s3://{settings.bucket}/{folder}",
        "BENCH_S3_ENDPOINT": f"http://{settings.s3_endpoint}",
        "BENCH_S3_KEY": settings.s3_access_key,
        "BENCH_S3_SECRET": settings.s3_secret_key.get_secret_value(),
        "BENCH_S3_REGION": settings.s3_region,
        "DLT_DATA_DIR": str(home),
        "RUNTIME__DLTHUB_TELEMETRY": "false",
    }
    done = subprocess.run(
        [sys.executable, "-m", "bench.peers.dlt_files", str(home)],
        env=env,
        capture_output=True,
        text=True,
        timeout=_LONGEST,
        check=False,
    )
    if done.returncode:
        raise Wrong(f"dlt ended with {done.returncode}: {done.stderr[-1500:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return found["seconds"], found["rows"]
