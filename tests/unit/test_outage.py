"""Who is at fault when a file cannot be taken: decided without store, ledger or clock."""

from __future__ import annotations

from penstock.sensors.outage import Blame, Failures, Outage


def test_two_that_fail_with_nothing_taken_between_stop_all() -> None:
    """One failure tells nothing yet; another file's does, and during the outage each one does."""
    outage, one, two = Outage(), Failures(), Failures()
    assert outage.failed("one", one) is Blame.OPEN
    assert outage.failed("one", one) is Blame.OPEN
    assert outage.failed("two", two) is Blame.ALL
    assert outage.wait(0.0)
    assert outage.failed("three", Failures()) is Blame.ALL


def test_a_file_that_fails_again_after_others_were_taken_is_on_its_own() -> None:
    """It stops no other from then on, together with how many of its kind whatever."""
    outage, one, two = Outage(), Failures(), Failures()
    outage.failed("one", one)
    outage.taken()
    outage.failed("two", two)
    outage.taken()
    for _ in range(5):
        assert outage.failed("one", one) is Blame.ITSELF
        assert outage.failed("two", two) is Blame.ITSELF
    assert outage.failed("three", Failures()) is Blame.OPEN


def test_the_pauses_grow_until_something_is_taken() -> None:
    """An outage begins once and ends once, and its pauses grow to half a minute."""
    outage = Outage()
    began, until = [], []
    for _ in range(7):
        began.append(outage.wait(100.0))
        until.append(outage.until - 100)
    assert began == [True] + [False] * 6
    assert until == [1, 2, 4, 8, 16, 30, 30]
    assert outage.taken()
    assert not outage.taken()
    assert outage.wait(0.0)
    assert outage.until == 1


def test_one_file_is_tried_ever_more_seldom() -> None:
    """A file of its own kind is not tried more often than the whole would be."""
    assert [Failures(count=count).pause for count in (1, 2, 5, 6, 5000)] == [1, 2, 16, 30, 30]
