"""The sweep over a million keys, where nothing is new; against the bare listing of the same keys."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import parts, rows
from bench.figures import Figure, Result, Target, Wrong, middle
from bench.session import Session

_MOST_TIMES = 1.5
_MOST_GROWTH_MB = 50.0
_LONGEST = 900
_PUTTERS = 8


def run(session: Session) -> Result:
    """A million on a stub that speaks S3's listing, and twenty thousand on a real MinIO."""
    many, real = session.pick((1_000_000, 20_000), (5000, 300))
    folder = session.new_folder("sweep")
    folder.mkdir()
    with _stub(many) as endpoint, parts.ledger(folder):
        session.say(f"filling the ledger with {many:,} objects")
        parts.fill_ledger(folder / "ledger.db", many)
        session.say(f"listing, then sweeping {many:,} keys")
        stubbed = _sweep(folder, endpoint, "stub", "stub-secret", many, rounds=1)
    own = session.new_folder("sweep-real")
    own.mkdir()
    with parts.minio(own / "minio") as store, parts.ledger(own):
        ids = rows.Ids()
        session.say(f"{real:,} objects in a real MinIO")
        with ThreadPoolExecutor(_PUTTERS) as pool:
            items = [(parts.key_of(number), rows.csv(ids.take(1))) for number in range(1, real + 1)]
            for _ in pool.map(lambda item: store.client.put_bytes(parts.BUCKET, *item), items):
                pass
        session.say("a first sweep, which records them, and others that find nothing new")
        first = _sweep(own, store.endpoint, store.key, store.secret, real, rounds=3, fresh=True)
    return Result(
        name="sweep",
        title=f"A sweep over {many:,} keys, and over {real:,} in a real MinIO",
        method=(
            "Every key is in the ledger with its etag, so that the sweep finds nothing: the usual case. The bare "
            "listing is the same client going through the same pages. The million is served by a stub that answers as "
            "S3 does, so that the client parses real pages; on the real MinIO each is the median of three in turns. "
            "Both run in a process of their own; memory is its peak over what it held after 10,000 keys."
        ),
        figures=[
            _against_listing("sweep_stub", f"sweep of {many:,} keys (stub)", stubbed),
            Figure(
                name="sweep_memory",
                what=f"memory that {many:,} keys add",
                value=stubbed["growth_mb"],
                unit="MB",
                target=Target(on="value", bound=_MOST_GROWTH_MB),
                note=f"peak {stubbed['peak_mb']:.0f} MB",
            ),
            _against_listing("sweep_real", f"sweep of {real:,} keys (MinIO)", first),
            Figure(
                name="sweep_first",
                what=f"first sweep of {real:,} keys, which records them",
                value=first["first"],
                unit="s",
                against="bare listing",
                peer=middle(first["listing"]),
            ),
        ],
        detail={"stub": stubbed, "real": first},
        verified=f"each sweep saw {many:,} and {real:,} keys and recorded nothing; the first recorded {real:,}",
    )


def _against_listing(name: str, what: str, found: dict[str, Any]) -> Figure:
    return Figure(
        name=name,
        what=what,
        value=middle(found["sweep"]),
        unit="s",
        against="bare listing",
        peer=middle(found["listing"]),
        target=Target(on="times", bound=_MOST_TIMES),
    )


def _sweep(
    folder: Path, endpoint: str, key: str, secret: str, keys: int, *, rounds: int, fresh: bool = False
) -> dict[str, Any]:
    env = {**os.environ, "BENCH_S3_KEY": key, "BENCH_S3_SECRET": secret}
    done = subprocess.run(
        [sys.executable, "-m", "bench.sweep_alone", str(folder), endpoint, str(rounds), "fresh" if fresh else "known"],
        env=env,
        capture_output=True,
        text=True,
        timeout=_LONGEST,
        check=False,
    )
    if done.returncode:
        raise Wrong(f"the sweep ended with {done.returncode}: {done.stderr[-1500:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    wanted = {"listed": keys, "swept": keys, "recorded": 0, "recorded_first": keys if fresh else 0}
    if wrong := {name: found[name] for name, value in wanted.items() if found[name] != value}:
        raise Wrong(f"of {keys} keys: {wrong}")
    return found


@contextmanager
def _stub(count: int) -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.peers.listing_stub", str(count)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        endpoint = process.stdout.readline().strip()
        if not endpoint:
            raise Wrong("the listing stub did not start")
        yield endpoint
    finally:
        process.terminate()
        process.wait(30)
