"""The folder sensor: a finished file of the inbox goes to the bucket under the same path, once.

inotify is a hint; the scan at start and every interval is the truth. One thread decides and uploads, so the store's
pace is the sensor's pace, and what waits is bounded: beyond that a scan finds it again.
"""

from __future__ import annotations

import heapq
import logging
import math
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO

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
from penstock.errors import FileChanged, ObjectMissing, PenstockError, Refused, SettingsError, Transient
from penstock.landing import Landing
from penstock.ledger.arrivals import Arrivals, FileMark
from penstock.model import Stat, Via
from penstock.sensors import files
from penstock.sensors.outage import Blame, Failures, Outage
from penstock.sensors.settle import Print, Verdict, Writer, is_temporary, judge, next_look

log = logging.getLogger(__name__)

ARCHIVE = ".archive"
_MOST_WAITING = 20_000
_BATCH = 500
_OWN_PAUSE = 5.0
# What is waited out: store, bucket, ledger or keys may be set right without this process being started again.
_WAITED_OUT = (Transient, SettingsError, ObjectMissing)


@dataclass(kw_only=True)
class _Waiting:
    # When to look; infinite while it is being looked at.
    due: float = math.inf
    # Offered again since the last look began: what that look saw may be old.
    again: bool = False
    complained: bool = False
    failures: Failures = field(default_factory=Failures)
    # What was put and could not be recorded.
    put: tuple[Print, Stat] | None = None
    looks: int = 0
    seen: Print | None = None
    still_since: float = 0.0


@dataclass(kw_only=True)
class _Queue:
    """Paths to look at, each once; thread-safe."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    ready: threading.Event = field(default_factory=threading.Event)
    waiting: dict[Path, _Waiting] = field(default_factory=dict)
    overflowed: bool = False


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
        wall: Callable[[], float],
        writer_of: Callable[..., Writer] = files.writer_of,
        alive: Callable[[], None] = lambda: None,
        roots: Sequence[Path] = (),
    ) -> None:
        self.root = root
        self._roots = tuple(roots) or (root,)
        self._landing = landing
        self._arrivals = arrivals
        self._declared = declared
        self._monotonic = monotonic
        self._wall = wall
        self._writer_of = writer_of
        self._alive = alive
        self._queue = _Queue()
        self._outage = Outage()
        # Folders from which nothing can be removed, each said once.
        self._stuck: set[Path] = set()
        self._looked_back = False
        self._unscanned = False

    def offer(self, path: Path, *, hurry: bool = True) -> None:
        """Something happened to a path: look at it now. Without `hurry`, one that waits already keeps its turn."""
        if any(is_temporary(part) for part in path.relative_to(self.root).parts):
            return
        with self._queue.lock:
            if len(self._queue.waiting) >= _MOST_WAITING and path not in self._queue.waiting:
                self._queue.overflowed = True
                return
            known = self._queue.waiting.get(path)
            if known is None:
                self._queue.waiting[path] = _Waiting(due=self._monotonic())
            else:
                known.again = True
                if not hurry:
                    return
                known.due = self._monotonic()
        self._queue.ready.set()

    def scan(self, below: Path | None = None) -> int:
        """Offer every file that the ledger does not know as it is; returns how many events had missed."""
        offered = 0
        batch: list[Path] = []
        for path in files.walk(self.root, below):
            self._alive()
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
                self._alive()
                if not any(files.is_there(root, path) for root in self._roots):
                    self._arrivals.forget_refusal(path)
                    self._arrivals.forget_file(path)
                    gone += 1
        return gone

    def run_once(self) -> int:
        """Look at the paths that are due, at most a batch of them; returns how many new objects were recorded."""
        now = self._monotonic()
        with self._queue.lock:
            self._queue.ready.clear()
            if now < self._outage.until:
                return 0
            turns = heapq.nsmallest(
                _BATCH, ((waiting.due, path) for path, waiting in self._queue.waiting.items() if waiting.due <= now)
            )
        recorded = 0
        for due, path in turns:
            self._alive()
            try:
                recorded += self._look(path)
            except _WAITED_OUT as error:
                if self._is_away(path, due, error):
                    break
            except OSError as error:
                self._complain(path, error)
                self._look_at(path, self._monotonic() + _OWN_PAUSE)
        return recorded

    def run(self, stop: threading.Event, *, scan_every: float) -> None:
        """Watch until `stop` is set."""
        self.root.mkdir(parents=True, exist_ok=True)
        # The polling one would follow symlinks out of the inbox.
        observer: BaseObserver = PollingObserverVFS(os.lstat, os.scandir) if self._declared.polling else Observer()
        observer.schedule(_Hints(self), str(self.root), recursive=True)
        observer.start()
        try:
            next_scan = self._monotonic()
            while not stop.is_set():
                self._alive()
                if self._monotonic() >= next_scan or (self._queue.overflowed and not self._queue.waiting):
                    self._queue.overflowed = False
                    self._scan_safely()
                    next_scan = self._monotonic() + scan_every
                self.run_once()
                self._queue.ready.wait(self._until_due())
        finally:
            observer.stop()
            observer.join()

    def _scan_safely(self) -> None:
        try:
            if not self._looked_back:
                self.forget_vanished()
                self._looked_back = True
            self.scan()
        except (*_WAITED_OUT, OSError) as error:
            if not self._unscanned:
                log.warning("the inbox could not be scanned: %s; it is tried again", error)
            self._unscanned = True
        else:
            self._unscanned = False

    def _until_due(self) -> float:
        with self._queue.lock:
            dues = [waiting.due for waiting in self._queue.waiting.values()]
        if self._queue.overflowed and not dues:
            return 0.0
        due = max(min(dues, default=self._monotonic() + 1), self._outage.until)
        # At most half a second, so that `stop` is seen.
        return min(0.5, max(0.0, due - self._monotonic()))

    def _is_away(self, path: Path, due: float, error: PenstockError) -> bool:
        """Whether store or ledger are away: then every file waits, and it is said once."""
        try:
            self._landing.check()
        except _WAITED_OUT:
            # In their order, this one first.
            self._look_at(path, due)
        else:
            with self._queue.lock:
                failures = self._queue.waiting.setdefault(path, _Waiting()).failures
            blame = self._outage.failed(path, failures)
            # After a pause another file is tried first.
            self._look_at(path, self._monotonic() + failures.pause)
            if blame is not Blame.ALL:
                if failures.count > 1:
                    self._complain(path, error)
                return False
        if self._outage.wait(self._monotonic()):
            log.warning("%s; files stay in the inbox until it is back", error)
        return True

    def _complain(self, path: Path, error: Exception) -> None:
        """A file that cannot be taken now: said once."""
        with self._queue.lock:
            waiting = self._queue.waiting.setdefault(path, _Waiting())
            first, waiting.complained = not waiting.complained, True
        if first:
            log.warning("%s cannot be taken: %s; it is tried again", files.printable(self.root, path), error)

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
        return not mark.etag or _print_of(mark) != found or self._declared.after != "keep"

    def _look(self, path: Path) -> int:
        with self._queue.lock:
            waiting = self._queue.waiting.setdefault(path, _Waiting())
            waiting.due, waiting.again = math.inf, False
        try:
            with files.open_regular(self.root, path) as file:
                return self._take(path, file)
        except FileChanged:
            self._look_at(path, self._monotonic())
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            self._gone(path)
        except Refused as error:
            self._refuse(path, error)
        return 0

    def _take(self, path: Path, file: BinaryIO) -> int:
        found = files.fingerprint(file)
        shown = files.printable(self.root, path)
        mark = self._arrivals.file_marks([shown]).get(shown)
        if mark is not None and mark.etag and _print_of(mark) == found:
            self._finish(path, file, found)
            return 0
        if self._judge(path, self._writer_of(file), found) is Verdict.WAIT:
            return 0
        new = self._put(path, file, found)
        if self._outage.taken():
            log.info("the folder sensor goes on")
        if mark is not None and not mark.etag:
            self._arrivals.forget_refusal(shown)
        if files.fingerprint_at(path) != found:
            self._look_at(path, self._monotonic())
        else:
            self._finish(path, file, found)
        return int(new)

    def _put(self, path: Path, file: BinaryIO, found: Print) -> bool:
        key = files.key_of(self.root, path)
        with self._queue.lock:
            waiting = self._queue.waiting.setdefault(path, _Waiting())
        unchanged = partial(self._mark_if_unchanged, path, key, found)
        if waiting.put is not None and waiting.put[0] == found:
            new = self._landing.record_put(waiting.put[1], unchanged=unchanged)
            if new is not None:
                return new

        def on_put(stat: Stat) -> None:
            waiting.put = (found, stat)

        return self._landing.put_file(key, file, found.size, unchanged=unchanged, progress=self._alive, on_put=on_put)

    def _judge(self, path: Path, writer: Writer, found: Print) -> Verdict:
        now = self._monotonic()
        with self._queue.lock:
            waiting = self._queue.waiting.setdefault(path, _Waiting())
            if waiting.seen != found:
                waiting.still_since = now
            before, waiting.seen = waiting.seen, found
            age = self._wall() - found.mtime_ns / 1e9
            still_for = now - waiting.still_since
            settle = self._declared.settle.total_seconds()
            verdict = judge(writer=writer, age=age, now=found, before=before, still_for=still_for, settle=settle)
            if verdict is Verdict.WAIT:
                waiting.looks += 1
                pause = next_look(writer=writer, age=age, looks=waiting.looks, still_for=still_for, settle=settle)
                # Not later than asked for meanwhile: its writer may just have closed it.
                waiting.due = min(waiting.due, now + pause)
        return verdict

    def _mark_if_unchanged(self, path: Path, key: str, found: Print) -> FileMark | None:
        if files.fingerprint_at(path) != found:
            return None
        return FileMark(path=key, inode=found.inode, size=found.size, mtime_ns=found.mtime_ns)

    def _refuse(self, path: Path, reason: Refused) -> None:
        shown = files.printable(self.root, path)
        found = files.fingerprint_at(path)
        if found is not None:
            mark = FileMark(path=shown, inode=found.inode, size=found.size, mtime_ns=found.mtime_ns)
            if self._arrivals.refuse(shown, str(reason), mark=mark, via=Via.FOLDER):
                log.warning("%s is refused: %s", shown, reason)
        self._done(path)

    def _gone(self, path: Path) -> None:
        shown = files.printable(self.root, path)
        # Reading first: most of what is removed was never remembered, and a write waits for the disk.
        mark = self._arrivals.file_marks([shown]).get(shown)
        if mark is not None:
            if not mark.etag:
                self._arrivals.forget_refusal(shown)
            self._arrivals.forget_file(shown)
        self._done(path)

    def _finish(self, path: Path, file: BinaryIO, found: Print) -> None:
        try:
            self._dispose(path, file, found)
        except OSError as error:
            # The next scan tries again.
            if path.parent not in self._stuck:
                log.warning(
                    "%s is recorded and cannot be removed, nor can what else is in its folder: %s; it is tried again",
                    files.printable(self.root, path),
                    error.strerror,
                )
                self._stuck.add(path.parent)
        self._done(path)

    def _dispose(self, path: Path, file: BinaryIO, found: Print) -> None:
        """What `after` says, only for a file that is still what was recorded and that nobody is about to write to."""
        if self._declared.after == "keep" or self._writer_of(file) is Writer.SOME:
            return
        if files.fingerprint_at(path) != found:
            return
        key = files.key_of(self.root, path)
        if self._declared.after == "delete":
            path.unlink()
        else:
            target = self.root / ARCHIVE / f"{key}.{found.mtime_ns}"
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
        self._stuck.discard(path.parent)
        self._arrivals.forget_file(key)

    def _look_at(self, path: Path, due: float) -> None:
        with self._queue.lock:
            waiting = self._queue.waiting.setdefault(path, _Waiting())
            waiting.due = min(waiting.due, due)

    def _done(self, path: Path) -> None:
        with self._queue.lock:
            waiting = self._queue.waiting.pop(path, None)
            if waiting is not None and waiting.again:
                self._queue.waiting[path] = _Waiting(due=self._monotonic())


def _print_of(mark: FileMark) -> Print:
    return Print(inode=mark.inode, size=mark.size, mtime_ns=mark.mtime_ns)


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
