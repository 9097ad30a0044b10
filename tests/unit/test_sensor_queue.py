"""The queue of paths to look at, on a clock that stands still until told."""

from __future__ import annotations

from pathlib import Path

from penstock.sensors.queue import Queue

A, B, C = Path("a"), Path("b"), Path("c")


class Clock:
    """A clock that stands still until told."""

    now = 100.0

    def __call__(self) -> float:
        """The time it stands at."""
        return self.now


def queue(most: int = 10) -> tuple[Queue, Clock]:
    clock = Clock()
    return Queue(most, monotonic=clock), clock


def names(found: Queue, most: int = 10) -> str:
    return "".join(str(taken.path) for taken in found.take(most))


def test_paths_are_taken_in_the_order_in_which_they_became_due() -> None:
    """Also those that were offered at the same moment; one that is offered twice keeps its first turn."""
    found, clock = queue()
    for path in (C, A, C, B):
        found.offer(path)
    assert names(found, 2) == "ca"
    clock.now += 1
    found.offer(Path("d"))
    assert names(found) == "bd"
    assert found.due() is None


def test_nothing_is_taken_twice_and_no_offer_meanwhile_is_lost() -> None:
    """A path that is being looked at is not handed out; offered meanwhile, it is looked at again afterwards."""
    found, _ = queue()
    found.offer(A)
    (taken,) = found.take(1)
    found.offer(A, hurry=False)
    assert found.take(1) == []
    found.done(taken)
    (again,) = found.take(1)
    found.done(again)
    assert found.waiting == {}


def test_what_is_given_back_has_its_turn_again() -> None:
    """After an outage the files go on in their order."""
    found, clock = queue()
    for path in (B, A, C):
        found.offer(path)
    taken = found.take(2)
    clock.now += 1
    found.offer(Path("d"))
    for one in reversed(taken):
        found.give_back(one)
    assert names(found) == "bacd"


def test_a_look_later_and_who_is_in_a_hurry() -> None:
    """A path waits until its time, unless it is offered in a hurry, before or after that time was set."""
    found, clock = queue()
    for path in (A, B, C):
        found.offer(path)
    a, b, c = found.take(3)
    found.offer(A)
    found.offer(B, hurry=False)
    for one in (a, b, c):
        found.look_at(one, clock.now + 60)
    assert names(found) == "a"
    found.offer(B, hurry=False)
    found.offer(C)
    assert names(found) == "c"
    assert found.due() == 160.0
    clock.now += 60
    assert names(found) == "b"


def test_who_was_in_a_hurry_during_a_look_comes_before_what_was_offered_since() -> None:
    """A file that is closed while somebody looks at it keeps its place, however that look ends."""
    found, clock = queue()
    for path in (A, B):
        found.offer(path)
    a, b = found.take(2)
    found.offer(B)
    found.offer(A)
    clock.now += 1
    found.offer(C)
    clock.now += 1
    found.look_at(a, clock.now + 60)
    found.done(b)
    assert names(found) == "bac"


def test_what_waits_is_bounded_and_so_is_what_is_kept_of_it() -> None:
    """Beyond the bound only the overflow is told; however often one path is put off, memory does not grow."""
    found, clock = queue(most=2)
    for path in (A, B, C):
        found.offer(path)
    assert (sorted(found.waiting), found.overflowed) == ([A, B], True)
    for _ in range(1000):
        (taken, *_) = found.take(1)
        found.look_at(taken, clock.now)
        found.offer(A)
    for number in range(1000):
        found.offer(B)
        for taken in found.take(2):
            found.look_at(taken, clock.now + 60 + number)
        found.offer(A)
        found.offer(B)
    assert len(found._heap) < 200
