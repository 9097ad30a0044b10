"""The sweep: compares bucket with ledger and repairs what events missed. The guarantee that events never give.

It runs every interval, and at once after a listener has connected (again). The webhook that receives a store's
notifications is another process: what it missed while it was down, the interval covers.

Old objects (`Backfill`) may be a million at once. A sweep records the first of them, and the others in the pause after
it, a page at a time: what is new is never found later by more than a page of them.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from penstock.declarations import Dataset
from penstock.errors import LedgerUnavailable, ObjectMissing, PenstockError, SettingsError, Terminal, Transient
from penstock.keys import backlog_of
from penstock.landing import Landing
from penstock.ledger import Ledger
from penstock.model import ENVELOPE_PREFIX, RESERVED_PREFIX, Stat, State, Via
from penstock.objects import ObjectStore

log = logging.getLogger(__name__)

# As many keys as a page of the listing: no more is ever in memory.
_BATCH = 1000
# Envelopes that need no second look are remembered; beyond this some are read again, which costs time only.
_MOST_LOOKED_AT = 10_000

# Old objects that a sweep records besides: some always, since the pause after it may be cut short each time.
_OLD_IN_A_SWEEP = 1000

# A younger envelope's webhook may still be about to record it itself.
_ORPHAN_AGE = timedelta(minutes=1)


@dataclass(frozen=True, kw_only=True)
class Swept:
    """What a sweep saw and did. `resumed`: it began where an earlier one was cut short, not at the beginning.

    `skipped` are keys that could not be asked for, though the store answers: the next sweep tries them again.
    `put_off` are old objects that are not recorded yet.
    """

    resumed: bool = False
    listed: int = 0
    skipped: int = 0
    put_off: int = 0
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
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self._bucket = bucket
        self._store = store
        self._ledger = ledger
        self._landing = landing
        self._datasets = datasets
        self._clock = clock
        self._alive = alive
        self._soon = threading.Event()
        # Key and etag of envelopes that have no row of their own and need none: every delivery came again in another,
        # or they cannot be read. Kept in memory, because a dataset declared since is a reason to look again.
        self._looked_at: dict[str, str] = {}
        self._skipped = 0
        self._said_skipping = False
        # How many old objects may still be recorded (None: all), how many were put off, and the key after which those
        # are (None: there are none).
        self._most_old: int | None = None
        self._put_off = 0
        self._old_after: str | None = None

    def soon(self) -> None:
        """Sweep as soon as possible, not only when the interval is over."""
        self._soon.set()

    def run_once(self, prefix: str = "", *, afresh: bool = False, most_old: int | None = None) -> Swept:
        """List the keys under `prefix` in batches and record what the ledger lacks.

        The ledger keeps a position for each prefix: a sweep that was cut short, by whatever, is gone on with, once;
        `afresh` begins at the beginning all the same. A key that cannot be asked for while the store answers holds up
        no other. Of old objects at most `most_old` are recorded. Raises Transient, and SettingsError or ObjectMissing
        when keys or bucket are wrong.
        """
        positions = self._ledger.positions
        after = positions.after(self._bucket, prefix)
        if after:
            # Used up before it is used: what makes sweeps end or hang there must not hide the keys before it for ever.
            # A store that is away is none of that, and leaves it as it is.
            self._store.ping()
            positions.clear(self._bucket, prefix)
        if afresh:
            after = ""
        self._skipped = 0
        adopted = self._ledger.arrivals.adopt(self._datasets)
        self._most_old, self._put_off, self._old_after = most_old, 0, None
        listed = recorded = deliveries = 0
        moved = False
        for batch in _batches(self._store.list(self._bucket, prefix=prefix, start_after=after)):
            self._alive()
            listed += len(batch)
            envelopes = [stat for stat in batch if stat.key.startswith(ENVELOPE_PREFIX)]
            recorded += self._compare(batch)
            deliveries += self._adopt_orphans(envelopes)
            if len(batch) == _BATCH:
                positions.move(self._bucket, prefix, batch[-1].key)
                moved = True
        if moved:
            positions.clear(self._bucket, prefix)
        self._said_skipping = self._skipped > 0
        return Swept(
            resumed=bool(after),
            listed=listed,
            skipped=self._skipped,
            put_off=self._put_off,
            recorded=recorded,
            deliveries=deliveries,
            adopted=adopted,
        )

    def run(self, stop: threading.Event, *, every: Callable[[float], float], monotonic: Callable[[], float]) -> None:
        """Sweep at start, when asked, and every so often: `every` gives the pause after a sweep of so many seconds,
        0 after one that failed.

        After the rest of one that was cut short, a whole one follows at once: what came meanwhile may lie before it.
        """
        away = False
        while not stop.is_set():
            self._alive()
            self._soon.clear()
            began = monotonic()
            took = 0.0
            try:
                swept = self.run_once(most_old=_OLD_IN_A_SWEEP)
                took = monotonic() - began
                if swept.recorded or swept.deliveries or swept.adopted:
                    log.info(
                        "the sweep found %d objects and %d deliveries that no event told of",
                        swept.recorded + swept.adopted,
                        swept.deliveries,
                    )
                if swept.put_off:
                    log.info("%d old objects are recorded in the pauses between the sweeps", swept.put_off)
                if swept.resumed:
                    away = False
                    continue
                until = monotonic() + every(took)
                self._record_old(stop, until, monotonic)
            except (Transient, SettingsError, ObjectMissing) as error:
                if not away:
                    log.warning("the sweep stopped: %s; it is tried again", error)
                away = True
                until = monotonic() + every(took)
            else:
                away = False
            self._wait(stop, until, monotonic)

    def _wait(self, stop: threading.Event, until: float, monotonic: Callable[[], float]) -> None:
        while not stop.is_set() and not self._soon.is_set() and (left := until - monotonic()) > 0:
            self._alive()
            # In short waits, so that `stop` ends it too.
            self._soon.wait(min(left, 0.5))

    def _record_old(self, stop: threading.Event, until: float, monotonic: Callable[[], float]) -> None:
        """Go on with what a sweep put off, until it is time for the next one."""
        while self._old_after is not None and not stop.is_set():
            page = next(iter(_batches(self._store.list(self._bucket, start_after=self._old_after))), [])
            self._alive()
            self._most_old = None
            self._compare(page)
            self._old_after = page[-1].key if len(page) == _BATCH else None
            if self._soon.is_set() or monotonic() >= until:
                return

    def _compare(self, batch: Sequence[Stat]) -> int:
        """Record what the ledger lacks of a page, or knows otherwise; old objects beyond what may be are put off."""
        plain = [stat for stat in batch if not stat.key.startswith(RESERVED_PREFIX)]
        known = self._ledger.arrivals.latest(self._bucket, (stat.key for stat in plain))
        changed = [
            stat
            for stat in plain
            if stat.key not in known
            or known[stat.key].etag != stat.etag
            or known[stat.key].state in (State.MISSING, State.SUPERSEDED)
        ]
        keys = [stat.key for stat in changed if self._is_for_now(stat)]
        if not keys:
            return 0
        return self._landing.seen(self._bucket, keys, Via.SWEEP, progress=self._alive, skip=self._skip)

    def _is_for_now(self, stat: Stat) -> bool:
        dataset = self._landing.dataset_for(stat.key)
        if self._most_old is None or dataset is None or not backlog_of(dataset, stat.key, stat.modified):
            return True
        if self._most_old:
            self._most_old -= 1
            return True
        self._put_off += 1
        if self._old_after is None:
            # Before this key, wherever the page began.
            self._old_after = stat.key[:-1]
        return False

    def _skip(self, key: str, error: PenstockError) -> None:
        self._skipped += 1
        if not self._said_skipping:
            log.warning("%s is left to the next sweep, and so is what else the store does not tell of: %s", key, error)
        self._said_skipping = True

    def _adopt_orphans(self, envelopes: Sequence[Stat]) -> int:
        old = [stat for stat in envelopes if self._clock() - stat.modified > _ORPHAN_AGE]
        known = self._ledger.deliveries.envelopes(self._bucket, (stat.key for stat in old))
        found = 0
        for stat in old:
            self._alive()
            if stat.key in known or self._looked_at.get(stat.key) == stat.etag:
                continue
            try:
                found += self._landing.adopt_envelope(stat)
            except LedgerUnavailable:
                raise
            except (Transient, SettingsError) as error:
                self._store.ping()
                self._skip(stat.key, error)
                continue
            except Terminal as error:
                log.warning("the envelope %s cannot be read: %s", stat.key, error)
            if len(self._looked_at) >= _MOST_LOOKED_AT:
                del self._looked_at[next(iter(self._looked_at))]
            self._looked_at[stat.key] = stat.etag
        return found


def _batches(stats: Iterable[Stat]) -> Iterable[list[Stat]]:
    iterator = iter(stats)
    while batch := list(itertools.islice(iterator, _BATCH)):
        yield batch
