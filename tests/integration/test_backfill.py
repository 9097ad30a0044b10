"""A backfill from the bucket to the table: real store, real ledger, real DuckDB, no Prefect."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from penstock.cli.main import cli
from penstock.declarations import Backfill, Dataset
from penstock.errors import DeclarationError
from penstock.ledger import Ledger
from penstock.ledger.arrivals import Seen
from penstock.model import Lease, ObjectRef, Stat, State, Via
from penstock.sensors import sweep as sweep_module
from penstock.sensors.sweep import Sweep
from tests.integration.parts import parts_in, running
from tests.integration.test_batch import TTL, Works, csv_of, works_on
from tests.real_store import RealStore, real_store
from tests.waiting import wait_for

BACKFILL = Backfill(prefix="archive/", per_minute=400)
OLD = Dataset(name="sales", backfill=BACKFILL)


@pytest.fixture(scope="module")
def embedded() -> Iterator[RealStore]:
    """The store of this module's tests."""
    with real_store("embedded") as server:
        yield server


@pytest.fixture
def works(tmp_path: Path, embedded: RealStore) -> Iterator[Works]:
    with parts_in(tmp_path, embedded, [OLD], fake_time=True) as parts:
        yield works_on(parts, OLD)


def sweep(works: Works) -> Sweep:
    parts = works.parts
    return Sweep(
        parts.bucket,
        store=parts.store,
        ledger=parts.ledger,
        landing=parts.landing,
        datasets=parts.datasets,
        clock=parts.clock,
    )


def claim(works: Works, lease: Lease) -> list[ObjectRef]:
    return works.parts.ledger.work.claim(
        lease, run=lease.holder, max_objects=1000, max_bytes=10**9, backfill=works.dataset.backfill
    )


def load(works: Works, lease: Lease, refs: list[ObjectRef], *, die: bool = False) -> None:
    """What a run does with a claim; with `die` the ledger never hears of what it wrote."""
    batch = works.batch(lease, refs)
    batch.fetch()
    batch.check()
    batch.load()
    if not die:
        batch.settle()
    batch.clean()


def ids(refs: list[ObjectRef]) -> list[int]:
    return [int(ref.key.rpartition("/")[2].removesuffix(".csv")) for ref in refs]


def test_three_hundred_old_objects_among_live_ones(works: Works) -> None:
    """They are loaded newest first at their rate, a live one in the next batch, a killed run goes on, each row once."""
    parts, work = works.parts, works.parts.ledger.work
    for number in range(300):
        parts.put(f"archive/{number:03}.csv", csv_of(number))
    assert sweep(works).run_once().recorded == 300

    lease = works.acquire()
    refs = claim(works, lease)
    assert ids(refs) == list(range(299, 199, -1))
    parts.arrive("sales/1000.csv", csv_of(1000))
    load(works, lease, refs)
    live = claim(works, lease)
    assert ids(live) == [1000]
    load(works, lease, live)
    assert claim(works, lease) == []
    assert work.finish(lease)
    progress = parts.ledger.backlog.progress("sales", BACKFILL)
    assert (progress.done, progress.left, progress.failed) == (100, 200, 0)

    assert parts.ledger.wakeups.find() == 0
    parts.clock.advance(seconds=15)
    assert parts.ledger.wakeups.find() == 1
    killed = works.acquire()
    refs = claim(works, killed)
    assert ids(refs) == list(range(199, 99, -1))
    load(works, killed, refs, die=True)
    parts.arrive("sales/1001.csv", csv_of(1001))

    parts.clock.advance(seconds=TTL.total_seconds())
    assert parts.ledger.wakeups.find() == 1
    began = parts.clock.now
    found: list[int] = []
    lease = works.acquire()
    assert lease.taken_over
    while parts.ledger.backlog.progress("sales", BACKFILL).left:
        while refs := claim(works, lease):
            found += ids(refs)
            load(works, lease, refs)
        parts.clock.advance(seconds=1)
        lease = work.renew(lease, ttl=TTL)
    assert found == [1001, *range(199, -1, -1)]
    assert parts.clock.now - began >= timedelta(seconds=15)
    assert work.finish(lease)
    assert works.rows() == [*range(300), 1000, 1001]
    assert {parts.states(f"archive/{number:03}.csv")[0] for number in range(300)} == {State.LOADED}
    assert sweep(works).run_once().recorded == 0


@pytest.mark.parametrize("pause", [0.0, 600.0], ids=["no_pause", "long_pause"])
def test_a_sweep_records_what_is_new_before_many_old_ones(
    works: Works, pause: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep takes few old objects, and all that is new behind them; the others follow, with and without a pause."""
    monkeypatch.setattr(sweep_module, "_BATCH", 20)
    monkeypatch.setattr(sweep_module, "_OLD_IN_A_SWEEP", 10)
    parts = works.parts
    old = [f"archive/{number:02}.csv" for number in range(75)]
    for key in [*old, "sales/new.csv"]:
        parts.put(key, csv_of(1))
    swept = sweep(works).run_once(most_old=10)
    assert (swept.listed, swept.recorded, swept.put_off) == (76, 11, 65)
    assert parts.states("sales/new.csv") == [State.PENDING]
    assert [bool(parts.states(key)) for key in old] == [True] * 10 + [False] * 65

    again = sweep(works)
    with running(lambda stop: again.run(stop, every=lambda _: pause, monotonic=time.monotonic)):
        wait_for(lambda: parts.ledger.backlog.progress("sales", BACKFILL).left == 75, what="all old ones are recorded")


class TestCommand:
    """`penstock backfill`."""

    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
        """A project with two datasets, one of which has a backfill, and its ledger."""
        monkeypatch.setattr(sys, "path", list(sys.path))
        for name in ("flows", "flows.sales", "flows.plain"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        (tmp_path / "flows").mkdir()
        (tmp_path / "flows" / "sales.py").write_text(
            "from penstock import Backfill, Dataset\n"
            'DATASET = Dataset(name="sales", backfill=Backfill(prefix="archive/", per_minute=1))\n'
        )
        (tmp_path / "flows" / "plain.py").write_text('from penstock import Dataset\nDATASET = Dataset(name="plain")\n')
        (tmp_path / ".env").write_text("PENSTOCK_PROJECT=desk\n")
        ledger = Ledger(f"sqlite:///{tmp_path / '.penstock' / 'ledger.db'}", project="desk")
        ledger.migrate(lock_folder=tmp_path / ".penstock")
        now = datetime.now(UTC)
        stats = [
            Stat(bucket="landing", key=f"archive/{n}", etag="a", size=1, modified=now - timedelta(days=n))
            for n in range(3)
        ]
        ledger.arrivals.record([Seen(stat=stat, dataset=OLD) for stat in stats], Via.SWEEP)
        ledger.close()
        yield tmp_path
        for name in [name for name in sys.modules if name.split(".")[0] == "flows"]:
            del sys.modules[name]

    def _run(self, folder: Path, *arguments: str) -> Result:
        return CliRunner().invoke(cli, ["--project", str(folder), "backfill", *arguments])

    def test_it_tells_how_far_it_is(self, folder: Path) -> None:
        """Of the dataset that has one: what is done and left, its order and rate, and the end by that rate."""
        told = self._run(folder)
        assert told.exit_code == 0, told.output
        assert "newest first, at most 1 a minute" in told.output
        assert "by its per_minute" in told.output
        (facts,) = json.loads(self._run(folder, "sales", "--json").output)
        assert (facts["done"], facts["left"], facts["failed"], facts["estimated_by"]) == (0, 3, 0, "limit")
        until = datetime.fromisoformat(facts["done_at"]) - datetime.fromisoformat(facts["at"])
        assert until == timedelta(minutes=3)

    def test_without_one_it_says_how_to_declare_it(self, folder: Path) -> None:
        """A dataset without a backfill is an error that shows the words to write."""
        told = self._run(folder, "plain")
        assert isinstance(told.exception, DeclarationError)
        assert "the dataset plain has no backfill" in str(told.exception)
        assert "backfill=Backfill(prefix=" in str(told.exception)
