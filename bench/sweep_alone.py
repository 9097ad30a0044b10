"""A process that lists a bucket and sweeps it, in turns, and prints what that took and how much memory, as JSON."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
from itertools import islice
from pathlib import Path

from bench import parts, processes
from penstock.declarations import Dataset
from penstock.landing import Landing
from penstock.ledger import Ledger
from penstock.ledger.database import utc_now
from penstock.objects import ObjectStore
from penstock.sensors.sweep import Sweep

_WARM_KEYS = 10_000


def main(folder: Path, endpoint: str, rounds: int, *, fresh: bool) -> None:
    """`fresh`: the first sweep finds everything new, and is told of by itself."""
    store = ObjectStore(endpoint, os.environ["BENCH_S3_KEY"], os.environ["BENCH_S3_SECRET"])
    ledger = Ledger(f"sqlite:///{folder / 'ledger.db'}", project="bench")
    datasets = [Dataset(name=parts.DATASET)]
    sweep = Sweep(
        parts.BUCKET,
        store=store,
        ledger=ledger,
        landing=Landing(store=store, ledger=ledger, datasets=datasets, bucket=parts.BUCKET),
        datasets=datasets,
        clock=utc_now,
    )
    first = recorded_first = 0.0
    if fresh:
        began = time.perf_counter()
        recorded_first = sweep.run_once().recorded
        first = time.perf_counter() - began
    deque(islice(store.list(parts.BUCKET), _WARM_KEYS), maxlen=0)
    before = processes.memory(os.getpid())["resident"]
    # The kernel counts the peak anew from here.
    Path("/proc/self/clear_refs").write_text("5")
    listing, sweeping = [], []
    listed = swept = recorded = 0
    for _ in range(rounds):
        began = time.perf_counter()
        listed = sum(1 for _ in store.list(parts.BUCKET))
        listing.append(time.perf_counter() - began)
        began = time.perf_counter()
        found = sweep.run_once()
        sweeping.append(time.perf_counter() - began)
        swept, recorded = found.listed, recorded + found.recorded
    peak = processes.memory(os.getpid())["peak"]
    ledger.close()
    print(
        json.dumps(
            {
                "listing": listing,
                "sweep": sweeping,
                "first": first,
                "recorded_first": recorded_first,
                "listed": listed,
                "swept": swept,
                "recorded": recorded,
                "peak_mb": peak,
                "growth_mb": max(0.0, peak - before),
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), fresh=sys.argv[4] == "fresh")
