"""What every ledger must make of objects that left the bucket, and of notifications that nothing can be done with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from penstock.ledger import unusable as unusable_module
from penstock.ledger.removals import REMOVED_AFTER, REMOVED_BEFORE
from penstock.ledger.replay import Selection
from penstock.ledger.tables import history
from penstock.model import NOTIFICATIONS_BUCKET, State
from penstock.notifications import Unusable
from tests.conformance.ledgers import BACKENDS, MAKERS, SALES, Bench, declared

LOGS = declared("logs", on_overwrite="append")
ONCE = declared("once", on_overwrite="ignore")


@pytest.fixture(params=BACKENDS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    with MAKERS[request.param](tmp_path / "ledger") as made:
        yield made


def told(bench: Bench, key: str) -> list[tuple[str, str]]:
    """The history of the newest generation of a key."""
    row = [row for row in bench.rows() if row.key == key][-1]
    with bench.ledger.database.read() as connection:
        query = select(history).where(history.c.object_id == row.id).order_by(history.c.id)
        return [(line.what, line.detail) for line in connection.execute(query)]


def remove(bench: Bench, *keys: str) -> list[str]:
    """None of the keys is in the bucket, nor any version of them; the keys of what became missing."""
    removals = bench.ledger.removals
    waiting = removals.untried("landing", keys)
    return [ref.key for ref in removals.record("landing", keys, [ref for key in keys for ref in waiting.get(key, [])])]


def test_what_waited_is_missing(bench: Bench) -> None:
    """What no run had is missing with a reason and a line, and no run is given it; its neighbour is left alone."""
    bench.arrive("sales/a.csv")
    bench.arrive("sales/b.csv")
    bench.clock.forward(5)
    assert remove(bench, "sales/a.csv", "sales/unknown.csv") == ["sales/a.csv"]
    assert bench.states() == [("sales/a.csv", 1, "missing"), ("sales/b.csv", 1, "pending")]
    (row, _) = bench.rows()
    assert (row.reason, row.changed_at) == (REMOVED_BEFORE, bench.clock.now)
    assert told(bench, "sales/a.csv") == [("missing", REMOVED_BEFORE)]
    assert [ref.key for ref in bench.claim(bench.take())] == ["sales/b.csv"]


def test_a_removal_told_again_changes_nothing(bench: Bench) -> None:
    """Neither what became missing nor what is loaded is told of twice."""
    bench.arrive("sales/loaded.csv")
    lease = bench.take()
    bench.settle(lease, *bench.claim(lease))
    bench.arrive("sales/a.csv")
    assert remove(bench, "sales/a.csv", "sales/loaded.csv") == ["sales/a.csv"]
    before = bench.everything()
    assert remove(bench, "sales/a.csv", "sales/loaded.csv") == []
    assert bench.everything() == before


def test_what_comes_again_is_a_new_generation(bench: Bench) -> None:
    """The same bytes put again after the removal are loaded."""
    bench.arrive("sales/a.csv")
    remove(bench, "sales/a.csv")
    assert bench.arrive("sales/a.csv") == 1
    assert bench.states() == [("sales/a.csv", 1, "missing"), ("sales/a.csv", 2, "pending")]
    assert [ref.generation for ref in bench.claim(bench.take())] == [2]


def test_what_was_put_meanwhile_is_not_meant(bench: Bench) -> None:
    """A generation that was recorded after the store was asked stays, though the older one is gone."""
    bench.arrive("logs/a.csv", dataset=LOGS, version="1")
    waiting = bench.ledger.removals.untried("landing", ["logs/a.csv"])["logs/a.csv"]
    bench.arrive("logs/a.csv", "b", dataset=LOGS, version="2")
    bench.ledger.removals.record("landing", ["logs/a.csv"], waiting)
    assert bench.states() == [("logs/a.csv", 1, "missing"), ("logs/a.csv", 2, "pending")]


def test_each_generation_that_waits_is_told_of(bench: Bench) -> None:
    """With append several versions of a key wait; only those that the caller found lost become missing."""
    for number in "123":
        bench.arrive("logs/a.csv", number, dataset=LOGS, version=number)
    found = bench.ledger.removals.untried("landing", ["logs/a.csv", "logs/b.csv"])
    assert [(ref.generation, ref.version_id) for ref in found["logs/a.csv"]] == [(1, "1"), (2, "2"), (3, "3")]
    assert list(found) == ["logs/a.csv"]
    bench.ledger.removals.record("landing", ["logs/a.csv"], found["logs/a.csv"][1:2])
    assert [state for _, _, state in bench.states()] == ["pending", "missing", "pending"]


def test_a_claimed_one_is_left_to_its_run(bench: Bench) -> None:
    """What a run took before, or between the two questions, stays claimed, and the run settles it as ever."""
    bench.arrive("sales/a.csv")
    waiting = bench.ledger.removals.untried("landing", ["sales/a.csv"])["sales/a.csv"]
    lease = bench.take()
    refs = bench.claim(lease)
    assert bench.ledger.removals.record("landing", ["sales/a.csv"], waiting) == []
    assert remove(bench, "sales/a.csv") == []
    assert bench.states() == [("sales/a.csv", 1, "claimed")]
    bench.settle(lease, *refs)
    assert bench.states() == [("sales/a.csv", 1, "loaded")]


def test_what_a_dead_run_had_is_left_to_the_next(bench: Bench) -> None:
    """It may be in the warehouse: the next run asks there, so the ledger must not call it missing before."""
    bench.arrive("sales/a.csv")
    bench.claim(bench.take())
    bench.clock.forward(60)
    lease = bench.take(holder="two")
    (ref,) = bench.claim(lease)
    bench.ledger.work.give_back(lease, [ref], run="r2", failed=ref, reason="the store was away")
    assert bench.states() == [("sales/a.csv", 1, "pending")]
    assert remove(bench, "sales/a.csv") == []
    assert bench.states() == [("sales/a.csv", 1, "pending")]


def test_a_loaded_one_stays_loaded(bench: Bench) -> None:
    """Its state, rows and moment stay, its history tells that the rows do, and no run is asked for."""
    bench.arrive("sales/a.csv")
    lease = bench.take()
    bench.settle(lease, *bench.claim(lease))
    assert bench.ledger.work.finish(lease)
    before = bench.rows()
    bench.clock.forward(5)
    assert remove(bench, "sales/a.csv") == []
    assert bench.rows() == before
    assert told(bench, "sales/a.csv")[-1] == ("removed", REMOVED_AFTER)
    assert bench.woken() == []


def test_only_the_newest_loaded_generation_tells(bench: Bench) -> None:
    """With append older generations are loaded too: a removal is one line. While a newer one waits it is none."""
    for number in "12":
        bench.arrive("logs/a.csv", number, dataset=LOGS, version=number)
    lease = bench.take("logs")
    bench.settle(lease, *bench.claim(lease))
    remove(bench, "logs/a.csv")
    with bench.ledger.database.read() as connection:
        lines = connection.execute(select(history).where(history.c.what == "removed")).all()
    assert [line.object_id for line in lines] == [bench.rows()[-1].id]
    bench.arrive("logs/a.csv", "3", dataset=LOGS, version="3")
    before = bench.everything()
    bench.ledger.removals.record("landing", ["logs/a.csv"], [])
    assert bench.everything() == before


def test_an_ignored_overwrite_is_all_that_is_left(bench: Bench) -> None:
    """Where the generation before it is lost, what was ignored is to be loaded, as when a run finds that out."""
    bench.arrive("once/a.csv", "a", dataset=ONCE, version="1")
    bench.arrive("once/a.csv", "b", dataset=ONCE, version="2")
    assert [state for _, _, state in bench.states()] == ["pending", "ignored"]
    lease = bench.take("once")
    assert bench.ledger.work.finish(lease) is False
    bench.clock.forward(60)
    remove(bench, "once/a.csv")
    assert [state for _, _, state in bench.states()] == ["missing", "pending"]
    assert bench.woken() == ["once"]


def test_another_bucket_is_not_meant(bench: Bench) -> None:
    """The same key in another bucket stays as it is."""
    bench.arrive("sales/a.csv")
    assert bench.ledger.removals.untried("other", ["sales/a.csv"]) == {}
    bench.ledger.removals.record("other", ["sales/a.csv"], [])
    assert bench.states() == [("sales/a.csv", 1, "pending")]


def part(text: str) -> Unusable:
    return Unusable(reason=f"{text} is no notification", part=text.encode())


def test_what_cannot_be_used_is_in_quarantine_once(bench: Bench) -> None:
    """The same bytes again, in one call or another, from another process or after they were dropped, are one row."""
    keep = bench.ledger.unusable.keep
    assert keep([part("a\n\0"), part("b"), part("a\n\0")]) == 2
    before = bench.everything()
    assert keep([part("b")]) == 0
    assert bench.open().unusable.keep([part("a\n\0")]) == 0
    assert bench.everything() == before
    (row, _) = bench.rows()
    assert (row.bucket, row.dataset, row.state, row.size) == (NOTIFICATIONS_BUCKET, None, "quarantined", 3)
    assert row.key == part("a\n\0").digest
    assert told(bench, row.key)[1] == ("received", "a\\n\\x00")
    assert [story.key for story in bench.ledger.facts.by_state(State.QUARANTINED)] == [part("b").digest, row.key]
    assert [len(bench.ledger.facts.stories(name)) for name in (row.key, f"{row.bucket}/{row.key}@1")] == [1, 1]
    dropped = bench.ledger.replay.drop(Selection(keys=(row.key,)), by="ann")
    assert dropped.moved == 1
    assert keep([part("a\n\0")]) == 0
    assert [state for _, _, state in bench.states()] == ["ignored", "quarantined"]


def test_what_cannot_be_used_is_never_loaded(bench: Bench) -> None:
    """No dataset adopts it, and a replay is refused with what to do, force or not."""
    bench.ledger.unusable.keep([part("a")])
    digest = bench.rows()[0].key
    greedy = declared("greedy")
    object.__setattr__(greedy, "prefix", digest[:3])
    assert bench.ledger.arrivals.adopt([SALES, greedy]) == 0
    selection = Selection(states=frozenset({State.QUARANTINED}))
    done = bench.ledger.replay.replay(selection, datasets=[SALES, greedy], force=True, by="ann")
    (reason,) = done.refused
    assert "penstock sweep" in reason
    assert [state for _, _, state in bench.states()] == ["quarantined"]


def test_a_flood_does_not_fill_the_ledger(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a bound nothing more is kept, until somebody has dropped some."""
    monkeypatch.setattr(unusable_module, "MOST_KEPT", 3)
    keep = bench.ledger.unusable.keep
    assert keep([part(str(number)) for number in range(5)]) == 3
    assert keep([part("more")]) == 0
    assert len(bench.rows()) == 3
    assert bench.ledger.replay.drop(Selection(keys=(bench.rows()[0].key,)), by="ann").moved == 1
    assert keep([part("more"), part("and more")]) == 1
