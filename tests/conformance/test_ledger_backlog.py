"""Old objects in the ledger: after what is new, in their own order, at their rate, and never forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

import pytest
from sqlalchemy import insert

from penstock.declarations import Backfill
from penstock.ledger import wakeups
from penstock.ledger.backlog import Progress, pause_after
from penstock.ledger.leases import LONGEST_BACKLOG_PAUSE
from penstock.ledger.tables import objects
from penstock.model import Lease, ObjectRef, State
from tests.conformance.ledgers import BACKENDS, MAKERS, START, TTL, Bench

HOUR = 3600.0
NEWEST = Backfill(prefix="archive/")
OLDEST = Backfill(prefix="archive/", order="oldest")
# Three at once, which is a quarter of a minute's: again after 15 s.
SLOW = Backfill(prefix="archive/", per_minute=12)


@pytest.fixture(params=BACKENDS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    with MAKERS[request.param](tmp_path / "ledger") as made:
        yield made


def arrive_old(
    bench: Bench, *days: int, dataset: str = "sales", size: int = 10, generation: int = 1, key: str = ""
) -> None:
    """Record objects that were written so many days ago, and ask for a run, as an arrival does."""
    with bench.ledger.database.write() as connection:
        rows = [
            {
                "dataset": dataset,
                "bucket": "landing",
                "key": key or f"archive/{dataset}/{day}",
                "generation": generation,
                "entry": 0,
                "etag": "a",
                "size": size,
                "via": "sweep",
                "state": State.PENDING.value,
                "arrived_at": bench.clock.now,
                "changed_at": bench.clock.now,
                "backlog": 1,
                "modified_at": START - timedelta(days=day),
            }
            for day in days
        ]
        connection.execute(insert(objects), rows)
        wakeups.request(connection, dataset, bench.clock.now)


def claim(
    bench: Bench, lease: Lease, backfill: Backfill | None, *, most: int = 100, size: int = 1_000_000
) -> list[ObjectRef]:
    return bench.ledger.work.claim(lease, run="r1", max_objects=most, max_bytes=size, backfill=backfill)


def claimed(bench: Bench, lease: Lease, backfill: Backfill | None, *, most: int = 100) -> list[str]:
    """The ends of the keys of the next batch, which is then loaded."""
    refs = claim(bench, lease, backfill, most=most)
    bench.settle(lease, *refs)
    return [ref.key.rpartition("/")[2] for ref in refs]


def use_up(bench: Bench) -> Lease:
    """Claim and load what a batch of the slow backfill may have, of more."""
    arrive_old(bench, *range(1, 10))
    lease = bench.take()
    assert claimed(bench, lease, SLOW) == ["1", "2", "3"]
    return lease


class TestOrder:
    """What is claimed when."""

    @pytest.mark.parametrize("order", ["newest", "oldest"])
    def test_old_ones_come_by_their_writing_in_a_quarter_of_a_batch(
        self, bench: Bench, order: Literal["newest", "oldest"]
    ) -> None:
        """With nothing new, a batch has a quarter of the objects that another may have, newest or oldest first."""
        arrive_old(bench, 5, 2, 8, 1, 9, 3)
        lease = bench.take()
        backfill = Backfill(prefix="archive/", order=order)
        found = [claimed(bench, lease, backfill, most=8) for _ in range(4)]
        newest = ["1", "2", "3", "5", "8", "9"]
        wanted = newest if order == "newest" else newest[::-1]
        assert found == [wanted[:2], wanted[2:4], wanted[4:], []]

    def test_what_is_new_comes_first_and_alone(self, bench: Bench) -> None:
        """New objects are claimed in arrival order before any old one, and the next batch after they came is theirs."""
        arrive_old(bench, 1, 2, 3, 4)
        bench.arrive("sales/b")
        bench.arrive("sales/a")
        lease = bench.take()
        assert claimed(bench, lease, NEWEST, most=8) == ["b", "a"]
        assert claimed(bench, lease, NEWEST, most=8) == ["1", "2"]
        bench.arrive("sales/c")
        assert not bench.ledger.work.finish(lease)
        assert claimed(bench, lease, NEWEST, most=8) == ["c"]
        assert claimed(bench, lease, NEWEST, most=8) == ["3", "4"]
        assert bench.ledger.work.finish(lease)

    def test_large_old_ones_come_in_a_quarter_of_the_bytes(self, bench: Bench) -> None:
        """Old objects together have at most a quarter of the bytes of a batch; one that has more comes alone."""
        arrive_old(bench, 1, 2, 3, size=40)
        arrive_old(bench, 4, size=1000)
        lease = bench.take()
        found = [[ref.size for ref in claim(bench, lease, NEWEST, size=400)] for _ in range(3)]
        assert found == [[40, 40], [40], [1000]]

    def test_without_the_declaration_they_are_as_new(self, bench: Bench) -> None:
        """What was marked old under a backfill that is gone comes in arrival order, whatever its rate was."""
        lease = use_up(bench)
        bench.arrive("sales/a")
        assert claimed(bench, lease, None) == ["4", "5", "6", "7", "8", "9", "a"]
        assert bench.ledger.work.finish(lease)

    def test_another_order_and_no_rate_hold_at_once(self, bench: Bench) -> None:
        """What a changed declaration says goes for what was marked before it."""
        lease = use_up(bench)
        assert claimed(bench, lease, OLDEST, most=8) == ["9", "8"]
        assert claimed(bench, lease, NEWEST, most=8) == ["4", "5"]

    def test_what_failed_comes_with_fewer_until_it_is_alone(self, bench: Bench) -> None:
        """Old objects that took a run along come in ever smaller batches, as others do."""
        arrive_old(bench, *range(1, 41))
        sizes = []
        for _ in range(4):
            lease = bench.take()
            sizes.append(len(claim(bench, lease, NEWEST)))
            bench.ledger.work.abandon(lease, reason="Boom: x", run="r1", blame=True)
            bench.clock.forward(61)
        assert sizes == [25, 3, 1, 1]

    @pytest.mark.parametrize("newer", ["new", "old"])
    def test_generations_of_a_key_come_in_their_order(self, bench: Bench, newer: str) -> None:
        """An old generation is claimed before the one that overwrote it, though that would come first."""
        arrive_old(bench, 5, key="sales/a")
        if newer == "old":
            arrive_old(bench, 2, key="sales/a", generation=2)
        else:
            arrive_old(bench, 2, key="sales/a", generation=2)
            with bench.ledger.database.write() as connection:
                connection.execute(objects.update().where(objects.c.generation == 2).values(backlog=0))
        arrive_old(bench, 1)
        lease = bench.take()
        found = [[(ref.key, ref.generation) for ref in claim(bench, lease, NEWEST, most=8)] for _ in range(3)]
        first, second, other = [("sales/a", 1)], [("sales/a", 2)], [("archive/sales/1", 1)]
        assert found == ([first + second, other, []] if newer == "new" else [other + first, second, []])

    def test_an_old_one_stays_old_when_its_overwrite_is_claimed(self, bench: Bench) -> None:
        """Claimed with what overwrote it, it still counts as arrived when it was written, then and later."""
        arrive_old(bench, 5, key="sales/a")
        bench.arrive("sales/b")
        arrive_old(bench, 0, key="sales/a", generation=2)
        with bench.ledger.database.write() as connection:
            connection.execute(objects.update().where(objects.c.generation == 2).values(backlog=0))
        lease = bench.take()
        refs = claim(bench, lease, NEWEST)
        moments = [("sales/a", START - timedelta(days=5)), ("sales/b", START), ("sales/a", START)]
        assert [(ref.key, ref.arrived_at) for ref in refs] == moments
        bench.ledger.work.abandon(lease, reason="Boom: x", run="r1", blame=False)
        assert [row.backlog for row in bench.rows()] == [1, 0, 0]

    def test_an_old_one_arrived_when_it_was_written(self, bench: Bench) -> None:
        """By what arrivals are compared, an old object comes before what is new, whichever was recorded first."""
        bench.arrive("sales/a")
        bench.clock.forward(60)
        arrive_old(bench, 3)
        lease = bench.take()
        (new,), (old,) = claim(bench, lease, NEWEST), claim(bench, lease, NEWEST)
        assert (new.arrived_at, old.arrived_at) == (START, START - timedelta(days=3))


class TestRate:
    """`per_minute`."""

    def test_no_more_are_claimed_until_the_time_is_over(self, bench: Bench) -> None:
        """A quarter of a minute's is claimed at once, then nothing old for a quarter of a minute, but what is new."""
        lease = use_up(bench)
        assert claimed(bench, lease, SLOW) == []
        bench.arrive("sales/a")
        assert claimed(bench, lease, SLOW) == ["a"]
        bench.clock.forward(14.9)
        assert claimed(bench, lease, SLOW) == []
        bench.clock.forward(0.1)
        assert claimed(bench, lease, SLOW) == ["4", "5", "6"]
        assert claimed(bench, lease, SLOW) == []

    @pytest.mark.parametrize("per_minute", [1, 7, 50])
    def test_the_rate_holds_in_any_minute(self, bench: Bench, per_minute: int) -> None:
        """Looked at each second, no minute has more than it may by more than one batch, and little time is lost."""
        count = 2 * per_minute + 1
        arrive_old(bench, *range(1, count + 1))
        backfill = Backfill(prefix="archive/", per_minute=per_minute)
        at: list[datetime] = []
        largest = 0
        while len(at) < count:
            if bench.ledger.wakeups.find() or bench.woken():
                lease = bench.take()
                while refs := claim(bench, lease, backfill):
                    at += [bench.clock.now] * len(refs)
                    largest = max(largest, len(refs))
                    bench.settle(lease, *refs)
                assert bench.ledger.work.finish(lease)
            bench.clock.forward(1)
        busiest = max(sum(start <= one < start + timedelta(minutes=1) for one in at) for start in at)
        assert busiest <= per_minute + largest - 1
        assert largest == max(1, per_minute // 4)
        assert timedelta(seconds=105) <= at[-1] - at[0] <= timedelta(seconds=140)

    def test_a_run_lets_go_and_is_asked_for_again_when_it_is_time(self, bench: Bench) -> None:
        """Old objects that are not due keep no run; the relay finds them at the moment they are, and not before."""
        lease = use_up(bench)
        assert bench.ledger.work.finish(lease)
        bench.clock.forward(14.9)
        assert (bench.ledger.wakeups.find(), bench.woken()) == (0, [])
        bench.clock.forward(0.1)
        assert (bench.ledger.wakeups.find(), bench.woken()) == (1, ["sales"])

    def test_a_run_that_finds_them_due_goes_on(self, bench: Bench) -> None:
        """A run does not let go of what has become due since it looked."""
        lease = use_up(bench)
        bench.clock.forward(15)
        assert not bench.ledger.work.finish(lease)
        assert claimed(bench, lease, SLOW) == ["4", "5", "6"]

    def test_more_old_ones_ask_for_no_run_before_it_is_time(self, bench: Bench) -> None:
        """While a sweep goes on finding old objects, no run is asked for that could claim none; a new one asks."""
        lease = use_up(bench)
        assert bench.ledger.work.finish(lease)
        arrive_old(bench, 20)
        assert bench.woken() == []
        bench.arrive("sales/a")
        assert bench.woken() == ["sales"]

    def test_a_new_one_that_nobody_asked_for_is_found(self, bench: Bench) -> None:
        """What is new among old ones that are not due is found by the relay, with other datasets' work."""
        lease = use_up(bench)
        bench.arrive("sales/a")
        assert bench.ledger.wakeups.find() == 0
        bench.clock.forward(0.5)
        bench.ledger.work.abandon(lease, reason="r", run="r1", blame=True)
        bench.clock.forward(2)
        for name in ("alpha", "zeta"):
            arrive_old(bench, 1, dataset=name)
        with bench.ledger.database.write() as connection:
            connection.exec_driver_sql("DELETE FROM wakeups")
        assert bench.ledger.wakeups.find() == 3
        assert sorted(bench.woken()) == ["alpha", "sales", "zeta"]

    def test_what_a_dead_run_had_is_found_before_it_is_due(self, bench: Bench) -> None:
        """The claim of a run that died is asked for when its lease is over, though its budget is used for longer."""
        arrive_old(bench, 1, 2)
        lease = bench.take()
        assert len(claim(bench, lease, Backfill(prefix="archive/", per_minute=1))) == 1
        bench.clock.forward(TTL.total_seconds())
        assert bench.ledger.wakeups.find() == 1
        second = bench.take(holder="two")
        assert second.taken_over
        assert [row.state for row in bench.rows()] == ["pending", "pending"]
        assert bench.ledger.work.finish(second)

    @pytest.mark.parametrize("back", [1.0, 59.0, HOUR, 24 * HOUR])
    def test_a_clock_that_is_put_back_stops_nothing(self, bench: Bench, back: float) -> None:
        """However far the clock was put back, old objects wait for a minute at the most."""
        lease = use_up(bench)
        assert bench.ledger.work.finish(lease)
        bench.clock.forward(-back)
        waited = 0
        while not bench.ledger.wakeups.find():
            bench.clock.forward(1)
            waited += 1
            assert waited <= 60
        assert (waited == 0) == (back + 15 > LONGEST_BACKLOG_PAUSE.total_seconds())
        assert claimed(bench, bench.take(), SLOW) == ["4", "5", "6"]

    def test_a_budget_of_another_clock_does_not_hold_a_run(self, bench: Bench) -> None:
        """A run at work while the clock is put back by an hour does not let go of what is due, and claims it."""
        lease = use_up(bench)
        bench.clock.forward(-HOUR)
        lease = bench.ledger.work.renew(lease, ttl=TTL)
        assert not bench.ledger.work.finish(lease)
        assert claimed(bench, lease, SLOW) == ["4", "5", "6"]
        assert claimed(bench, lease, SLOW) == []

    def test_the_pause_is_never_longer_than_the_longest(self) -> None:
        """What is claimed at once never uses up more than a minute."""
        assert {pause_after(max(1, rate // 4), rate) <= LONGEST_BACKLOG_PAUSE for rate in range(1, 200)} == {True}


class TestProgress:
    """How far it is."""

    def test_it_counts_old_objects_only(self, bench: Bench) -> None:
        """Done, left and failed are those of the old ones, with the newest and the oldest that wait, and the rate."""
        arrive_old(bench, *range(1, 11))
        arrive_old(bench, 1, dataset="other")
        bench.arrive("sales/a")
        lease = bench.take()
        assert claimed(bench, lease, SLOW) == ["a"]
        refs = claim(bench, lease, SLOW)
        bench.settle(lease, *refs[:2])
        bench.settle(lease, refs[2], state=State.QUARANTINED)
        bench.clock.forward(5)
        found = bench.ledger.backlog.progress("sales", SLOW)
        assert (found.done, found.left, found.failed, found.recently, found.limit) == (2, 7, 1, 3, 12)
        assert (found.newest, found.oldest) == (START - timedelta(days=4), START - timedelta(days=10))
        assert found.due == START + timedelta(seconds=15)
        assert [bench.ledger.backlog.is_waiting(name) for name in ("sales", "plain")] == [True, False]
        bench.clock.forward(599)
        assert bench.ledger.backlog.progress("sales", SLOW).recently == 0

    @pytest.mark.parametrize(
        ("recently", "seconds", "limit", "wanted"),
        [
            pytest.param(0, 0.0, None, None, id="nothing_is_known"),
            pytest.param(0, 0.0, 10, (10, "limit"), id="only_the_limit"),
            pytest.param(40, 120.0, None, (5, "observed"), id="only_what_was_seen"),
            pytest.param(40, 9.0, None, None, id="it_was_not_seen_for_long_enough"),
            pytest.param(40, 120.0, 10, (10, "limit"), id="the_limit_is_slower"),
            pytest.param(10, 120.0, 10, (20, "observed"), id="it_is_slower_than_the_limit"),
        ],
    )
    def test_the_estimate_goes_by_the_slower_rate(
        self, recently: int, seconds: float, limit: int | None, wanted: tuple[int, str] | None
    ) -> None:
        """A hundred that are left take as long as the slower of limit and observed rate says."""
        found = Progress(
            dataset="sales",
            done=1,
            left=100,
            failed=0,
            newest=None,
            oldest=None,
            recently=recently,
            seconds=seconds,
            at=START,
            due=None,
            limit=limit,
        )
        assert found.estimate == (wanted and (START + timedelta(minutes=wanted[0]), wanted[1]))
