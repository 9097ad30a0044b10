"""The paths of the inbox that are to be looked at, each once and in the order in which they become due."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from penstock.model import Stat
from penstock.sensors.outage import Failures
from penstock.sensors.settle import Print


class Turn(NamedTuple):
    """When a path is due, and its number among those that are due at the same moment."""

    due: float
    number: int


@dataclass(kw_only=True)
class Waiting:
    """What is kept of a path while it waits. Only `Queue` touches the first three; the rest is for who looks at it."""

    # None while somebody looks at it.
    turn: Turn | None = None
    # Offered again since that look began: what it saw may be old. In a hurry: it is to be looked at again at once, and
    # before what was offered since.
    again: bool = False
    hurried: Turn | None = None
    complained: bool = False
    failures: Failures = field(default_factory=Failures)
    # What was put and could not be recorded.
    put: tuple[Print, Stat] | None = None
    looks: int = 0
    seen: Print | None = None
    still_since: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Taken:
    """A path that somebody looks at now, until it is given back, set to be looked at again, or done with."""

    path: Path
    waiting: Waiting
    turn: Turn


class Queue:
    """Thread-safe. At most `most` paths wait; of what is offered beyond that only `overflowed` tells."""

    def __init__(self, most: int, *, monotonic: Callable[[], float]) -> None:
        self._most = most
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        # Turns that were changed since stay in the heap until they come up.
        self._heap: list[tuple[Turn, Path]] = []
        self.waiting: dict[Path, Waiting] = {}
        self.ready = threading.Event()
        self.overflowed = False

    def offer(self, path: Path, *, hurry: bool = True) -> None:
        """Have a path looked at now. Without `hurry`, one that waits already keeps its turn."""
        with self._lock:
            known = self.waiting.get(path)
            if known is None:
                if len(self.waiting) >= self._most:
                    self.overflowed = True
                    return
                known = self.waiting[path] = Waiting()
            elif known.turn is None:
                known.again = True
                if hurry:
                    known.hurried = self._turn(self._monotonic())
                return
            elif not hurry or known.turn.due <= self._monotonic():
                return
            self._set(path, known, self._turn(self._monotonic()))
        self.ready.set()

    def take(self, most: int) -> list[Taken]:
        """The next paths that are due, in their order."""
        now = self._monotonic()
        taken: list[Taken] = []
        with self._lock:
            while len(taken) < most and (first := self._first()) is not None and first[0].due <= now:
                turn, path = heapq.heappop(self._heap)
                waiting = self.waiting[path]
                waiting.turn, waiting.again, waiting.hurried = None, False, None
                taken.append(Taken(path=path, waiting=waiting, turn=turn))
        return taken

    def give_back(self, taken: Taken) -> None:
        """Have it wait as if it had not been taken."""
        with self._lock:
            taken.waiting.turn = taken.turn
            heapq.heappush(self._heap, (taken.turn, taken.path))

    def look_at(self, taken: Taken, due: float) -> None:
        """Have it looked at again at that time, or at once when somebody was in a hurry meanwhile."""
        with self._lock:
            turn = self._turn(due)
            self._set(taken.path, taken.waiting, min(turn, taken.waiting.hurried or turn))

    def done(self, taken: Taken) -> None:
        """Nothing more is to be done, unless it was offered again meanwhile."""
        with self._lock:
            del self.waiting[taken.path]
            if taken.waiting.again:
                waiting = self.waiting[taken.path] = Waiting()
                self._set(taken.path, waiting, taken.waiting.hurried or self._turn(self._monotonic()))

    def due(self) -> float | None:
        """When the next path is due; None when none waits."""
        with self._lock:
            first = self._first()
            return first[0].due if first else None

    def _turn(self, due: float) -> Turn:
        return Turn(due, next(self._numbers))

    def _set(self, path: Path, waiting: Waiting, turn: Turn) -> None:
        waiting.turn = turn
        if len(self._heap) > 2 * len(self.waiting) + 100:
            self._heap = [(one.turn, name) for name, one in self.waiting.items() if one.turn and one is not waiting]
            heapq.heapify(self._heap)
        heapq.heappush(self._heap, (waiting.turn, path))

    def _first(self) -> tuple[Turn, Path] | None:
        while self._heap:
            turn, path = self._heap[0]
            waiting = self.waiting.get(path)
            if waiting is not None and waiting.turn == turn:
                return self._heap[0]
            heapq.heappop(self._heap)
        return None
