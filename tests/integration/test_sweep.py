"""The sweep on a real store and a real ledger: what no event told of is found all the same."""

from __future__ import annotations

import itertools
import json
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from penstock import envelope
from penstock.declarations import Dataset
from penstock.errors import LedgerUnavailable, PenstockError, SettingsError, StoreUnavailable
from penstock.landing import Landing
from penstock.ledger.arrivals import Seen
from penstock.model import ENVELOPE_PREFIX, Delivery, Stat, State, Via
from penstock.objects import ObjectStore
from penstock.sensors import sweep as sweep_module
from penstock.sensors.sweep import Sweep, Swept
from tests.integration.parts import SALES, Parts, parts_in, running
from tests.real_store import RealStore, real_store
from tests.waiting import wait_for


@pytest.fixture(scope="module")
def embedded() -> Iterator[RealStore]:
    """The store of this module's tests."""
    with real_store("embedded") as server:
        yield server


@pytest.fixture
def parts(tmp_path: Path, embedded: RealStore) -> Iterator[Parts]:
    """A bucket and a ledger of the test's own."""
    with parts_in(tmp_path, embedded) as made:
        yield made


def sweep_of(parts: Parts, datasets: Sequence[Dataset] = (SALES,), *, later: timedelta = timedelta()) -> Sweep:
    """A sweep whose clock is `later` than the store's."""
    landing = Landing(store=parts.store, ledger=parts.ledger, datasets=datasets, bucket=parts.bucket)
    return Sweep(
        parts.bucket,
        store=parts.store,
        ledger=parts.ledger,
        landing=landing,
        datasets=datasets,
        clock=lambda: datetime.now(UTC) + later,
    )


def delivery(number: int, dataset: str = "sales", **changed: Any) -> Delivery:
    made: dict[str, Any] = {
        "id": f"d{number}",
        "source": "shop",
        "dataset": dataset,
        "received_at": datetime(2026, 3, 1, tzinfo=UTC),
        "content_type": "application/json",
        "headers": {},
        "body": b'{"id": %d}' % number,
    }
    return Delivery(**{**made, **changed})


def orphan(parts: Parts, name: str, *deliveries: Delivery) -> str:
    """An envelope as a crash leaves it: in the store, and nothing in the ledger."""
    key = f"{ENVELOPE_PREFIX}sales/2026/03/01/{name}.ndjson"
    parts.put(key, envelope.encode(deliveries))
    return key


def test_missed_and_overwritten(parts: Parts) -> None:
    """A missed object is found once, an overwritten one as another generation, and an equal one not again."""
    parts.put("sales/a.csv", b"one")
    parts.put("sales/b.csv", b"one")
    assert sweep_of(parts).run_once() == Swept(listed=2, recorded=2)
    assert sweep_of(parts).run_once() == Swept(listed=2)
    parts.put("sales/a.csv", b"two")
    parts.put("sales/b.csv", b"one")
    assert sweep_of(parts).run_once() == Swept(listed=2, recorded=1)
    assert parts.states("sales/a.csv") == [State.PENDING, State.SUPERSEDED]
    assert parts.states("sales/b.csv") == [State.PENDING]
    assert parts.stories("sales/a.csv")[0].via is Via.SWEEP


def test_only_a_prefix(parts: Parts) -> None:
    """A sweep of a prefix leaves the rest alone."""
    parts.put("sales/a.csv", b"a")
    parts.put("sales/2026/b.csv", b"b")
    assert sweep_of(parts).run_once("sales/2026/") == Swept(listed=1, recorded=1)
    assert parts.states("sales/a.csv") == []


def test_unknown_prefix_is_adopted(parts: Parts) -> None:
    """What no dataset takes is quarantined with the reason, and pending once a dataset takes it."""
    parts.put("late/a.csv", b"a")
    parts.put("later/a.csv", b"a")
    assert sweep_of(parts).run_once() == Swept(listed=2)
    assert parts.states("late/a.csv") == [State.QUARANTINED]
    assert "declare one in flows/" in str(parts.stories("late/a.csv")[0].reason)
    assert sweep_of(parts, [SALES, Dataset(name="late")]).run_once() == Swept(listed=2, adopted=1)
    assert parts.states("late/a.csv") == [State.PENDING]
    assert parts.stories("late/a.csv")[0].dataset == "late"
    assert parts.states("later/a.csv") == [State.QUARANTINED]
    assert [wakeup.dataset for wakeup in parts.ledger.wakeups.outstanding()] == ["late"]


def test_the_reserved_prefix_is_left_alone(parts: Parts) -> None:
    """Nothing under penstock's own prefix becomes an object, whatever it is."""
    parts.put("_penstock/other/x.csv", b"x")
    orphan(parts, "young", delivery(1))
    assert sweep_of(parts).run_once() == Swept(listed=2)
    assert parts.ledger.facts.by_state(State.PENDING) == []
    assert parts.ledger.facts.by_state(State.QUARANTINED) == []


def test_orphans_are_adopted_once(parts: Parts) -> None:
    """The deliveries of an envelope nobody recorded are pending after a minute, each once, and not before."""
    key = orphan(parts, "one", delivery(1), delivery(2))
    assert sweep_of(parts, later=timedelta(seconds=50)).run_once() == Swept(listed=1)
    assert sweep_of(parts, later=timedelta(seconds=62)).run_once() == Swept(listed=1, deliveries=2)
    assert sweep_of(parts, later=timedelta(seconds=62)).run_once() == Swept(listed=1)
    assert parts.states(f"{key}") == [State.PENDING, State.PENDING]
    assert sorted(str(story.delivery) for story in parts.stories(key)) == ["d1", "d2"]
    assert [wakeup.dataset for wakeup in parts.ledger.wakeups.outstanding()] == ["sales"]


def test_an_orphan_whose_sender_tried_again(parts: Parts) -> None:
    """A delivery that came again in another envelope counts once; what else the orphan holds is adopted."""
    orphan(parts, "one", delivery(1), delivery(2))
    assert parts.landing.accept([delivery(1)]) == [False]
    assert sweep_of(parts, later=timedelta(minutes=2)).run_once() == Swept(listed=2, deliveries=1)
    pending = parts.ledger.facts.by_state(State.PENDING)
    assert sorted(str(story.delivery) for story in pending) == ["d1", "d2"]


BROKEN = {
    "no-json": b"\xff\xfe\n",
    "cut-off": b'{"delivery": "d1", "sou',
    "naive-time": json.dumps(
        {
            "delivery": "d9",
            "source": "shop",
            "dataset": "sales",
            "received_at": "2026-03-01T00:00:00",
            "content_type": "",
            "headers": {},
            "body": "{}",
        }
    ).encode()
    + b"\n",
    "no-name": b'{"delivery": [], "source": {}, "dataset": [], "received_at": "2026-03-01T00:00:00+00:00", '
    b'"content_type": 1, "headers": 2, "body": "{}"}\n',
    "deep": b"[" * 100_000 + b"\n",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_broken_envelope_stops_nothing(parts: Parts, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever an envelope holds, the sweep goes on with the others and with the files."""
    parts.put(f"{ENVELOPE_PREFIX}sales/2026/03/01/aaa.ndjson", content)
    orphan(parts, "bbb", delivery(1))
    parts.put("sales/a.csv", b"a")
    with caplog.at_level(logging.WARNING):
        assert sweep_of(parts, later=timedelta(minutes=2)).run_once() == Swept(listed=3, recorded=1, deliveries=1)
    if content != BROKEN["cut-off"]:  # without a whole line it holds no delivery at all
        assert "aaa.ndjson cannot be read" in caplog.text


def test_many_keys_in_batches(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket is compared batch by batch, and no key between two batches is missed."""
    monkeypatch.setattr(sweep_module, "_BATCH", 10)
    for number in range(35):
        parts.put(f"sales/{number:03}.csv", b"%d" % number)
    parts.record("sales/010.csv")
    asked: list[int] = []
    real = parts.landing.seen
    sweep = sweep_of(parts)

    def seen(bucket: str, keys: Sequence[str], via: Via, **how: Any) -> int:
        asked.append(len(keys))
        return real(bucket, keys, via, **how)

    monkeypatch.setattr(sweep._landing, "seen", seen)
    assert sweep.run_once() == Swept(listed=35, recorded=34)
    assert asked == [10, 9, 10, 5]
    assert len(parts.ledger.facts.by_state(State.PENDING)) == 35


def test_it_runs_at_start_and_when_asked(parts: Parts) -> None:
    """A sweep whose interval is an hour still sweeps at start, and again as soon as it is asked to."""
    parts.put("sales/a.csv", b"a")
    sweep = sweep_of(parts)

    def run(stop: threading.Event) -> None:
        sweep.run(stop, every=lambda took: 3600.0, monotonic=lambda: 0.0)

    with running(run):
        wait_for(lambda: parts.states("sales/a.csv"), what="the sweep at start")
        parts.put("sales/b.csv", b"b")
        sweep.soon()
        wait_for(lambda: parts.states("sales/b.csv"), what="the sweep that was asked for")


def test_it_outlives_the_store(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """While the store is down the sweep says so once, and goes on when it is back."""
    with real_store("embedded") as server, parts_in(tmp_path, server) as parts:
        parts.put("sales/a.csv", b"a")
        server.kill()
        tries: list[float] = []

        def every(took: float) -> float:
            tries.append(took)
            return 0.01

        with running(lambda stop: sweep_of(parts).run(stop, every=every, monotonic=time.monotonic)):
            wait_for(lambda: len(tries) >= 2, what="two tries")
            server.start()
            wait_for(lambda: parts.states("sales/a.csv"), what="it goes on")
    assert sum("the sweep stopped" in record.getMessage() for record in caplog.records) == 1


@dataclass(kw_only=True)
class CountingStore:
    """A real store that counts what its listings gave, and breaks off after `breaks_after` of them."""

    real: ObjectStore
    given: list[str] = field(default_factory=list)
    breaks_after: int | None = None
    error: BaseException = field(default_factory=StoreUnavailable)
    reads: list[str] = field(default_factory=list)

    def list(self, bucket: str, **where: Any) -> Iterator[Stat]:
        """As the real one, until it breaks off."""
        for stat in self.real.list(bucket, **where):
            if len(self.given) == self.breaks_after:
                self.breaks_after = None
                raise self.error
            self.given.append(stat.key)
            yield stat

    def read(self, bucket: str, key: str, **how: Any) -> bytes:
        """As the real one."""
        self.reads.append(key)
        return self.real.read(bucket, key, **how)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


def counting(parts: Parts, **how: Any) -> tuple[CountingStore, Sweep]:
    """A sweep on a store that counts."""
    store = CountingStore(real=parts.store, **how)
    return store, sweep_of(replace(parts, store=cast(ObjectStore, store)))


class Killed(BaseException):
    """What nobody catches: stands for the end of the process."""


@pytest.mark.parametrize("error", [StoreUnavailable(), Killed()], ids=["store-away", "killed"])
def test_a_sweep_of_many_that_was_cut_short_goes_on(
    parts: Parts, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many keys no more than a batch is listed ahead or twice, and each one the ledger lacks is found once."""
    monkeypatch.setattr(sweep_module, "_BATCH", 300)
    keys = [f"sales/{number:04}.csv" for number in range(1500)]
    with ThreadPoolExecutor(8) as pool:
        stats = list(pool.map(lambda key: parts.put(key, key.encode()), keys))
    missing = keys[7::50]
    known = [Seen(stat=stat, dataset=SALES) for stat in stats if stat.key not in missing]
    assert parts.ledger.arrivals.record(known, Via.FOLDER) == 1470
    store, sweep = counting(parts, breaks_after=750, error=error)
    ahead: list[int] = []
    real = sweep._compare

    def compare(batch: Sequence[Stat]) -> int:
        ahead.append(len(store.given))
        return real(batch)

    sweep._compare = compare  # type: ignore[method-assign]
    with pytest.raises(type(error)):
        sweep.run_once()
    assert ahead == [300, 600]
    assert parts.ledger.positions.after(parts.bucket, "") == keys[599]
    assert len(parts.ledger.facts.by_state(State.PENDING, limit=2000)) == 1482

    store, after = counting(parts)
    swept = after.run_once()
    assert store.given == keys[600:]
    assert swept == Swept(resumed=True, listed=900, recorded=18)
    assert parts.ledger.positions.after(parts.bucket, "") == ""
    found = {story.key for story in parts.ledger.facts.by_state(State.PENDING, limit=2000) if story.via is Via.SWEEP}
    assert found == set(missing)
    assert sweep_of(parts).run_once() == Swept(listed=1500)


def test_prefixes_have_positions_of_their_own(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep of a prefix that was cut short is gone on with by the next of that prefix, and by no other."""
    monkeypatch.setattr(sweep_module, "_BATCH", 2)
    for name in ("sales/1", "sales/2", "sales/3", "sales/4", "sales/5", "a"):
        parts.put(name, b"x")
    with pytest.raises(StoreUnavailable):
        counting(parts, breaks_after=4)[1].run_once("sales/")
    assert sweep_of(parts).run_once() == Swept(listed=6, recorded=1)
    assert sweep_of(parts).run_once("sales/") == Swept(resumed=True, listed=1)


def test_afresh(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for all of it gets a whole sweep, after which there is nothing to go on with."""
    monkeypatch.setattr(sweep_module, "_BATCH", 2)
    for name in ("sales/1", "sales/2", "sales/3"):
        parts.put(name, b"x")
    with pytest.raises(StoreUnavailable):
        counting(parts, breaks_after=2)[1].run_once()
    parts.put("sales/0", b"x")
    assert sweep_of(parts).run_once(afresh=True) == Swept(listed=4, recorded=2)
    assert sweep_of(parts).run_once() == Swept(listed=4)


def test_no_position_is_gone_on_from_twice(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """What makes every sweep end at one place, while the store answers, hides no key before it for ever."""
    monkeypatch.setattr(sweep_module, "_BATCH", 2)
    for name in ("sales/1", "sales/2", "sales/3", "sales/4"):
        parts.put(name, b"x")

    class Ends(CountingStore):
        """Its listing never comes past one key."""

        def list(self, bucket: str, **where: Any) -> Iterator[Stat]:
            for stat in super().list(bucket, **where):
                if stat.key == "sales/3":
                    raise StoreUnavailable
                yield stat

    sweep = sweep_of(replace(parts, store=cast(ObjectStore, Ends(real=parts.store))))
    with pytest.raises(StoreUnavailable):
        sweep.run_once()
    parts.put("sales/0", b"x")
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            sweep.run_once()
    assert parts.states("sales/0") == [State.PENDING]


def test_a_store_that_is_away_uses_up_no_position(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often a sweep is tried meanwhile, it goes on where it was once the store is back."""
    monkeypatch.setattr(sweep_module, "_BATCH", 2)
    for name in ("sales/1", "sales/2", "sales/3"):
        parts.put(name, b"x")

    class Away(CountingStore):
        """Answers nothing."""

        def ping(self) -> None:
            raise StoreUnavailable

    with pytest.raises(StoreUnavailable):
        counting(parts, breaks_after=2)[1].run_once()
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            sweep_of(replace(parts, store=cast(ObjectStore, Away(real=parts.store)))).run_once()
    assert sweep_of(parts).run_once() == Swept(resumed=True, listed=1, recorded=1)


@dataclass(kw_only=True)
class BadKeys(CountingStore):
    """A real store that answers for some keys with an error; `away` is what it answers to a ping."""

    bad: dict[str, PenstockError]
    away: PenstockError | None = None

    def stat(self, bucket: str, key: str) -> Stat:
        """As the real one, but for the bad keys."""
        if key in self.bad:
            raise self.bad[key]
        return self.real.stat(bucket, key)

    def read(self, bucket: str, key: str, **how: Any) -> bytes:
        """As the real one, but for the bad keys."""
        if key in self.bad:
            raise self.bad[key]
        return self.real.read(bucket, key, **how)

    def ping(self) -> None:
        """As the real one, unless it is away."""
        if self.away:
            raise self.away


@pytest.mark.parametrize("error", [StoreUnavailable("SlowDownRead"), SettingsError("AccessDenied")], ids=repr)
def test_a_key_that_the_store_does_not_tell_of_holds_up_no_other(
    parts: Parts, error: PenstockError, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is passed over, counted and said once, as is an envelope; the next sweep asks for it again."""
    monkeypatch.setattr(sweep_module, "_BATCH", 3)
    names = [f"sales/{number}" for number in range(9)]
    for name in names:
        parts.put(name, b"x")
    envelopes = [orphan(parts, "a", delivery(1)), orphan(parts, "b", delivery(2))]
    store = BadKeys(real=parts.store, bad=dict.fromkeys([names[4], envelopes[0]], error))
    sweep = sweep_of(replace(parts, landing=parts.landing, store=cast(ObjectStore, store)), later=timedelta(minutes=2))
    assert sweep.run_once() == Swept(listed=11, skipped=2, recorded=8, deliveries=1)
    parts.put("sales/-before", b"x")
    parts.put("sales/9", b"x")
    assert sweep.run_once() == Swept(listed=13, skipped=2, recorded=2)
    assert [record.getMessage() for record in caplog.records if "left to the next sweep" in record.getMessage()] == [
        f"{envelopes[0]} is left to the next sweep, and so is what else the store does not tell of: {error}"
    ]
    store.bad.clear()
    assert sweep.run_once() == Swept(listed=13, recorded=1, deliveries=1)


@pytest.mark.parametrize("away", [StoreUnavailable("no answer"), SettingsError("wrong keys")], ids=repr)
def test_a_store_that_does_not_answer_ends_the_sweep(parts: Parts, away: PenstockError) -> None:
    """Where nothing can be asked for the sweep stops at the first key, and takes none for passed over."""
    parts.put("sales/a", b"x")
    store = BadKeys(real=parts.store, bad={"sales/a": away}, away=away)
    with pytest.raises(type(away)):
        sweep_of(replace(parts, store=cast(ObjectStore, store))).run_once()


def test_wrong_keys_are_waited_out(parts: Parts, caplog: pytest.LogCaptureFixture) -> None:
    """While the store does not take our keys the sweep says so once and lives on."""
    parts.put("sales/a", b"x")
    wrong = SettingsError("the store does not accept the keys")
    store = BadKeys(real=parts.store, bad={"sales/a": wrong}, away=wrong)
    pauses: list[float] = []

    def every(took: float) -> float:
        pauses.append(took)
        return 0.01

    ticks = itertools.count()
    sweep = sweep_of(replace(parts, store=cast(ObjectStore, store)))
    with running(lambda stop: sweep.run(stop, every=every, monotonic=lambda: next(ticks))):
        wait_for(lambda: len(pauses) >= 3, what="it was tried again")
        assert set(pauses) == {0.0}, "what a failure took is no reason for a longer pause"
        store.bad, store.away = {}, None
        wait_for(lambda: parts.states("sales/a"), what="it goes on")
    assert sum("the sweep stopped" in record.getMessage() for record in caplog.records) == 1


def test_an_envelope_that_the_ledger_does_not_take_ends_the_sweep(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ledger that is away is no fault of the envelope that was to be recorded."""
    orphan(parts, "a", delivery(1))
    sweep = sweep_of(parts, later=timedelta(minutes=2))

    def full(stat: Stat) -> int:
        raise LedgerUnavailable

    monkeypatch.setattr(sweep._landing, "adopt_envelope", full)
    with pytest.raises(LedgerUnavailable):
        sweep.run_once()


def test_it_is_alive_at_each_key(parts: Parts) -> None:
    """A store that takes a while for each key is not taken for a standstill."""
    for number in range(30):
        parts.put(f"sales/{number}", b"x")
    beats: list[None] = []
    sweep = sweep_of(parts)
    sweep._alive = lambda: beats.append(None)
    sweep.run_once()
    assert len(beats) >= 30


def test_a_whole_sweep_follows_the_rest_of_one(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """What came before the position of a sweep that was cut short is not left to the next interval."""
    monkeypatch.setattr(sweep_module, "_BATCH", 2)
    for name in ("sales/1", "sales/2", "sales/3"):
        parts.put(name, b"x")
    with pytest.raises(StoreUnavailable):
        counting(parts, breaks_after=2)[1].run_once()
    parts.put("sales/0", b"x")

    def run(stop: threading.Event) -> None:
        sweep_of(parts).run(stop, every=lambda took: 3600.0, monotonic=lambda: 0.0)

    with running(run):
        wait_for(lambda: parts.states("sales/0"), what="the whole sweep")
    assert parts.states("sales/3") == [State.PENDING]


def test_what_was_looked_at_is_not_read_again(parts: Parts) -> None:
    """An orphan whose deliveries all came again, and a broken one, are read once, until they change."""
    again = orphan(parts, "again", delivery(1))
    broken = f"{ENVELOPE_PREFIX}sales/2026/03/01/broken.ndjson"
    parts.put(broken, BROKEN["no-json"])
    assert parts.landing.accept([delivery(1)]) == [False]
    store = CountingStore(real=parts.store)
    sweep = sweep_of(replace(parts, store=cast(ObjectStore, store)), later=timedelta(minutes=2))
    for _ in range(3):
        assert sweep.run_once().deliveries == 0
    assert store.reads == [again, broken]
    parts.put(broken, envelope.encode([delivery(2)]))
    assert sweep.run_once().deliveries == 1
    assert store.reads == [again, broken, broken]


def test_what_is_remembered_is_bounded(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many envelopes that need no second look only so many are remembered; the others are read again."""
    monkeypatch.setattr(sweep_module, "_MOST_LOOKED_AT", 2)
    for name in ("a", "b", "c"):
        parts.put(f"{ENVELOPE_PREFIX}sales/2026/03/01/{name}.ndjson", BROKEN["no-json"])
    store = CountingStore(real=parts.store)
    sweep = sweep_of(replace(parts, store=cast(ObjectStore, store)), later=timedelta(minutes=2))
    sweep.run_once()
    sweep.run_once()
    assert len(sweep._looked_at) == 2
    assert len(store.reads) == 6


def test_a_key_that_penstock_cannot_ask_for(parts: Parts) -> None:
    """A key that another store accepts and penstock refuses is in quarantine, once, with the reason, for `why`."""
    keys = ["sales/a/../b.csv", "sales/" + "x" * 300, "/lead.csv"]

    class Foreign(CountingStore):
        """Lists keys that no local store would have taken."""

        def list(self, bucket: str, **where: Any) -> Iterator[Stat]:
            for key in keys:
                yield Stat(bucket=bucket, key=key, etag="e", size=1, modified=datetime.now(UTC))

    sweep = sweep_of(replace(parts, store=cast(ObjectStore, Foreign(real=parts.store))))
    for _ in range(2):
        assert sweep.run_once() == Swept(listed=3)
    for key in keys:
        (story,) = parts.stories(key)
        assert story.state is State.QUARANTINED
        assert "put it under another key" in str(story.reason)
    assert parts.stories(keys[0])[0].dataset == "sales"
    assert parts.ledger.wakeups.outstanding() == []
