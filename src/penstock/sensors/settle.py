"""Is a file complete? Pure: what was observed goes in, what to do comes out.

Where the kernel can tell that nobody has the file open for writing (a read lease), that decides. Where it cannot
(network file systems, files of another user), a file is complete when its size and mtime kept still for a while.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

_TEMPORARY_ENDINGS = (".tmp", ".part", ".partial", ".crdownload", ".swp", ".filepart", "~")

# A file that is being written is looked at again after this many seconds, doubled each time up to the second figure;
# its writer's close makes the look come at once.
FIRST_LOOK = 0.03
LONGEST_LOOK = 5.0

# Linux stamps mtimes from a clock that ticks every 1 to 10 ms: two writes within a tick look like one. A file whose
# mtime that clock still shows is not taken yet, so that a later write always shows.
SAME_TICK = 0.0005
TICK_LOOK = 0.02


class Writer(Enum):
    """What the kernel says about a file's writers."""

    NONE = auto()
    SOME = auto()
    UNKNOWN = auto()


class Verdict(Enum):
    """What to do with a file."""

    TAKE = auto()
    WAIT = auto()


@dataclass(frozen=True, kw_only=True)
class Print:
    """What tells one content of a file from another without reading it."""

    inode: int
    size: int
    mtime_ns: int


def is_temporary(name: str) -> bool:
    """Whether a file of this name is somebody's unfinished business: dotfiles, `~`, `.tmp`, `.part` and the like."""
    return name.startswith((".", "~")) or name.lower().endswith(_TEMPORARY_ENDINGS)


def is_same_tick(age: float) -> bool:
    """Whether a write to a file of this age might leave its mtime as it is; `age` as for `judge`."""
    return 0 <= age < SAME_TICK


def judge(*, writer: Writer, age: float, now: Print, before: Print | None, still_for: float, settle: float) -> Verdict:
    """Take the file or wait.

    `age` are the seconds since its mtime by the clock that stamps mtimes, `still_for` those since `before` was first
    seen as it is now.
    """
    if writer is Writer.SOME or is_same_tick(age):
        return Verdict.WAIT
    if writer is Writer.NONE:
        return Verdict.TAKE
    return Verdict.TAKE if now == before and still_for >= settle else Verdict.WAIT


def next_look(*, writer: Writer, age: float, looks: int, still_for: float, settle: float) -> float:
    """Seconds until a file that must wait is looked at again; it was looked at `looks` times (from 1).

    A file that is only too young, or only has to keep still, is due when that is over, however often it was looked at.
    """
    if writer is Writer.SOME:
        return min(FIRST_LOOK * 2.0 ** min(looks - 1, 10), LONGEST_LOOK)
    tick = TICK_LOOK if is_same_tick(age) else 0.0
    return max(tick, settle - still_for, FIRST_LOOK) if writer is Writer.UNKNOWN else tick
