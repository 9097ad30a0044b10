"""The sensors of a bucket: the embedded store's folder, MinIO's notifications, and who cannot notify."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest

from penstock.cli.free_ports import free_port
from penstock.errors import CannotListen, LedgerUnavailable, PenstockError, SettingsError, StoreUnavailable
from penstock.landing import Landing
from penstock.model import State, Via
from penstock.notifications import Change, parse
from penstock.object_server import Webhook
from penstock.sensors import bucket
from penstock.sensors.bucket import BucketSensor, StoreFolderSensor
from tests.integration.parts import Parts, parts_in, running
from tests.real_store import RealStore, real_store
from tests.waiting import wait_for

# watchdog 7 warns, in its own thread, when a new folder is watched by two of its ways at once; both see its files.
pytestmark = pytest.mark.filterwarnings("ignore:Callback with id:RuntimeWarning")


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


@contextmanager
def store_folder(parts: Parts, landing: Any = None) -> Iterator[list[None]]:
    """A running StoreFolderSensor; yields a list that grows with each sweep it asks for."""
    asked: list[None] = []
    sensor = StoreFolderSensor(
        parts.bucket,
        parts.server.data / parts.bucket,
        landing=cast(Landing, landing or parts.landing),
        sweep_soon=lambda: asked.append(None),
    )
    with running(sensor.run):
        wait_for(lambda: asked, what="the sensor watches, and asks for a sweep of what was before")
        yield asked


def put(key: str) -> Change:
    return Change(bucket="heard", key=key)


def pending(parts: Parts) -> list[str]:
    return sorted(story.key for story in parts.ledger.facts.by_state(State.PENDING, limit=1000))


def test_a_put_by_another_client_is_recorded(parts: Parts) -> None:
    """A PUT to the embedded store is recorded without a sweep, an overwrite as another generation."""
    with store_folder(parts):
        parts.put("sales/x y+ä.csv", b"one")
        wait_for(lambda: parts.states("sales/x y+ä.csv") == [State.PENDING], what="it is recorded")
        parts.put("sales/x y+ä.csv", b"two")
        wait_for(lambda: len(parts.states("sales/x y+ä.csv")) == 2, what="so is the overwrite")
        parts.put("nowhere/x.csv", b"no dataset's")
        wait_for(lambda: parts.states("nowhere/x.csv") == [State.QUARANTINED], what="it is quarantined")
    assert {story.via for story in parts.stories("sales/x y+ä.csv")} == {Via.BUCKET}


def test_puts_into_new_folders(parts: Parts) -> None:
    """A key whose folders the PUT itself made is recorded, however fast one came after the other."""
    keys = [f"sales/{number}/{number}/data.csv" for number in range(60)]
    with store_folder(parts) as asked:
        for key in keys:
            parts.put(key, key.encode())
        wait_for(lambda: pending(parts) == sorted(keys), what="all are recorded")
        assert len(asked) == 1


def test_half_an_upload_is_nothing(parts: Parts) -> None:
    """Neither the store's own temporary file nor penstock's envelopes nor a folder become objects."""
    folder = parts.server.data / parts.bucket
    with store_folder(parts):
        (folder / "sales").mkdir()
        (folder / "sales" / ".rclone_temp_put_abc").write_bytes(b"half")
        parts.put("_penstock/deliveries/sales/x.ndjson", b"{}\n")
        parts.put("sales/big.csv", b"x" * 12_000_000)
        wait_for(lambda: pending(parts), what="the whole upload is recorded")
    assert pending(parts) == ["sales/big.csv"]
    assert parts.states("sales/big.csv") == [State.PENDING]
    assert parts.ledger.facts.by_state(State.QUARANTINED) == []


def test_hints_that_cannot_be_recorded_are_left_to_the_sweep(parts: Parts, caplog: pytest.LogCaptureFixture) -> None:
    """While store or ledger are away one key is tried, it is said once, and then a sweep is asked for."""

    class Away:
        """A landing whose first calls fail."""

        failures = 2

        def seen(self, bucket: str, keys: list[str], via: Via, **how: Any) -> int:
            if self.failures:
                self.failures -= 1
                raise LedgerUnavailable
            return parts.landing.seen(bucket, keys, via)

    with store_folder(parts, Away()) as asked:
        parts.put("sales/lost.csv", b"lost")
        wait_for(lambda: len(asked) == 2, what="a sweep is asked for")
        assert pending(parts) == ["sales/lost.csv"]
        parts.put("sales/x.csv", b"x")
        wait_for(lambda: "sales/x.csv" in pending(parts), what="the next one is recorded")
    assert len(asked) == 2
    assert sum("left to the sweep" in record.getMessage() for record in caplog.records) == 1


def test_hints_that_come_during_an_outage_do_not_wait(parts: Parts) -> None:
    """Only the key that failed is tried again; the sweep that follows finds the others, which are not kept."""

    class Away:
        """A landing that records nothing while `away`."""

        away = True
        asked: ClassVar[list[list[str]]] = []

        def seen(self, bucket: str, keys: list[str], via: Via, **how: Any) -> int:
            self.asked.append(keys)
            if self.away:
                raise LedgerUnavailable
            return len(keys)

    sweeps: list[None] = []
    away = Away()
    sensor = StoreFolderSensor(
        parts.bucket, Path("/store"), landing=cast(Landing, away), sweep_soon=lambda: sweeps.append(None)
    )
    for number in range(5):
        sensor.hint(Path(f"/store/sales/{number}"))
        sensor._work_off(now=0.0)
    assert away.asked == [["sales/0"]]
    assert sensor._hints == {}
    away.away = False
    sensor._work_off(now=math.inf)
    assert (away.asked[1:], len(sweeps)) == ([["sales/0"]], 1)
    sensor.hint(Path("/store/sales/6"))
    sensor._work_off(now=math.inf)
    assert (away.asked[2:], len(sweeps)) == ([["sales/6"]], 1)


def test_too_many_hints_ask_for_a_sweep(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hints beyond what may wait are dropped, and a sweep is asked for instead."""
    monkeypatch.setattr(bucket, "_MOST_HINTS", 3)
    asked: list[None] = []
    sensor = StoreFolderSensor(
        parts.bucket, Path("/store"), landing=parts.landing, sweep_soon=lambda: asked.append(None)
    )
    for number in range(5):
        sensor.hint(Path(f"/store/sales/{number}.csv"))
    assert (len(sensor._hints), len(asked)) == (3, 2)


def test_the_embedded_store_cannot_notify(parts: Parts) -> None:
    """Listening to a store that has no such thing is an answer, not an error to try again."""
    sensor = BucketSensor(parts.bucket, store=parts.store, landing=parts.landing, sweep_soon=lambda: None)
    with pytest.raises(CannotListen):
        sensor.run(threading.Event())


def test_listening_is_tried_again(parts: Parts, caplog: pytest.LogCaptureFixture) -> None:
    """When listening ends the sensor listens again, and a sweep makes up for what came between."""

    class Listened:
        """A store whose connection breaks after each key."""

        opened = 0

        def listen(self, bucket: str, *, stop: threading.Event, on_open: Any) -> Iterator[Change]:
            self.opened += 1
            on_open()
            yield put(f"sales/{self.opened}.csv")
            raise StoreUnavailable

    for number in (1, 2):
        parts.put(f"sales/{number}.csv", b"x")
    asked: list[None] = []
    sensor = BucketSensor(
        parts.bucket, store=cast(Any, Listened()), landing=parts.landing, sweep_soon=lambda: asked.append(None)
    )
    with running(sensor.run):
        wait_for(lambda: pending(parts) == ["sales/1.csv", "sales/2.csv"], what="both are recorded")
    assert len(asked) >= 2
    assert "ended: The object store does not answer" in caplog.text


def test_what_is_heard_to_be_removed_is_missing(parts: Parts) -> None:
    """A key that is gone before it was read is missing; one that is there again is recorded, by what is heard last."""

    class Listened:
        """A store that tells of what is gone, and of what is there."""

        def listen(self, bucket: str, *, stop: threading.Event, on_open: Any) -> Iterator[Change]:
            on_open()
            for key in ("sales/gone.csv", "sales/back.csv"):
                yield put(key)
                yield Change(bucket=bucket, key=key, removed=True)
            stop.wait()

    parts.arrive("sales/gone.csv", b"gone")
    parts.store.remove(parts.bucket, "sales/gone.csv")
    parts.put("sales/back.csv", b"back")
    sensor = BucketSensor(parts.bucket, store=cast(Any, Listened()), landing=parts.landing, sweep_soon=lambda: None)
    with running(sensor.run):
        wait_for(lambda: parts.states("sales/gone.csv") == [State.MISSING], what="what is gone is missing")
        wait_for(lambda: pending(parts) == ["sales/back.csv"], what="what is there is recorded")


def test_what_is_heard_meanwhile_is_recorded_together(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first key does not wait; what comes while it is recorded goes together, and beyond a bound to the sweep."""
    monkeypatch.setattr(bucket, "_MOST_HINTS", 20)
    first, all_heard = threading.Event(), threading.Event()

    class Chatty:
        """A store that tells of one key, and of many while that is recorded."""

        def listen(self, bucket: str, *, stop: threading.Event, on_open: Any) -> Iterator[Change]:
            on_open()
            yield put("sales/first")
            assert first.wait(30)
            yield from (put(f"sales/{number}") for number in range(30))
            all_heard.set()
            stop.wait()

    class Slow:
        """A landing that is busy with the first key until all the others were heard."""

        asked: ClassVar[list[list[str]]] = []

        def seen(self, bucket: str, keys: list[str], via: Via, **how: Any) -> int:
            self.asked.append(keys)
            first.set()
            assert all_heard.wait(30)
            return len(keys)

    sweeps: list[None] = []
    sensor = BucketSensor(
        parts.bucket,
        store=cast(Any, Chatty()),
        landing=cast(Landing, Slow()),
        sweep_soon=lambda: sweeps.append(None),
    )
    with running(sensor.run):
        wait_for(lambda: len(Slow.asked) == 2 and len(sweeps) == 2, what="the others are recorded")
    assert Slow.asked == [["sales/first"], [f"sales/{number}" for number in range(20)]]


@pytest.mark.parametrize("error", [LedgerUnavailable, SettingsError])
def test_listening_while_nothing_can_be_recorded(
    parts: Parts, error: type[PenstockError], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said once, tried after growing pauses, and one sweep is asked for when it is over."""
    monkeypatch.setattr(bucket, "_FIRST_PAUSE", 0.01)

    class Chatty:
        """A store that tells of a key as soon as it is listened to."""

        def listen(self, bucket: str, *, stop: threading.Event, on_open: Any) -> Iterator[Change]:
            on_open()
            while not stop.wait(0.01):
                yield put("sales/x.csv")

    class Full:
        """A landing whose ledger's disk is full for some calls."""

        calls = 0

        def seen(self, bucket: str, keys: list[str], via: Via, **how: Any) -> int:
            self.calls += 1
            if self.calls <= 5:
                pauses.append(sensor._pause)
                raise error
            return parts.landing.seen(bucket, keys, via, **how)

    parts.put("sales/x.csv", b"x")
    asked: list[None] = []
    pauses: list[float] = []
    sensor = BucketSensor(
        parts.bucket,
        store=cast(Any, Chatty()),
        landing=cast(Landing, Full()),
        sweep_soon=lambda: asked.append(None),
    )
    with running(sensor.run):
        wait_for(lambda: pending(parts), what="it is recorded")
        wait_for(lambda: len(asked) == 2, what="one sweep at the first connection, and one when it is over")
    assert len(asked) == 2
    assert pauses == [0.01, 0.02, 0.04, 0.08, 0.16]
    assert sum("ended" in record.getMessage() for record in caplog.records) == 1


def test_a_hint_that_comes_before_the_store_knows_its_object(parts: Parts) -> None:
    """A file is in the store's folder a moment before the store answers for it; the hint is not lost over that."""

    class Early:
        """A landing that finds nothing at the first look."""

        calls = 0

        def seen(self, bucket: str, keys: list[str], via: Via, **how: Any) -> int:
            self.calls += 1
            return parts.landing.seen(bucket, keys, via) if self.calls > 1 else 0

    parts.put("sales/first.csv", b"so that the folder is there, and an overwrite is one event")
    early = Early()
    sensor = StoreFolderSensor(parts.bucket, Path("/store"), landing=cast(Landing, early), sweep_soon=lambda: None)
    assert sensor._pass_on(["sales/first.csv"]) == ["sales/first.csv"]
    assert sensor._pass_on(["sales/first.csv"]) == []
    early = Early()
    with store_folder(parts, early):
        parts.put("sales/x.csv", b"x")
        wait_for(lambda: "sales/x.csv" in pending(parts), what="the second look")


@contextmanager
def notified(port: int, landing: Landing) -> Iterator[None]:
    """The webhook's way of a notification, without the webhook: parse, then the landing."""

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            for name, key in parse(body).created:
                landing.seen(name, [key], Via.NOTIFICATION)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Receiver) as receiver:
        receiver.daemon_threads = True
        thread = threading.Thread(target=receiver.serve_forever)
        thread.start()
        try:
            yield
        finally:
            receiver.shutdown()
            thread.join(30)


def test_minio_notifies(tmp_path: Path) -> None:
    """What is PUT to MinIO is recorded by its notification: odd keys, overwrites and their versions too."""
    port = free_port()
    hook = Webhook(url=f"http://127.0.0.1:{port}/notifications/s3", token="token")
    with real_store("minio", hook) as server, parts_in(tmp_path, server) as parts:
        parts.store.notify(parts.bucket, hook.name)
        with notified(port, parts.landing):
            keys = ["sales/plain.csv", "sales/a b+c.csv", "sales/ä %41&=.csv"]
            for key in keys:
                parts.put(key, b"one")
            wait_for(lambda: pending(parts) == sorted(keys), what="all are recorded")
            parts.put(keys[1], b"two")
            wait_for(lambda: len(parts.states(keys[1])) == 2, what="so is the overwrite")
            parts.put("_penstock/deliveries/sales/x.ndjson", b"{}\n")
            parts.put("sales/last.csv", b"last")
            wait_for(lambda: parts.states("sales/last.csv"), what="the last one is recorded")
        assert parts.states(keys[1]) == [State.PENDING, State.SUPERSEDED]
        assert {story.via for key in keys for story in parts.stories(key)} == {Via.NOTIFICATION}
        assert parts.ledger.facts.stories("_penstock/deliveries/sales/x.ndjson") == []
