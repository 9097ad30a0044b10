"""What is loaded a second time, and what is given up: real store, real ledger, real DuckDB, no Prefect."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import duckdb
import pytest

from penstock import events
from penstock.errors import LeaseLost
from penstock.flows.verify import Compared, compare, due
from penstock.ledger.replay import Selection
from penstock.model import State
from tests.integration.parts import SALES, parts_in
from tests.integration.test_batch import TTL, Works, csv_of, load_and_crash, works_on
from tests.real_store import RealStore, real_store


@pytest.fixture(scope="module")
def embedded() -> Iterator[RealStore]:
    """The store of this module's tests."""
    with real_store("embedded") as server:
        yield server


@pytest.fixture
def works(tmp_path: Path, embedded: RealStore) -> Iterator[Works]:
    """A dataset `sales` without checks, on a clock that stands still."""
    with parts_in(tmp_path, embedded, fake_time=True) as parts:
        yield works_on(parts)


def break_warehouse(works: Works, sql: str) -> None:
    """What no code of ours does: change the warehouse behind its back."""
    with duckdb.connect(str(works.warehouse.path)) as connection:
        connection.execute(sql)


def lost(works: Works, key: str) -> None:
    """Send a loaded object back, as `verify` does."""
    (ref,) = [r for r in works.parts.ledger.checked.loaded("sales", after=0, limit=99) if r.key == key]
    assert works.parts.ledger.checked.lost([ref], what="a test says so") == 1


class TestAgain:
    """Loading what the warehouse has already."""

    def test_it_replaces_and_never_doubles(self, works: Works) -> None:
        """An object that is loaded again brings its rows once, and the other objects' rows stay."""
        works.parts.arrive("sales/a.csv", csv_of(1, 2))
        works.parts.arrive("sales/b.csv", csv_of(3))
        works.drain()
        lost(works, "sales/a.csv")
        assert works.drain().outcomes == {"loaded": 1}
        assert works.rows() == [1, 2, 3]
        assert works.parts.states("sales/a.csv") == [State.LOADED]

    def test_a_crash_after_the_commit_is_repaired_by_doing_it_once_more(self, works: Works) -> None:
        """The run died between warehouse and ledger: the next one loads it again, over the same rows."""
        works.parts.arrive("sales/a.csv", csv_of(1, 2))
        works.drain()
        lost(works, "sales/a.csv")
        lease = works.acquire()
        batch = works.batch(lease, works.claim(lease))
        batch.fetch()
        batch.check()
        batch.load()
        works.parts.clock.advance(seconds=TTL.total_seconds())
        assert works.drain().outcomes == {"loaded": 1}
        assert works.rows() == [1, 2]

    def test_what_cannot_be_read_again_stays_as_it_was(self, works: Works) -> None:
        """The object is gone from the store: its rows stay, it is loaded as before, and its reason says so."""
        works.parts.arrive("sales/a.csv", csv_of(1, 2))
        works.drain()
        lost(works, "sales/a.csv")
        works.parts.server.client()._client.remove_object(works.parts.bucket, "sales/a.csv")
        assert works.drain().outcomes == {"loaded": 1}
        (story,) = works.parts.stories("sales/a.csv")
        assert (story.state, story.rows) == (State.LOADED, 2)
        assert "its rows stay as they were: it was deleted" in (story.reason or "")
        assert works.rows() == [1, 2]

    def test_an_overwrite_that_comes_meanwhile_wins(self, works: Works) -> None:
        """Overwritten while it waited to be loaded again: only the new generation's rows are there."""
        works.parts.arrive("sales/a.csv", csv_of(1, 2))
        works.drain()
        lost(works, "sales/a.csv")
        works.parts.arrive("sales/a.csv", csv_of(7))
        works.drain()
        assert works.rows() == [7]


class TestWhatARunLeft:
    """Generations that a run had, or may have loaded, when the next one came."""

    def test_an_overwrite_that_was_loaded_unsaid_supersedes_the_one_before(self, works: Works) -> None:
        """The run that replaced died before it told the ledger: the next one tells of both generations."""
        works.parts.arrive("sales/a.csv", csv_of(1))
        works.drain()
        works.parts.arrive("sales/a.csv", csv_of(2))
        load_and_crash(works)
        works.parts.clock.advance(seconds=TTL.total_seconds())
        works.drain()
        assert works.rows() == [2]
        assert works.parts.states("sales/a.csv") == [State.LOADED, State.SUPERSEDED]

    @pytest.mark.parametrize("how", ["died", "replayed", "lost"])
    def test_ignore_never_loads_a_key_twice(self, tmp_path: Path, embedded: RealStore, how: str) -> None:
        """What may be in the warehouse already keeps an overwrite out, whatever the ledger's row goes through."""
        dataset = replace(SALES, on_overwrite="ignore")
        with parts_in(tmp_path, embedded, [dataset], fake_time=True) as parts:
            works = works_on(parts, dataset)
            parts.arrive("sales/a.csv", csv_of(1, 2))
            if how == "died":
                load_and_crash(works)
                parts.clock.advance(seconds=TTL.total_seconds())
                parts.ledger.work.abandon(works.acquire(), reason="died too", run="r", blame=False)
            elif how == "replayed":
                works.drain()
                selection = Selection(keys=("sales/a.csv",))
                parts.ledger.replay.replay(selection, datasets=[dataset], force=True, by="a test")
            else:
                works.drain()
                lost(works, "sales/a.csv")
            parts.put("sales/a.csv", csv_of(7))
            parts.record("sales/a.csv")
            parts.clock.advance(seconds=60)
            works.drain()
            works.drain()
            assert works.rows() == [1, 2]
            assert parts.states("sales/a.csv") == [State.IGNORED, State.LOADED]

    def test_a_bad_overwrite_of_what_waits_to_be_loaded_again_takes_nothing_out(self, works: Works) -> None:
        """The new generation is quarantined, and the one before it stays as it was."""
        works.parts.arrive("sales/a.csv", csv_of(1, 2))
        works.drain()
        lost(works, "sales/a.csv")
        works.parts.arrive("sales/a.csv", b"\x00\xff\x00" * 50)
        works.drain()
        assert works.rows() == [1, 2]
        assert works.parts.states("sales/a.csv") == [State.QUARANTINED, State.LOADED]

    def test_a_loss_that_cannot_be_made_good_is_seen(self, works: Works) -> None:
        """Rows are gone from the warehouse and the object from the store: quarantined, and replayed once it is back."""
        works.parts.arrive("sales/a.csv", csv_of(1, 2))
        works.drain()
        break_warehouse(works, "DELETE FROM sales WHERE id = 2")
        works.parts.store._client.remove_object(works.parts.bucket, "sales/a.csv")
        assert compare(works.parts.ledger, works.warehouse)[0].lost == 1
        works.drain()
        (story,) = works.parts.stories("sales/a.csv")
        assert story.state is State.QUARANTINED
        assert "the warehouse lost rows of it, and it cannot be read again: it was deleted" in str(story.reason)
        works.parts.put("sales/a.csv", csv_of(1, 2))
        selection = Selection(keys=("sales/a.csv",))
        works.parts.ledger.replay.replay(selection, datasets=[SALES], force=False, by="a test")
        works.drain()
        assert works.rows() == [1, 2]

    def test_a_ledger_behind_its_warehouse_catches_up(self, works: Works) -> None:
        """The ledger was restored, and the warehouse knows a greater token: one run fails, the next one works."""
        works.warehouse.fence("sales", 100)
        works.parts.arrive("sales/a.csv", csv_of(1))
        lease = works.acquire()
        batch = works.batch(lease, works.claim(lease))
        batch.fetch()
        batch.check()
        with pytest.raises(LeaseLost) as lost_it:
            batch.load()
        works.parts.ledger.work.outrun(lease, lost_it.value.greater or 0)
        works.drain()
        assert works.rows() == [1]
        assert works.parts.stories("sales/a.csv")[0].state is State.LOADED

    def test_who_lost_the_lease_does_not_raise_its_token(self, works: Works) -> None:
        """Another run has the lease: the one that was fenced off changes nothing."""
        works.parts.arrive("sales/a.csv", csv_of(1))
        old = works.acquire()
        works.parts.clock.advance(seconds=TTL.total_seconds())
        new = works.acquire()
        with pytest.raises(LeaseLost):
            works.parts.ledger.work.outrun(old, new.token)
        assert works.claim(new)


class TestPoison:
    """Objects that kill their runs."""

    def die(self, works: Works, *, load: bool) -> None:
        """A run claims everything, perhaps loads it, and dies."""
        lease = works.acquire()
        batch = works.batch(lease, works.claim(lease))
        if load:
            batch.fetch()
            batch.check()
            batch.load()
        works.parts.clock.advance(seconds=TTL.total_seconds())

    def test_after_its_attempts_it_is_quarantined(self, works: Works) -> None:
        """Five runs died with it: the sixth quarantines it, says why, and an event tells of it."""
        works.parts.arrive("sales/a.csv", csv_of(1))
        for _ in range(5):
            self.die(works, load=False)
        assert works.drain().outcomes == {"quarantined": 1}
        (story,) = works.parts.stories("sales/a.csv")
        assert "5 runs failed or died with it; the last: the run that held it ended without a word" in str(story.reason)
        assert events.OBJECT_QUARANTINED in [event.name for event in works.parts.ledger.outbox.unsent(99)]

    def test_what_is_loaded_is_never_quarantined(self, works: Works) -> None:
        """The fifth run died after the warehouse's commit: the object is loaded, and the ledger learns it."""
        works.parts.arrive("sales/a.csv", csv_of(1))
        for _ in range(4):
            self.die(works, load=False)
        self.die(works, load=True)
        assert works.drain().outcomes == {"loaded": 1}
        assert works.rows() == [1]


class TestVerify:
    """The warehouse compared with the ledger."""

    @pytest.mark.parametrize(
        "damage",
        [
            "DELETE FROM sales WHERE id = 2",
            "DELETE FROM sales WHERE _penstock_object LIKE '%/a.csv@1'",
            "DELETE FROM _penstock_objects WHERE object LIKE '%/a.csv@1'",
            "INSERT INTO sales SELECT * FROM sales WHERE id = 1",
        ],
        ids=["a row is gone", "all its rows are gone", "its marker is gone", "a row is there twice"],
    )
    def test_what_was_lost_is_loaded_again(self, works: Works, damage: str) -> None:
        """Rows or a marker that vanished behind our back send the object back; it is whole again after the next run."""
        works.parts.arrive("sales/a.csv", csv_of(1, 2))
        works.parts.arrive("sales/b.csv", csv_of(3))
        works.drain()
        assert compare(works.parts.ledger, works.warehouse) == [Compared(dataset="sales", loaded=2, lost=0)]
        break_warehouse(works, damage)
        assert compare(works.parts.ledger, works.warehouse) == [Compared(dataset="sales", loaded=2, lost=1)]
        assert works.parts.states("sales/a.csv") == [State.PENDING]
        assert [event.name for event in works.parts.ledger.outbox.unsent(99)].count(events.OBJECT_LOST) == 1
        assert [wakeup.dataset for wakeup in works.parts.ledger.wakeups.outstanding()] == ["sales"]
        works.drain()
        assert works.rows() == [1, 2, 3]
        assert compare(works.parts.ledger, works.warehouse)[0].lost == 0

    def test_a_warehouse_that_fell_back_is_brought_forward(self, works: Works) -> None:
        """An older copy of the file was put back: as many markers as before, but of what was replaced since."""
        works.parts.arrive("sales/a.csv", csv_of(1))
        works.drain()
        before = works.warehouse.path.read_bytes()
        works.parts.arrive("sales/a.csv", csv_of(2))
        works.drain()
        works.warehouse.path.write_bytes(before)
        assert compare(works.parts.ledger, works.warehouse)[0].lost == 1
        works.drain()
        assert works.rows() == [2]
        assert compare(works.parts.ledger, works.warehouse)[0].lost == 0

    def test_a_lost_warehouse_is_loaded_anew(self, works: Works) -> None:
        """The whole file is gone: everything is loaded again from the store."""
        for number in range(20):
            works.parts.arrive(f"sales/{number}.csv", csv_of(number))
        works.drain()
        works.warehouse.path.unlink()
        assert compare(works.parts.ledger, works.warehouse)[0].lost == 20
        works.drain()
        assert works.rows() == list(range(20))

    def test_what_was_replaced_is_not_lost(self, works: Works) -> None:
        """A newer generation took the rows out, and its run has not told the ledger yet: nothing is sent back."""
        works.parts.arrive("sales/a.csv", csv_of(1))
        works.drain()
        works.parts.arrive("sales/a.csv", csv_of(2))
        lease = works.acquire()
        batch = works.batch(lease, works.claim(lease))
        batch.fetch()
        batch.check()
        batch.load()
        assert compare(works.parts.ledger, works.warehouse)[0].lost == 0
        batch.settle()
        assert works.rows() == [2]

    def test_late_runs_that_come_all_at_once_compare_once(self, works: Works) -> None:
        """The next comparison is due after half the interval, and at once when the clock was put back."""
        works.parts.arrive("sales/a.csv", csv_of(1))
        works.drain()
        compare(works.parts.ledger, works.warehouse)
        (last,) = works.parts.ledger.checked.last_compared().values()
        interval = timedelta(minutes=5)
        assert due(None, last, interval)
        assert not due(last, last + timedelta(seconds=149), interval)
        assert due(last, last + timedelta(seconds=150), interval)
        assert due(last, last - timedelta(seconds=1), interval)
