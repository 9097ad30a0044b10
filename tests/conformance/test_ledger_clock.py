"""The ledger when the clock is set: put back or forward, it stops no dataset and lets nobody write who lost the lease.

A jump is an hour, which is more than any lease, back-off or wake-up lasts; where it matters, also others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from penstock.errors import LeaseLost
from penstock.ledger.decide import LONGEST_BACKOFF
from penstock.ledger.leases import LONGEST_LEASE
from penstock.ledger.wakeups import WakeUp
from penstock.model import Lease, ObjectRef
from tests.conformance.ledgers import BACKENDS, MAKERS, TTL, Bench

HOUR = 3600.0
JUMPS = (-HOUR, HOUR)
# Shorter than a lease, the longest lease and its neighbours, and far beyond it.
BACK = (1.0, 29.0, 269.0, 270.0, 271.0, HOUR, 24 * HOUR)
AGAIN_AFTER = timedelta(seconds=5)


@pytest.fixture(params=BACKENDS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    with MAKERS[request.param](tmp_path / "ledger") as made:
        yield made


def give_back(bench: Bench, lease: Lease, refs: list[ObjectRef]) -> None:
    bench.ledger.work.give_back(lease, refs, run="r1", failed=refs[0], reason="the store is away")


def abandon(bench: Bench, lease: Lease) -> None:
    bench.ledger.work.abandon(lease, reason="Boom: x", run="r1", blame=False)


def take_due(bench: Bench) -> list[WakeUp]:
    return bench.ledger.wakeups.take_due(again_after=AGAIN_AFTER)


def hold(bench: Bench, times: int = 10) -> None:
    """Have a dataset that something is pending of wait for as long as a transient error ever makes it."""
    for _ in range(times):
        lease = bench.take()
        give_back(bench, lease, bench.claim(lease))
        assert bench.ledger.work.finish(lease)
        until = bench.ledger.facts.standings()[0].hold_until
        assert until is not None
        bench.clock.now = until
    lease = bench.take()
    give_back(bench, lease, bench.claim(lease))
    assert bench.ledger.work.finish(lease)


def seconds_until(bench: Bench, came: Callable[[], object]) -> int:
    """For how long the clock has to go on, looked at each second, until something came."""
    for seconds in range(int(LONGEST_LEASE.total_seconds()) + 2):
        if came():
            return seconds
        bench.clock.forward(1)
    raise AssertionError("never")


class TestDeadHolder:
    """A run that died with the lease."""

    @pytest.mark.parametrize("jump", JUMPS)
    def test_it_is_taken_over_at_once(self, bench: Bench, jump: float) -> None:
        """After a jump of an hour the next run gets the lease, with a greater token, and what the dead one had."""
        bench.arrive("sales/1")
        bench.claim(bench.take(), run="r1")
        bench.clock.forward(jump)
        second = bench.take(holder="two")
        assert (second.token, second.taken_over) == (2, True)
        assert second.expires_at == bench.clock.now + TTL
        assert [(ref.key, ref.attempts) for ref in bench.claim(second)] == [("sales/1", 1)]
        assert bench.acquire(holder="three") is None

    @pytest.mark.parametrize("jump", JUMPS)
    def test_a_run_is_asked_for_at_once(self, bench: Bench, jump: float) -> None:
        """After a jump of an hour its open work asks for a run by itself, and so does an arrival."""
        bench.arrive("sales/1")
        bench.claim(bench.take())
        bench.clock.forward(jump)
        assert bench.ledger.wakeups.find() == 1
        assert [wakeup.dataset for wakeup in take_due(bench)] == ["sales"]

    @pytest.mark.parametrize("jump", JUMPS)
    def test_an_arrival_asks_for_a_run(self, bench: Bench, jump: float) -> None:
        """After a jump of an hour an arrival does not rely on the dead holder to look again."""
        bench.take()
        bench.clock.forward(jump)
        bench.arrive("sales/1")
        assert bench.woken() == ["sales"]

    @pytest.mark.parametrize("back", BACK)
    def test_no_jump_keeps_it_for_longer_than_the_longest_lease(self, bench: Bench, back: float) -> None:
        """However far the clock was put back, a dead holder stops its dataset for five minutes at the most."""
        bench.arrive("sales/1")
        bench.claim(bench.take())
        bench.clock.forward(-back)
        waited = seconds_until(bench, lambda: bench.acquire(holder="two"))
        ahead = TTL.total_seconds() + back
        assert waited == (0 if ahead > LONGEST_LEASE.total_seconds() else ahead)


class TestLiveHolder:
    """A run that is at work while the clock is set."""

    @pytest.mark.parametrize("jump", JUMPS)
    def test_its_heartbeat_keeps_the_lease(self, bench: Bench, jump: float) -> None:
        """A holder that renews before anybody else came keeps its lease, by the new time."""
        bench.arrive("sales/1")
        lease = bench.take()
        refs = bench.claim(lease)
        bench.clock.forward(jump)
        renewed = bench.ledger.work.renew(lease, ttl=TTL)
        assert (renewed.token, renewed.expires_at) == (1, bench.clock.now + TTL)
        bench.clock.forward(29)
        assert bench.acquire(holder="two") is None
        bench.settle(lease, *refs)
        assert bench.ledger.work.finish(lease)
        assert [state for *_, state in bench.states()] == ["loaded"]

    @pytest.mark.parametrize("jump", JUMPS)
    @pytest.mark.parametrize("step", ["renew", "claim", "settle", "give_back", "abandon", "finish"])
    def test_once_taken_over_it_changes_nothing(self, bench: Bench, step: str, jump: float) -> None:
        """A holder that another took over after a jump learns so at its next step, whichever, and changes nothing."""
        bench.arrive("sales/1")
        bench.arrive("sales/2")
        lost = bench.take()
        refs = bench.claim(lost, objects=1)
        bench.clock.forward(jump)
        second = bench.take(holder="two")
        theirs = bench.claim(second)
        before = bench.everything()
        steps: dict[str, Callable[[], object]] = {
            "renew": lambda: bench.ledger.work.renew(lost, ttl=TTL),
            "claim": lambda: bench.claim(lost),
            "settle": lambda: bench.settle(lost, *refs),
            "give_back": lambda: give_back(bench, lost, refs),
            "abandon": lambda: abandon(bench, lost),
            "finish": lambda: bench.ledger.work.finish(lost),
        }
        with pytest.raises(LeaseLost, match="sales with token 1"):
            steps[step]()
        assert bench.everything() == before
        bench.settle(second, *theirs)
        assert bench.ledger.work.finish(second)
        assert [state for *_, state in bench.states()] == ["loaded", "loaded"]

    def test_the_clock_set_right_again_does_not_bring_it_back(self, bench: Bench) -> None:
        """A holder that was taken over while the clock was wrong stays so when it is right again."""
        bench.arrive("sales/1")
        lost = bench.take()
        bench.claim(lost)
        bench.clock.forward(-HOUR)
        second = bench.take(holder="two")
        bench.clock.forward(HOUR)
        with pytest.raises(LeaseLost):
            bench.ledger.work.renew(lost, ttl=TTL)
        assert bench.ledger.work.renew(second, ttl=TTL).token == 2


class TestHold:
    """A transient error, which makes the dataset wait."""

    @pytest.mark.parametrize("jump", JUMPS)
    def test_it_is_over_at_once(self, bench: Bench, jump: float) -> None:
        """After a jump of an hour what waited for the end of a back-off is asked for, claimed and loaded."""
        bench.arrive("sales/1")
        hold(bench)
        assert bench.ledger.wakeups.find() == 0
        assert bench.claim(bench.take()) == []
        bench.clock.forward(jump)
        assert bench.ledger.wakeups.find() == 1
        lease = bench.take()
        (ref,) = bench.claim(lease)
        bench.settle(lease, ref)
        assert bench.ledger.work.finish(lease)

    def test_a_run_at_work_does_not_let_go_of_what_is_due(self, bench: Bench) -> None:
        """After the clock was put back a run that finishes sees that its dataset is not held any more."""
        bench.arrive("sales/1")
        hold(bench)
        lease = bench.take()
        bench.clock.forward(-HOUR)
        bench.ledger.work.renew(lease, ttl=TTL)
        assert not bench.ledger.work.finish(lease)
        assert len(bench.claim(lease)) == 1

    @pytest.mark.parametrize("back", BACK)
    def test_no_jump_makes_it_last_longer_than_the_longest(self, bench: Bench, back: float) -> None:
        """However far the clock was put back, a back-off lasts a minute at the most."""
        bench.arrive("sales/1")
        hold(bench)
        bench.clock.forward(-back)
        assert seconds_until(bench, bench.ledger.wakeups.find) <= LONGEST_BACKOFF.total_seconds()
        assert len(bench.claim(bench.take())) == 1

    def test_a_failed_run_does_not_carry_it_on(self, bench: Bench) -> None:
        """A run that fails after the clock was put back pauses its dataset by the new time, not until the old."""
        bench.arrive("sales/1")
        hold(bench)
        bench.clock.forward(-HOUR)
        lease = bench.take()
        bench.claim(lease)
        abandon(bench, lease)
        until = bench.ledger.facts.standings()[0].hold_until
        assert until is not None
        assert until <= bench.clock.now + LONGEST_BACKOFF


class TestWakeUps:
    """What the relay is to send."""

    @pytest.mark.parametrize("jump", JUMPS)
    @pytest.mark.parametrize("sent", [1, 2, 6])
    def test_one_that_waits_for_its_next_attempt_is_due_at_once(self, bench: Bench, sent: int, jump: float) -> None:
        """After a jump of an hour an unanswered wake-up is sent again, once, and then waits by the new time."""
        bench.arrive("sales/1")
        for _ in range(sent):
            (wakeup,) = take_due(bench)
            assert take_due(bench) == []
            last = bench.clock.now
            bench.clock.forward(80)
        assert wakeup.attempt == sent
        bench.clock.now = last
        bench.clock.forward(jump)
        assert [found.attempt for found in take_due(bench)] == [sent + 1]
        assert take_due(bench) == []
        bench.clock.forward(AGAIN_AFTER.total_seconds() * 16)
        assert [found.attempt for found in take_due(bench)] == [sent + 2]

    @pytest.mark.parametrize("jump", JUMPS)
    def test_one_that_was_not_sent_is_due_at_once(self, bench: Bench, jump: float) -> None:
        """After a jump of an hour what could not be sent is tried again, and its attempt still does not count."""
        bench.arrive("sales/1")
        (wakeup,) = take_due(bench)
        bench.ledger.wakeups.not_sent(wakeup, again_after=AGAIN_AFTER)
        bench.clock.forward(jump)
        assert [found.attempt for found in take_due(bench)] == [1]

    @pytest.mark.parametrize("back", BACK)
    def test_no_jump_makes_it_wait_longer_than_the_longest_pause(self, bench: Bench, back: float) -> None:
        """However far the clock was put back, a wake-up is sent within the longest pause between two attempts."""
        bench.arrive("sales/1")
        for _ in range(6):
            assert len(take_due(bench)) == 1
            bench.clock.forward(80)
        bench.clock.forward(-80 - back)
        assert seconds_until(bench, lambda: take_due(bench)) <= 80

    def test_a_new_one_is_sent_at_once_although_it_was_asked_for_later(self, bench: Bench) -> None:
        """What was asked for just before the clock was put back need not wait for that moment to come again."""
        bench.arrive("sales/1")
        bench.clock.forward(-HOUR)
        assert [wakeup.attempt for wakeup in take_due(bench)] == [1]
