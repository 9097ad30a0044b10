"""Retention on real stores: what goes, what stays, and what a key that comes back meets."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import update

from penstock.declarations import Dataset
from penstock.errors import PenstockError
from penstock.flows.retain import Retained, Retention, retain, retain_all
from penstock.flows.verify import compare
from penstock.ledger.database import utc_now
from penstock.ledger.replay import Selection
from penstock.ledger.tables import objects
from penstock.model import Delivery, State
from penstock.objects import ObjectStore
from penstock.sensors.sweep import Sweep
from penstock.sources import Source
from penstock.verification import unverified
from tests.integration.parts import SALES, parts_in
from tests.integration.test_batch import Works, csv_of, works_on
from tests.real_store import RealStore, real_store

KEY = "sales/a.csv"
RETAINED = replace(SALES, retain_days=7)
SHOP = Source(name="shop", dataset="sales", verify=unverified(because="a test"), dedup_days=30)


@pytest.fixture(scope="module")
def minio() -> Iterator[RealStore]:
    """A store with versions."""
    with real_store("minio") as server:
        yield server


@pytest.fixture(scope="module")
def embedded() -> Iterator[RealStore]:
    """A store without."""
    with real_store("embedded") as server:
        yield server


@dataclass(kw_only=True)
class Kept:
    """The parts of a pipe whose dataset is retained for seven days."""

    works: Works
    dataset: Dataset

    @property
    def bucket(self) -> str:
        """Where its objects are."""
        return self.works.parts.bucket

    def retain(self, store: Any = None, **more: Any) -> Retained:
        """One pass."""
        return self.retention(store, **more).run_once(self.dataset, [SHOP])

    def retention(self, store: Any = None, **more: Any) -> Retention:
        """What makes the passes."""
        parts = self.works.parts
        return Retention(ledger=parts.ledger, store=store or parts.store, bucket=parts.bucket, **more)

    def load(self, key: str, data: bytes) -> None:
        """PUT, record and load."""
        self.works.parts.arrive(key, data)
        self.works.drain()

    def later(self, days: float) -> None:
        """Time passes."""
        self.works.parts.clock.advance(days=days)

    def sweep(self) -> int:
        """How much a whole sweep finds that the ledger lacks."""
        parts = self.works.parts
        sweep = Sweep(
            parts.bucket,
            store=parts.store,
            ledger=parts.ledger,
            landing=parts.landing,
            datasets=parts.datasets,
            clock=parts.clock,
        )
        swept = sweep.run_once()
        return swept.recorded + swept.deliveries

    def versions(self, key: str = KEY) -> list[bytes | None]:
        """What every version of a key holds, the latest at the end; None for a delete marker."""
        store = self.works.parts.store
        return [
            None if version.marker else store.read(self.bucket, key, version_id=version.id)
            for version in store.versions(self.bucket, key)
        ]


@contextmanager
def kept_in(folder: Path, server: RealStore, dataset: Dataset = RETAINED) -> Iterator[Kept]:
    with parts_in(folder, server, [dataset], fake_time=True) as parts:
        # The store's own clock tells when a version was put.
        parts.clock.now = utc_now()
        yield Kept(works=works_on(parts, dataset), dataset=dataset)


@pytest.fixture
def kept(tmp_path: Path, minio: RealStore) -> Iterator[Kept]:
    """On a store with versions."""
    with kept_in(tmp_path, minio) as made:
        yield made


class TestGoing:
    """What leaves the store and the ledger."""

    def test_what_was_loaded_long_enough_ago_goes(self, kept: Kept) -> None:
        """Object, versions and rows of the ledger go; the table, `why` and the counts keep what was loaded."""
        kept.load(KEY, csv_of(1, 2))
        kept.later(8)
        kept.load("sales/young.csv", csv_of(3))
        assert kept.retain() == Retained(dataset="sales", removed=1, archived=1)
        assert kept.versions() == []
        assert kept.works.parts.keys() == ["sales/young.csv"]
        assert kept.sweep() == 0
        assert kept.works.rows() == [1, 2, 3]
        (story,) = kept.works.parts.stories(KEY)
        assert (story.state, story.rows) == (State.LOADED, 2)
        assert [fact.what for fact in story.facts] == ["loaded", "removed"]
        (standing,) = kept.works.parts.ledger.facts.standings()
        assert (standing.archived, standing.counts, standing.rows) == (1, {"loaded": 1}, 3)

    def test_nothing_goes_that_is_kept_for_ever_or_is_young(self, tmp_path: Path, minio: RealStore) -> None:
        """Without `retain_days`, and before its days are over, everything stays."""
        with kept_in(tmp_path, minio, SALES) as kept:
            kept.load(KEY, csv_of(1))
            kept.later(1000)
            assert kept.retain() == Retained(dataset="sales")
            kept.dataset = replace(SALES, retain_days=1001)
            assert kept.retain() == Retained(dataset="sales")
            assert kept.versions() == [csv_of(1)]

    def test_overwritten_versions_go_with_the_key(self, kept: Kept) -> None:
        """All versions go, those that nobody saw and delete markers between them too, and none becomes the latest."""
        kept.load(KEY, csv_of(1))
        kept.works.parts.put(KEY, b"never seen")
        kept.works.parts.store.remove(kept.bucket, KEY)
        kept.load(KEY, csv_of(2))
        kept.later(8)
        assert kept.retain().archived == 2
        assert kept.versions() == []
        assert kept.sweep() == 0
        assert kept.works.rows() == [2]

    def test_an_old_version_goes_though_its_key_lives_on(self, kept: Kept) -> None:
        """A key that is overwritten every day does not fill store and ledger."""
        for number in range(3):
            kept.load(KEY, csv_of(number))
            kept.later(4)
        assert kept.retain().archived == 1
        assert kept.versions() == [csv_of(1), csv_of(2)]
        assert kept.works.parts.states(KEY) == [State.LOADED, State.SUPERSEDED, State.SUPERSEDED]
        assert kept.sweep() == 0
        kept.load(KEY, csv_of(9))
        assert kept.works.rows() == [9]

    def test_what_somebody_removed_leaves_nothing_behind(self, kept: Kept) -> None:
        """Below a delete marker the versions go, and then the marker."""
        kept.load(KEY, csv_of(1))
        kept.works.parts.store.remove(kept.bucket, KEY)
        kept.later(8)
        assert kept.retain().archived == 1
        assert kept.versions() == []

    @pytest.mark.parametrize("kind", ["minio", "embedded"])
    def test_what_was_deleted_before_it_was_read_is_archived(
        self, tmp_path: Path, minio: RealStore, embedded: RealStore, kind: str
    ) -> None:
        """On either store; it is loaded when it comes again."""
        with kept_in(tmp_path, minio if kind == "minio" else embedded) as kept:
            kept.works.parts.arrive(KEY, csv_of(1))
            for version in kept.works.parts.store.versions(kept.bucket, KEY) if kind == "minio" else [None]:
                id = version.id if version else None
                assert not kept.works.parts.store.remove_versions(kept.bucket, [(KEY, id)])
            kept.works.drain()
            assert kept.works.parts.states(KEY) == [State.MISSING]
            kept.later(8)
            assert kept.retain() == Retained(dataset="sales", archived=1)
            kept.load(KEY, csv_of(1))
            assert kept.works.rows() == [1]

    def test_each_pass_has_its_own_time(self, kept: Kept) -> None:
        """A long one over a dataset takes nothing from the next one's."""
        minutes = iter(range(0, 1000, 3))
        retention = kept.retention(monotonic=lambda: 60.0 * next(minutes))
        for number in range(3):
            kept.load(f"sales/{number}.csv", csv_of(number))
            kept.later(8)
            assert retention.run_once(RETAINED, []) == Retained(dataset="sales", removed=1, archived=1)

    def test_a_dataset_that_fails_does_not_keep_the_others(self, kept: Kept) -> None:
        """It is named at the end, and tried again by the next run, while one that is done waits for its hour."""
        kept.load(KEY, csv_of(1))
        kept.later(8)
        datasets = [replace(RETAINED, name="orders", prefix="orders/"), RETAINED, replace(SALES, name="for_ever")]
        retention = kept.retention()
        real = retention.run_once

        def run_once(dataset: Dataset, sources: Sequence[Source]) -> Retained:
            if dataset.name == "orders":
                crashed()
            assert sources == [SHOP]
            return real(dataset, sources)

        with pytest.MonkeyPatch.context() as broken:
            broken.setattr(retention, "run_once", run_once)
            passes, failed = retain_all(retention, datasets, [SHOP, replace(SHOP, name="x", dataset="orders")])
        assert passes == [Retained(dataset="sales", removed=1, archived=1)]
        assert {name: type(error) for name, error in failed.items()} == {"orders": ZeroDivisionError}
        passes, failed = retain_all(retention, datasets, [SHOP])
        assert ([one.dataset for one in passes], failed) == (["orders"], {})
        kept.later(1 / 24)
        passes, failed = retain_all(retention, datasets, [SHOP])
        assert ([one.dataset for one in passes], failed) == (["orders", "sales"], {})

    def test_a_run_in_which_a_dataset_failed_fails(
        self, kept: Kept, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """After the passes over the others, with its name; the log has the error."""
        kept.load(KEY, csv_of(1))
        kept.later(8)
        parts = kept.works.parts
        flow = sys.modules[retain_all.__module__]
        project = SimpleNamespace(datasets=[replace(RETAINED, name="orders"), RETAINED], sources=[SHOP])
        monkeypatch.setattr(flow, "load_settings", lambda: SimpleNamespace(project_dir=None, bucket=parts.bucket))
        monkeypatch.setattr(flow, "load_project", lambda *_, **__: project)
        monkeypatch.setattr(flow, "open_ledger", lambda _: parts.ledger)
        monkeypatch.setattr(flow, "open_store", lambda _: Meddled(parts.store, "versions", crashed))
        monkeypatch.setattr(flow, "get_run_logger", logging.getLogger)
        with pytest.raises(PenstockError, match="failed for sales:"):
            asyncio.run(retain.fn())
        assert "ZeroDivisionError" in caplog.text
        assert kept.retention().is_due("sales")
        assert not kept.retention().is_due("orders")

    def test_a_pass_that_was_cut_short_is_due_at_once(self, kept: Kept) -> None:
        """One that came through is not, also when many late runs come together."""
        kept.load(KEY, csv_of(1))
        kept.later(8)
        assert not kept.retain(longest=timedelta(0)).complete
        assert kept.retention().is_due("sales")
        assert kept.retain().complete
        assert not kept.retention().is_due("sales")

    def test_a_pass_goes_on_where_the_last_one_was_cut_short(self, tmp_path: Path, minio: RealStore) -> None:
        """Passes that end after a page each come through, though something stays that is in the way of each."""
        with kept_in(tmp_path, minio, replace(RETAINED, on_overwrite="append")) as kept:
            kept.load("sales/0.csv", csv_of(0))
            kept.load("sales/0.csv", b"\0\xff")
            for number in (1, 2, 3):
                kept.load(f"sales/{number}.csv", csv_of(number))
            kept.later(8)
            times = iter(range(0, 10**9, 1000))
            passes = [kept.retain(page=1, monotonic=lambda: float(next(times))) for _ in range(9)]
            assert sum(one.archived for one in passes) == 3
            assert kept.works.parts.keys() == ["sales/0.csv"]
            assert not passes[0].complete
            assert any(one.complete for one in passes)


class TestStaying:
    """What must not go."""

    @pytest.mark.parametrize("state", ["pending", "quarantined", "claimed", "ignored"])
    def test_what_is_not_done_stays(self, tmp_path: Path, minio: RealStore, state: str) -> None:
        """An object that is not loaded stays, with every older version of its key under it."""
        dataset = replace(RETAINED, on_overwrite="ignore" if state == "ignored" else "append")
        with kept_in(tmp_path, minio, dataset) as kept:
            kept.load(KEY, csv_of(1))
            kept.works.parts.put(KEY, b"\0\xff" if state == "quarantined" else csv_of(2))
            kept.works.parts.record(KEY)
            if state == "quarantined":
                kept.works.drain()
            elif state == "claimed":
                kept.works.claim(kept.works.acquire())
            assert kept.works.parts.states(KEY)[0].value == state
            latest = kept.versions()[-1]
            kept.later(100)
            assert kept.retain().archived == 0
            assert kept.versions()[-1] == latest
            assert kept.sweep() == 0

    def test_an_overwrite_that_comes_meanwhile_stays_and_is_loaded(self, kept: Kept) -> None:
        """PUT between the look and the removal: the new version is none of what goes."""
        kept.load(KEY, csv_of(1))
        kept.later(8)
        store = Meddled(kept.works.parts.store, "remove_versions", lambda: kept.works.parts.put(KEY, csv_of(2)))
        kept.retain(store)
        assert kept.versions() == [csv_of(2)]
        assert kept.sweep() == 1
        kept.works.drain()
        assert kept.works.rows() == [2]

    def test_an_overwrite_recorded_meanwhile_keeps_the_row_it_replaces(self, kept: Kept) -> None:
        """The ledger knows of the overwrite before the old generation is archived: it is not, and its rows go."""
        kept.load(KEY, csv_of(1))
        kept.later(8)

        def overwrite() -> None:
            kept.works.parts.put(KEY, csv_of(2))
            kept.works.parts.record(KEY)

        kept.retain(Meddled(kept.works.parts.store, "remove_versions", overwrite))
        assert kept.works.parts.states(KEY) == [State.PENDING, State.LOADED]
        kept.works.drain()
        assert kept.works.rows() == [2]
        assert kept.works.parts.states(KEY) == [State.LOADED, State.SUPERSEDED]

    def test_without_versions_nothing_is_removed(self, tmp_path: Path, embedded: RealStore) -> None:
        """A key might be overwritten at that moment; nothing can go, so the store is not asked for any of them."""
        with kept_in(tmp_path, embedded, replace(RETAINED, on_overwrite="append")) as kept:
            for number in (1, 2):
                kept.load(KEY, csv_of(number))
            kept.load("sales/b.csv", csv_of(3))
            kept.later(8)
            kept.works.parts.store.remove(kept.bucket, "sales/b.csv")
            store = Meddled(kept.works.parts.store, "stat", crashed)
            assert kept.retain(store, page=1) == Retained(dataset="sales", kept=2)
            assert kept.works.parts.keys() == [KEY]
            assert kept.sweep() == 0

    def test_a_version_that_the_store_keeps_is_not_uncovered(self, kept: Kept) -> None:
        """Though its error does not name the version: the key stays whole until the next pass."""
        kept.load(KEY, csv_of(1))
        kept.load(KEY, csv_of(2))
        kept.later(8)
        refusing = Refusing(kept.works.parts.store)
        assert kept.retain(refusing).archived == 0
        assert kept.versions() == [csv_of(1), csv_of(2)]
        assert kept.sweep() == 0
        assert kept.retain().archived == 2
        assert kept.versions() == []

    def test_the_same_bytes_put_again_today_stay(self, kept: Kept) -> None:
        """They are what was loaded long ago, and yet somebody put them now: they go when they are old."""
        kept.load(KEY, csv_of(1))
        with kept.works.parts.ledger.database.write() as connection:
            connection.execute(update(objects).values(changed_at=kept.works.parts.clock.now - timedelta(days=8)))
        kept.works.parts.put(KEY, csv_of(1))
        assert kept.retain() == Retained(dataset="sales")
        assert kept.versions() == [csv_of(1), csv_of(1)]
        kept.later(8)
        assert kept.retain().archived == 1
        assert kept.versions() == []


class TestComingBack:
    """A key that was archived, and comes again."""

    @pytest.mark.parametrize(("on_overwrite", "rows"), [("replace", [5]), ("append", [1, 5])])
    def test_it_is_a_new_generation(self, tmp_path: Path, minio: RealStore, on_overwrite: Any, rows: list[int]) -> None:
        """Its number follows the archived one, whose marker is there still; rows are replaced, or added, as ever."""
        with kept_in(tmp_path, minio, replace(RETAINED, on_overwrite=on_overwrite)) as kept:
            kept.load(KEY, csv_of(1))
            kept.later(8)
            assert kept.retain().archived == 1
            kept.works.parts.put(KEY, csv_of(5))
            assert kept.sweep() == 1
            kept.works.drain()
            assert kept.works.rows() == rows
            assert [s.name.rpartition("@")[2] for s in kept.works.parts.stories(KEY)] == ["2", "1"]
            (standing,) = kept.works.parts.ledger.facts.standings()
            assert standing.archived == 0
            kept.later(8)
            assert kept.retain().archived == 2
            assert kept.versions() == []

    @pytest.mark.parametrize("on_overwrite", ["replace", "append"])
    def test_the_same_bytes_are_not_loaded_twice(self, tmp_path: Path, minio: RealStore, on_overwrite: Any) -> None:
        """They are known, and go again when their days are over, however often they are put."""
        with kept_in(tmp_path, minio, replace(RETAINED, on_overwrite=on_overwrite)) as kept:
            kept.load(KEY, csv_of(1))
            kept.later(8)
            assert kept.retain().archived == 1
            for _ in range(3):
                kept.works.parts.put(KEY, csv_of(1))
                assert kept.sweep() == 0
            assert kept.retain().archived == 0
            kept.works.drain()
            assert kept.works.rows() == [1]
            kept.later(8)
            assert kept.retain().archived == 1
            assert kept.versions() == []
            assert kept.sweep() == 0

    def test_the_comparison_with_the_warehouse_misses_nothing(self, kept: Kept) -> None:
        """What was archived is not looked for, and nothing is loaded again."""
        kept.load(KEY, csv_of(1))
        kept.later(8)
        kept.load("sales/young.csv", csv_of(3))
        kept.retain()
        (compared,) = compare(kept.works.parts.ledger, kept.works.warehouse)
        assert (compared.loaded, compared.lost) == (1, 0)

    def test_it_cannot_be_replayed(self, kept: Kept) -> None:
        """A replay is refused with what to do."""
        kept.load(KEY, csv_of(1))
        kept.later(8)
        kept.retain()
        done = kept.works.parts.ledger.replay.replay(Selection(keys=(KEY,)), datasets=[RETAINED], force=True, by="me")
        assert [reason for reason in done.refused if "put it again" in reason]
        assert not done.complete


class TestCrashes:
    """Killed between two steps of a pass."""

    @pytest.mark.parametrize("seam", ["remove_versions:1", "remove_versions:2", "retire:1"])
    def test_killed_at_a_seam(self, kept: Kept, seam: str) -> None:
        """Whatever was done, nothing old is found as new, and the next pass does the rest."""
        kept.load(KEY, csv_of(1))
        kept.load(KEY, csv_of(2))
        kept.later(8)
        parts = kept.works.parts
        child = subprocess.run(
            [
                sys.executable,
                "-c",
                _VICTIM,
                str(parts.ledger.database.url),
                kept.bucket,
                seam,
                parts.clock.now.isoformat(),
            ],
            env={
                **os.environ,
                "ENDPOINT": parts.server.endpoint,
                "ACCESS": parts.server.access_key,
                "SECRET": parts.server.secret_key,
            },
            timeout=60,
            check=False,
        )
        assert child.returncode == -signal.SIGKILL
        assert kept.sweep() == 0
        assert kept.works.rows() == [2]
        kept.retain()
        assert kept.versions() == []
        assert kept.works.rows() == [2]
        with parts.ledger.database.read() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM objects").scalar() == 0
            assert connection.exec_driver_sql("SELECT count(*) FROM history").scalar() == 0
            assert connection.exec_driver_sql("SELECT count(*) FROM archive").scalar() == 2


# Kills itself after the n-th call of what the seam names.
_VICTIM = """
import os, signal, sys
from datetime import datetime

from penstock.declarations import Dataset
from penstock.flows.retain import Retention
from penstock.ledger import Ledger
from penstock.ledger.archive import Archive
from penstock.objects import ObjectStore

url, bucket, seam, now = sys.argv[1:]
name, _, number = seam.partition(":")
owner = Archive if name == "retire" else ObjectStore
real, calls = getattr(owner, name), []


def fatal(*args):
    if name == "retire":
        os.kill(os.getpid(), signal.SIGKILL)
    result = real(*args)
    calls.append(1)
    if len(calls) == int(number):
        os.kill(os.getpid(), signal.SIGKILL)
    return result


setattr(owner, name, fatal)
clock = lambda: datetime.fromisoformat(now)
store = ObjectStore(os.environ["ENDPOINT"], os.environ["ACCESS"], os.environ["SECRET"])
ledger = Ledger(url, project="demo", clock=clock)
Retention(ledger=ledger, store=store, bucket=bucket).run_once(Dataset(name="sales", retain_days=7), [])
"""


@pytest.mark.parametrize("kind", ["minio", "embedded"])
class TestDeliveries:
    """Envelopes, and the ids of what was delivered."""

    @pytest.fixture
    def kept(self, tmp_path: Path, minio: RealStore, embedded: RealStore, kind: str) -> Iterator[Kept]:
        """On a store of either kind: an envelope goes on both."""
        with kept_in(tmp_path, minio if kind == "minio" else embedded) as made:
            yield made

    def test_an_envelope_goes_and_its_ids_stay_for_their_window(self, kept: Kept) -> None:
        """A late retry is a duplicate while the window lasts; after it, it is new."""
        accept(kept, "one", "two")
        kept.works.drain()
        kept.later(8)
        done = kept.retain()
        assert (done.archived, done.forgotten, kept.works.parts.keys()) == (2, 0, [])
        assert accept(kept, "two", "three") == [True, False]
        kept.works.drain()
        kept.later(24)
        assert kept.retain().forgotten == 2
        assert accept(kept, "three", "two") == [True, False]

    def test_an_envelope_stays_until_all_its_deliveries_are_done(self, kept: Kept) -> None:
        """One that is in quarantine keeps the others."""
        accept(kept, "one", "bad")
        kept.works.drain()
        kept.later(8)
        assert kept.works.parts.ledger.facts.by_state(State.QUARANTINED)
        assert kept.retain().archived == 0
        assert len(kept.works.parts.keys()) == 1

    def test_an_orphan_is_removed_before_its_ids_are_forgotten(
        self, kept: Kept, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An envelope that a crash left, whose delivery came again in another, never brings it a second time."""
        with monkeypatch.context() as crash:
            crash.setattr(kept.works.parts.ledger.deliveries, "record", crashed)
            with pytest.raises(ZeroDivisionError):
                accept(kept, "one")
        accept(kept, "one")
        kept.works.drain()
        assert len(kept.works.parts.keys()) == 2
        kept.later(40)
        assert kept.retain().forgotten == 1
        assert kept.works.parts.keys() == []
        assert kept.sweep() == 0

    def test_ids_stay_while_an_orphan_is_left(self, kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
        """An envelope with a delivery that the ledger lacks is the sweep's; until then nothing is forgotten."""
        accept(kept, "one")
        kept.works.drain()
        with monkeypatch.context() as crash:
            crash.setattr(kept.works.parts.ledger.deliveries, "record", crashed)
            with pytest.raises(ZeroDivisionError):
                accept(kept, "new")
        kept.later(40)
        assert kept.retain().forgotten == 0
        assert kept.sweep() == 1
        kept.works.drain()
        assert kept.retain().forgotten == 1
        assert len(kept.works.parts.keys()) == 1


def crashed(*args: object, **kwargs: object) -> None:
    raise ZeroDivisionError


def accept(kept: Kept, *ids: str) -> list[bool]:
    """Accept deliveries with these ids; `bad` cannot be loaded."""
    return kept.works.parts.landing.accept([delivery(one, kept.works.parts.clock.now) for one in ids])


def delivery(id: str, at: datetime) -> Delivery:
    return Delivery(
        id=id,
        source="shop",
        dataset="sales",
        received_at=at,
        content_type="application/json",
        headers={},
        body=b"\0\xff{" if id == "bad" else b'{"id": 1}',
    )


class Meddled:
    """A real store, before the first call of one of whose methods somebody does something."""

    def __init__(self, real: ObjectStore, name: str, meanwhile: Callable[[], object]) -> None:
        self._real = real
        self._name = name
        self._meanwhile: Callable[[], object] | None = meanwhile

    def __getattr__(self, name: str) -> Any:
        if name == self._name and self._meanwhile is not None:
            self._meanwhile()
            self._meanwhile = None
        return getattr(self._real, name)


class Refusing:
    """A real store that keeps older versions, and does not say which."""

    def __init__(self, real: ObjectStore) -> None:
        self._real = real

    def remove_versions(self, bucket: str, versions: Sequence[tuple[str, str | None]]) -> set[tuple[str, str | None]]:
        """Keep what is not the latest."""
        latest = {(key, self._real.versions(bucket, key)[-1].id) for key, _ in versions}
        self._real.remove_versions(bucket, [one for one in versions if one in latest])
        return {(key, None) for key, id in versions if (key, id) not in latest}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)
