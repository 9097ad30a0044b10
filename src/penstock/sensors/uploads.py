"""Files on their way into the store: a few threads put them, and who records is told what is to be recorded next.

The threads only put. Whatever they meet is kept with the file for the sensor's own thread, which alone decides.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import BinaryIO

from penstock.model import Stat
from penstock.sensors.queue import Taken
from penstock.sensors.settle import Print

# With more threads a store on the same machine does not take more files a second.
_THREADS = 6
# Large files have threads of their own: thousands of small ones need not wait for them.
_LARGE = 16 * 1024 * 1024
_LARGE_THREADS = 2
# Open files, from the look at one until it is recorded; and those of one dataset that wait for each other, so that a
# slow one leaves room for other datasets.
_MOST = 192
_MOST_OF_ONE = 128
# How long recording may take in proportion to the pause before it, while more is under way; and the longest pause.
_SHARE = 0.25
_LONGEST_PAUSE = 0.2


@dataclass(kw_only=True, eq=False)
class Upload:
    """A file that is put, or was: `stat` is what the store has then, `error` what happened instead."""

    taken: Taken
    key: str
    file: BinaryIO
    found: Print
    # The dataset in whose order it is recorded; None: its order does not matter.
    order: str | None
    # What was put earlier and could not be recorded.
    put_before: Stat | None = None
    refused_before: bool = False
    # Set by its thread. When it took the file on, and when it last got on with it:
    began: float | None = None
    moved: float = 0.0
    over: bool = False
    stat: Stat | None = None
    error: BaseException | None = None
    move: Callable[[], None] = lambda: None


def is_large(found: Print) -> bool:
    """Whether a file goes through the threads for large ones."""
    return found.size > _LARGE


def in_order(uploads: Iterable[Upload]) -> list[Upload]:
    """Those that are over, but none whose dataset has one before it that is not."""
    chosen: list[Upload] = []
    behind: set[str] = set()
    for upload in uploads:
        if upload.over and upload.order not in behind:
            chosen.append(upload)
        elif upload.order is not None:
            behind.add(upload.order)
    return chosen


@dataclass(kw_only=True)
class Pace:
    """When to record: the first at once, and then what gathers, so that a burst shares its transactions."""

    over_at: float = 0.0
    took: float = 0.0

    def pause(self, now: float, *, more: bool) -> float:
        """Seconds until what is over is to be recorded; with nothing `more` under way none."""
        return max(0.0, self.over_at + min(self.took / _SHARE, _LONGEST_PAUSE) - now) if more else 0.0

    def recorded(self, began: float, now: float) -> None:
        """A transaction took from then to now."""
        self.over_at, self.took = now, now - began


@dataclass(kw_only=True)
class Uploads:
    """The files under way, in the order in which they began. Everything but the threads' own work is for one thread."""

    put: Callable[[Upload], Stat]
    monotonic: Callable[[], float]
    # Told, by a thread, of each file that is over.
    on_over: Callable[[], None]
    under_way: list[Upload] = field(default_factory=list)
    pace: Pace = field(default_factory=Pace)
    over: threading.Event = field(default_factory=threading.Event)
    _small: ThreadPoolExecutor | None = None
    _large: ThreadPoolExecutor | None = None

    def room(self) -> int:
        """How many more files may be under way."""
        return _MOST - len(self.under_way)

    def takes_large(self) -> bool:
        """Whether a large file need not wait for another."""
        return sum(is_large(upload.found) for upload in self.under_way) < _LARGE_THREADS

    def holds(self, order: str) -> bool:
        """Whether the next file of that dataset waits: what it would overtake shows in the store, too."""
        ahead = [upload for upload in self.under_way if upload.order == order]
        return len(ahead) >= _MOST_OF_ONE or any(is_large(one.found) and not one.over for one in ahead)

    def begin(self, upload: Upload) -> None:
        """Have a thread put it."""
        self.under_way.append(upload)
        if is_large(upload.found):
            self._large = self._large or ThreadPoolExecutor(_LARGE_THREADS, "put large")
            self._large.submit(self._work, upload)
        else:
            self._small = self._small or ThreadPoolExecutor(_THREADS, "put")
            self._small.submit(self._work, upload)

    def next(self) -> list[Upload]:
        """What is to be recorded now, in its order; it is under way until it is `left`."""
        chosen = in_order(self.under_way)
        return [] if self._pause(chosen, self.monotonic()) > 0 else chosen

    def left(self, upload: Upload) -> None:
        """It is under way no more."""
        self.under_way.remove(upload)
        upload.file.close()

    def due(self) -> float:
        """When to ask for the `next` although no other is over by then; infinite: not before one is."""
        chosen = in_order(self.under_way)
        now = self.monotonic()
        return now + self._pause(chosen, now) if chosen else math.inf

    def silent_since(self) -> float | None:
        """When the one that has been silent for longest last moved; None when no thread has one."""
        return min((one.moved for one in self.under_way if one.began is not None and not one.over), default=None)

    def close(self) -> None:
        """Wait for what the threads have, leave what they have not and what is behind it, and end them."""
        for threads in (self._small, self._large):
            if threads is not None:
                threads.shutdown(cancel_futures=True)
        self._small = self._large = None
        over = in_order(self.under_way)
        for upload in [one for one in self.under_way if one not in over]:
            self.left(upload)

    def _pause(self, chosen: list[Upload], now: float) -> float:
        return self.pace.pause(now, more=len(chosen) < len(self.under_way))

    def _work(self, upload: Upload) -> None:
        def move() -> None:
            upload.moved = self.monotonic()

        move()
        upload.began, upload.move = upload.moved, move
        try:
            upload.stat = self.put(upload)
        except BaseException as error:  # the sensor's thread raises what it did not expect
            upload.error = error
        upload.over = True
        self.over.set()
        self.on_over()
