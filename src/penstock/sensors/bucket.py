"""The bucket sensors: the store's listen API, and the embedded store's folder. What they miss, the sweep finds."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from watchdog.events import (
    DirCreatedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer

from penstock.errors import CannotListen, PenstockError, SettingsError, Transient
from penstock.landing import Landing
from penstock.model import Via
from penstock.notifications import Change
from penstock.objects import ObjectStore

log = logging.getLogger(__name__)

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
# Hints that wait for the store; beyond that a sweep does their work.
_MOST_HINTS = 10_000
# Asked for and recorded together, so that the first of a burst need not wait for the last.
_TOGETHER = 200
# rclone knows an object a moment after its file is in place: what was not new at once is asked for once more.
_SECOND_LOOK = 0.5
_EVENTS: list[type[FileSystemEvent]] = [DirCreatedEvent, FileClosedEvent, FileCreatedEvent, FileMovedEvent]
# rclone writes to a file of this name first and moves it when it is whole.
_UPLOAD = ".rclone_temp_"


class BucketSensor:
    """Listens to one bucket. `sweep_soon` is called once it listens, for what came while nobody did.

    Where a key could not be recorded, that key is tried first when it listens again, and only then a sweep asked for.
    """

    def __init__(self, bucket: str, *, store: ObjectStore, landing: Landing, sweep_soon: Callable[[], None]) -> None:
        self._bucket = bucket
        self._store = store
        self._landing = landing
        self._sweep_soon = sweep_soon
        self._pause = _FIRST_PAUSE
        self._away = False
        self._unrecorded: str | None = None

    def run(self, stop: threading.Event) -> None:
        """Listen until `stop` is set. Raises CannotListen when the store has no such thing."""
        while not stop.is_set():
            try:
                self._listen(stop)
            except CannotListen:
                raise
            except (Transient, SettingsError) as error:
                if not self._away:
                    log.warning("listening to %s ended: %s; it is tried again", self._bucket, error)
                self._away = True
            stop.wait(self._pause)
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    def _listen(self, stop: threading.Event) -> None:
        """One connection's life: what is heard while keys are asked for and recorded goes together next."""
        ended = threading.Event()
        heard = _Heard()
        changes = self._store.listen(self._bucket, stop=ended, on_open=heard.open)
        thread = threading.Thread(target=heard.fill, args=(changes,), name=f"hear {self._bucket}")
        thread.start()
        try:
            told = False
            while not stop.is_set():
                # Asked before taking: what was heard before the end is taken then.
                over = heard.over
                heard.ready.wait(0.0 if over else _SECOND_LOOK)
                if heard.opened and not told:
                    told = True
                    self._opened()
                self._record(heard.take())
                if heard.dropped():
                    self._sweep_soon()
                if over:
                    heard.end()
                    return
        finally:
            ended.set()
            thread.join()

    def _opened(self) -> None:
        if self._unrecorded is not None:
            self._record({self._unrecorded: False})
        if self._away:
            log.info("%s is listened to again", self._bucket)
        self._away = False
        self._sweep_soon()

    def _record(self, heard: dict[str, bool]) -> None:
        if put := [key for key, removed in heard.items() if not removed]:
            self._unrecorded = put[0]
            self._landing.seen(self._bucket, put, Via.BUCKET, skip=_left_to_the_sweep)
        if gone := [key for key, removed in heard.items() if removed]:
            self._unrecorded = gone[0]
            self._landing.removed(self._bucket, gone, Via.BUCKET, skip=_left_to_the_sweep)
        if heard:
            self._unrecorded = None
            self._pause = _FIRST_PAUSE


class _Heard:
    """What a thread hears of one connection, and how that ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys: dict[str, bool] = {}
        self._dropped = False
        self._error: BaseException | None = None
        self.ready = threading.Event()
        self.opened = False
        self.over = False

    def open(self) -> None:
        """The store has subscribed us."""
        self.opened = True
        self.ready.set()

    def fill(self, changes: Iterator[Change]) -> None:
        """Listen until that ends; beyond what may wait a sweep finds the keys."""
        try:
            for change in changes:
                with self._lock:
                    if len(self._keys) < _MOST_HINTS:
                        self._keys[change.key] = change.removed
                    else:
                        self._dropped = True
                self.ready.set()
        except BaseException as error:  # raised by `end`, in the sensor's own thread
            self._error = error
        self.over = True
        self.ready.set()

    def take(self) -> dict[str, bool]:
        """The keys that were heard of since, and whether they were removed last."""
        with self._lock:
            self.ready.clear()
            keys, self._keys = self._keys, {}
        return keys

    def dropped(self) -> bool:
        """Whether more was heard since than may wait."""
        with self._lock:
            was, self._dropped = self._dropped, False
        return was

    def end(self) -> None:
        """Raise what ended the listening, if anything did."""
        if self._error is not None:
            raise self._error


class StoreFolderSensor:
    """Watches the folder in which the embedded store keeps a bucket: a file there is an object of the same name.

    Its watchdog thread only collects; a key is asked for by the store like any other hint.
    """

    def __init__(
        self,
        bucket: str,
        folder: Path,
        *,
        landing: Landing,
        sweep_soon: Callable[[], None],
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self._bucket = bucket
        self._folder = folder
        self._landing = landing
        self._sweep_soon = sweep_soon
        self._alive = alive
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._hints: dict[str, None] = {}
        self._doubtful: dict[str, float] = {}
        # While store or ledger are away: a key that could not be recorded, and when it is tried again.
        self._unrecorded: str | None = None
        self._try_at = 0.0
        self._pause = _FIRST_PAUSE

    def run(self, stop: threading.Event) -> None:
        """Watch until `stop` is set."""
        observer = Observer()
        # What is only read there (each GET opens a file) is not told of.
        observer.schedule(_Hints(self.hint), str(self._folder), recursive=True, event_filter=_EVENTS)
        observer.start()
        try:
            self._sweep_soon()
            while not stop.is_set():
                self._alive()
                self._ready.wait(_SECOND_LOOK)
                self._work_off(time.monotonic())
        finally:
            observer.stop()
            observer.join()

    def hint(self, path: Path) -> None:
        """A file of the store's folder was written or moved into place."""
        if path.name.startswith(_UPLOAD):
            return
        try:
            key = path.relative_to(self._folder).as_posix()
            key.encode()
        except ValueError:
            # Not an object's name, or none that S3 can have: the store knows no such key.
            return
        with self._lock:
            if len(self._hints) >= _MOST_HINTS:
                self._sweep_soon()
                return
            self._hints[key] = None
        self._ready.set()

    def _take(self) -> list[str]:
        with self._lock:
            keys, self._hints = list(self._hints), {}
            self._ready.clear()
        return keys

    def _work_off(self, now: float) -> None:
        hints = self._take()
        if self._unrecorded is not None:
            # The sweep that is asked for once this key is recorded finds the others.
            self._doubtful.clear()
            if now >= self._try_at:
                self._pass_on([self._unrecorded])
            return
        again = [key for key, due in self._doubtful.items() if due <= now]
        for key in again:
            del self._doubtful[key]
        self._pass_on(again)
        self._doubtful.update(dict.fromkeys(self._pass_on(hints), time.monotonic() + _SECOND_LOOK))

    def _pass_on(self, keys: list[str]) -> list[str]:
        """Have these keys asked for and recorded; returns those of which some were not new, or not there yet."""
        doubtful: list[str] = []
        for start in range(0, len(keys), _TOGETHER):
            batch = keys[start : start + _TOGETHER]
            self._alive()
            try:
                new = self._landing.seen(self._bucket, batch, Via.BUCKET, progress=self._alive, skip=_left_to_the_sweep)
            except (Transient, SettingsError) as error:
                self._went_away(batch[0], error)
                break
            self._came_back()
            if new < len(batch):
                doubtful += batch
        return doubtful

    def _went_away(self, key: str, error: PenstockError) -> None:
        if self._unrecorded is None:
            log.warning("hints of %s are left to the sweep: %s", self._bucket, error)
        self._unrecorded = key
        self._try_at = time.monotonic() + self._pause
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    def _came_back(self) -> None:
        if self._unrecorded is not None:
            log.info("hints of %s are recorded again", self._bucket)
            self._unrecorded, self._pause = None, _FIRST_PAUSE
            self._sweep_soon()


def _left_to_the_sweep(key: str, error: PenstockError) -> None:
    # The sweep meets the same key, and says it once.
    log.debug("the hint for %s is left to the sweep: %s", key, error)


class _Hints(FileSystemEventHandler):
    """watchdog's thread: passes paths on and decides nothing."""

    def __init__(self, hint: Callable[[Path], None]) -> None:
        self._hint = hint

    def on_any_event(self, event: FileSystemEvent) -> None:
        path = os.fsdecode(event.dest_path if isinstance(event, FileMovedEvent) else event.src_path)
        # In a new folder a file may be in place before it is watched; it is then told of as created.
        if isinstance(event, FileClosedEvent | FileCreatedEvent | FileMovedEvent):
            self._hint(Path(path))
        elif isinstance(event, DirCreatedEvent):
            for folder, _, names in os.walk(path):
                for name in names:
                    self._hint(Path(folder, name))
