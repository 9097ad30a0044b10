"""The one way in: make an object durable in the store, then record its arrival in the ledger.

A crash between the two is repaired by the sweep (files, PUTs) or by the sender's retry (deliveries).
"""

from __future__ import annotations

import io
import logging
import secrets
from collections import deque
from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import BinaryIO, cast

from penstock import envelope, faults
from penstock.declarations import Dataset
from penstock.errors import FileChanged, ObjectMissing, PenstockError, Refused, SettingsError, Transient
from penstock.keys import takes
from penstock.ledger import Ledger
from penstock.ledger.arrivals import FileMark, Seen
from penstock.ledger.decide import no_dataset
from penstock.model import RESERVED_PREFIX, Delivery, ObjectRef, Stat, Via
from penstock.notifications import Unusable
from penstock.objects import KEY_BYTES, ObjectStore

log = logging.getLogger(__name__)

# Hints that are recorded together: what a crash or a slow store costs is no more than these.
_TOGETHER = 200
_ASKED_AT_ONCE = 8


def dataset_for(key: str, datasets: Sequence[Dataset]) -> Dataset | None:
    """The dataset that takes `key`; no two take the same data (`project.py` sees to it)."""
    return next((dataset for dataset in datasets if takes(dataset, key)), None)


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
        self._asking = ThreadPoolExecutor(_ASKED_AT_ONCE, "ask the store")

    def dataset_for(self, key: str) -> Dataset | None:
        """The dataset that takes `key`."""
        return dataset_for(key, self._datasets)

    def put_file(
        self,
        key: str,
        data: BinaryIO,
        size: int,
        *,
        unchanged: Callable[[], bool],
        progress: Callable[[], None] = lambda: None,
    ) -> Stat:
        """Put a file of the inbox, which is then for `record_files`.

        When the file is not `unchanged`, FileChanged is raised before the store has the last byte, so that no
        half-written object is ever seen. Raises Refused for a key that cannot be or that no dataset takes, Transient
        when the store does not take it. `progress` is called for each piece that is sent.
        """
        if self.dataset_for(key) is None:
            raise Refused(no_dataset(key, self._datasets))
        if not size and not unchanged():  # the store's client never reads from what has no bytes
            raise FileChanged
        faults.point("landing.file_before_put")
        stat = self._store.put(self._bucket, key, cast(BinaryIO, _Guarded(data, size, unchanged, progress)), size)
        faults.point("landing.file_after_put")
        return stat

    def put(self, key: str, data: BinaryIO, size: int) -> bool:
        """Put what a flow made and record it; returns whether it was new, since the same bytes again are not.

        Of two that put the same at once both may be told so, though it is recorded once; and so is everybody by a store
        whose ETags are not made of the bytes. Raises Refused for a key that cannot be or that no dataset takes, and
        Transient; a flow that tries again does no harm.
        """
        if key.endswith("/") or key.startswith(RESERVED_PREFIX):
            raise Refused(f"{key} is the name of a folder, or penstock's own; land under the name of an object")
        if self.dataset_for(key) is None:
            raise Refused(no_dataset(key, self._datasets))
        try:
            before = self._store.stat(self._bucket, key).etag
        except ObjectMissing:
            before = None
        stat = self._store.put(self._bucket, key, data, size)
        # The store's notification may be recorded first, and then there is nothing to record for what is new.
        return self.seen(self._bucket, [key], Via.FLOW) > 0 or stat.etag != before

    def _seen(self, stat: Stat) -> Seen:
        dataset = self.dataset_for(stat.key)
        return Seen(stat=stat, dataset=dataset, untaken=None if dataset else no_dataset(stat.key, self._datasets))

    def still_there(self, put: Stat) -> Stat | None:
        """What `put_file` put and nobody recorded; None when the store has something else there by now."""
        try:
            now = self._store.stat(put.bucket, put.key)
        except ObjectMissing:
            return None
        return now if now.etag == put.etag else None

    def record_files(self, put: Sequence[tuple[Stat, FileMark | None]], *, refused: Container[str] = ()) -> int:
        """Record together, in their order, what was put, and remember the files; returns how many were new.

        The mark is None for a file that was written since: it is not remembered. The keys `refused` are of files that
        could not be taken earlier, which is forgotten. Raises Transient, and then nothing is recorded.
        """
        seen = [
            replace(
                self._seen(stat),
                mark=replace(mark, etag=stat.etag) if mark is not None else None,
                was_refused=stat.key in refused,
            )
            for stat, mark in put
        ]
        new = self._ledger.arrivals.record(seen, Via.FOLDER, datasets=self._datasets)
        faults.point("landing.file_after_record")
        return new

    def seen(
        self,
        bucket: str,
        keys: Sequence[str],
        via: Via,
        *,
        progress: Callable[[], None] = lambda: None,
        skip: Callable[[str, PenstockError], None] | None = None,
    ) -> int:
        """Hints that these keys changed: stat each and record what is new; returns how many were.

        Keys that are gone by now, and penstock's own, are passed over; a key that cannot be asked for goes to
        quarantine. `progress` is called for each key. Raises Transient, and SettingsError when the store does not take
        our keys; with `skip`, which is told, one key that meets either while the store answers is passed over.
        """
        distinct = list(dict.fromkeys(keys))
        return sum(
            self._seen_together(bucket, distinct[start : start + _TOGETHER], via, progress, skip)
            for start in range(0, len(distinct), _TOGETHER)
        )

    def removed(
        self,
        bucket: str,
        keys: Sequence[str],
        via: Via,
        *,
        skip: Callable[[str, PenstockError], None] | None = None,
    ) -> int:
        """Hints that these keys were removed; returns how many generations waited and became missing.

        What cannot be read any more, by its version neither, becomes missing before a run asks for it. A key that is
        there is a hint like any other: a removal that is told of late hides nothing. Otherwise as `seen`.
        """
        distinct = list(dict.fromkeys(keys))
        return sum(
            self._removed_together(bucket, distinct[start : start + _TOGETHER], via, skip)
            for start in range(0, len(distinct), _TOGETHER)
        )

    def _removed_together(
        self, bucket: str, keys: Sequence[str], via: Via, skip: Callable[[str, PenstockError], None] | None
    ) -> int:
        asked = [key for key in keys if not key.startswith(RESERVED_PREFIX) and _may_exist(key)]
        # Before the store is asked: what is recorded after that was there after that, and is not meant.
        waiting = self._ledger.removals.untried(bucket, asked)
        gone: list[str] = []
        again: list[str] = []
        for key, answer in self._ask(bucket, asked):
            if isinstance(answer, ObjectMissing):
                gone.append(key)
            elif not isinstance(answer, Refused):
                again.append(key)
        lost = [ref for key in gone for ref in waiting.get(key, ()) if not self._readable(ref, skip)]
        missing = self._ledger.removals.record(bucket, gone, lost)
        # The same bytes may have come back meanwhile, and have passed for what became missing.
        self._seen_together(bucket, [*again, *sorted({ref.key for ref in missing})], via, lambda: None, skip)
        return len(missing)

    def _readable(self, ref: ObjectRef, skip: Callable[[str, PenstockError], None] | None) -> bool:
        """Whether a run could still read a generation whose key is gone; what cannot be told is left to the run."""
        if ref.version_id is None:
            return False
        try:
            self._store.stat(ref.bucket, ref.key, version_id=ref.version_id)
        except ObjectMissing:
            return False
        except Refused:
            return True
        except (Transient, SettingsError) as error:
            if skip is None:
                raise
            self._store.ping()
            skip(ref.key, error)
        return True

    def keep_unusable(self, parts: Sequence[Unusable]) -> int:
        """Put what no notification can be made of into quarantine; returns how many were new and are kept."""
        return self._ledger.unusable.keep(parts)

    def _seen_together(
        self,
        bucket: str,
        keys: Sequence[str],
        via: Via,
        progress: Callable[[], None],
        skip: Callable[[str, PenstockError], None] | None,
    ) -> int:
        found = []
        refused: dict[str, tuple[str | None, str]] = {}
        asked = [key for key in keys if not key.startswith(RESERVED_PREFIX) and not key.endswith("/")]
        for key, answer in self._ask(bucket, asked):
            progress()
            if isinstance(answer, Stat):
                found.append(self._seen(answer))
            elif isinstance(answer, ObjectMissing):
                log.debug("hint for %s leads nowhere: %s", key, answer)
            elif isinstance(answer, Refused):
                if _may_exist(key):
                    dataset = self.dataset_for(key)
                    refused[key] = (dataset.name if dataset else None, f"{answer}; put it under another key")
            elif skip is None or not isinstance(answer, Transient | SettingsError):
                raise answer
            else:
                self._store.ping()
                skip(key, answer)
        if refused and self._ledger.arrivals.refuse_keys(bucket, refused, via):
            log.warning("keys that cannot be asked for are in quarantine, such as %r", next(iter(refused)))
        return self._ledger.arrivals.record(found, via, datasets=self._datasets) if found else 0

    def _ask(self, bucket: str, keys: Sequence[str]) -> Iterator[tuple[str, Stat | PenstockError]]:
        """What the store says of each key, in their order; of many, a few are asked for at a time."""

        def ask(key: str) -> Stat | PenstockError:
            try:
                return self._store.stat(bucket, key)
            except PenstockError as error:
                return error

        if len(keys) == 1:
            yield keys[0], ask(keys[0])
            return
        waiting: deque[tuple[str, Future[Stat | PenstockError]]] = deque()
        try:
            for key in keys:
                if len(waiting) == 2 * _ASKED_AT_ONCE:
                    first, answer = waiting.popleft()
                    yield first, answer.result()
                waiting.append((key, self._asking.submit(ask, key)))
            while waiting:
                first, answer = waiting.popleft()
                yield first, answer.result()
        finally:
            for _, answer in waiting:
                answer.cancel()

    def accept(self, deliveries: Sequence[Delivery]) -> list[bool]:
        """Make deliveries of one dataset durable; True for each that was accepted before. Raises Transient.

        They ride in one envelope object, which is in the store before the ledger knows of it.
        """
        known: set[tuple[str, str]] = set()
        for source in {delivery.source for delivery in deliveries}:
            ids = self._ledger.deliveries.known(source, (d.id for d in deliveries if d.source == source))
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
        raced = self._ledger.deliveries.record(
            self._bucket, key, stat, entries, Via.WEBHOOK, announce_each=self._announce_each
        )
        faults.point("landing.envelope_after_record")
        lost = {(entries[entry].source, entries[entry].id) for entry in raced}
        return [
            was or (delivery.source, delivery.id) in lost for was, delivery in zip(duplicate, deliveries, strict=True)
        ]

    def adopt_envelope(self, stat: Stat) -> int:
        """Record the deliveries of an envelope that a crash left without a ledger row; returns how many were new."""
        found = envelope.decode(self._store.read(stat.bucket, stat.key, etag=stat.etag))
        entries = {
            entry: delivery for entry, delivery in enumerate(found, start=1) if delivery.dataset in self._by_name
        }
        known = self._ledger.deliveries.record(
            stat.bucket, stat.key, stat, entries, Via.SWEEP, announce_each=self._announce_each
        )
        return len(entries) - len(known)

    def check(self) -> None:
        """Raise PenstockError unless the landing bucket is there for our keys, and the ledger answers."""
        self._store.ping(self._bucket)
        self._ledger.check()


def _may_exist(key: str) -> bool:
    """Whether any S3 store can have a key like this; a hint for another is senseless, and no database could hold it."""
    try:
        return bool(key.strip()) and "\0" not in key and len(key.encode()) <= KEY_BYTES
    except UnicodeEncodeError:
        return False


class _Guarded(io.RawIOBase):
    """A file's bytes, the last of which are handed out only while the file is unchanged."""

    def __init__(self, data: BinaryIO, size: int, unchanged: Callable[[], bool], progress: Callable[[], None]) -> None:
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
        if (not chunk or not self._left) and not self._unchanged():
            raise FileChanged
        return chunk
