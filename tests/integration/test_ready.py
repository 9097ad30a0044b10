"""Senders that say by another object when one may be read: real store, real ledger, real warehouse, no Prefect."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from penstock.cli.status import _not_whole
from penstock.declarations import Dataset, Ready
from penstock.errors import Refused
from penstock.model import State, Via
from penstock.sensors.sweep import Sweep
from tests.integration.parts import Parts, parts_in
from tests.integration.test_batch import Works, csv_of, works_on
from tests.real_store import RealStore, real_store

DONE = Dataset(name="sales", match="*.csv", ready=Ready(beside=".done"))
LISTED = Dataset(name="sales", ready=Ready(manifest="*.manifest"))


@pytest.fixture(scope="module")
def embedded() -> Iterator[RealStore]:
    """The store of this module's tests."""
    with real_store("embedded") as server:
        yield server


@contextmanager
def works_in(folder: Path, server: RealStore, dataset: Dataset) -> Iterator[Works]:
    with parts_in(folder, server, [dataset]) as parts:
        yield works_on(parts, dataset)


def sweep(parts: Parts) -> int:
    return (
        Sweep(
            parts.bucket,
            store=parts.store,
            ledger=parts.ledger,
            landing=parts.landing,
            datasets=parts.datasets,
            clock=lambda: datetime.now(UTC),
        )
        .run_once()
        .recorded
    )


def test_data_is_read_when_its_marker_is_there(tmp_path: Path, embedded: RealStore) -> None:
    """Hints and the sweep agree: what waits is not loaded, then is, once; the marker's bytes never are."""
    with works_in(tmp_path, embedded, DONE) as works:
        parts = works.parts
        parts.put("sales/a.csv", csv_of(1))
        parts.put("sales/b.csv", csv_of(2))
        assert parts.record("sales/a.csv") == 1
        assert sweep(parts) == 1
        assert parts.ledger.wakeups.outstanding() == []
        (line,) = _not_whole(parts.ledger, parts.ledger.facts.standings())
        assert "sales: 2 waiting" in line
        assert "sales/a.csv for sales/a.csv.done" in line
        parts.put("sales/a.csv.done", b"id,v\n9,marker\n")
        parts.put("sales/b.csv.done", b"")
        assert parts.record("sales/a.csv.done") == 0
        assert sweep(parts) == 0
        works.drain()
        assert parts.states("sales/a.csv") == parts.states("sales/b.csv") == [State.LOADED]
        assert parts.states("sales/a.csv.done") == [State.IGNORED]
        assert works.warehouse.count("sales") == 2
        assert sweep(parts) == 0


def test_a_removed_marker_is_told_by_the_store(tmp_path: Path, embedded: RealStore) -> None:
    """A folder that is written anew: its marker is deleted first, and what comes waits for the next one."""
    dataset = Dataset(name="sales", ready=Ready(folder="_SUCCESS"))
    with works_in(tmp_path, embedded, dataset) as works:
        parts = works.parts
        parts.put("sales/d/_SUCCESS", b"")
        parts.record("sales/d/_SUCCESS")
        parts.store.remove_versions(parts.bucket, [("sales/d/_SUCCESS", None)])
        assert parts.landing.removed(parts.bucket, ["sales/d/_SUCCESS"], Via.NOTIFICATION) == 1
        parts.arrive("sales/d/a.csv", csv_of(1))
        assert parts.states("sales/d/a.csv") == [State.WAITING]
        parts.put("sales/d/_SUCCESS", b"")
        assert sweep(parts) == 0
        assert parts.states("sales/d/a.csv") == [State.PENDING]
        assert parts.states("sales/d/_SUCCESS") == [State.IGNORED, State.MISSING]


def test_what_is_removed_while_it_waits_is_missing(tmp_path: Path, embedded: RealStore) -> None:
    """Withdrawn before its marker came."""
    with works_in(tmp_path, embedded, DONE) as works:
        parts = works.parts
        parts.arrive("sales/a.csv", csv_of(1))
        parts.store.remove_versions(parts.bucket, [("sales/a.csv", None)])
        assert parts.landing.removed(parts.bucket, ["sales/a.csv"], Via.NOTIFICATION) == 1
        assert parts.states("sales/a.csv") == [State.MISSING]


def test_a_manifest_is_read_and_releases(tmp_path: Path, embedded: RealStore) -> None:
    """The run that reads it loads what it named in the same run; what is not there is told of, and loaded later."""
    with works_in(tmp_path, embedded, LISTED) as works:
        parts = works.parts
        for number, key in enumerate(["sales/a.csv", "sales/b.csv", "sales/unnamed.csv"]):
            parts.arrive(key, csv_of(number))
        entries = [{"url": f"s3://{parts.bucket}/sales/{name}.csv"} for name in ("a", "b", "late")]
        parts.arrive("sales/1.manifest", json.dumps({"entries": entries}).encode())
        works.drain()
        (story,) = parts.stories("sales/1.manifest")
        assert story.state is State.EMPTY
        assert story.reason == "a manifest: it named 3 objects, 2 of them were there"
        assert parts.states("sales/a.csv") == parts.states("sales/b.csv") == [State.LOADED]
        assert parts.states("sales/unnamed.csv") == [State.WAITING]
        assert works.warehouse.count("sales") == 2
        told = list(_not_whole(parts.ledger, parts.ledger.facts.standings()))
        assert "named by manifests and not there: 1, such as sales/late.csv (by sales/1.manifest)" in told
        parts.arrive("sales/late.csv", csv_of(3))
        works.drain()
        assert parts.states("sales/late.csv") == [State.LOADED]
        assert parts.ledger.announcements.absent(limit=1) == (0, [])


def test_a_wrong_manifest_is_quarantined(tmp_path: Path, embedded: RealStore) -> None:
    """With what is wrong with it; an overwrite that is right is read, and nothing of either comes into the table."""
    with works_in(tmp_path, embedded, LISTED) as works:
        parts = works.parts
        parts.arrive("sales/a.csv", csv_of(1))
        parts.arrive("sales/1.manifest", b'["a.csv"')
        works.drain()
        (story,) = parts.stories("sales/1.manifest")
        assert story.state is State.QUARANTINED
        assert "begins like JSON and is none" in (story.reason or "")
        parts.arrive("sales/1.manifest", b'["a.csv"]')
        works.drain()
        assert parts.states("sales/1.manifest") == [State.EMPTY, State.SUPERSEDED]
        assert parts.states("sales/a.csv") == [State.LOADED]
        assert works.warehouse.loaded([story.name, story.name.replace("@1", "@2")]) == {}


def test_a_key_that_fits_no_match(tmp_path: Path, embedded: RealStore) -> None:
    """In the bucket it waits in quarantine, and from the inbox it is refused, both with the match that it misses."""
    with works_in(tmp_path, embedded, DONE) as works:
        parts = works.parts
        parts.put("sales/a.txt", b"x")
        assert parts.record("sales/a.txt") == 0
        (story,) = parts.stories("sales/a.txt")
        assert story.state is State.QUARANTINED
        assert "sales takes '*.csv'" in (story.reason or "")
        with (tmp_path / "x").open("wb+") as file, pytest.raises(Refused, match=r"sales takes '\*\.csv'"):
            parts.landing.put_file("sales/b.txt", file, 0, unchanged=lambda: True)
