"""The archive of every ledger: what retention took out leaves `objects`, and comes back with its key."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import inspect
from sqlalchemy.exc import IntegrityError

from penstock.declarations import Backfill, Dataset
from penstock.ledger import Ledger
from penstock.ledger.database import HEAD
from penstock.ledger.replay import Selection
from penstock.ledger.tables import objects
from penstock.model import State, Via
from tests.conformance.ledgers import BACKENDS, MAKERS, SALES, START, Bench, delivery, stat

ENVELOPE = "_penstock/deliveries/sales/1"


@pytest.fixture(params=BACKENDS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    with MAKERS[request.param](tmp_path / "ledger") as made:
        yield made


def load(bench: Bench) -> None:
    """Load all that is pending."""
    lease = bench.take()
    bench.settle(lease, *bench.claim(lease))
    assert bench.ledger.work.finish(lease)


def retire(bench: Bench, key: str = "sales/1") -> int:
    """Archive all of a key."""
    name = ("landing", key)
    return bench.ledger.archive.retire(bench.ledger.archive.of_keys([name]))


def test_what_was_archived_leaves_the_ledger_in_use(bench: Bench) -> None:
    """Row and history go, `why` and the counts remain, and a second time there is nothing to do."""
    bench.arrive("sales/1")
    load(bench)
    assert retire(bench) == 1
    assert bench.rows() == []
    assert retire(bench) == 0
    (story,) = bench.ledger.facts.stories("landing/sales/1@1")
    assert (story.state, story.rows, story.archived_at) == (State.LOADED, 2, START)
    assert [(fact.what, fact.run) for fact in story.facts] == [("loaded", "r1"), ("removed", None)]
    (standing,) = bench.ledger.facts.standings()
    assert (standing.dataset, standing.counts, standing.archived, standing.rows) == ("sales", {}, 1, 2)


def test_a_key_that_comes_back_goes_on_counting(bench: Bench) -> None:
    """The archived generation is loaded as before, the new one follows it, and replaces its rows."""
    bench.arrive("sales/1")
    load(bench)
    retire(bench)
    assert bench.arrive("sales/1", "b") == 1
    assert bench.states() == [("sales/1", 1, "loaded"), ("sales/1", 2, "pending")]
    (first, second) = bench.rows()
    assert first.id < second.id
    lease = bench.take()
    (ref,) = bench.claim(lease)
    assert [old.generation for old in bench.ledger.work.older([ref])[ref.id]] == [1]
    (standing,) = bench.ledger.facts.standings()
    assert (standing.archived, standing.rows) == (0, 2)


@pytest.mark.parametrize("dataset", [SALES, replace(SALES, on_overwrite="append")])
def test_the_same_bytes_come_back_as_what_they_are(bench: Bench, dataset: Dataset) -> None:
    """They are loaded already: no new generation, and they are in use, and retained, from now on."""
    bench.arrive("sales/1", version="v1")
    load(bench)
    retire(bench)
    bench.clock.forward(60)
    assert bench.arrive("sales/1", version="v2", dataset=dataset) == 0
    (row,) = bench.rows()
    assert (row.generation, row.state, row.version_id, row.changed_at) == (1, "loaded", "v2", bench.clock.now)
    assert bench.arrive("sales/1", version="v2", dataset=dataset) == 0
    assert retire(bench) == 1


def test_an_old_object_comes_back_as_old_as_it_was(bench: Bench) -> None:
    """Retained, back with the same bytes and replayed, it still counts as arrived when it was written."""
    old = replace(SALES, backfill=Backfill(before=START + timedelta(seconds=1)))
    bench.arrive("sales/1", dataset=old)
    load(bench)
    bench.clock.forward(1000)
    assert retire(bench) == 1
    bench.arrive("sales/1", dataset=old)
    (row,) = bench.rows()
    assert (row.backlog, row.modified_at) == (1, START)
    again = Selection(keys=("sales/1",))
    assert bench.ledger.replay.replay(again, datasets=[old], force=True, by="me").moved == 1
    (ref,) = bench.claim(bench.take())
    assert ref.arrived_at == START


def test_only_what_counts_comes_back(bench: Bench) -> None:
    """Of many generations the newest comes back, which numbers the next; those that were replaced stay archived."""
    for etag in "abc":
        bench.arrive("sales/1", etag)
    load(bench)
    assert retire(bench) == 3
    bench.arrive("sales/1", "d")
    assert bench.states() == [("sales/1", 3, "loaded"), ("sales/1", 4, "pending")]
    assert len(bench.ledger.facts.stories("sales/1")) == 4


def test_what_came_before_its_dataset_was_declared_is_archived_with_its_key(bench: Bench) -> None:
    """A superseded generation that no dataset took goes along, and `why` tells of it."""
    bench.arrive("sales/1", dataset=None)
    bench.arrive("sales/1", "b")
    load(bench)
    assert [row.dataset for row in bench.rows()] == [None, "sales"]
    assert retire(bench) == 2
    stories = bench.ledger.facts.stories("sales/1")
    assert [(story.dataset, story.state) for story in stories] == [("sales", State.LOADED), (None, State.SUPERSEDED)]
    bench.arrive("sales/1", "c")
    assert bench.states() == [("sales/1", 2, "loaded"), ("sales/1", 3, "pending")]


def test_what_was_missing_is_loaded_when_it_comes_back(bench: Bench) -> None:
    """The same bytes again are a new generation: the archived one was never read."""
    bench.arrive("sales/1")
    lease = bench.take()
    bench.settle(lease, *bench.claim(lease), state=State.MISSING)
    assert bench.ledger.work.finish(lease)
    assert retire(bench) == 1
    assert bench.arrive("sales/1") == 1
    assert bench.states() == [("sales/1", 1, "missing"), ("sales/1", 2, "pending")]


def test_what_changed_meanwhile_is_not_archived(bench: Bench) -> None:
    """Replayed, or overwritten, after retention had looked: the key stays as it is."""
    bench.arrive("sales/1")
    bench.arrive("sales/2")
    load(bench)
    read = bench.ledger.archive.of_keys([("landing", "sales/1"), ("landing", "sales/2")])
    bench.ledger.replay.replay(Selection(keys=("sales/1",)), datasets=[SALES], force=True, by="me")
    bench.arrive("sales/2", "b")
    before = bench.everything()
    assert bench.ledger.archive.retire(read) == 0
    assert bench.everything() == before


def test_an_archived_delivery_is_a_duplicate_until_it_is_forgotten(bench: Bench) -> None:
    """Its id keeps a retry out; what came later than the window's end stays."""
    deliveries = bench.ledger.deliveries
    deliveries.record("landing", ENVELOPE, stat(ENVELOPE), {1: delivery("one"), 2: delivery("two")}, Via.WEBHOOK)
    load(bench)
    assert retire(bench, ENVELOPE) == 2
    assert deliveries.known("shop", ["one", "two", "three"]) == {"one", "two"}
    assert deliveries.record("landing", "e2", stat("e2"), {1: delivery("one")}, Via.WEBHOOK) == {1}
    assert bench.rows() == []
    assert bench.ledger.archive.unknown([("shop", "one"), ("shop", "x"), ("other", "one")]) == {
        ("shop", "x"),
        ("other", "one"),
    }
    later = START + timedelta(days=1)
    assert bench.ledger.archive.forget("shop", "sales", before=START) == 0
    assert bench.ledger.archive.forget("other", "sales", before=later) == 0
    assert bench.ledger.archive.forget("shop", "orders", before=later) == 0
    assert bench.ledger.archive.forget("shop", "sales", before=later) == 2
    assert deliveries.record("landing", "e3", stat("e3"), {1: delivery("one")}, Via.WEBHOOK) == set()


def test_what_was_archived_cannot_be_replayed(bench: Bench) -> None:
    """The refusal says why, and what to do."""
    bench.arrive("sales/1")
    load(bench)
    retire(bench)
    done = bench.ledger.replay.replay(Selection(keys=("sales/1",)), datasets=[SALES], force=True, by="me")
    assert not done.complete
    ((reason, refusals),) = done.refused.items()
    assert "put it again" in reason
    assert refusals.first == ["landing/sales/1@1"]


def test_a_ledger_with_rows_is_migrated_to_the_archive(tmp_path: Path) -> None:
    """Objects and deliveries of 0002 are there afterwards as they were, under the indexes that the tables name."""
    config = Config()
    config.set_main_option("script_location", "penstock.ledger:migrations")
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db", project="p")
    with ledger.database.write() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        later = {"request", "waits_for", "backlog", "modified_at"}
        names = [column.name for column in objects.c if column.name not in later]
        values = ["?"] * len(names)
        insert = f"INSERT INTO objects ({', '.join(names)}) VALUES ({', '.join(values)})"
        for number in range(1, 1001):
            row = _row_of_0002(number)
            connection.exec_driver_sql(insert, tuple(row.get(name) for name in names))
        all_of_it = f"SELECT {', '.join(names)} FROM objects ORDER BY id"
        before = connection.exec_driver_sql(all_of_it).all()
    assert ledger.migrate(lock_folder=tmp_path) == ("0002", HEAD)
    ledger.check()
    with ledger.database.read() as connection:
        assert connection.exec_driver_sql(all_of_it).all() == before
        found = {(index["name"], *index["column_names"]) for index in inspect(connection).get_indexes("objects")}
    assert found == {(index.name, *(column.name for column in index.columns)) for index in objects.indexes}
    with ledger.database.write() as connection, pytest.raises(IntegrityError, match="UNIQUE"):
        connection.exec_driver_sql(insert, tuple((_row_of_0002(2) | {"id": 5000}).get(name) for name in names))
    ledger.close()


def _row_of_0002(number: int) -> dict[str, object]:
    delivered = number % 2
    return {
        "id": number,
        "dataset": "sales",
        "bucket": "landing",
        "key": f"sales/{number}",
        "generation": 1,
        "entry": delivered,
        "etag": "a",
        "size": 10,
        "via": "webhook" if delivered else "bucket",
        "source": "shop" if delivered else None,
        "delivery": f"d{number}" if delivered else None,
        "state": "pending",
        "attempts": 0,
        "hiccups": 0,
        "again": 0,
        "arrived_at": number,
        "changed_at": number,
    }
