"""Who is at fault when a file cannot be taken, it or everything? Pure: what happened goes in, what to do comes out.

Store and ledger may answer and yet take nothing, as on a full disk. So two files that fail with nothing taken between
them stop all, and one that fails again after others were taken is on its own.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from enum import Enum, auto

_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 30.0


class Blame(Enum):
    """What a failure means: nothing can be taken, this file cannot, or that is not known yet."""

    ALL = auto()
    ITSELF = auto()
    OPEN = auto()


@dataclass(kw_only=True)
class Failures:
    """How often one file failed, and how many others had been taken when it failed first."""

    count: int = 0
    taken: int = 0

    @property
    def pause(self) -> float:
        """Seconds until it is tried again."""
        return _grown(self.count)


class Outage:
    """Whether store and ledger are away, and until when all files wait for them."""

    def __init__(self) -> None:
        self.away = False
        self.until = 0.0
        self._tries = 0
        self._taken = 0
        self._failed: set[Hashable] = set()

    def taken(self) -> bool:
        """A file was taken; returns whether that ends an outage."""
        ended, self.away = self.away, False
        self._taken += 1
        self._tries = 0
        self._failed.clear()
        return ended

    def failed(self, name: Hashable, failures: Failures) -> Blame:
        """This file failed, though store and ledger answer; counts it in `failures`."""
        if not failures.count:
            failures.taken = self._taken
        failures.count += 1
        if failures.taken < self._taken:
            return Blame.ITSELF
        self._failed.add(name)
        if self.away or len(self._failed) > 1:
            return Blame.ALL
        return Blame.OPEN

    def wait(self, now: float) -> bool:
        """Have all files wait, longer each time; returns whether an outage begins with that."""
        began, self.away = not self.away, True
        self._tries += 1
        self.until = now + _grown(self._tries)
        return began


def _grown(tries: int) -> float:
    return min(_FIRST_PAUSE * 2.0 ** min(tries - 1, 10), _LONGEST_PAUSE)
