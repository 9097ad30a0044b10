"""The sweep on a real store and a real ledger: what no event told of is found all the same."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from penstock import envelope
from penstock.declarations import Dataset
from penstock.landing import Landing
from penstock.model import ENVELOPE_PREFIX, Delivery, State, Via
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

    def seen(bucket: str, keys: Sequence[str], via: Via) -> int:
        asked.append(len(keys))
        return real(bucket, keys, via)

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
