"""What every ledger must do for a run: leases, claims, outcomes, giving back and letting go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from penstock import events
from penstock.errors import LeaseLost
from penstock.ledger import Ledger
from penstock.model import Lease, ObjectRef, Outcome, State
from tests.conformance.ledgers import BACKENDS, MAKERS, SALES, TTL, Bench, declared


@pytest.fixture(params=BACKENDS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    with MAKERS[request.param](tmp_path / "ledger") as made:
        yield made


def give_back(bench: Bench, lease: Lease, refs: list[ObjectRef], failed: ObjectRef | None = None) -> None:
    bench.ledger.work.give_back(lease, refs, run="r1", failed=failed or refs[0], reason="the store is away")


def abandon(bench: Bench, lease: Lease, *, blame: bool) -> None:
    bench.ledger.work.abandon(lease, reason="Boom: x", run="r1", blame=blame)


class TestLease:
    """Who holds a dataset."""

    def test_one_holder_at_a_time(self, bench: Bench) -> None:
        """While a lease lives nobody else gets it, and each dataset has its own."""
        first = bench.take()
        assert (first.token, first.taken_over, first.expires_at) == (1, False, bench.clock.now + TTL)
        assert bench.acquire(holder="two") is None
        bench.clock.forward(29.999)
        assert bench.acquire(holder="two") is None
        assert bench.take("others", holder="two").token == 1

    def test_of_many_at_once_one_gets_it(self, bench: Bench) -> None:
        """Eight threads that want the lease at once: one gets it."""
        second = bench.open()

        def acquire(ledger: Ledger) -> Lease | None:
            return ledger.work.acquire("sales", holder="x", ttl=TTL)

        with ThreadPoolExecutor(8) as pool:
            got = list(pool.map(acquire, [bench.ledger, second] * 4))
        second.close()
        assert [lease.token for lease in got if lease] == [1]

    def test_the_token_grows_with_every_holder(self, bench: Bench) -> None:
        """A lease that was let go is taken again with a greater token, and nothing was taken over."""
        for token in (1, 2, 3):
            lease = bench.take()
            assert (lease.token, lease.taken_over) == (token, False)
            assert bench.ledger.work.finish(lease)

    def test_an_expired_lease_is_taken_over(self, bench: Bench) -> None:
        """The next holder of an expired lease knows that the last one may be at work, and gets its claim."""
        bench.arrive("sales/1")
        bench.claim(bench.take(), run="r1")
        bench.clock.forward(30)
        second = bench.take(holder="two")
        assert (second.token, second.taken_over) == (2, True)
        (ref,) = bench.claim(second, run="r2")
        assert ref.attempts == 1
        (story,) = bench.ledger.facts.stories("sales/1")
        assert [(fact.what, fact.run) for fact in story.facts] == [("pending", "r1")]

    def test_a_heartbeat_keeps_it(self, bench: Bench) -> None:
        """A renewed lease expires that much later, and its token stays."""
        lease = bench.take()
        bench.clock.forward(20)
        renewed = bench.ledger.work.renew(lease, ttl=TTL)
        assert (renewed.token, renewed.expires_at) == (1, bench.clock.now + TTL)
        bench.clock.forward(29)
        assert bench.acquire(holder="two") is None
        bench.clock.forward(1)
        assert bench.take(holder="two").token == 2

    def test_a_death_is_counted_against_what_was_claimed(self, bench: Bench) -> None:
        """Each run that died with an object is one attempt more, and the next claim says what happened to the last."""
        bench.arrive("sales/1")
        for attempts in (0, 1, 2):
            (ref,) = bench.claim(bench.take())
            assert ref.attempts == attempts
            assert bool(ref.trouble) == bool(attempts)
            bench.clock.forward(30)
        (ref,) = bench.claim(bench.take())
        assert ref.trouble == "the run that held it ended without a word (attempt 3)"


def _renew(bench: Bench, lease: Lease, refs: list[ObjectRef]) -> None:
    bench.ledger.work.renew(lease, ttl=TTL)


def _claim(bench: Bench, lease: Lease, refs: list[ObjectRef]) -> None:
    bench.claim(lease)


def _settle(bench: Bench, lease: Lease, refs: list[ObjectRef]) -> None:
    bench.settle(lease, *refs)


def _finish(bench: Bench, lease: Lease, refs: list[ObjectRef]) -> None:
    bench.ledger.work.finish(lease)


def _abandon(bench: Bench, lease: Lease, refs: list[ObjectRef]) -> None:
    abandon(bench, lease, blame=True)


Step = Callable[[Bench, Lease, list[ObjectRef]], None]
STEPS: list[Step] = [_renew, _claim, _settle, give_back, _finish, _abandon]


@pytest.mark.parametrize("step", STEPS)
class TestLostLease:
    """What a run can do that lost it: nothing."""

    def test_a_lease_that_another_took_changes_nothing(self, bench: Bench, step: Step) -> None:
        """Whatever a run does with a lease that was taken over ends in LeaseLost and leaves the ledger as it was."""
        bench.arrive("sales/1")
        bench.arrive("sales/2")
        lost = bench.take()
        refs = bench.claim(lost, objects=1)
        bench.clock.forward(30)
        bench.claim(bench.take(holder="two"), objects=1)
        before = bench.everything()
        with pytest.raises(LeaseLost, match="sales with token 1"):
            step(bench, lost, refs)
        assert bench.everything() == before

    def test_a_lease_that_was_let_go_changes_nothing(self, bench: Bench, step: Step) -> None:
        """A run cannot go on with a lease that it gave up, though nobody took it since."""
        bench.arrive("sales/1")
        lost = bench.take()
        refs = bench.claim(lost)
        abandon(bench, lost, blame=False)
        before = bench.everything()
        with pytest.raises(LeaseLost):
            step(bench, lost, refs)
        assert bench.everything() == before


class TestClaim:
    """What a run gets."""

    def test_in_arrival_order_up_to_the_bounds(self, bench: Bench) -> None:
        """Objects come in the order of their arrival, at most so many and at most so many bytes."""
        for n in range(6):
            bench.arrive(f"sales/{9 - n}", size=10)
        lease = bench.take()
        assert [ref.key for ref in bench.claim(lease, objects=2)] == ["sales/9", "sales/8"]
        assert [ref.key for ref in bench.claim(lease, size=20)] == ["sales/7", "sales/6"]
        assert [ref.key for ref in bench.claim(lease, size=19)] == ["sales/5"]
        assert [ref.key for ref in bench.claim(lease)] == ["sales/4"]
        assert bench.claim(lease) == []

    def test_the_first_one_always(self, bench: Bench) -> None:
        """An object over the bound is claimed alone, and never stops what is behind it."""
        bench.arrive("sales/huge", size=10**12)
        bench.arrive("sales/small", size=1)
        lease = bench.take()
        assert [ref.key for ref in bench.claim(lease, size=100)] == ["sales/huge"]
        assert [ref.key for ref in bench.claim(lease, size=100)] == ["sales/small"]

    def test_only_its_own_dataset(self, bench: Bench) -> None:
        """A claim takes nothing of another dataset."""
        bench.arrive("sales/1")
        bench.arrive("others/1", dataset=declared("others"))
        assert [ref.key for ref in bench.claim(bench.take("others"))] == ["others/1"]

    def test_a_failing_batch_is_split_until_the_culprit_is_alone(self, bench: Bench) -> None:
        """What a run died with is claimed with ever fewer others, in its order, and in the end alone."""
        for n in range(20):
            bench.arrive(f"sales/{n:02}")
        sizes = []
        for _ in range(4):
            sizes.append(len(bench.claim(bench.take(), objects=16)))
            bench.clock.forward(30)
        assert sizes == [16, 2, 1, 1]
        lease = bench.take()
        assert [(ref.key, ref.attempts) for ref in bench.claim(lease, objects=16)] == [("sales/00", 4)]
        assert [(ref.key, ref.attempts) for ref in bench.claim(lease, objects=16)] == [("sales/01", 2)]

    def test_a_suspect_takes_few_along(self, bench: Bench) -> None:
        """A claim stops before a suspect when it holds more than may be claimed with that one."""
        for n in range(4):
            bench.arrive(f"sales/{n}")
        lease = bench.take()
        give_back(bench, lease, bench.claim(lease)[:2])
        bench.clock.forward(30)
        lease = bench.take()
        assert [ref.key for ref in bench.claim(lease, objects=8)] == ["sales/0", "sales/1"]
        assert [(ref.key, ref.attempts) for ref in bench.claim(lease, objects=8)] == [("sales/2", 1)]
        assert [(ref.key, ref.attempts) for ref in bench.claim(lease, objects=8)] == [("sales/3", 1)]


def _refs(bench: Bench, key: str) -> list[ObjectRef]:
    return [
        ObjectRef(id=row.id, dataset="sales", bucket="landing", key=key, generation=1, etag="a", size=10)
        for row in bench.rows()
        if row.key == key
    ]


class TestSettle:
    """What became of it."""

    def test_history_and_events_once(self, bench: Bench) -> None:
        """Every outcome is told once in history, with its run; loads in one event, each quarantine in its own."""
        ends = [State.LOADED, State.LOADED, State.QUARANTINED, State.EMPTY, State.MISSING, State.SUPERSEDED]
        for n in range(len(ends)):
            bench.arrive(f"sales/{n}", size=n)
        lease = bench.take()
        refs = bench.claim(lease)
        bench.ledger.outbox.sent([event.row for event in bench.ledger.outbox.unsent(99)])
        outcomes = [
            Outcome(ref=ref, state=end, rows=3, rejected=1, reason=None if end is State.LOADED else f"is {end}")
            for ref, end in zip(refs, ends, strict=True)
        ]
        bench.ledger.work.settle(lease, outcomes, run="r1")
        once = bench.everything()
        assert [state for _, _, state in bench.states()] == [end.value for end in ends]
        for ref, end in zip(refs, ends, strict=True):
            (story,) = bench.ledger.facts.stories(ref.key)
            assert [(fact.what, fact.run) for fact in story.facts] == [(end.value, "r1")]
        loaded, quarantined = bench.ledger.outbox.unsent(99)[::-1]
        assert (loaded.name, quarantined.name) == (events.DATASET_LOADED, events.OBJECT_QUARANTINED)
        assert loaded.payload == {
            "objects": 2,
            "bytes": 1,
            "keys": ["sales/0", "sales/1"],
            "rows": 6,
            "rejected": 2,
            "run": "r1",
        }
        assert quarantined.payload["reason"] == "is quarantined"
        bench.ledger.work.settle(lease, outcomes, run="r1")
        assert bench.everything() == once

    def test_only_what_this_holder_claimed(self, bench: Bench) -> None:
        """An outcome for an object that is not claimed changes nothing and announces nothing."""
        bench.arrive("sales/1")
        lease = bench.take()
        before = bench.everything()
        bench.settle(lease, *_refs(bench, "sales/1"))
        assert bench.everything() == before

    def test_replaced_generations_are_superseded(self, bench: Bench) -> None:
        """What a newer generation replaced is superseded, with a line of history, once."""
        bench.arrive("sales/1", "a")
        lease = bench.take()
        bench.settle(lease, *bench.claim(lease))
        bench.arrive("sales/1", "b")
        (newer,) = bench.claim(lease)
        replaced = bench.ledger.work.older([newer])[newer.id]
        outcome = Outcome(ref=newer, state=State.LOADED, rows=1)
        for _ in range(2):
            bench.ledger.work.settle(lease, [outcome], run="r2", replaced=replaced)
        assert [state for _, _, state in bench.states()] == ["superseded", "loaded"]
        old = bench.ledger.facts.stories("sales/1@1")[-1]
        assert [fact.what for fact in old.facts] == ["loaded", "superseded"]

    def test_all_or_nothing(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        """When the event cannot be written no outcome is."""
        bench.arrive("sales/1")
        lease = bench.take()
        refs = bench.claim(lease)
        before = bench.everything()

        def fail(*args: object, **kwargs: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr("penstock.ledger.outbox.enqueue_all", fail)
        with pytest.raises(ZeroDivisionError):
            bench.settle(lease, *refs)
        assert bench.everything() == before


class TestGiveBack:
    """Transient errors."""

    def test_it_holds_the_dataset_longer_each_time_and_never_quarantines(self, bench: Bench) -> None:
        """Transient errors wait 1, 2, 4 … 60 seconds, count no attempt, and end nothing however often they come."""
        bench.arrive("sales/1")
        bench.arrive("sales/2")
        for wait in (1, 2, 4, 8, 16, 32, 60, 60, 60):
            lease = bench.take()
            refs = bench.claim(lease)
            assert [ref.key for ref in refs] == ["sales/1", "sales/2"]
            give_back(bench, lease, refs)
            assert bench.claim(lease) == []
            assert bench.ledger.work.finish(lease)
            bench.clock.forward(wait - 0.001)
            assert bench.ledger.wakeups.find() == 0
            assert bench.claim(bench.take()) == []
            bench.clock.forward(30)  # that lease expires
            assert bench.ledger.wakeups.find() == 1
        assert {(row.state, row.attempts) for row in bench.rows()} == {("pending", 0)}
        (story,) = bench.ledger.facts.stories("sales/1")
        assert {fact.what for fact in story.facts} == {"postponed"}
        assert story.reason == "the store is away"

    def test_only_what_failed_is_held_against(self, bench: Bench) -> None:
        """What came behind the failed one goes back without a mark."""
        bench.arrive("sales/1")
        bench.arrive("sales/2")
        lease = bench.take()
        refs = bench.claim(lease)
        give_back(bench, lease, refs, failed=refs[1])
        assert [row.hiccups for row in bench.rows()] == [0, 1]


class TestFinish:
    """Letting go."""

    def test_it_does_not_let_go_while_something_is_pending(self, bench: Bench) -> None:
        """An arrival after the last claim keeps the lease, since it woke nobody; when it is done the lease is free."""
        bench.arrive("sales/1")
        lease = bench.take()
        bench.settle(lease, *bench.claim(lease))
        assert bench.claim(lease) == []
        bench.arrive("sales/2")
        assert bench.woken() == []
        assert not bench.ledger.work.finish(lease)
        assert bench.acquire(holder="two") is None
        bench.settle(lease, *bench.claim(lease))
        assert bench.ledger.work.finish(lease)
        bench.arrive("sales/3")
        assert bench.woken() == ["sales"]

    def test_an_arrival_at_the_same_time_is_never_forgotten(self, bench: Bench) -> None:
        """However finish and an arrival meet, either the lease stays or a wake-up is there."""
        second = bench.open()
        for n in range(30):
            lease = bench.take()
            bench.settle(lease, *bench.claim(lease))
            with ThreadPoolExecutor(2) as pool:
                arrived = pool.submit(bench.arrive, f"sales/{n}")
                let_go = pool.submit(second.work.finish, lease)
            assert arrived.result() == 1
            assert let_go.result() == (bench.woken() == ["sales"])
            if not let_go.result():
                bench.settle(lease, *bench.claim(lease))
                assert bench.ledger.work.finish(lease)
        second.close()

    def test_it_lets_go_of_a_held_dataset(self, bench: Bench) -> None:
        """What waits for the end of a back-off does not keep the run."""
        bench.arrive("sales/1")
        lease = bench.take()
        give_back(bench, lease, bench.claim(lease))
        assert bench.ledger.work.finish(lease)


class TestRelease:
    """Letting go with something left, as a flow of one's own does after one batch."""

    def test_what_is_left_is_asked_for(self, bench: Bench) -> None:
        """A wake-up is outstanding where something can be claimed, and none where nothing can, or only later."""
        lease = bench.take()
        bench.ledger.work.release(lease)
        assert bench.woken() == []
        bench.arrive("sales/1")
        lease = bench.take(holder="two")
        assert bench.woken() == []
        bench.ledger.work.release(lease)
        assert bench.woken() == ["sales"]
        lease = bench.take(holder="three")
        assert not lease.taken_over
        give_back(bench, lease, bench.claim(lease))
        bench.ledger.work.release(lease)
        assert bench.woken() == [], "it is asked for when the back-off ends"

    def test_an_arrival_at_the_same_time_is_never_forgotten(self, bench: Bench) -> None:
        """However it and an arrival meet, a wake-up is there."""
        second = bench.open()
        for n in range(20):
            lease = bench.take(holder=f"run {n}")
            bench.settle(lease, *bench.claim(lease))
            with ThreadPoolExecutor(2) as pool:
                arrived = pool.submit(bench.arrive, f"sales/{n}")
                let_go = pool.submit(second.work.release, lease)
            assert arrived.result() == 1
            let_go.result()
            assert bench.woken() == ["sales"]
        second.close()

    def test_who_lost_the_lease_lets_go_of_nothing(self, bench: Bench) -> None:
        """It is the next holder's by then."""
        lease = bench.take()
        bench.clock.forward(TTL.total_seconds() + 1)
        bench.take(holder="two")
        with pytest.raises(LeaseLost):
            bench.ledger.work.release(lease)
        assert bench.acquire(holder="three") is None


class TestAbandon:
    """Runs that fail."""

    @pytest.mark.parametrize(("blame", "attempts"), [(True, 1), (False, 0)])
    def test_the_claim_goes_back(self, bench: Bench, *, blame: bool, attempts: int) -> None:
        """A failed run's claim is pending again, with the reason, and the lease is free after a pause."""
        bench.arrive("sales/1")
        lease = bench.take()
        bench.claim(lease)
        abandon(bench, lease, blame=blame)
        (row,) = bench.rows()
        assert (row.state, row.attempts, row.claim_token) == ("pending", attempts, None)
        assert row.reason.startswith("Boom: x")
        assert bench.ledger.wakeups.find() == 0
        bench.clock.forward(1)
        assert bench.ledger.wakeups.find() == 1
        again = bench.take()
        # What failed may still be at work in the warehouse: the next holder has to fence it off.
        assert again.taken_over
        assert [ref.attempts for ref in bench.claim(again)] == [attempts]

    def test_without_blame_nothing_is_ever_quarantined_and_the_pause_grows(self, bench: Bench) -> None:
        """A failure that is not the objects' fault is tried again for ever, ever less often."""
        bench.arrive("sales/1")
        pauses = []
        for _ in range(8):
            lease = bench.take()
            bench.claim(lease)
            abandon(bench, lease, blame=False)
            until = bench.ledger.facts.standings()[0].hold_until
            assert until is not None
            pauses.append((until - bench.clock.now).total_seconds())
            bench.clock.now = until
        assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
        assert bench.rows()[0].state == "pending"

    def test_it_does_not_shorten_a_back_off(self, bench: Bench) -> None:
        """A run that gave back for a long wait and then fails leaves the wait as long."""
        bench.arrive("sales/1")
        for _ in range(4):
            lease = bench.take()
            give_back(bench, lease, bench.claim(lease))
            bench.ledger.work.finish(lease)
            bench.clock.forward(60)
        lease = bench.take()
        give_back(bench, lease, bench.claim(lease))
        abandon(bench, lease, blame=False)
        until = bench.ledger.facts.standings()[0].hold_until
        assert until is not None
        assert (until - bench.clock.now).total_seconds() == 16


def test_older_are_the_loaded_generations_of_the_same_key(bench: Bench) -> None:
    """What a load replaces is every loaded older generation of its key, and nothing of another."""
    logs = declared("sales", on_overwrite="append")
    lease = None
    for etag in "abc":
        bench.arrive("sales/1", etag, dataset=logs)
        bench.arrive("sales/2", "a", dataset=SALES)
        lease = lease or bench.take()
        claimed = bench.claim(lease)
        if etag != "c":
            bench.settle(lease, *claimed)
    older = bench.ledger.work.older(claimed)
    assert [[old.generation for old in found] for found in older.values()] == [[1, 2]]
