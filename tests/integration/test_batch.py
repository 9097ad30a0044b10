"""A claimed batch on its way to the warehouse: real store, real ledger, real DuckDB, no Prefect."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, cast

import pyarrow as pa
import pyarrow.parquet
import pytest

from penstock.declarations import Dataset
from penstock.errors import DeclarationError, LeaseLost, SettingsError, StoreUnavailable
from penstock.flows.batch import Batch, Report
from penstock.model import Delivery, Lease, ObjectRef, State, Via
from penstock.objects import ObjectStore
from penstock.warehouse.duckdb import DuckDBWarehouse
from tests.integration.parts import SALES, Parts, parts_in
from tests.real_store import RealStore, real_store

TTL = timedelta(seconds=30)


@pytest.fixture(scope="module")
def embedded() -> Iterator[RealStore]:
    """The store of this module's tests."""
    with real_store("embedded") as server:
        yield server


@dataclass(kw_only=True)
class Works:
    """The parts, a warehouse, and runs of one dataset without Prefect."""

    parts: Parts
    warehouse: DuckDBWarehouse
    dataset: Dataset
    runs: int = 0

    def acquire(self) -> Lease:
        """A new run takes the lease, as `flows.ingest` does."""
        self.runs += 1
        lease = self.parts.ledger.work.acquire(self.dataset.name, holder=f"run {self.runs}", ttl=TTL)
        assert lease is not None
        if lease.taken_over:
            self.warehouse.fence(lease.dataset, lease.token)
        return lease

    def claim(self, lease: Lease) -> list[ObjectRef]:
        """Everything pending."""
        return self.parts.ledger.work.claim(lease, run=lease.holder, max_objects=1000, max_bytes=10**9)

    def batch(self, lease: Lease, refs: Sequence[ObjectRef], store: Any = None) -> Batch:
        """A batch of these."""
        spool = self.parts.folder / "spool" / f"{lease.token}-{refs[0].id}"
        spool.mkdir(parents=True, exist_ok=True)
        return Batch(
            refs,
            dataset=self.dataset,
            lease=lease,
            run=lease.holder,
            store=cast(ObjectStore, store or self.parts.store),
            ledger=self.parts.ledger,
            warehouse=self.warehouse,
            landing=self.parts.landing,
            spool=spool,
            clock=self.parts.clock,
        )

    def drain(self, store: Any = None) -> Report:
        """What a run does from beginning to end."""
        lease = self.acquire()
        report = Report()
        while True:
            refs = self.claim(lease)
            if not refs:
                if self.parts.ledger.work.finish(lease):
                    return report
                continue
            batch = self.batch(lease, refs, store)
            batch.fetch()
            batch.check()
            batch.load()
            report.add(*batch.settle(), batch.counts)
            batch.clean()

    def rows(self, columns: str = "id", table: str = "") -> list[Any]:
        """The table's rows, sorted; single columns as values."""
        name = table or self.dataset.name
        if not self.warehouse.path.exists():
            return []
        found = self.warehouse.query(f"SELECT {columns} FROM {name} ORDER BY ALL", limit=1000).rows
        return [row[0] for row in found] if "," not in columns else found


def works_on(parts: Parts, dataset: Dataset = SALES) -> Works:
    return Works(
        parts=parts, warehouse=DuckDBWarehouse(parts.folder / "warehouse.duckdb", wait_seconds=10), dataset=dataset
    )


@pytest.fixture
def works(tmp_path: Path, embedded: RealStore) -> Iterator[Works]:
    """A dataset `sales` without checks, on a clock that stands still."""
    with parts_in(tmp_path, embedded, fake_time=True) as parts:
        yield works_on(parts)


def csv_of(*ids: int) -> bytes:
    return b"id,name\n" + b"".join(b"%d,n%d\n" % (number, number) for number in ids)


def parquet_of(*ids: int) -> bytes:
    sink = io.BytesIO()
    pa.parquet.write_table(pa.table({"id": ids, "name": [f"n{number}" for number in ids]}), sink)
    return sink.getvalue()


def delivery(number: int, body: bytes, content_type: str = "application/json") -> Delivery:
    return Delivery(
        id=f"d{number}",
        source="shop",
        dataset="sales",
        received_at=datetime(2026, 3, 1, 12, tzinfo=UTC),
        content_type=content_type,
        headers={"x-kind": "sale"},
        body=body,
    )


def test_every_format_loads(works: Works) -> None:
    """CSV, JSON, NDJSON, gzip and Parquet objects of one dataset land in one table, each row once."""
    parts = works.parts
    parts.arrive("sales/a.csv", csv_of(1, 2))
    parts.arrive("sales/b.json", b'[{"id": 3, "name": "n3"}]')
    parts.arrive("sales/c.ndjson", b'{"id": 4, "name": "n4"}\n{"id": 5, "name": "n5"}\n')
    parts.arrive("sales/d.csv.gz", gzip.compress(csv_of(6)))
    parts.arrive("sales/e.parquet", parquet_of(7, 8))
    report = works.drain()
    assert (report.loaded, report.rows, report.rejected, report.outcomes) == (5, 8, 0, {"loaded": 5})
    assert works.rows("id, name") == [(number, f"n{number}") for number in range(1, 9)]
    assert works.rows("_penstock_object")[0] == f"{parts.bucket}/sales/a.csv@1"
    assert parts.stories("sales/e.parquet")[0].rows == 2
    assert not list((parts.folder / "spool").iterdir()), "what was downloaded is removed"


def test_deliveries_load_as_their_dataset_says(works: Works) -> None:
    """A delivery's body is read as the content type says, each of an envelope on its own."""
    bodies = [
        delivery(1, b'{"id": 1, "name": "n1"}'),
        delivery(2, b"no json at all"),
        delivery(3, b"id,name\n3,n3\n", "text/csv; charset=utf-8"),
        delivery(4, b'{"id": 4, "name": "n4"}\n{"id": 5, "name": "n5"}\n', "application/x-ndjson"),
    ]
    assert works.parts.landing.accept(bodies) == [False] * 4
    report = works.drain()
    assert report.outcomes == {"loaded": 3, "quarantined": 1}
    assert works.rows() == [1, 3, 4, 5]
    assert works.parts.ledger.facts.stories("d2")[0].state is State.QUARANTINED


def test_whole_deliveries(tmp_path: Path, embedded: RealStore) -> None:
    """With the format `delivery` each delivery is a row with its headers and its payload."""
    dataset = Dataset(name="sales", format="delivery", derive={"kind": "headers->>'x-kind'"})
    with parts_in(tmp_path, embedded, [dataset], fake_time=True) as parts:
        works = works_on(parts, dataset)
        parts.landing.accept([delivery(1, b'{"a": 1}'), delivery(2, b"\xff\xfe")])
        assert works.drain().outcomes == {"loaded": 1, "quarantined": 1}
        assert works.rows("delivery, source, kind, payload->>'a'") == [("d1", "shop", "sale", "1")]


def test_bad_objects_stop_no_other(works: Works) -> None:
    """An object that cannot be read is quarantined with the reason, and those around it are loaded."""
    works.parts.arrive("sales/a.csv", csv_of(1))
    works.parts.arrive("sales/b.parquet", b"no parquet")
    works.parts.arrive("sales/c.exe", b"MZ")
    works.parts.arrive("sales/d.csv.gz", gzip.compress(csv_of(*range(1000)))[:-20])
    works.parts.arrive("sales/e.csv", b"")
    works.parts.arrive("sales/f.csv", b"id,name\n")
    works.parts.arrive("sales/g.csv", csv_of(2))
    report = works.drain()
    assert report.outcomes == {"loaded": 2, "quarantined": 3, "empty": 2}
    assert works.rows() == [1, 2]
    for key in ("b.parquet", "c.exe", "d.csv.gz"):
        (story,) = works.parts.stories(f"sales/{key}")
        assert story.state is State.QUARANTINED
        assert story.reason
    assert works.drain().outcomes == {}


def test_threshold(tmp_path: Path, embedded: RealStore) -> None:
    """Bad rows are put aside with their reason; with too many of them nothing of the object is loaded."""
    dataset = Dataset(name="sales", checks={"id_positive": "id > 0"}, threshold=0.5, report={"total": "sum(id)"})
    with parts_in(tmp_path, embedded, [dataset], fake_time=True) as parts:
        works = works_on(parts, dataset)
        parts.arrive("sales/half.csv", csv_of(1, -2))
        parts.arrive("sales/most.csv", csv_of(3, -4, -5))
        report = works.drain()
        assert works.rows() == [1]
        assert report.figures == {"total": 1}
        assert works.rows("_penstock_row, reason, raw", "sales__rejected") == [(2, "check id_positive", "-2,n-2")]
        (story,) = parts.stories("sales/most.csv")
        assert (story.state, story.rejected) == (State.QUARANTINED, 2)
        assert "2 of 3 rows are bad" in str(story.reason)
        assert "id_positive (2)" in str(story.reason)


def test_faulty_sql_is_no_objects_fault(tmp_path: Path, embedded: RealStore) -> None:
    """A declaration that cannot work on a schema that is known raises, and blames no object."""
    fine = Dataset(name="sales")
    with parts_in(tmp_path, embedded, [fine], fake_time=True) as parts:
        parts.arrive("sales/first.csv", csv_of(7))
        works_on(parts, fine).drain()
        works = works_on(parts, Dataset(name="sales", derive={"total": "no_such_column * 2"}))
        parts.arrive("sales/a.csv", csv_of(1))
        with pytest.raises(DeclarationError):
            works.drain()
        assert parts.states("sales/a.csv") == [State.CLAIMED]


@pytest.mark.parametrize("first", [b"a,b\n1,2\n", b"number,name\n1,x\n"])
def test_a_wrong_first_object_holds_up_nothing(tmp_path: Path, embedded: RealStore, first: bytes) -> None:
    """A first object without the columns that the checks name is quarantined, and sets no schema for the others."""
    dataset = Dataset(name="sales", checks={"id_positive": "id > 0"})
    with parts_in(tmp_path, embedded, [dataset], fake_time=True) as parts:
        works = works_on(parts, dataset)
        parts.arrive("sales/0.csv", first)
        parts.arrive("sales/1.csv", csv_of(1))
        assert works.drain().outcomes == {"quarantined": 1, "loaded": 1}
        assert works.rows() == [1]


def test_an_object_with_no_known_column_is_quarantined(works: Works) -> None:
    """Once the schema is known, an object that shares no column with it is not loaded as a row of NULLs."""
    works.parts.arrive("sales/a.csv", csv_of(1))
    works.parts.arrive("sales/b.csv", b"alpha,beta\n1,2\n")
    assert works.drain().outcomes == {"loaded": 1, "quarantined": 1}
    assert "none of the columns" in str(works.parts.stories("sales/b.csv")[0].reason)
    assert works.rows() == [1]


@pytest.mark.parametrize("on_overwrite", ["replace", "ignore"])
@pytest.mark.parametrize("then", ["overwritten", "deleted"])
def test_what_a_dead_run_loaded_is_loaded(
    tmp_path: Path, embedded: RealStore, on_overwrite: Literal["replace", "ignore"], then: str
) -> None:
    """A run that dies between the warehouse's commit and the ledger's leaves a loaded object."""
    dataset = Dataset(name="sales", on_overwrite=on_overwrite)
    with parts_in(tmp_path, embedded, [dataset], fake_time=True) as parts:
        works = works_on(parts, dataset)
        parts.arrive("sales/a.csv", csv_of(1))
        lease = works.acquire()
        batch = works.batch(lease, works.claim(lease))
        batch.fetch()
        batch.check()
        batch.load()
        if then == "overwritten":
            parts.put("sales/a.csv", csv_of(2))
            parts.record("sales/a.csv")
        else:
            parts.store.remove(parts.bucket, "sales/a.csv")
        parts.clock.advance(seconds=60)
        works.drain()
        expected = {"replace": [2], "ignore": [1]}[on_overwrite] if then == "overwritten" else [1]
        assert works.rows() == expected
        oldest = parts.stories("sales/a.csv")[-1]
        assert oldest.state is (State.SUPERSEDED if expected == [2] else State.LOADED)


def test_wrong_keys_quarantine_nothing(works: Works) -> None:
    """A store that refuses the keys is waited for: its error is no fault of the objects."""

    class _Refusing:
        def get(self, *_: object, **__: object) -> None:
            raise SettingsError("the store refuses the keys")

    works.parts.arrive("sales/a.csv", csv_of(1))
    works.drain(_Refusing())
    assert works.parts.states("sales/a.csv") == [State.PENDING]
    works.parts.clock.advance(seconds=2)
    assert works.drain().outcomes == {"loaded": 1}


def test_overwritten_between_claim_and_fetch(works: Works) -> None:
    """A generation that is gone when it is read is superseded, and the one in its place is loaded next."""
    works.parts.arrive("sales/a.csv", csv_of(1))
    lease = works.acquire()
    batch = works.batch(lease, works.claim(lease))
    works.parts.put("sales/a.csv", csv_of(2))
    assert batch.fetch() == 0
    batch.check()
    assert batch.load() == 0
    batch.settle()
    assert works.parts.states("sales/a.csv") == [State.PENDING, State.SUPERSEDED]
    works.parts.clock.advance(seconds=31)
    assert works.drain().outcomes == {"loaded": 1}
    assert works.rows() == [2]


def test_overwritten_in_another_bucket(works: Works) -> None:
    """What was overwritten in one watched bucket is looked for there, not in the bucket of the batch's first object."""
    other = f"{works.parts.bucket}-other"
    works.parts.store.ensure_bucket(other)
    works.parts.arrive("sales/a.csv", csv_of(1))
    works.parts.store.put_bytes(other, "sales/b.csv", csv_of(2))
    works.parts.landing.seen(other, ["sales/b.csv"], Via.BUCKET)
    lease = works.acquire()
    batch = works.batch(lease, works.claim(lease))
    works.parts.store.put_bytes(other, "sales/b.csv", csv_of(3))
    batch.fetch()
    batch.check()
    batch.load()
    batch.settle()
    assert [story.state for story in works.parts.ledger.facts.stories("sales/b.csv")] == [
        State.PENDING,
        State.SUPERSEDED,
    ]


def test_deleted_before_it_was_read(works: Works) -> None:
    """A deleted object is missing, and counts again when it is put again."""
    works.parts.arrive("sales/a.csv", csv_of(1))
    works.parts.arrive("sales/b.csv", csv_of(2))
    works.parts.store.remove(works.parts.bucket, "sales/a.csv")
    assert works.drain().outcomes == {"loaded": 1, "missing": 1}
    assert works.parts.states("sales/a.csv") == [State.MISSING]
    works.parts.arrive("sales/a.csv", csv_of(1))
    assert works.drain().outcomes == {"loaded": 1}
    assert works.rows() == [1, 2]


class Hiccup:
    """A store that does not give one key while it has the hiccups."""

    def __init__(self, real: ObjectStore, key: str) -> None:
        self.real, self.key = real, key

    def get(self, bucket: str, key: str, target: Path, **how: Any) -> None:
        """As the real one, but for that key."""
        if key == self.key:
            raise StoreUnavailable
        self.real.get(bucket, key, target, **how)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


@pytest.mark.parametrize("ordered", [True, False])
def test_a_transient_error_in_the_middle(tmp_path: Path, embedded: RealStore, ordered: bool) -> None:
    """A hiccup holds what it met and, in an ordered dataset, all that arrived after it; nothing else."""
    dataset = Dataset(name="sales", ordered=ordered)
    with parts_in(tmp_path, embedded, [dataset], fake_time=True) as parts:
        works = works_on(parts, dataset)
        for number, key in enumerate("abc", start=1):
            parts.arrive(f"sales/{key}.csv", csv_of(number))
        parts.arrive("sales/d.csv", b"")
        works.drain(Hiccup(parts.store, "sales/b.csv"))
        held = [] if ordered else [3]
        assert works.rows() == [1, *held]
        after = State.PENDING if ordered else State.LOADED
        assert [parts.states(f"sales/{key}.csv") for key in "abc"] == [[State.LOADED], [State.PENDING], [after]]
        assert parts.states("sales/d.csv") == [State.PENDING if ordered else State.EMPTY]

        works.drain()
        assert works.rows() == [1, *held], "the dataset is held until its back-off is over"
        parts.clock.advance(seconds=2)
        works.drain()
        assert works.rows() == [1, 2, 3]
        assert parts.stories("sales/b.csv")[0].facts[0].what == "postponed"


def test_the_store_is_down(tmp_path: Path) -> None:
    """With the store gone nothing is settled, and everything loads when it is back."""
    with real_store("embedded") as server, parts_in(tmp_path, server, fake_time=True) as parts:
        works = works_on(parts)
        parts.arrive("sales/a.csv", csv_of(1))
        parts.landing.accept([delivery(1, b'{"id": 2, "name": "n2"}')])
        lease = works.acquire()
        batch = works.batch(lease, works.claim(lease))
        server.kill()
        assert batch.fetch() == 0
        batch.check()
        batch.load()
        assert batch.settle() == ([], {})
        assert parts.ledger.work.finish(lease)
        server.start()
        parts.clock.advance(seconds=2)
        assert works.drain().outcomes == {"loaded": 2}
        assert works.rows() == [1, 2]


def test_an_overwrite_replaces(works: Works) -> None:
    """The new generation's rows take the place of the old one's, in the table and in the ledger."""
    works.parts.arrive("sales/a.csv", csv_of(1, 2))
    works.parts.arrive("sales/b.csv", csv_of(7))
    works.drain()
    works.parts.arrive("sales/a.csv", csv_of(2, 3))
    assert works.drain().rows == 2
    assert works.rows() == [2, 3, 7]
    assert works.parts.states("sales/a.csv") == [State.LOADED, State.SUPERSEDED]
    old = works.parts.stories("sales/a.csv")[1]
    assert (old.facts[-1].what, old.facts[-1].detail) == ("superseded", "rows replaced")


def test_an_unreadable_overwrite_replaces_nothing(works: Works) -> None:
    """While the new generation is in quarantine the old one's rows stay."""
    works.parts.arrive("sales/a.parquet", parquet_of(1))
    works.drain()
    works.parts.arrive("sales/a.parquet", b"no parquet")
    assert works.drain().outcomes == {"quarantined": 1}
    assert works.rows() == [1]
    assert works.parts.states("sales/a.parquet") == [State.QUARANTINED, State.LOADED]


@pytest.mark.parametrize("nothing", [b"", b"id,name\n"], ids=["no bytes", "no records"])
def test_overwritten_with_nothing(works: Works, nothing: bytes) -> None:
    """An overwrite without records takes the older rows out."""
    works.parts.arrive("sales/a.csv", csv_of(1))
    works.parts.arrive("sales/b.csv", csv_of(7))
    works.drain()
    works.parts.arrive("sales/a.csv", nothing)
    assert works.drain().outcomes == {"empty": 1}
    assert works.rows() == [7]
    assert works.parts.states("sales/a.csv") == [State.EMPTY, State.SUPERSEDED]
    works.parts.arrive("sales/a.csv", csv_of(1))
    works.drain()
    assert works.rows() == [1, 7]


def test_append_keeps_the_older_rows(tmp_path: Path, embedded: RealStore) -> None:
    """With `append` each generation's rows stay."""
    dataset = Dataset(name="sales", on_overwrite="append")
    with parts_in(tmp_path, embedded, [dataset], fake_time=True) as parts:
        works = works_on(parts, dataset)
        for number in (1, 2):
            parts.arrive("sales/a.csv", csv_of(number))
            works.drain()
        assert works.rows() == [1, 2]
        assert parts.states("sales/a.csv") == [State.LOADED, State.LOADED]


def load_and_crash(works: Works) -> Lease:
    """Load everything pending, and die before the ledger is told."""
    lease = works.acquire()
    batch = works.batch(lease, works.claim(lease))
    batch.fetch()
    batch.check()
    assert batch.load() > 0
    return lease


def test_a_crash_between_load_and_settle_loads_nothing_twice(works: Works) -> None:
    """The next holder finds the markers: the ledger says loaded, and every row is there once."""
    works.parts.arrive("sales/a.csv", csv_of(1, 2))
    works.parts.arrive("sales/b.csv", csv_of(3))
    load_and_crash(works)
    assert works.rows() == [1, 2, 3]
    works.parts.clock.advance(seconds=31)
    report = works.drain()
    assert report.outcomes == {"loaded": 2}
    assert works.rows() == [1, 2, 3]
    assert [works.parts.states(f"sales/{key}.csv") for key in "ab"] == [[State.LOADED], [State.LOADED]]
    assert works.parts.stories("sales/a.csv")[0].rows == 2


def test_a_crash_after_the_load_and_then_an_overwrite(works: Works) -> None:
    """Rows that a dead run loaded are replaced too, though the ledger never called them loaded."""
    works.parts.arrive("sales/a.csv", csv_of(1))
    load_and_crash(works)
    works.parts.arrive("sales/a.csv", csv_of(2))
    works.parts.clock.advance(seconds=31)
    works.drain()
    assert works.rows() == [2]
    assert works.parts.states("sales/a.csv") == [State.LOADED, State.SUPERSEDED]


@pytest.mark.parametrize("content", [csv_of(2), b""], ids=["rows", "nothing"])
def test_a_failed_settle_and_then_an_overwrite(works: Works, content: bytes) -> None:
    """Rows of a run that failed after its load are replaced, also when the overwrite came while nobody held them."""
    works.parts.arrive("sales/a.csv", csv_of(1))
    lease = load_and_crash(works)
    works.parts.ledger.work.abandon(lease, reason="no ledger", run="run", blame=False)
    works.parts.arrive("sales/a.csv", content)
    assert works.parts.states("sales/a.csv") == [State.PENDING, State.PENDING]
    works.parts.clock.advance(seconds=31)
    works.drain()
    assert works.rows() == ([2] if content else [])
    assert works.parts.states("sales/a.csv") == [State.LOADED if content else State.EMPTY, State.SUPERSEDED]


def test_two_generations_in_one_batch(tmp_path: Path) -> None:
    """Where the store keeps versions, an older generation that waits beside its successor is not loaded beside it."""
    with real_store("minio") as server, parts_in(tmp_path, server, fake_time=True) as parts:
        works = works_on(parts)
        parts.arrive("sales/a.csv", csv_of(1))
        lease = works.acquire()
        batch = works.batch(lease, works.claim(lease), Hiccup(parts.store, "sales/a.csv"))
        batch.fetch()
        parts.arrive("sales/a.csv", csv_of(2))
        batch.check()
        batch.load()
        batch.settle()
        assert parts.states("sales/a.csv") == [State.PENDING, State.PENDING]
        parts.clock.advance(seconds=31)
        works.drain()
        assert works.rows() == [2]
        assert parts.states("sales/a.csv") == [State.LOADED, State.SUPERSEDED]
        parts.arrive("sales/a.csv", csv_of(3))
        works.drain()
        assert works.rows() == [3]


def test_a_stale_holder_changes_nothing(works: Works) -> None:
    """A run whose lease expired meanwhile cannot write rows beside those of its successor, nor tell the ledger."""
    works.parts.arrive("sales/a.csv", csv_of(1))
    stale_lease = works.acquire()
    stale = works.batch(stale_lease, works.claim(stale_lease))
    stale.fetch()
    stale.check()
    works.parts.clock.advance(seconds=31)
    works.drain()
    works.parts.arrive("sales/a.csv", csv_of(2))
    works.drain()
    before = works.rows("id, _penstock_object, _penstock_loaded_at")
    with pytest.raises(LeaseLost):
        stale.load()
    with pytest.raises(LeaseLost):
        stale.settle()
    assert works.rows("id, _penstock_object, _penstock_loaded_at") == before
    assert works.rows() == [2]
    assert works.parts.states("sales/a.csv") == [State.LOADED, State.SUPERSEDED]


def test_a_stale_holder_is_fenced_off_before_its_successor_loads(works: Works) -> None:
    """Taking over is enough: the dead run that wakes up before its successor has loaded anything writes nothing."""
    works.parts.arrive("sales/a.csv", csv_of(1))
    stale_lease = works.acquire()
    stale = works.batch(stale_lease, works.claim(stale_lease))
    stale.fetch()
    stale.check()
    works.parts.clock.advance(seconds=31)
    works.acquire()
    with pytest.raises(LeaseLost):
        stale.load()
    assert works.warehouse.count("sales") == 0
