"""The sweep: compares bucket with ledger and repairs what events missed. The guarantee that events never give."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from penstock.declarations import Dataset
from penstock.errors import Terminal, Transient
from penstock.landing import Landing
from penstock.ledger import Ledger
from penstock.model import ENVELOPE_PREFIX, RESERVED_PREFIX, Stat, State, Via
from penstock.objects import ObjectStore

log = logging.getLogger(__name__)

_BATCH = 1000

# A younger envelope's webhook may still be about to record it itself.
_ORPHAN_AGE = timedelta(minutes=1)


@dataclass(frozen=True, kw_only=True)
class Swept:
    """What a sweep saw and did."""

    listed: int = 0
    recorded: int = 0
    deliveries: int = 0
    adopted: int = 0


class Sweep:
    """`run_once` is one whole sweep of a bucket."""

    def __init__(
        self,
        bucket: str,
        *,
        store: ObjectStore,
        ledger: Ledger,
        landing: Landing,
        datasets: Sequence[Dataset],
        clock: Callable[[], datetime],
    ) -> None:
        self._bucket = bucket
        self._store = store
        self._ledger = ledger
        self._landing = landing
        self._datasets = datasets
        self._clock = clock
        self._soon = threading.Event()

    def soon(self) -> None:
        """Sweep as soon as possible, not only when the interval is over."""
        self._soon.set()

    def run_once(self, prefix: str = "") -> Swept:
        """List the bucket in batches and record what the ledger lacks. Raises Transient."""
        adopted = self._ledger.arrivals.adopt(self._datasets)
        listed = recorded = deliveries = 0
        for batch in _batches(self._store.list(self._bucket, prefix=prefix)):
            listed += len(batch)
            envelopes = [stat for stat in batch if stat.key.startswith(ENVELOPE_PREFIX)]
            plain = [stat for stat in batch if not stat.key.startswith(RESERVED_PREFIX)]
            recorded += self._compare(plain)
            deliveries += self._adopt_orphans(envelopes)
        return Swept(listed=listed, recorded=recorded, deliveries=deliveries, adopted=adopted)

    def run(self, stop: threading.Event, *, every: Callable[[float], float], monotonic: Callable[[], float]) -> None:
        """Sweep at start, when asked, and every so often: `every` gives the pause after a sweep of so many seconds."""
        away = False
        while not stop.is_set():
            self._soon.clear()
            began = monotonic()
            try:
                swept = self.run_once()
            except Transient as error:
                if not away:
                    log.warning("the sweep stopped: %s; it is tried again", error)
                away = True
            else:
                away = False
                if swept.recorded or swept.deliveries or swept.adopted:
                    log.info(
                        "the sweep found %d objects and %d deliveries that no event told of",
                        swept.recorded + swept.adopted,
                        swept.deliveries,
                    )
            self._wait(stop, every(monotonic() - began), monotonic)

    def _wait(self, stop: threading.Event, pause: float, monotonic: Callable[[], float]) -> None:
        until = monotonic() + pause
        while not stop.is_set() and not self._soon.is_set() and (left := until - monotonic()) > 0:
            # In short waits, so that `stop` ends it too.
            self._soon.wait(min(left, 0.5))

    def _compare(self, batch: Sequence[Stat]) -> int:
        known = self._ledger.arrivals.latest(self._bucket, (stat.key for stat in batch))
        changed = [
            stat.key
            for stat in batch
            if stat.key not in known
            or known[stat.key].etag != stat.etag
            or known[stat.key].state in (State.MISSING, State.SUPERSEDED)
        ]
        return self._landing.seen(self._bucket, changed, Via.SWEEP) if changed else 0

    def _adopt_orphans(self, envelopes: Sequence[Stat]) -> int:
        old = [stat for stat in envelopes if self._clock() - stat.modified > _ORPHAN_AGE]
        known = self._ledger.arrivals.envelopes(self._bucket, (stat.key for stat in old))
        found = 0
        for stat in old:
            if stat.key in known:
                continue
            try:
                found += self._landing.adopt_envelope(stat)
            except Terminal as error:
                log.warning("the envelope %s cannot be read: %s", stat.key, error)
        return found


def _batches(stats: Iterable[Stat]) -> Iterable[list[Stat]]:
    iterator = iter(stats)
    while batch := list(itertools.islice(iterator, _BATCH)):
        yield batch
