"""The folder sensor: a finished file of the inbox goes to the bucket under the same path, once.

inotify is a hint; the scan at start and every interval is the truth. What waits is bounded: beyond that a scan finds it
again.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from watchdog.events import (
    DirCreatedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver
from watchdog.observers.polling import PollingObserverVFS

from penstock.declarations import Folder
from penstock.landing import Landing
from penstock.ledger.arrivals import Arrivals, FileMark
from penstock.sensors import files
from penstock.sensors.queue import Queue
from penstock.sensors.settle import Print, Writer, is_temporary
from penstock.sensors.taking import WAITED_OUT, Taking, print_of

log = logging.getLogger(__name__)

_MOST_WAITING = 20_000
# Where so many wait at once, the kernel may have dropped events, which nobody is told of.
_BURST = 1_000
_BATCH = 500
# So that `stop` is seen.
_LONGEST_WAIT = 0.5
# Scanning takes no greater share of the time than this, however many files are kept in the inbox.
_PAUSE_PER_SCAN = 50

# What is written to an open file is no event: its close is. Who polls sees no closing.
_INOTIFY_EVENTS: list[type[FileSystemEvent]] = [
    DirCreatedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileMovedEvent,
]


class FolderSensor:
    """Watches one folder. `offer` and `scan` feed it, `run_once` works off what is due, `run` does all of it.

    `roots` are all the folders that are watched: the ledger remembers their files together.
    """

    def __init__(
        self,
        root: Path,
        *,
        landing: Landing,
        arrivals: Arrivals,
        declared: Folder,
        monotonic: Callable[[], float],
        stamps: Callable[[], int] = files.stamp_clock,
        writer_of: Callable[..., Writer] = files.writer_of,
        alive: Callable[[], None] = lambda: None,
        roots: Sequence[Path] = (),
    ) -> None:
        self.root = root
        self._roots = tuple(roots) or (root,)
        self._arrivals = arrivals
        self._declared = declared
        self._monotonic = monotonic
        self._alive = alive
        self._queue = Queue(_MOST_WAITING, monotonic=monotonic)
        self._taking = Taking(
            root,
            queue=self._queue,
            landing=landing,
            arrivals=arrivals,
            declared=declared,
            monotonic=monotonic,
            stamps=stamps,
            writer_of=writer_of,
        )
        # When the slowest file had moved last.
        self._moved = -math.inf
        self._burst = False
        self._looked_back = False
        self._unscanned = False

    def offer(self, path: Path, *, hurry: bool = True) -> None:
        """Something happened to a path: look at it now. Without `hurry`, one that waits already keeps its turn."""
        if not any(is_temporary(part) for part in path.relative_to(self.root).parts):
            self._queue.offer(path, hurry=hurry)

    def scan(self, below: Path | None = None) -> int:
        """Offer every file that the ledger does not know as it is; returns how many events had missed."""
        offered = 0
        batch: list[Path] = []
        for path in files.walk(self.root, below):
            self._beat()
            batch.append(path)
            if len(batch) == _BATCH:
                offered += self._offer_changed(batch)
                batch = []
        return offered + self._offer_changed(batch)

    def forget_vanished(self) -> int:
        """Forget the refusals of files that left while nobody watched; returns how many."""
        gone = 0
        after = ""
        while shown := self._arrivals.refused_files(after=after):
            after = shown[-1]
            for path in shown:
                self._beat()
                if not any(files.is_there(root, path) for root in self._roots):
                    self._arrivals.forget_refusal(path)
                    self._arrivals.forget_files([path])
                    gone += 1
        return gone

    def run_once(self) -> int:
        """Work off what is due and wait until that is recorded; returns how many new objects were."""
        recorded = 0
        while self._begin():
            recorded += self._taking.record()
            self._taking.uploads.over.wait(self._pause())
        return recorded

    def run(self, stop: threading.Event, *, scan_every: float) -> None:
        """Watch until `stop` is set; what is on its way by then is recorded."""
        self.root.mkdir(parents=True, exist_ok=True)
        observer: BaseObserver
        if self._declared.polling:
            # Other polling observers would follow symlinks out of the inbox.
            observer = PollingObserverVFS(os.lstat, os.scandir)
            observer.schedule(_Hints(self), str(self.root), recursive=True)
        else:
            observer = Observer()
            observer.schedule(_Hints(self), str(self.root), recursive=True, event_filter=_INOTIFY_EVENTS)
        observer.start()
        try:
            next_scan = self._monotonic()
            while not stop.is_set():
                self._beat()
                if self._monotonic() >= next_scan or self._is_to_look_again():
                    began = self._monotonic()
                    self._scan_safely()
                    took = self._monotonic() - began
                    next_scan = began + max(scan_every, took * _PAUSE_PER_SCAN)
                self._queue.ready.clear()
                self._begin()
                self._taking.record()
                self._wait()
        finally:
            observer.stop()
            observer.join()
            self._taking.close()
        self._taking.record()

    def _begin(self) -> bool:
        """Begin what is due; whether anything is under way."""
        self._taking.uploads.over.clear()
        self._taking.begin()
        return bool(self._taking.uploads.under_way)

    def _wait(self) -> None:
        if self._taking.capacity():
            self._queue.ready.wait(self._pause())
        else:
            # Nothing that is offered could begin before something is over.
            self._taking.uploads.over.wait(self._pause())

    def _pause(self) -> float:
        """Seconds until something is to be done although nothing happens."""
        when = self._taking.uploads.due()
        if self._taking.capacity() and (due := self._queue.due()) is not None:
            when = min(when, max(due, self._taking.outage.until))
        return min(_LONGEST_WAIT, max(0.0, when - self._monotonic()))

    def _beat(self) -> None:
        """Say that the sensor is alive, unless the slowest of its files has not moved since."""
        moved = self._taking.uploads.silent_since()
        if moved is None or moved > self._moved:
            self._moved = moved if moved is not None else self._moved
            self._alive()

    def _is_to_look_again(self) -> bool:
        """Whether events were lost, or may have been, and what waited is worked off."""
        waiting = len(self._queue.waiting)
        self._burst |= waiting >= _BURST
        if waiting or not (self._burst or self._queue.overflowed):
            return False
        self._burst = self._queue.overflowed = False
        return True

    def _scan_safely(self) -> None:
        try:
            if not self._looked_back:
                self.forget_vanished()
                self._looked_back = True
            self.scan()
        except (*WAITED_OUT, OSError) as error:
            if not self._unscanned:
                log.warning("the inbox could not be scanned: %s; it is tried again", error)
            self._unscanned = True
        else:
            self._unscanned = False

    def _offer_changed(self, batch: list[Path]) -> int:
        marks = self._arrivals.file_marks([files.printable(self.root, path) for path in batch])
        offered = 0
        for path in batch:
            mark = marks.get(files.printable(self.root, path))
            found = files.fingerprint_at(path)
            if found is not None and (mark is None or self._is_news(mark, found)):
                self.offer(path, hurry=False)
                offered += 1
        return offered

    def _is_news(self, mark: FileMark, found: Print) -> bool:
        # A recorded file that should not be here any more was left by a crash.
        return not mark.etag or print_of(mark) != found or self._declared.after != "keep"


class _Hints(FileSystemEventHandler):
    """watchdog's thread: passes paths on and decides nothing."""

    def __init__(self, sensor: FolderSensor) -> None:
        self._sensor = sensor

    def on_any_event(self, event: FileSystemEvent) -> None:
        if isinstance(event, FileDeletedEvent | FileMovedEvent):
            # What was refused or remembered under that name is to be forgotten.
            self._sensor.offer(Path(os.fsdecode(event.src_path)))
        path = event.dest_path if isinstance(event, FileMovedEvent | DirMovedEvent) else event.src_path
        found = Path(os.fsdecode(path))
        if isinstance(event, FileClosedEvent | FileCreatedEvent | FileMovedEvent):
            self._sensor.offer(found)
        elif isinstance(event, FileModifiedEvent):
            self._sensor.offer(found, hurry=False)
        elif isinstance(event, DirCreatedEvent | DirMovedEvent):
            for inner in files.walk(self._sensor.root, found):
                self._sensor.offer(inner)
