"""Is a file complete? The decision alone."""

from __future__ import annotations

import pytest

from penstock.sensors.settle import (
    FIRST_LOOK,
    LONGEST_LOOK,
    SAME_TICK,
    TICK_LOOK,
    Print,
    Verdict,
    Writer,
    is_temporary,
    judge,
    next_look,
)

ONE = Print(inode=1, size=10, mtime_ns=5)
GREW = Print(inode=1, size=11, mtime_ns=5)
OTHER = Print(inode=2, size=10, mtime_ns=5)
OLD = 60.0


@pytest.mark.parametrize(
    ("writer", "age", "before", "still_for", "verdict"),
    [
        (Writer.NONE, OLD, None, 0.0, Verdict.TAKE),
        (Writer.NONE, SAME_TICK, None, 0.0, Verdict.TAKE),
        (Writer.NONE, SAME_TICK / 2, None, 0.0, Verdict.WAIT),
        (Writer.NONE, 0.0, ONE, OLD, Verdict.WAIT),
        (Writer.NONE, -3600.0, None, 0.0, Verdict.TAKE),
        (Writer.SOME, OLD, ONE, OLD, Verdict.WAIT),
        (Writer.UNKNOWN, OLD, None, 0.0, Verdict.WAIT),
        (Writer.UNKNOWN, OLD, ONE, 1.9, Verdict.WAIT),
        (Writer.UNKNOWN, OLD, ONE, 2.0, Verdict.TAKE),
        (Writer.UNKNOWN, OLD, GREW, 2.0, Verdict.WAIT),
        (Writer.UNKNOWN, OLD, OTHER, 2.0, Verdict.WAIT),
        (Writer.UNKNOWN, -3600.0, ONE, 2.0, Verdict.TAKE),
    ],
)
def test_judge(writer: Writer, age: float, before: Print | None, still_for: float, verdict: Verdict) -> None:
    """A file is taken when nobody writes it, or, where that cannot be known, when it kept still for long enough."""
    assert judge(writer=writer, age=age, now=ONE, before=before, still_for=still_for, settle=2.0) is verdict


def test_a_file_that_is_being_written_is_looked_at_less_and_less() -> None:
    """Looks at an open file are doubled apart, up to a limit."""
    pauses = [next_look(writer=Writer.SOME, age=1, looks=n, still_for=0, settle=2) for n in (1, 2, 3, 8, 9, 5000)]
    assert pauses == [FIRST_LOOK, 2 * FIRST_LOOK, 4 * FIRST_LOOK, 128 * FIRST_LOOK, LONGEST_LOOK, LONGEST_LOOK]


@pytest.mark.parametrize("looks", [1, 50])
def test_a_young_file_is_due_when_it_is_old_enough(looks: int) -> None:
    """However often an open file was looked at, once it is closed only its youth delays it."""
    pause = next_look(writer=Writer.NONE, age=0.0, looks=looks, still_for=0, settle=2)
    assert pause == TICK_LOOK


@pytest.mark.parametrize(("still_for", "pause"), [(0.0, 2.0), (1.5, 0.5), (2.0, FIRST_LOOK)])
def test_a_settling_file_is_due_when_it_has_settled(still_for: float, pause: float) -> None:
    """A file whose writers cannot be known is looked at again when it may have settled."""
    assert next_look(writer=Writer.UNKNOWN, age=OLD, looks=7, still_for=still_for, settle=2) == pytest.approx(pause)


@pytest.mark.parametrize("name", [".a", ".hidden.csv", "~a.csv", "a.csv~", "a.TMP", "a.csv.part", "a.crdownload", ".~"])
def test_temporary(name: str) -> None:
    """Dotfiles and the names of unfinished downloads are somebody's own business."""
    assert is_temporary(name)


@pytest.mark.parametrize("name", ["a.csv", "tmp", "part", "a.tmp.csv", "a~b.csv", "a.partial.csv"])
def test_not_temporary(name: str) -> None:
    """Only the ending counts, not a part of the name."""
    assert not is_temporary(name)
