"""What every ledger must do when it is asked to load again, to drop, and to remember a sweep's position."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, select

from penstock.ledger import replay as replay_module
from penstock.ledger.arrivals import FileMark
from penstock.ledger.decide import Again
from penstock.ledger.replay import Done, Selection
from penstock.ledger.tables import history
from penstock.model import Outcome, State, Via
from tests.conformance.ledgers import BACKENDS, MAKERS, SALES, Bench, declared, delivery, stat

LOGS = declared("logs", on_overwrite="append")
ONCE = declared("once", on_overwrite="ignore")
DATASETS = (SALES, LOGS, ONCE)
QUARANTINED = frozenset({State.QUARANTINED})
WHO = "ann@desk"


@pytest.fixture(params=BACKENDS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    with MAKERS[request.param](tmp_path / "ledger") as made:
        yield made


def end(bench: Bench, *keys: str, state: State = State.QUARANTINED, dataset: str = "sales") -> None:
    """Everything pending of the dataset, which is `keys`, is claimed and ends so."""
    lease = bench.take(dataset)
    refs = bench.claim(lease, objects=100_000)
    assert [ref.key for ref in refs] == list(keys)
    bench.settle(lease, *refs, state=state)
    assert bench.ledger.work.finish(lease)


def replay(bench: Bench, *keys: str, force: bool = False, states: frozenset[State] = frozenset()) -> Done:
    selection = Selection(keys=keys, states=states)
    return bench.ledger.replay.replay(selection, datasets=DATASETS, force=force, by=WHO)


def told(bench: Bench, row_id: int) -> list[tuple[str, str]]:
    with bench.ledger.database.read() as connection:
        query = select(history).where(history.c.object_id == row_id).order_by(history.c.id)
        return [(row.what, row.detail) for row in connection.execute(query)]


def test_a_quarantined_object_is_pending_as_on_its_first_day(bench: Bench) -> None:
    """Its attempts, hiccups and reason are gone, who asked and when is on record, and a run is asked for."""
    bench.arrive("sales/a.csv")
    lease = bench.take()
    (ref,) = bench.claim(lease)
    bench.ledger.work.give_back(lease, [ref], run="r1", failed=ref, reason="the store was away")
    bench.clock.forward(5)
    assert bench.claim(lease) == [replace(ref, claimed_before=True, trouble="the store was away")]
    bench.ledger.work.abandon(lease, reason="it died", run="r1", blame=True)
    bench.clock.forward(90)
    end(bench, "sales/a.csv")
    before = bench.rows()[0]
    assert (before.attempts, before.hiccups) == (1, 1)
    assert bench.woken() == []
    bench.clock.forward(60)

    done = replay(bench, "sales/a.csv")

    assert (done.moved, done.datasets, done.refused, done.unknown) == (1, {"sales": 1}, {}, [])
    assert done.first == ["landing/sales/a.csv@1"]
    (row,) = bench.rows()
    assert (row.state, row.attempts, row.hiccups, row.again, row.reason) == ("pending", 0, 0, 0, None)
    assert told(bench, row.id)[-1] == ("replayed", f"by {WHO}")
    assert bench.ledger.facts.stories("sales/a.csv")[0].facts[-1].at == bench.clock.now
    assert bench.woken() == ["sales"]
    end(bench, "sales/a.csv", state=State.LOADED)


def test_what_is_loaded_is_replaced_only_by_force(bench: Bench) -> None:
    """Without force nothing changes; with it the object is claimed with the order to take its own rows out, once."""
    bench.arrive("sales/a.csv")
    end(bench, "sales/a.csv", state=State.LOADED)
    before = bench.everything()
    done = replay(bench, "sales/a.csv")
    assert bench.everything() == before
    assert done.moved == 0
    (reason,) = done.refused
    assert "--force" in reason
    assert done.refused[reason].first == ["landing/sales/a.csv@1"]

    assert replay(bench, "sales/a.csv", force=True).moved == 1
    assert bench.rows()[0].rows is None
    lease = bench.take()
    (ref,) = bench.claim(lease)
    assert ref.again
    bench.settle(lease, ref)
    assert bench.rows()[0].again == 0
    assert told(bench, ref.id)[-2] == ("replayed", f"by {WHO}, over its own rows")


def test_planning_changes_nothing(bench: Bench) -> None:
    """A plan counts what a replay would do, and leaves the ledger as it is."""
    for key in ("sales/a.csv", "sales/b.csv"):
        bench.arrive(key)
    end(bench, "sales/a.csv", "sales/b.csv")
    bench.arrive("sales/c.csv")
    before = bench.everything()
    planned = bench.ledger.replay.plan(Selection(dataset="sales"), datasets=DATASETS, force=False)
    assert bench.everything() == before
    assert planned == bench.ledger.replay.replay(Selection(dataset="sales"), datasets=DATASETS, force=False, by=WHO)
    assert (planned.moved, [refusals.count for refusals in planned.refused.values()]) == (2, [1])


@pytest.mark.parametrize(
    "name", ["sales/a.csv", "landing/sales/a.csv", "landing/sales/a.csv@1", "sales/a.csv@1", "landing/sales/a.csv@1#0"]
)
def test_every_name_of_an_object(bench: Bench, name: str) -> None:
    """A key, a bucket and key, and a name with its generation mean that object and no other."""
    for key in ("sales/a.csv", "sales/a.csv@1.csv", "sales/b.csv", "a.csv"):
        bench.arrive(key)
    end(bench, "sales/a.csv", "sales/a.csv@1.csv", "sales/b.csv", "a.csv")
    assert replay(bench, name).first == ["landing/sales/a.csv@1"]
    assert [row.state for row in bench.rows()] == ["pending", "quarantined", "quarantined", "quarantined"]


def test_deliveries(bench: Bench) -> None:
    """A delivery's id or name means it alone, its envelope's key every delivery in it."""
    key = "_penstock/deliveries/sales/1.ndjson"
    found = {entry: delivery(f"d{entry}") for entry in (1, 2, 3)}
    bench.ledger.deliveries.record("landing", key, stat(key), found, Via.WEBHOOK)
    end(bench, key, key, key)
    assert replay(bench, "d2").first == [f"landing/{key}@1#2"]
    end(bench, key)
    assert replay(bench, f"landing/{key}@1#3").first == [f"landing/{key}@1#3"]
    assert replay(bench, f"{key}#1").first == [f"landing/{key}@1#1"]
    end(bench, key, key)
    assert replay(bench, key).moved == 3


def test_a_key_means_its_newest_generation(bench: Bench) -> None:
    """What was overwritten is not meant by a key, and refused by its own name; the newest is taken."""
    bench.arrive("sales/a.csv", "a", version="v1")
    end(bench, "sales/a.csv", state=State.LOADED)
    bench.arrive("sales/a.csv", "b", version="v2")
    end(bench, "sales/a.csv")
    done = replay(bench, "sales/a.csv")
    assert (done.first, done.refused) == (["landing/sales/a.csv@2"], {})
    (reason,) = replay(bench, "sales/a.csv@1", force=True).refused
    assert "newer generation of its key is pending" in reason


def test_append_brings_back_an_older_generation_that_waits(bench: Bench) -> None:
    """With append and versions a key means what is in quarantine too, and that is loaded beside the newer one."""
    bench.arrive("logs/a.csv", "a", dataset=LOGS, version="v1")
    end(bench, "logs/a.csv", dataset="logs")
    bench.arrive("logs/a.csv", "b", dataset=LOGS, version="v2")
    end(bench, "logs/a.csv", state=State.LOADED, dataset="logs")
    assert replay(bench, "logs/a.csv", states=QUARANTINED).first == ["landing/logs/a.csv@1"]
    assert bench.woken() == ["logs"]


def test_what_no_dataset_takes_is_refused_until_one_does(bench: Bench) -> None:
    """A stray object says what to do; with a dataset that takes it, it is that dataset's."""
    bench.arrive("stray/a.csv", dataset=None)
    (reason,) = replay(bench, "stray/a.csv").refused
    assert "declare one in flows/" in reason
    later = (*DATASETS, declared("stray"))
    done = bench.ledger.replay.replay(Selection(keys=("stray/a.csv",)), datasets=later, force=False, by=WHO)
    assert done.datasets == {"stray": 1}
    assert [(row.dataset, row.state) for row in bench.rows()] == [("stray", "pending")]
    assert bench.woken() == ["stray"]


def test_a_dataset_that_is_declared_no_more(bench: Bench) -> None:
    """Nothing would ever load it: refused, with what to do."""
    bench.arrive("old/a.csv", dataset=declared("old"))
    end(bench, "old/a.csv", dataset="old")
    (reason,) = replay(bench, "old/a.csv").refused
    assert "'old'" in reason
    assert bench.rows()[0].state == "quarantined"


def test_a_refused_file_of_the_inbox(bench: Bench) -> None:
    """It is refused while it waits, and once its refusal is over its key means nothing but the object."""
    mark = FileMark(path="sales/a.csv", inode=1, size=2, mtime_ns=3)
    assert bench.ledger.arrivals.refuse("sales/a.csv", "it is a symlink", mark=mark, via=Via.FOLDER)
    (reason,) = replay(bench, "sales/a.csv").refused
    assert "drop the file there again" in reason
    bench.ledger.arrivals.forget_refusal("sales/a.csv")
    assert replay(bench, "sales/a.csv").other == {"sales/a.csv": ("(inbox)/sales/a.csv@1", State.SUPERSEDED)}
    bench.arrive("sales/a.csv")
    end(bench, "sales/a.csv")
    done = replay(bench, "sales/a.csv")
    assert (done.moved, done.refused, done.unknown) == (1, {}, [])


def test_since_is_when_it_came_to_its_state(bench: Bench) -> None:
    """Only what went to quarantine at that moment or later is meant."""
    for key in ("sales/1.csv", "sales/2.csv"):
        bench.arrive(key)
        end(bench, key)
        moment = bench.clock.now
        bench.clock.forward(60)
    selection = Selection(dataset="sales", since=moment)
    done = bench.ledger.replay.replay(selection, datasets=DATASETS, force=False, by=WHO)
    assert done.first == ["landing/sales/2.csv@1"]


def test_a_whole_dataset_goes_in_steps(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every object of a large selection is moved once, in transactions of bounded size, with one wake-up."""
    monkeypatch.setattr(replay_module, "_STEP", 10)
    keys = [f"sales/{n:03}.csv" for n in range(35)]
    for key in keys:
        bench.arrive(key)
    end(bench, *keys)
    bench.arrive("logs/other.csv", dataset=LOGS)
    end(bench, "logs/other.csv", dataset="logs")
    sizes: list[int] = []
    real = bench.ledger.replay._decide

    def counted(
        connection: Connection, rows: Sequence[Any], *rest: Any, **how: Any
    ) -> Iterator[tuple[Any, str, Again]]:
        sizes.append(len(rows))
        return real(connection, rows, *rest, **how)

    monkeypatch.setattr(bench.ledger.replay, "_decide", counted)
    done = bench.ledger.replay.replay(Selection(dataset="sales"), datasets=DATASETS, force=False, by=WHO)
    assert (done.moved, len(done.first), sizes) == (35, 5, [10, 10, 10, 5])
    assert {row.state for row in bench.rows() if row.dataset == "sales"} == {"pending"}
    assert {row.state for row in bench.rows() if row.dataset == "logs"} == {"quarantined"}
    assert bench.woken() == ["sales"]


def test_many_reasons_are_summed_up(bench: Bench) -> None:
    """Reasons that name folders without end do not fill the memory; all are counted."""
    keys = [f"stray{n}/a.csv" for n in range(60)]
    for key in keys:
        bench.arrive(key, dataset=None)
    done = bench.ledger.replay.plan(Selection(states=QUARANTINED), datasets=DATASETS, force=False)
    assert sum(refusals.count for refusals in done.refused.values()) == 60
    assert len(done.refused) <= 21


def test_nothing_is_asked_of_a_dataset_whose_run_is_at_work(bench: Bench) -> None:
    """A live lease's holder finds what was replayed before it lets go: no wake-up is made, and none is needed."""
    bench.arrive("sales/a.csv")
    end(bench, "sales/a.csv")
    lease = bench.take()
    assert replay(bench, "sales/a.csv").moved == 1
    assert bench.woken() == []
    assert not bench.ledger.work.finish(lease)


def test_dropping(bench: Bench) -> None:
    """What is dropped is ignored, with who, why and when; nothing but quarantine is dropped, and a replay undoes it."""
    for key in ("sales/a.csv", "sales/b.csv"):
        bench.arrive(key)
    end(bench, "sales/a.csv", "sales/b.csv")
    bench.arrive("sales/c.csv")
    end(bench, "sales/c.csv", state=State.LOADED)
    selection = Selection(keys=("sales/a.csv", "sales/c.csv"))
    done = bench.ledger.replay.drop(selection, by=WHO, reason="a test file")
    assert (done.first, done.datasets, done.unknown) == (["landing/sales/a.csv@1"], {"sales": 1}, [])
    assert done.other == {"sales/c.csv": ("landing/sales/c.csv@1", State.LOADED)}
    assert [row.state for row in bench.rows()] == ["ignored", "quarantined", "loaded"]
    assert bench.rows()[0].reason == f"dropped by {WHO}: a test file"
    assert told(bench, bench.rows()[0].id)[-1] == ("ignored", f"dropped by {WHO}: a test file")
    assert bench.arrive("sales/a.csv") == 0
    assert replay(bench, "sales/a.csv").moved == 1


def test_why_it_was_refused_when_it_came_is_kept(bench: Bench) -> None:
    """The reason of what was in quarantine from the start is in its history once it is dropped, and only once."""
    born = bench.clock.now
    bench.arrive("stray/a.csv", dataset=None)
    (row,) = bench.rows()
    assert row.state == "quarantined"
    bench.clock.forward(60)
    assert bench.ledger.replay.drop(Selection(keys=("stray/a.csv",)), by=WHO, dry=True).moved == 1
    assert bench.ledger.facts.stories("stray/a.csv")[0].facts == ()
    bench.ledger.replay.drop(Selection(keys=("stray/a.csv",)), by=WHO)
    facts = bench.ledger.facts.stories("stray/a.csv")[0].facts
    assert [(fact.what, fact.detail) for fact in facts] == [
        ("quarantined", row.reason),
        ("ignored", f"dropped by {WHO}"),
    ]
    assert facts[0].at == born
    taker = declared("stray")
    bench.ledger.replay.replay(Selection(keys=("stray/a.csv",)), datasets=[taker], force=False, by=WHO)
    assert told(bench, row.id)[2:] == [("replayed", f"by {WHO}")]
    bench.arrive("stray/b.csv", dataset=None)
    bench.ledger.replay.replay(Selection(keys=("stray/b.csv",)), datasets=[taker], force=False, by=WHO)
    assert [what for what, _ in told(bench, bench.rows()[1].id)] == ["quarantined", "replayed"]


def test_a_dropped_refusal_is_not_made_again(bench: Bench) -> None:
    """A file that was refused and dropped stays dropped, however often it is scanned, until it changes."""
    mark = FileMark(path="nowhere/a.csv", inode=1, size=2, mtime_ns=3)
    assert bench.ledger.arrivals.refuse("nowhere/a.csv", "no dataset", mark=mark, via=Via.FOLDER)
    assert bench.ledger.replay.drop(Selection(keys=("nowhere/a.csv",)), by=WHO).moved == 1
    assert not bench.ledger.arrivals.refuse("nowhere/a.csv", "no dataset", mark=mark, via=Via.FOLDER)
    changed = FileMark(path="nowhere/a.csv", inode=1, size=9, mtime_ns=4)
    assert bench.ledger.arrivals.refuse("nowhere/a.csv", "no dataset", mark=changed, via=Via.FOLDER)


def test_keys_that_cannot_be_asked_for(bench: Bench) -> None:
    """Each is in quarantine once, with its dataset where one takes it, and is not made pending by that."""
    found: dict[str, tuple[str | None, str]] = {"sales/../x": ("sales", "a key of dots"), "/lead": (None, "a slash")}
    assert bench.ledger.arrivals.refuse_keys("landing", found, Via.SWEEP) == 2
    assert bench.ledger.arrivals.refuse_keys("landing", found, Via.SWEEP) == 0
    assert [(row.key, row.dataset, row.state) for row in bench.rows()] == [
        ("/lead", None, "quarantined"),
        ("sales/../x", "sales", "quarantined"),
    ]
    assert [story.reason for story in bench.ledger.facts.stories("sales/../x")] == ["a key of dots"]
    assert bench.ledger.arrivals.adopt([SALES]) == 0
    assert bench.woken() == []


def test_refused_files_are_named_in_pages(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every refused path comes once, and none that was recorded."""
    monkeypatch.setattr("penstock.ledger.arrivals._PAGE", 3)
    paths = [f"nowhere/{n}.csv" for n in range(7)]
    for path in paths:
        mark = FileMark(path=path, inode=1, size=2, mtime_ns=3)
        bench.ledger.arrivals.refuse(path, "no dataset", mark=mark, via=Via.FOLDER)
    pages = []
    after = ""
    while page := bench.ledger.arrivals.refused_files(after=after):
        pages.append(page)
        after = page[-1]
    assert [len(page) for page in pages] == [3, 3, 1]
    assert [path for page in pages for path in page] == paths


def test_positions(bench: Bench) -> None:
    """Each bucket and prefix has one position, which another Ledger sees, until it is cleared."""
    positions = bench.ledger.positions
    assert positions.after("landing", "") == ""
    positions.move("landing", "", "sales/1")
    positions.move("landing", "", "sales/2")
    positions.move("landing", "logs/", "logs/9 é")
    positions.move("other", "", "x")
    second = bench.open()
    try:
        assert second.positions.after("landing", "") == "sales/2"
        assert second.positions.after("landing", "logs/") == "logs/9 é"
        second.positions.clear("landing", "")
    finally:
        second.close()
    assert positions.after("landing", "") == ""
    assert positions.after("landing", "logs/") == "logs/9 é"
    assert positions.after("other", "") == "x"


def only_rejected(bench: Bench, *keys: str, dataset: str | None = None) -> Done:
    selection = Selection(keys=keys, dataset=dataset, rejected=True)
    return bench.ledger.replay.replay(selection, datasets=DATASETS, force=False, by=WHO)


class TestOnlyRejected:
    """Of what is loaded, the rows that were put aside."""

    def test_what_is_loaded_with_rejected_rows_is_meant(self, bench: Bench) -> None:
        """It is pending with the order to load no other of its rows, woken for and told of, until it is loaded."""
        for key in ("sales/a.csv", "sales/whole.csv", "sales/good.csv"):
            bench.arrive(key)
        lease = bench.take()
        bad, whole, good = bench.claim(lease)
        bench.settle(lease, bad)
        bench.settle(lease, whole, state=State.QUARANTINED)
        bench.ledger.work.settle(lease, [Outcome(ref=good, state=State.LOADED, rows=2)], run="r1")
        assert bench.ledger.work.finish(lease)

        planned = bench.ledger.replay.plan(Selection(dataset="sales", rejected=True), datasets=DATASETS, force=False)
        done = only_rejected(bench, dataset="sales")
        assert planned == done
        assert (done.first, done.refused) == (["landing/sales/a.csv@1"], {})
        assert [(row.state, row.again) for row in bench.rows()] == [("pending", 2), ("quarantined", 0), ("loaded", 0)]
        assert bench.woken() == ["sales"]
        assert told(bench, bad.id)[-1] == ("replayed", f"by {WHO}, only its rejected rows")

        lease = bench.take()
        (ref,) = bench.claim(lease)
        assert (ref.only_rejected, ref.again, ref.claimed_before) == (True, False, True)
        bench.settle(lease, ref)
        assert bench.rows()[0].again == 0

    def test_why_another_is_not_meant_is_said(self, bench: Bench) -> None:
        """By its key: what has no rejected rows, waits as a whole, is pending, or was overwritten."""
        bench.arrive("sales/a.csv")
        (reason,) = only_rejected(bench, "sales/a.csv").refused
        assert "waits for a run already" in reason
        end(bench, "sales/a.csv")
        (reason,) = only_rejected(bench, "sales/a.csv").refused
        assert "replay it without --rejected" in reason
        bench.arrive("sales/b.csv", "a", version="v1")
        end(bench, "sales/b.csv", state=State.LOADED)
        bench.arrive("sales/b.csv", "b", version="v2")
        (reason,) = only_rejected(bench, "sales/b.csv@1").refused
        assert "newer generation of its key is pending" in reason
        before = bench.everything()
        assert only_rejected(bench, dataset="sales").moved == 0
        assert bench.everything() == before

    def test_the_order_outlives_a_run(self, bench: Bench) -> None:
        """A run that dies or gives it back leaves the order; a newer generation finds that it has rows."""
        bench.arrive("sales/a.csv", "a", version="v1")
        end(bench, "sales/a.csv", state=State.LOADED)
        assert only_rejected(bench, "sales/a.csv").moved == 1
        lease = bench.take()
        (ref,) = bench.claim(lease)
        bench.ledger.work.give_back(lease, [ref], run="r1", failed=ref, reason="the store was away")
        bench.clock.forward(5)
        assert [one.only_rejected for one in bench.claim(lease)] == [True]
        bench.ledger.work.abandon(lease, reason="it died", run="r1", blame=True)
        bench.clock.forward(90)
        bench.arrive("sales/a.csv", "b", version="v2")
        lease = bench.take()
        old, new = bench.claim(lease)
        assert (old.only_rejected, new.only_rejected) == (True, False)
        assert [one.id for one in bench.ledger.work.older([new])[new.id]] == [old.id]

    def test_in_quarantine_the_whole_object_is_loaded_again(self, bench: Bench) -> None:
        """The warehouse lost rows meanwhile, and the object could not be read: a replay is over all of its rows."""
        bench.arrive("sales/a.csv")
        end(bench, "sales/a.csv", state=State.LOADED)
        assert only_rejected(bench, "sales/a.csv").moved == 1
        end(bench, "sales/a.csv")
        assert bench.rows()[0].again == 2
        assert replay(bench, "sales/a.csv").moved == 1
        (ref,) = bench.claim(bench.take())
        assert (ref.again, ref.only_rejected) == (True, False)
