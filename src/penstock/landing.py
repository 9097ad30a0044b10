"""The one way in: make an object durable in the store, then record its arrival in the ledger.

A crash between the two is repaired by the sweep (files, PUTs) or by the sender's retry (deliveries).
"""

from __future__ import annotations

import io
import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import BinaryIO, cast

from penstock import envelope, faults
from penstock.declarations import Dataset
from penstock.errors import FileChanged, ObjectMissing, Refused
from penstock.ledger import Ledger
from penstock.ledger.arrivals import FileMark, Seen
from penstock.ledger.decide import no_dataset
from penstock.model import RESERVED_PREFIX, Delivery, Stat, Via
from penstock.objects import KEY_BYTES, ObjectStore

log = logging.getLogger(__name__)


def dataset_for(key: str, datasets: Sequence[Dataset]) -> Dataset | None:
    """The dataset whose prefix takes `key`; prefixes do not overlap (`project.py` sees to it)."""
    return next((dataset for dataset in datasets if key.startswith(dataset.prefix)), None)


class Landing:
    """Puts and records. Safe to share between threads."""

    def __init__(
        self,
        *,
        store: ObjectStore,
        ledger: Ledger,
        datasets: Sequence[Dataset],
        bucket: str,
        unique: Callable[[], str] = lambda: secrets.token_hex(8),
        announce_each: frozenset[str] = frozenset(),
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._datasets = tuple(datasets)
        self._by_name = {dataset.name: dataset for dataset in datasets}
        self._bucket = bucket
        self._unique = unique
        self._announce_each = announce_each

    def dataset_for(self, key: str) -> Dataset | None:
        """The dataset that takes `key`."""
        return dataset_for(key, self._datasets)

    def put_file(
        self,
        key: str,
        data: BinaryIO,
        size: int,
        *,
        unchanged: Callable[[], FileMark | None],
        progress: Callable[[], None] = lambda: None,
    ) -> bool:
        """Put a file of the inbox and record it; True when it was a new generation.

        `unchanged` gives what to remember of the file, or None when it was written meanwhile: then FileChanged is
        raised before the store has the last byte, so that no half-written object is ever seen. Raises Refused for a
        key that cannot be or that no dataset takes, Transient when store or ledger do not take it. `progress` is called
        for each piece that is sent.
        """
        dataset = self.dataset_for(key)
        if dataset is None:
            raise Refused(no_dataset(key))
        if not size and unchanged() is None:  # the store's client never reads from what has no bytes
            raise FileChanged
        faults.point("landing.file_before_put")
        stat = self._store.put(self._bucket, key, cast(BinaryIO, _Guarded(data, size, unchanged, progress)), size)
        faults.point("landing.file_after_put")
        mark = unchanged()
        marked = replace(mark, etag=stat.etag) if mark is not None else None
        new = self._ledger.arrivals.record([Seen(stat=stat, dataset=dataset)], Via.FOLDER, mark=marked) > 0
        faults.point("landing.file_after_record")
        return new

    def seen(self, bucket: str, keys: Sequence[str], via: Via) -> int:
        """Hints that these keys changed: stat each and record what is new; returns how many were.

        Keys that are gone by now, and penstock's own, are passed over; a key that cannot be asked for goes to
        quarantine. Raises Transient.
        """
        found = []
        refused: dict[str, tuple[str | None, str]] = {}
        for key in dict.fromkeys(keys):
            if key.startswith(RESERVED_PREFIX) or key.endswith("/"):
                continue
            try:
                stat = self._store.stat(bucket, key)
            except ObjectMissing as error:
                log.debug("hint for %s leads nowhere: %s", key, error)
                continue
            except Refused as error:
                if _may_exist(key):
                    dataset = self.dataset_for(key)
                    refused[key] = (dataset.name if dataset else None, f"{error}; put it under another key")
                continue
            found.append(Seen(stat=stat, dataset=self.dataset_for(key)))
        if refused and self._ledger.arrivals.refuse_keys(bucket, refused, via):
            log.warning("keys that cannot be asked for are in quarantine, such as %r", next(iter(refused)))
        return self._ledger.arrivals.record(found, via) if found else 0

    def accept(self, deliveries: Sequence[Delivery]) -> list[bool]:
        """Make deliveries of one dataset durable; True for each that was accepted before. Raises Transient.

        They ride in one envelope object, which is in the store before the ledger knows of it.
        """
        known: set[tuple[str, str]] = set()
        for source in {delivery.source for delivery in deliveries}:
            ids = self._ledger.arrivals.known_deliveries(source, (d.id for d in deliveries if d.source == source))
            known.update((source, found) for found in ids)
        fresh: dict[tuple[str, str], Delivery] = {}
        duplicate = []
        for delivery in deliveries:
            name = (delivery.source, delivery.id)
            duplicate.append(name in known or name in fresh)
            if not duplicate[-1]:
                fresh[name] = delivery
        if not fresh:
            return duplicate
        riding = list(fresh.values())
        key = envelope.envelope_key(riding[0].dataset, riding[0].received_at, self._unique())
        stat = self._store.put_bytes(self._bucket, key, envelope.encode(riding), content_type="application/x-ndjson")
        faults.point("landing.envelope_after_put")
        entries = dict(enumerate(riding, start=1))
        raced = self._ledger.arrivals.record_deliveries(self._bucket, key, stat, entries, Via.WEBHOOK)
        faults.point("landing.envelope_after_record")
        lost = {(entries[entry].source, entries[entry].id) for entry in raced}
        for delivery in riding:
            if delivery.source in self._announce_each and (delivery.source, delivery.id) not in lost:
                self._ledger.arrivals.announce_delivery(delivery)
        return [
            was or (delivery.source, delivery.id) in lost for was, delivery in zip(duplicate, deliveries, strict=True)
        ]

    def adopt_envelope(self, stat: Stat) -> int:
        """Record the deliveries of an envelope that a crash left without a ledger row; returns how many were new."""
        found = envelope.decode(self._store.read(stat.bucket, stat.key, etag=stat.etag))
        entries = {
            entry: delivery for entry, delivery in enumerate(found, start=1) if delivery.dataset in self._by_name
        }
        known = self._ledger.arrivals.record_deliveries(stat.bucket, stat.key, stat, entries, Via.SWEEP)
        return len(entries) - len(known)

    def check(self) -> None:
        """Raise Transient unless both store and ledger answer."""
        self._store.ping()
        self._ledger.check()


def _may_exist(key: str) -> bool:
    """Whether any S3 store can have a key like this; a hint for another is senseless, and no database could hold it."""
    try:
        return bool(key.strip()) and "\0" not in key and len(key.encode()) <= KEY_BYTES
    except UnicodeEncodeError:
        return False


class _Guarded(io.RawIOBase):
    """A file's bytes, the last of which are handed out only while the file is unchanged."""

    def __init__(
        self, data: BinaryIO, size: int, unchanged: Callable[[], FileMark | None], progress: Callable[[], None]
    ) -> None:
        super().__init__()
        self._data = data
        self._left = size
        self._unchanged = unchanged
        self._progress = progress

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        chunk = self._data.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(chunk)
        self._progress()
        if (not chunk or not self._left) and self._unchanged() is None:
            raise FileChanged
        return chunk
