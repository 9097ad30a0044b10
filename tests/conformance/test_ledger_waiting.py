"""What waits for another object in the ledger: markers, manifests, and their races; on every database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from penstock import events
from penstock.declarations import Backfill, Dataset, Ready
from penstock.ledger import waiting
from penstock.ledger.arrivals import Seen
from penstock.ledger.replay import Selection
from penstock.ledger.waiting import MARKER, MARKER_REMOVED
from penstock.model import State, Via
from tests.conformance.ledgers import BACKENDS, MAKERS, PROJECT, START, Bench, declared, delivery, stat
from tests.conformance.test_ledger_growth import recorded, scans

DONE = declared("sales", ready=Ready(beside=".done"))
FOLDER = declared("sales", ready=Ready(folder="_SUCCESS"))
LISTED = declared("sales", ready=Ready(manifest="*.manifest"))


@pytest.fixture(params=BACKENDS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    with MAKERS[request.param](tmp_path / "ledger") as made:
        yield made


def record(bench: Bench, dataset: Dataset | None, *keys: str, etag: str = "a", version: str | None = None) -> int:
    seen = [Seen(stat=stat(key, etag, version=version), dataset=dataset) for key in keys]
    return bench.ledger.arrivals.record(seen, Via.BUCKET)


def remove(bench: Bench, *keys: str) -> list[str]:
    found = bench.ledger.removals.untried("landing", keys)
    lost = [ref for refs in found.values() for ref in refs if ref.version_id is None]
    return sorted(ref.key for ref in bench.ledger.removals.record("landing", keys, lost))


def states(bench: Bench) -> list[str]:
    return [row.state for row in bench.rows()]


def announced(bench: Bench) -> list[list[str]]:
    return [event.payload["keys"] for event in bench.ledger.outbox.unsent(100) if event.name == events.OBJECT_ARRIVED]


def name(bench: Bench, *keys: str, dataset: Dataset = LISTED) -> str:
    found = bench.ledger.announcements.announce("landing", keys, manifest="sales/1.manifest", dataset=dataset)
    return str(found)


class TestMarkers:
    """Objects that another one releases."""

    @pytest.mark.parametrize(
        ("dataset", "marker"), [(DONE, "sales/d/a.csv.done"), (FOLDER, "sales/d/_SUCCESS")], ids=["beside", "folder"]
    )
    def test_an_object_waits_until_its_marker_comes(self, bench: Bench, dataset: Dataset, marker: str) -> None:
        """Nothing is woken or told before; then it is pending as if it had just come, and the marker never is."""
        assert record(bench, dataset, "sales/d/a.csv") == 1
        (row,) = bench.rows()
        assert (row.state, row.waits_for) == ("waiting", marker)
        assert (bench.woken(), announced(bench)) == ([], [])
        assert bench.ledger.wakeups.find() == 0
        bench.clock.forward(5)
        assert record(bench, dataset, marker) == 0
        assert states(bench) == ["pending", "ignored"]
        (data, told) = bench.rows()
        assert (data.waits_for, data.changed_at, data.arrived_at) == (None, bench.clock.now, START)
        assert told.reason == MARKER
        assert (bench.woken(), announced(bench)) == (["sales"], [["sales/d/a.csv"]])
        (fact,) = bench.ledger.facts.stories("sales/d/a.csv")[0].facts
        assert (fact.what, fact.detail) == ("pending", f"{marker} came")
        assert [ref.key for ref in bench.claim(bench.take())] == ["sales/d/a.csv"]

    def test_a_marker_that_came_first_counts(self, bench: Bench) -> None:
        """What comes after its marker is pending at once; that of another object or folder stays unasked."""
        record(bench, FOLDER, "sales/d/_SUCCESS")
        assert record(bench, FOLDER, "sales/d/a.csv", "sales/e/a.csv", "sales/a.csv") == 3
        assert states(bench) == ["ignored", "pending", "waiting", "waiting"]
        assert announced(bench) == [["sales/d/a.csv"]]

    @pytest.mark.parametrize(
        "keys", [("sales/a", "sales/a.done"), ("sales/a.done", "sales/a")], ids=["after", "before"]
    )
    def test_what_comes_together_does_not_wait(self, bench: Bench, keys: Sequence[str]) -> None:
        """In one transaction the order does not matter, and one event tells of it."""
        assert record(bench, DONE, *keys) == 1
        assert {row.key: row.state for row in bench.rows()} == {"sales/a": "pending", "sales/a.done": "ignored"}
        assert announced(bench) == [["sales/a"]]
        assert bench.ledger.facts.stories("sales/a")[0].facts == ()

    def test_a_marker_that_comes_again_changes_nothing(self, bench: Bench) -> None:
        """The same one is known; another is a new generation of it, and nothing is loaded twice."""
        record(bench, DONE, "sales/a", "sales/a.done")
        before = bench.everything()
        assert record(bench, DONE, "sales/a.done") == 0
        assert bench.everything() == before
        assert record(bench, DONE, "sales/a.done", etag="b") == 0
        assert states(bench) == ["pending", "ignored", "ignored"]
        assert len(announced(bench)) == 1

    def test_an_overwritten_one_that_waits_is_superseded(self, bench: Bench) -> None:
        """The newer one waits in its place, and alone is released."""
        record(bench, DONE, "sales/a")
        assert record(bench, DONE, "sales/a", etag="b") == 1
        assert states(bench) == ["superseded", "waiting"]
        record(bench, DONE, "sales/a.done")
        assert states(bench) == ["superseded", "pending", "ignored"]

    def test_with_append_each_version_is_released(self, bench: Bench) -> None:
        """Where the store still has it an overwritten one waits on."""
        append = replace(DONE, on_overwrite="append")
        record(bench, append, "sales/a", version="1")
        record(bench, append, "sales/a", etag="b", version="2")
        record(bench, append, "sales/a.done")
        assert states(bench) == ["pending", "pending", "ignored"]

    def test_an_overwrite_after_the_marker_is_pending(self, bench: Bench) -> None:
        """The marker is known; who overwrites removes it first."""
        record(bench, DONE, "sales/a", "sales/a.done")
        assert record(bench, DONE, "sales/a", etag="b") == 1
        assert states(bench) == ["superseded", "ignored", "pending"]

    @pytest.mark.parametrize("version", [None, "1"])
    def test_a_marker_that_was_removed_counts_no_more(self, bench: Bench, version: str | None) -> None:
        """It is missing, by whichever version; what comes from then on waits for the next, which releases it."""
        record(bench, DONE, "sales/a", "sales/a.done", version=version)
        assert remove(bench, "sales/a.done") == ["sales/a.done"]
        assert (bench.rows()[1].state, bench.rows()[1].reason) == ("missing", MARKER_REMOVED)
        record(bench, DONE, "sales/a", etag="b", version=version and "2")
        assert states(bench)[-1] == "waiting"
        assert record(bench, DONE, "sales/a.done", version=version and "3") == 0
        assert states(bench) == ["superseded", "missing", "pending", "ignored"]

    @pytest.mark.parametrize("version", [None, "1"])
    def test_what_waits_and_is_removed_is_missing(self, bench: Bench, version: str | None) -> None:
        """Withdrawn before it was released, whatever version is left; its marker then releases nothing."""
        record(bench, DONE, "sales/a", version=version)
        assert remove(bench, "sales/a") == ["sales/a"]
        record(bench, DONE, "sales/a.done")
        assert states(bench) == ["missing", "ignored"]
        assert bench.woken() == []

    def test_what_was_released_meanwhile_is_not_withdrawn(self, bench: Bench) -> None:
        """Between the two questions of a removal it became pending: a version may be read, and the run finds out."""
        record(bench, DONE, "sales/a", version="1")
        found = bench.ledger.removals.untried("landing", ["sales/a"])["sales/a"]
        record(bench, DONE, "sales/a.done")
        assert bench.ledger.removals.record("landing", ["sales/a"], found) == []
        assert states(bench) == ["pending", "ignored"]

    def test_a_marker_releases_for_every_dataset(self, bench: Bench) -> None:
        """Two datasets share a folder and its marker: each is woken, and told of as it asks for."""
        csv = declared("sales", match="*.csv", ready=Ready(folder="_SUCCESS"))
        json = replace(csv, name="more", match="*.json", event_per_object=True)
        record(bench, csv, "sales/a.csv")
        record(bench, json, "sales/a.json")
        seen = [Seen(stat=stat("sales/_SUCCESS"), dataset=csv)]
        assert bench.ledger.arrivals.record(seen, Via.BUCKET, datasets=[csv, json]) == 0
        assert states(bench) == ["pending", "pending", "ignored"]
        assert sorted(bench.woken()) == ["more", "sales"]
        assert [event.payload.get("key") for event in bench.ledger.outbox.unsent(9)] == [None, None, "sales/a.json"]

    def test_another_bucket_is_not_meant(self, bench: Bench) -> None:
        """A marker speaks for its own bucket."""
        record(bench, DONE, "sales/a")
        bench.ledger.arrivals.record(
            [Seen(stat=replace(stat("sales/a.done"), bucket="other"), dataset=DONE)], Via.BUCKET
        )
        assert states(bench) == ["waiting", "ignored"]

    def test_deliveries_never_wait(self, bench: Bench) -> None:
        """What a webhook accepted is whole."""
        assert bench.ledger.deliveries.record("landing", "e", stat("e"), {1: delivery("x")}, Via.WEBHOOK) == set()
        assert states(bench) == ["pending"]

    def test_either_order_of_a_race_ends_right(self, bench: Bench) -> None:
        """Objects and their markers recorded at the same time from two processes: all are released."""
        other = bench.open()
        start = Barrier(2)

        def send(ledger: object, suffix: str) -> None:
            start.wait(10)
            for number in range(20):
                seen = [Seen(stat=stat(f"sales/{number}{suffix}"), dataset=DONE)]
                ledger.arrivals.record(seen, Via.BUCKET)  # type: ignore[attr-defined]

        with ThreadPoolExecutor(2) as pool:
            for sent in [pool.submit(send, bench.ledger, ""), pool.submit(send, other, ".done")]:
                sent.result(30)
        assert sorted(states(bench)) == ["ignored"] * 20 + ["pending"] * 20


class TestManifests:
    """Objects that wait until they are named."""

    def test_a_manifest_releases_what_it_names(self, bench: Bench) -> None:
        """It is recorded as data; what it named is pending, what came before or comes after; the rest waits."""
        assert record(bench, LISTED, "sales/a", "sales/b", "sales/1.manifest") == 3
        assert [(row.state, row.waits_for) for row in bench.rows()] == [
            ("waiting", "sales/*.manifest"),
            ("waiting", "sales/*.manifest"),
            ("pending", None),
        ]
        assert name(bench, "sales/a", "sales/late") == "a manifest: it named 2 objects, 1 of them were there"
        assert states(bench) == ["pending", "waiting", "pending"]
        assert bench.ledger.facts.stories("sales/a")[0].facts[-1].detail == "sales/1.manifest named it"
        record(bench, LISTED, "sales/late")
        assert states(bench)[-1] == "pending"
        assert bench.woken() == ["sales"]

    def test_what_is_not_there_is_told(self, bench: Bench) -> None:
        """Until it comes, and again when it is missing."""
        name(bench, "sales/a", "sales/b")
        count, (first,) = bench.ledger.announcements.absent(limit=1)
        assert (count, first.key, first.manifest) == (2, "sales/a", "sales/1.manifest")
        assert bench.ledger.announcements.naming("landing/sales/a") == ["sales/1.manifest"]
        assert bench.ledger.announcements.naming("sales/c") == []
        record(bench, LISTED, "sales/a", "sales/b")
        assert bench.ledger.announcements.absent(limit=1) == (0, [])
        remove(bench, "sales/b")
        assert bench.ledger.announcements.absent(limit=9)[0] == 1

    def test_read_again_it_changes_nothing(self, bench: Bench) -> None:
        """A run that died after it had announced is followed by one that announces the same."""
        record(bench, LISTED, "sales/a")
        name(bench, "sales/a")
        before = bench.everything()
        assert name(bench, "sales/a") == "a manifest: it named 1 objects, 1 of them were there"
        assert bench.everything() == before

    def test_no_manifest_speaks_for_another_dataset(self, bench: Bench) -> None:
        """What its own dataset does not load is passed over, and said to be."""
        other = declared("other", ready=Ready(manifest="*.manifest"))
        record(bench, other, "other/a")
        said = name(bench, "other/a", "sales/2.manifest")
        assert said == "a manifest: it named 0 objects, 0 of them were there; 2 more are no data of its dataset"
        assert states(bench) == ["waiting"]

    def test_each_generation_of_a_manifest_is_read(self, bench: Bench) -> None:
        """However the dataset's data is overwritten: each may name others."""
        ignore = replace(LISTED, on_overwrite="ignore")
        record(bench, ignore, "sales/1.manifest", version="1")
        record(bench, ignore, "sales/1.manifest", etag="b", version="2")
        assert states(bench) == ["pending", "pending"]


class TestPeople:
    """What people see of it, and do."""

    def test_a_replay_does_not_wait(self, bench: Bench) -> None:
        """What waits is loaded when somebody says so; its marker, which comes later, finds nothing to do."""
        record(bench, DONE, "sales/a")
        selection = Selection(keys=("sales/a",))
        assert bench.ledger.replay.replay(selection, datasets=[DONE], force=False, by="ann").moved == 1
        assert (states(bench), bench.woken()) == (["pending"], ["sales"])
        record(bench, DONE, "sales/a.done")
        assert len(announced(bench)) == 0

    @pytest.mark.parametrize("removed", [False, True])
    def test_a_marker_is_never_replayed(self, bench: Bench, removed: bool) -> None:
        """Neither by its key nor with all that was left alone, forced or not."""
        record(bench, DONE, "sales/a.done")
        if removed:
            remove(bench, "sales/a.done")
        for selection in (
            Selection(keys=("sales/a.done",)),
            Selection(states=frozenset({State.IGNORED, State.MISSING})),
        ):
            done = bench.ledger.replay.replay(selection, datasets=[DONE], force=True, by="ann")
            assert (done.moved, len(done.refused)) == (0, 1)

    def test_it_is_seen_how_many_wait_and_for_what(self, bench: Bench) -> None:
        """The count, the oldest moment and the oldest object; a marker is counted as nothing that failed."""
        record(bench, DONE, "sales/a")
        bench.clock.forward(60)
        record(bench, DONE, "sales/b", "sales/c.done")
        (standing,) = bench.ledger.facts.standings()
        assert (standing.counts, standing.oldest_waiting) == ({"waiting": 2, "ignored": 1}, START)
        assert standing.oldest_pending is None
        story = bench.ledger.facts.waiting_longest("sales")
        assert story is not None
        assert (story.key, story.waits_for) == ("sales/a", "sales/a.done")
        assert bench.ledger.facts.waiting_longest("logs") is None


class TestDeclaredSince:
    """What the sweep makes of a declaration that changed."""

    def test_what_is_adopted_waits_as_well(self, bench: Bench) -> None:
        """A dataset that is there by now takes data, markers and their wait alike."""
        record(bench, None, "sales/a", "sales/b", "sales/a.done")
        assert bench.ledger.arrivals.adopt([DONE]) == 2
        assert states(bench) == ["pending", "waiting", "ignored"]
        assert bench.woken() == ["sales"]
        assert bench.ledger.arrivals.adopt([DONE]) == 0

    def test_only_what_the_match_fits_is_adopted(self, bench: Bench) -> None:
        """The prefix alone does not do."""
        record(bench, None, "sales/a.csv", "sales/a.txt")
        assert bench.ledger.arrivals.adopt([declared("sales", match="*.csv")]) == 1
        assert states(bench) == ["pending", "quarantined"]

    def test_old_ones_are_adopted_as_old(self, bench: Bench) -> None:
        """From the moment that the store told of when they came."""
        record(bench, None, "sales/a")
        bench.ledger.arrivals.adopt([declared("sales", backfill=Backfill(before=START + timedelta(days=1)))])
        assert [(row.backlog, row.modified_at) for row in bench.rows()] == [(1, START)]

    def test_who_asks_for_nothing_any_more_gets_it(self, bench: Bench) -> None:
        """Without `ready` what waited is released; with another one it waits for that, or has it already."""
        record(bench, DONE, "sales/a", "sales/d/a")
        record(bench, FOLDER, "sales/d/_SUCCESS")
        assert bench.ledger.arrivals.adopt([FOLDER]) == 0
        assert [(row.state, row.waits_for) for row in bench.rows()] == [
            ("waiting", "sales/_SUCCESS"),
            ("pending", None),
            ("ignored", None),
        ]
        bench.ledger.arrivals.adopt([declared("sales")])
        assert states(bench) == ["pending", "pending", "ignored"]
        assert bench.woken() == ["sales"]

    def test_what_waits_may_be_a_marker_by_now(self, bench: Bench) -> None:
        """It waits for nothing any more: it is left alone, as any marker file, and what asks for it gets it."""
        record(bench, DONE, "sales/d/_SUCCESS", "sales/d/a")
        assert bench.ledger.arrivals.adopt([FOLDER]) == 0
        assert [(row.state, row.reason) for row in bench.rows()] == [("ignored", MARKER), ("pending", None)]
        record(bench, FOLDER, "sales/d/b")
        assert states(bench) == ["ignored", "pending", "pending"]


class TestManyAtOnce:
    """A marker that more waits for than one transaction moves."""

    @pytest.fixture(autouse=True)
    def steps(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Two at a time."""
        monkeypatch.setattr(waiting, "_STEP", 2)
        monkeypatch.setattr(waiting, "_PAUSE_SECONDS", 0.001)

    def test_they_are_released_in_steps(self, bench: Bench) -> None:
        """Every one, whichever of several markers it waits for, and no step moves more than it may."""
        record(bench, FOLDER, *(f"sales/d/{number}" for number in range(5)), "sales/e/0", "sales/other/0")
        record(bench, FOLDER, "sales/d/_SUCCESS", "sales/e/_SUCCESS")
        assert states(bench) == ["pending"] * 6 + ["waiting"] + ["ignored"] * 2
        assert bench.woken() == ["sales"]
        told = announced(bench)
        assert max(map(len, told)) == 2
        assert sorted(key for keys in told for key in keys) == [
            *(f"sales/d/{number}" for number in range(5)),
            "sales/e/0",
        ]

    def test_the_sweep_goes_on_where_one_was_cut_short(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        """A crash between two steps strands nothing; but a marker that was removed since counts no more."""
        record(bench, FOLDER, *(f"sales/d/{number}" for number in range(5)))
        whole, steps = waiting._release, iter([True])

        def dies(*given: Any) -> int:
            if not next(steps, False):
                raise KeyboardInterrupt
            return whole(*given)

        monkeypatch.setattr(waiting, "_release", dies)
        with pytest.raises(KeyboardInterrupt):
            record(bench, FOLDER, "sales/d/_SUCCESS")
        monkeypatch.setattr(waiting, "_release", whole)
        assert states(bench) == ["pending"] * 2 + ["waiting"] * 3 + ["ignored"]
        remove(bench, "sales/d/_SUCCESS")
        assert bench.ledger.arrivals.adopt([FOLDER]) == 0
        steps = iter([])
        monkeypatch.setattr(waiting, "_release", dies)
        with pytest.raises(KeyboardInterrupt):
            record(bench, FOLDER, "sales/d/_SUCCESS")
        monkeypatch.setattr(waiting, "_release", whole)
        assert bench.ledger.arrivals.adopt([FOLDER]) == 3
        assert states(bench) == ["pending"] * 5 + ["missing", "ignored"]
        assert bench.ledger.arrivals.adopt([FOLDER]) == 0


class TestMoments:
    """When something arrived, and was written."""

    def test_arrivals_never_go_back(self, bench: Bench) -> None:
        """With a clock that was put back, objects, deliveries and refusals arrive no earlier than what was before."""
        bench.clock.forward(60)
        record(bench, DONE, "sales/a")
        bench.clock.forward(-3600)
        record(bench, DONE, "sales/b")
        bench.ledger.deliveries.record("landing", "e", stat("e"), {1: delivery("x")}, Via.WEBHOOK)
        bench.ledger.arrivals.refuse_keys("landing", {"sales/c": ("sales", "wrong")}, Via.SWEEP)
        assert {row.arrived_at for row in bench.rows()} == {START + timedelta(seconds=60)}

    def test_a_delivery_does_not_come_from_ahead(self, bench: Bench) -> None:
        """An envelope may say any moment: later than now it is now, and what follows is not held up by it."""
        far = replace(delivery("x"), received_at=START + timedelta(days=9999))
        bench.ledger.deliveries.record("landing", "e", stat("e"), {1: far, 2: delivery("y")}, Via.SWEEP)
        assert {row.arrived_at for row in bench.rows()} == {START}

    def test_what_the_store_said_is_kept(self, bench: Bench) -> None:
        """When it was written, and by that whether it is old."""
        old = declared("sales", backfill=Backfill(before=START + timedelta(seconds=1)))
        record(bench, old, "sales/a")
        record(bench, declared("logs", backfill=Backfill(before=START)), "logs/a")
        record(bench, replace(old, ready=Ready(beside=".done")), "sales/b", "sales/c.done")
        assert {row.modified_at for row in bench.rows()} == {START}
        assert [row.backlog for row in bench.rows()] == [1, 0, 1, 0]


def test_no_question_reads_a_whole_table(bench: Bench) -> None:
    """Recording, releasing and looking at what waits is by an index each."""
    for number in range(30):
        record(bench, DONE, f"sales/{number}")
    with recorded(bench) as sent:
        record(bench, DONE, "sales/new", "sales/3.done")
        waiting.release_rest(bench.ledger.database, PROJECT, [("landing", "sales/3.done")], {})
        record(bench, LISTED, "sales/x")
        name(bench, "sales/4", "sales/x")
        remove(bench, "sales/5", "sales/3.done")
        bench.ledger.facts.waiting_longest("sales")
        bench.ledger.arrivals.adopt([FOLDER])
    assert {statement: plan for statement, parameters in sent if (plan := scans(bench, statement, parameters))} == {}


def test_a_batch_takes_as_many_statements_whatever_its_size(bench: Bench) -> None:
    """Neither waiting nor being released costs a statement for each object."""
    counts = []
    for count in (10, 200):
        keys = [f"sales/{count}/{number}" for number in range(count)]
        with recorded(bench) as sent:
            record(bench, DONE, *keys)
            record(bench, DONE, *(f"{key}.done" for key in keys))
        counts.append(len(sent))
    assert counts[0] == counts[1]
