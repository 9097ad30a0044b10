"""Landing: what is recorded is in the store, whatever goes wrong between the two. Real stores, real ledger."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from threading import Barrier

import pytest

from penstock import envelope, events
from penstock.errors import (
    FileChanged,
    LedgerUnavailable,
    ObjectMissing,
    PenstockError,
    Refused,
    SettingsError,
    StoreUnavailable,
    Transient,
    Unreadable,
)
from penstock.landing import Landing, dataset_for
from penstock.ledger.arrivals import FileMark
from penstock.model import Delivery, Stat, State, Via
from penstock.objects import ObjectStore
from tests.conformance.ledgers import SALES, Bench, declared, delivery, sqlite_bench
from tests.real_store import Kind, RealStore, real_store

KINDS: tuple[Kind, ...] = ("minio", "embedded")
HOOKS = declared("hooks")
MARK = FileMark(path="sales/a.csv", inode=1, size=5, mtime_ns=3)

_numbers = count(1)


@pytest.fixture(scope="module")
def running() -> Iterator[dict[Kind, RealStore]]:
    with ExitStack() as stack:
        yield {kind: stack.enter_context(real_store(kind)) for kind in KINDS}


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, running: dict[Kind, RealStore]) -> ObjectStore:
    return running[request.param].client()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with sqlite_bench(tmp_path) as made:
        yield made


@pytest.fixture
def bucket(store: ObjectStore) -> str:
    name = f"landing-{next(_numbers)}"
    store.ensure_bucket(name)
    return name


@pytest.fixture
def landing(store: ObjectStore, bench: Bench, bucket: str) -> Landing:
    return landing_of(store, bench, bucket)


def landing_of(store: ObjectStore, bench: Bench, bucket: str, *, announce: str = "") -> Landing:
    return Landing(
        store=store,
        ledger=bench.open(),
        datasets=[SALES, HOOKS],
        bucket=bucket,
        announce_each=frozenset({announce} - {""}),
    )


def hook(id: str, body: bytes = b"{}", *, source: str = "shop") -> Delivery:
    return delivery(id, source=source, dataset="hooks", body=body)


def put(landing: Landing, data: bytes = b"a,b\n1", key: str = "sales/a.csv") -> bool:
    stat = landing.put_file(key, io.BytesIO(data), len(data), unchanged=lambda: True)
    return landing.record_files([(stat, MARK)]) == 1


def keys(store: ObjectStore, bucket: str) -> list[str]:
    return sorted(stat.key for stat in store.list(bucket))


class TestFiles:
    """Files of the inbox."""

    def test_a_file_is_in_the_store_and_in_the_ledger(
        self, landing: Landing, bench: Bench, store: ObjectStore, bucket: str
    ) -> None:
        """A put file can be read as the ledger's row says, with the etag remembered for the file."""
        assert put(landing)
        (row,) = bench.rows()
        assert (row.bucket, row.key, row.size, row.via, row.dataset) == (bucket, "sales/a.csv", 5, "folder", "sales")
        assert store.read(bucket, row.key, etag=row.etag) == b"a,b\n1"
        assert bench.ledger.arrivals.file_marks([MARK.path])[MARK.path].etag == row.etag
        assert bench.woken() == ["sales"]

    def test_the_same_file_again_is_nothing(self, landing: Landing, bench: Bench, bucket: str) -> None:
        """The same bytes put again, and every hint that follows, are one arrival; other bytes are a second."""
        assert put(landing)
        assert not put(landing)
        for via in (Via.BUCKET, Via.NOTIFICATION, Via.SWEEP):
            assert landing.seen(bucket, ["sales/a.csv", "sales/a.csv"], via) == 0
        assert put(landing, b"other")
        assert [state for _, _, state in bench.states()] == ["superseded", "pending"]

    @pytest.mark.parametrize("data", [b"", b"x" * 100_000])
    def test_a_file_written_meanwhile_never_gets_into_the_store(
        self, landing: Landing, bench: Bench, store: ObjectStore, bucket: str, data: bytes
    ) -> None:
        """A file that changes while it is put, even an empty one, leaves neither object nor row."""
        with pytest.raises(FileChanged):
            landing.put_file("sales/a.csv", io.BytesIO(data), len(data), unchanged=lambda: False)
        assert keys(store, bucket) == []
        assert bench.rows() == []

    def test_a_file_that_was_cut_short_never_gets_into_the_store(
        self, landing: Landing, bench: Bench, store: ObjectStore, bucket: str
    ) -> None:
        """A file with fewer bytes than it had a moment ago leaves nothing, though nobody else noticed."""
        with pytest.raises(Transient):
            landing.put_file("sales/a.csv", io.BytesIO(b"short"), 50_000, unchanged=lambda: True)
        assert keys(store, bucket) == []
        assert bench.rows() == []

    def test_what_grows_is_put_no_further_than_it_was(self, landing: Landing, store: ObjectStore, bucket: str) -> None:
        """A file longer than it was said to be is put as long as was said, if it is unchanged."""
        landing.put_file("sales/a.csv", io.BytesIO(b"12345678"), 5, unchanged=lambda: True)
        assert store.read(bucket, "sales/a.csv", etag=store.stat(bucket, "sales/a.csv").etag) == b"12345"

    def test_an_empty_file_arrives(self, landing: Landing, bench: Bench) -> None:
        """A file of no bytes is an arrival like any other."""
        assert put(landing, b"")
        assert [row.size for row in bench.rows()] == [0]

    @pytest.mark.parametrize("key", ["sales/", "sales/2026/", "_penstock/deliveries/x"])
    def test_what_names_no_object_is_not_landed(
        self, landing: Landing, store: ObjectStore, bucket: str, key: str
    ) -> None:
        """A flow that forgot the name, or took penstock's own, hears of it; it would never be recorded."""
        with pytest.raises(Refused, match="name of a folder, or penstock's own"):
            landing.put(key, io.BytesIO(b"x"), 1)
        with pytest.raises(ObjectMissing):
            store.stat(bucket, key)

    def test_a_folder_that_no_dataset_takes_is_refused(
        self, landing: Landing, bench: Bench, store: ObjectStore, bucket: str
    ) -> None:
        """A file in an undeclared folder is refused with what to declare, before anything is put."""
        with pytest.raises(Refused, match="'stray/'"):
            put(landing, key="stray/a.csv")
        assert keys(store, bucket) == []
        assert bench.rows() == []

    def test_a_crash_before_the_record_is_repaired_by_a_hint(
        self, landing: Landing, bench: Bench, bucket: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """When the ledger does not take the arrival the object is there, and the next hint records it once."""

        def fail(*args: object, **kwargs: object) -> int:
            raise LedgerUnavailable

        with monkeypatch.context() as patched:
            patched.setattr(landing._ledger.arrivals, "record", fail)
            with pytest.raises(LedgerUnavailable):
                put(landing)
        assert bench.rows() == []
        assert landing.seen(bucket, ["sales/a.csv"], Via.SWEEP) == 1
        assert not put(landing)

    def test_what_was_put_and_not_recorded_is_not_put_again(
        self, landing: Landing, bench: Bench, store: ObjectStore, bucket: str
    ) -> None:
        """It is recorded as what the store still has, with the file's mark, once; what was overwritten is not."""
        stat = landing.put_file("sales/a.csv", io.BytesIO(b"a,b\n1"), 5, unchanged=lambda: True)
        still = landing.still_there(stat)
        assert still is not None
        assert [landing.record_files([(still, MARK)]) for _ in range(2)] == [1, 0]
        assert bench.states() == [("sales/a.csv", 1, "pending")]
        assert bench.ledger.arrivals.file_marks(["sales/a.csv"])["sales/a.csv"].etag == stat.etag
        store.put_bytes(bucket, "sales/a.csv", b"other")
        assert landing.still_there(stat) is None
        store.remove(bucket, "sales/a.csv")
        assert landing.still_there(stat) is None
        assert bench.states() == [("sales/a.csv", 1, "pending")]


class TestHints:
    """Hints that keys changed."""

    def test_hints_lead_to_what_is_there(self, landing: Landing, bench: Bench, store: ObjectStore, bucket: str) -> None:
        """Keys that are gone, folders and penstock's own keys are passed over; the rest is recorded."""
        for key in ("sales/a.csv", "stray/b.csv", "_penstock/x", "_penstock/deliveries/hooks/1"):
            store.put_bytes(bucket, key, b"1")
        hints = [
            "sales/a.csv",
            "sales/gone.csv",
            "stray/b.csv",
            "sales/",
            "_penstock/x",
            "_penstock/deliveries/hooks/1",
        ]
        assert landing.seen(bucket, hints, Via.NOTIFICATION) == 1
        assert bench.states() == [("sales/a.csv", 1, "pending"), ("stray/b.csv", 1, "quarantined")]

    @pytest.mark.parametrize("key", ["", "x" * 2000, "../sales/a", "sales//a", "sales/\x00", "sales/\ud800"])
    def test_a_hint_that_cannot_be_a_key_is_passed_over(
        self, landing: Landing, bench: Bench, store: ObjectStore, bucket: str, key: str
    ) -> None:
        """A senseless hint stops no other."""
        store.put_bytes(bucket, "sales/a.csv", b"1")
        assert landing.seen(bucket, [key, "sales/a.csv"], Via.NOTIFICATION) == 1

    @pytest.mark.parametrize("error", [StoreUnavailable("SlowDownRead"), SettingsError("AccessDenied")], ids=repr)
    def test_one_key_that_the_store_does_not_tell_of_can_be_skipped(
        self,
        landing: Landing,
        bench: Bench,
        store: ObjectStore,
        bucket: str,
        error: PenstockError,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Who says how to skip gets the others recorded, unless the store is away as a whole; nobody else does."""
        for key in ("sales/a.csv", "sales/b.csv"):
            store.put_bytes(bucket, key, b"1")
        answered = store.stat

        def stat(name: str, key: str) -> Stat:
            if key == "sales/a.csv":
                raise error
            return answered(name, key)

        monkeypatch.setattr(store, "stat", stat)
        hints = ["sales/a.csv", "sales/b.csv"]
        with pytest.raises(type(error)):
            landing.seen(bucket, hints, Via.NOTIFICATION)
        skipped: list[tuple[str, PenstockError]] = []
        assert landing.seen(bucket, hints, Via.NOTIFICATION, skip=lambda *what: skipped.append(what)) == 1
        assert skipped == [("sales/a.csv", error)]
        assert bench.states() == [("sales/b.csv", 1, "pending")]

        def away() -> None:
            raise StoreUnavailable("away")

        monkeypatch.setattr(store, "ping", away)
        with pytest.raises(StoreUnavailable, match="away"):
            landing.seen(bucket, hints, Via.NOTIFICATION, skip=lambda *what: skipped.append(what))
        assert len(skipped) == 1

    def test_many_hints_are_recorded_as_it_goes_on(
        self, landing: Landing, bench: Bench, store: ObjectStore, bucket: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each key is progress, and what was asked for before an end is not asked for in vain."""
        now = datetime.now(UTC)
        asked: list[str] = []

        def stat(name: str, key: str) -> Stat:
            asked.append(key)
            if len(asked) == 450:
                raise StoreUnavailable
            return Stat(bucket=name, key=key, etag="e", size=1, modified=now)

        monkeypatch.setattr(store, "stat", stat)
        beats: list[int] = []
        with pytest.raises(StoreUnavailable):
            landing.seen(
                bucket,
                [f"sales/{number}" for number in range(1000)],
                Via.SWEEP,
                progress=lambda: beats.append(len(asked)),
            )
        assert len(bench.states()) == 400
        assert 400 <= len(beats) <= 450
        assert beats[:400] == sorted(beats[:400])
        assert beats[0] < 50, "it is not all asked for before the first is looked at"

    def test_many_keys_are_asked_for_at_once_and_arrive_in_their_order(
        self, landing: Landing, bench: Bench, store: ObjectStore, bucket: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Two answers that come only together are had, and what is recorded has the order of the hints."""
        barrier = Barrier(2)

        def stat(name: str, key: str) -> Stat:
            barrier.wait(timeout=30)
            return Stat(bucket=name, key=key, etag="e", size=1, modified=datetime.now(UTC))

        monkeypatch.setattr(store, "stat", stat)
        names = [f"sales/{number}" for number in (5, 3, 4, 1, 2, 0)]
        assert landing.seen(bucket, names, Via.NOTIFICATION) == 6
        assert [row.key for row in bench.rows()] == names

    def test_of_many_writers_and_hints_every_last_byte_is_recorded(
        self, landing: Landing, bench: Bench, store: ObjectStore, bucket: str
    ) -> None:
        """However hints for a key that is overwritten again and again overtake one another, the next one is right.

        A stat may be recorded after a newer one: what reads it finds other bytes, and looks again.
        """

        def write(n: int) -> None:
            store.put_bytes(bucket, "sales/a.csv", str(n).encode())
            landing.seen(bucket, ["sales/a.csv"], Via.BUCKET)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(write, range(40)))
        landing.seen(bucket, ["sales/a.csv"], Via.SWEEP)
        assert bench.rows()[-1].etag == store.stat(bucket, "sales/a.csv").etag
        assert [row.generation for row in bench.rows()] == list(range(1, len(bench.rows()) + 1))
        assert {row.state for row in bench.rows()[:-1]} <= {State.SUPERSEDED}


class TestDeliveries:
    """Webhook deliveries."""

    def test_deliveries_ride_in_one_envelope(
        self, landing: Landing, bench: Bench, store: ObjectStore, bucket: str
    ) -> None:
        """What is accepted together is one object, and each row names its line."""
        found = [hook(str(n), bytes([n])) for n in range(3)]
        assert landing.accept(found) == [False] * 3
        (key,) = keys(store, bucket)
        assert envelope.envelope_dataset(key) == "hooks"
        content = store.read(bucket, key, etag=store.stat(bucket, key).etag)
        for row in bench.rows():
            assert envelope.decode_line(envelope.entry_line(content, row.entry)) == found[row.entry - 1]
            assert (row.key, row.delivery, row.state) == (key, found[row.entry - 1].id, "pending")
        assert bench.woken() == ["hooks"]

    def test_a_delivery_twice_is_one(self, landing: Landing, bench: Bench, store: ObjectStore, bucket: str) -> None:
        """The same id twice in one call, or in two, is one; a call with nothing new writes no object."""
        assert landing.accept([hook("1"), hook("2"), hook("1")]) == [False, False, True]
        assert landing.accept([hook("1"), hook("2")]) == [True, True]
        assert len(keys(store, bucket)) == 1
        assert landing.accept([hook("2"), hook("3"), hook("2", source="mill")]) == [True, False, False]
        assert [(row.source, row.delivery) for row in bench.rows()] == [
            ("shop", "1"),
            ("shop", "2"),
            ("shop", "3"),
            ("mill", "2"),
        ]
        assert landing.accept([]) == []

    def test_two_threads_at_once_accept_it_once(
        self, landing: Landing, bench: Bench, store: ObjectStore, bucket: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Two calls that both find a delivery unknown put two envelopes, but one row: one is told it is a duplicate."""
        other = landing_of(store, bench, bucket)
        barrier = Barrier(2)
        for one in (landing, other):
            known = one._ledger.deliveries.known

            def both_ask(source: str, ids: object, known: object = known) -> set[str]:
                answer: set[str] = known(source, ids)  # type: ignore[operator]
                barrier.wait(timeout=30)
                return answer

            monkeypatch.setattr(one._ledger.deliveries, "known", both_ask)
        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(lambda one: one.accept([hook("1"), hook("2")]), [landing, other]))
        assert sorted(answers) == [[False, False], [True, True]]
        assert len(keys(store, bucket)) == 2
        assert [row.delivery for row in bench.rows()] == ["1", "2"]

    def test_nothing_is_accepted_when_the_store_does_not_take_it(self, bench: Bench, store: ObjectStore) -> None:
        """Without a durable envelope there is no row, so that the sender's retry is not called a duplicate."""
        nowhere = landing_of(store, bench, "no-such-bucket")
        with pytest.raises(Exception, match=r".") as raised:
            nowhere.accept([hook("1")])
        assert isinstance(raised.value, StoreUnavailable | ObjectMissing | Refused)
        assert bench.rows() == []

    def test_an_envelope_is_of_one_dataset(self, landing: Landing, store: ObjectStore, bucket: str) -> None:
        """Deliveries of two datasets are refused before anything is written."""
        with pytest.raises(ValueError, match="one dataset"):
            landing.accept([hook("1"), delivery("2")])
        assert keys(store, bucket) == []

    def test_a_crash_after_the_envelope_is_repaired_either_way(
        self, landing: Landing, bench: Bench, store: ObjectStore, bucket: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An envelope without rows is adopted once, and what the sender sent again meanwhile is not there twice."""

        def fail(*args: object, **kwargs: object) -> set[int]:
            raise LedgerUnavailable

        with monkeypatch.context() as patched:
            patched.setattr(landing._ledger.deliveries, "record", fail)
            with pytest.raises(LedgerUnavailable):
                landing.accept([hook("1"), hook("2")])
        (orphan,) = store.list(bucket)
        assert landing.accept([hook("1")]) == [False]
        assert landing.adopt_envelope(orphan) == 1
        assert landing.adopt_envelope(orphan) == 0
        assert sorted(row.delivery for row in bench.rows()) == ["1", "2"]
        assert landing.accept([hook("2")]) == [True]

    def test_an_orphan_of_an_undeclared_dataset_waits(
        self, landing: Landing, bench: Bench, store: ObjectStore, bucket: str
    ) -> None:
        """Deliveries of a dataset that is not declared stay in the store until it is."""
        content = envelope.encode([delivery("1", dataset="later")])
        stat = store.put_bytes(bucket, "_penstock/deliveries/later/1.ndjson", content)
        assert landing.adopt_envelope(stat) == 0
        assert bench.rows() == []

    @pytest.mark.parametrize("content", [b"not an envelope\n", b"{}\n", b"\xff\n"])
    def test_a_strange_object_under_the_reserved_prefix_is_unreadable(
        self, landing: Landing, bench: Bench, store: ObjectStore, bucket: str, content: bytes
    ) -> None:
        """What somebody else put there is told apart, and records nothing."""
        stat = store.put_bytes(bucket, "_penstock/deliveries/hooks/1.ndjson", content)
        with pytest.raises(Unreadable):
            landing.adopt_envelope(stat)
        assert bench.rows() == []

    def test_each_delivery_is_announced_where_its_source_asks(
        self, bench: Bench, store: ObjectStore, bucket: str
    ) -> None:
        """A source that asks for it gets an event for each new delivery; others get the summary alone."""
        landing = landing_of(store, bench, bucket, announce="mill")
        landing.accept([hook("1"), hook("1", source="mill"), hook("2", source="mill")])
        landing.accept([hook("1", source="mill")])
        named = [event.payload.get("delivery") for event in bench.ledger.outbox.unsent(99)]
        assert [name for name in named if name] == ["1", "2"]
        assert [event.name for event in bench.ledger.outbox.unsent(1)] == [events.OBJECT_ARRIVED]


def test_a_store_that_is_gone_is_transient_and_loses_nothing(tmp_path: Path) -> None:
    """While the store is dead every way in is StoreUnavailable and records nothing; when it is back all goes on."""
    with sqlite_bench(tmp_path) as bench, real_store("embedded") as running:
        store = running.client()
        store.ensure_bucket("landing")
        landing = landing_of(store, bench, "landing")
        landing.check()
        running.kill()
        for step in (
            landing.check,
            lambda: put(landing),
            lambda: landing.accept([hook("1")]),
            lambda: landing.seen("landing", ["sales/a.csv"], Via.BUCKET),
        ):
            with pytest.raises(StoreUnavailable):
                step()
        assert bench.rows() == []
        running.start()
        assert put(landing)
        assert landing.accept([hook("1")]) == [False]
        landing.check()


def test_a_key_belongs_to_the_dataset_of_its_prefix() -> None:
    """A key is taken by the prefix that it begins with, whole folders only."""
    assert dataset_for("sales/a/b.csv", [HOOKS, SALES]) is SALES
    assert dataset_for("salesman/a.csv", [HOOKS, SALES]) is None
    assert dataset_for("sales", [HOOKS, SALES]) is None
