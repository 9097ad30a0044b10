"""MinIO's own notifications at the real edge: puts, overwrites, removals, and rubbish that holds nothing up."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from minio.notificationconfig import NotificationConfig, QueueConfig

from penstock.cli.free_ports import free_port
from penstock.errors import LedgerUnavailable, StoreUnavailable
from penstock.landing import Landing
from penstock.ledger.removals import REMOVED_AFTER, REMOVED_BEFORE
from penstock.model import NOTIFICATIONS_BUCKET, Outcome, State, Via
from penstock.object_server import Webhook
from penstock.objects import ObjectStore
from penstock.webhook.app import create_app
from penstock.webhook.serve import bind
from tests.integration.parts import Parts, parts_in
from tests.real_store import RealStore, real_store
from tests.waiting import wait_for

TOKEN = "token-of-the-store"
_TTL = timedelta(seconds=60)


@dataclass(frozen=True, kw_only=True)
class Store:
    """A MinIO that posts to a port, at which nobody need listen."""

    server: RealStore
    port: int


@pytest.fixture(scope="module")
def minio() -> Iterator[Store]:
    """The store of this module's tests."""
    port = free_port()
    with real_store("minio", Webhook(url=f"http://127.0.0.1:{port}/notifications/s3", token=TOKEN)) as server:
        yield Store(server=server, port=port)


@dataclass(frozen=True, kw_only=True)
class Edge:
    """The edge that a store posts to, and what it lands in."""

    parts: Parts
    url: str

    def post(self, content: bytes) -> httpx.Response:
        """POST a notification as the store would."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return httpx.post(f"{self.url}/notifications/s3", content=content, headers=headers, timeout=30)

    def sees(self, key: str, *states: State) -> None:
        """Wait until the key's generations are so, the newest first."""
        wait_for(lambda: self.parts.states(key) == list(states), what=f"{key} is {[s.value for s in states]}")

    def remove(self, key: str) -> None:
        """Remove a key, as another client."""
        self.parts.server.client().remove(self.parts.bucket, key)

    def history(self, key: str) -> list[tuple[str, str]]:
        """What is told of the newest generation."""
        return [(fact.what, fact.detail) for fact in self.parts.stories(key)[0].facts]

    def load(self) -> None:
        """Claim and settle what waits, as a run would that loads it."""
        work = self.parts.ledger.work
        lease = work.acquire("sales", holder="run", ttl=_TTL)
        assert lease is not None
        refs = work.claim(lease, run="run", max_objects=100, max_bytes=10**9)
        work.settle(lease, [Outcome(ref=ref, state=State.LOADED, rows=2) for ref in refs], run="run")
        assert work.finish(lease)


@contextmanager
def served(parts: Parts, port: int, landing: Landing | None = None) -> Iterator[Edge]:
    """The edge on `port`, which notes for the bucket of `parts`."""
    app = create_app(
        sources=[],
        intake=landing or parts.landing,
        resolve_secret=lambda name: "",
        notify_token=TOKEN,
        buckets=[parts.bucket],
        clock=lambda: datetime.now(UTC),
        version="0",
    )
    ready = threading.Event()
    server = bind(app, port=port, on_ready=lambda url: ready.set())
    thread = threading.Thread(target=server.serve_until_stopped)
    thread.start()
    try:
        assert ready.wait(30)
        yield Edge(parts=parts, url=server.url)
    finally:
        server.should_exit = True
        thread.join(40)
    assert not thread.is_alive()


@pytest.fixture
def edge(tmp_path: Path, minio: Store) -> Iterator[Edge]:
    """A versioned bucket that tells the edge."""
    with parts_in(tmp_path, minio.server) as parts, served(parts, minio.port) as edge:
        parts.store.notify(parts.bucket, "PENSTOCK")
        yield edge


@pytest.fixture
def plain(tmp_path: Path, minio: Store) -> Iterator[Edge]:
    """A bucket without versions that tells the edge."""
    with parts_in(tmp_path, minio.server) as parts:
        bucket = f"{parts.bucket}-plain"
        minio.server.client()._client.make_bucket(bucket)
        assert not parts.store.versioned(bucket)
        landing = Landing(store=parts.store, ledger=parts.ledger, datasets=parts.datasets, bucket=bucket)
        unversioned = Parts(**{**vars(parts), "bucket": bucket, "landing": landing})
        with served(unversioned, minio.port) as edge:
            parts.store.notify(bucket, "PENSTOCK")
            yield edge


def test_put_overwritten_and_removed_before_it_was_read(plain: Edge) -> None:
    """Without versions a removal makes missing what waited; the same bytes put again are a new generation."""
    key = "sales/a b+ä.csv"
    plain.parts.put(key, b"one")
    plain.sees(key, State.PENDING)
    plain.parts.put(key, b"two")
    plain.sees(key, State.PENDING, State.SUPERSEDED)
    plain.remove(key)
    plain.sees(key, State.MISSING, State.SUPERSEDED)
    assert plain.history(key) == [("missing", REMOVED_BEFORE)]
    plain.parts.put(key, b"two")
    plain.sees(key, State.PENDING, State.MISSING, State.SUPERSEDED)
    assert {story.via for story in plain.parts.stories(key)} == {Via.NOTIFICATION}


@pytest.mark.parametrize("kind", ["plain", "edge"])
def test_removed_after_it_was_loaded(kind: str, request: pytest.FixtureRequest) -> None:
    """What is loaded stays so; its history tells that the object is gone and its rows are not, once."""
    edge = cast(Edge, request.getfixturevalue(kind))
    edge.parts.put("sales/a.csv", b"one")
    edge.sees("sales/a.csv", State.PENDING)
    edge.load()
    edge.remove("sales/a.csv")
    wait_for(lambda: edge.history("sales/a.csv")[-1] == ("removed", REMOVED_AFTER), what="the removal is told")
    edge.remove("sales/a.csv")
    edge.parts.put("sales/last.csv", b"last")
    edge.sees("sales/last.csv", State.PENDING)
    assert edge.parts.states("sales/a.csv") == [State.LOADED]
    assert [what for what, _ in edge.history("sales/a.csv")].count("removed") == 1


def test_a_delete_marker_takes_nothing_away(edge: Edge) -> None:
    """Where versions are kept, what waits can be read by its version; only without that version it is missing."""
    parts = edge.parts
    put = parts.put("sales/a.csv", b"one")
    assert put.version_id
    edge.sees("sales/a.csv", State.PENDING)
    edge.remove("sales/a.csv")
    parts.put("sales/b.csv", b"b")
    edge.sees("sales/b.csv", State.PENDING)
    # MinIO's own notification of it may be under way still.
    assert parts.landing.removed(parts.bucket, ["sales/a.csv"], Via.NOTIFICATION) == 0
    assert parts.states("sales/a.csv") == [State.PENDING]
    assert parts.store.read(parts.bucket, "sales/a.csv", etag=put.etag, version_id=put.version_id) == b"one"
    client = parts.server.client()._client
    client.remove_object(parts.bucket, "sales/a.csv", version_id=put.version_id)
    edge.sees("sales/a.csv", State.MISSING)
    assert parts.states("sales/b.csv") == [State.PENDING]


def test_a_removal_told_of_late_hides_nothing(edge: Edge) -> None:
    """When the key is there again the removal is a hint like any other, also when no other told of the object."""
    parts = edge.parts
    parts.store._client.set_bucket_notification(parts.bucket, NotificationConfig())
    parts.put("sales/new.csv", b"new")
    record = {
        "eventName": "s3:ObjectRemoved:Delete",
        "s3": {"bucket": {"name": parts.bucket}, "object": {"key": "sales%2Fnew.csv", "sequencer": "01"}},
    }
    for _ in range(2):
        answer = edge.post(json.dumps({"Records": [record]}).encode())
        assert (answer.status_code, answer.json()["removed"]) == (200, 1)
    assert parts.states("sales/new.csv") == [State.PENDING]


def test_an_envelope_that_is_removed_is_nobodys(edge: Edge) -> None:
    """What penstock itself puts and removes is no object."""
    parts = edge.parts
    key = "_penstock/deliveries/sales/x.ndjson"
    parts.put(key, b"{}\n")
    edge.remove(key)
    parts.put("sales/last.csv", b"last")
    edge.sees("sales/last.csv", State.PENDING)
    assert parts.landing.removed(parts.bucket, [key, "sales/\0", "sales/folder/"], Via.NOTIFICATION) == 0
    assert parts.ledger.facts.stories(key) == []
    assert parts.ledger.facts.by_state(State.QUARANTINED) == []


def test_rubbish_holds_nothing_up(edge: Edge) -> None:
    """Rubbish with the right token is 200 and in quarantine once; MinIO's next notification goes through."""
    for content in (b"rubbish \x1b[31m", b"rubbish \x1b[31m", b"{" * 2_000_000):
        answer = edge.post(content)
        assert (answer.status_code, answer.json()["unusable"]) == (200, 1)
    edge.parts.put("sales/a.csv", b"a")
    edge.sees("sales/a.csv", State.PENDING)
    kept = edge.parts.ledger.facts.by_state(State.QUARANTINED)
    assert all(story.name.startswith(f"{NOTIFICATIONS_BUCKET}/") for story in kept)
    assert [story.size < 5_000 for story in kept] == [True, True]
    (first,) = edge.parts.ledger.facts.stories(kept[1].key)
    assert [fact.detail for fact in first.facts] == ["the body is no JSON", "rubbish \\x1b[31m"]


def test_what_was_put_while_the_removal_is_recorded(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bytes put between the store's answer and the ledger's record are not taken for what is gone."""
    parts = edge.parts
    parts.store._client.set_bucket_notification(parts.bucket, NotificationConfig())
    put = parts.put("sales/a.csv", b"same")
    assert parts.record("sales/a.csv") == 1
    client = parts.server.client()
    client.remove_versions(parts.bucket, [("sales/a.csv", put.version_id)])
    record = parts.ledger.removals.record

    def put_again(*args: Any) -> Any:
        parts.put("sales/a.csv", b"same")
        return record(*args)

    monkeypatch.setattr(parts.ledger.removals, "record", put_again)
    assert parts.landing.removed(parts.bucket, ["sales/a.csv"], Via.NOTIFICATION) == 1
    assert parts.states("sales/a.csv") == [State.PENDING, State.MISSING]


def test_what_cannot_be_asked_for_now_is_left_as_it_is(edge: Edge) -> None:
    """A store that is away makes nothing missing: not when it is asked for the key, and not for its version."""
    parts = edge.parts
    parts.store._client.set_bucket_notification(parts.bucket, NotificationConfig())
    parts.put("sales/a.csv", b"a")
    assert parts.record("sales/a.csv") == 1
    parts.server.client().remove(parts.bucket, "sales/a.csv")

    class Away:
        """A store of which one question is not answered."""

        def __init__(self, versions: bool, whole: bool = False) -> None:
            self.versions, self.whole = versions, whole

        def stat(self, bucket: str, key: str, *, version_id: str | None = None) -> Any:
            if (version_id is not None) == self.versions:
                raise StoreUnavailable("not now")
            return parts.store.stat(bucket, key, version_id=version_id)

        def ping(self) -> None:
            if self.whole:
                raise StoreUnavailable("not at all")

    skipped: list[str] = []
    for versions in (True, False):
        landing = parts.landing_with(cast(ObjectStore, Away(versions)))
        skip = lambda key, error: skipped.append(key)  # noqa: E731
        assert landing.removed(parts.bucket, ["sales/a.csv"], Via.NOTIFICATION, skip=skip) == 0
        with pytest.raises(StoreUnavailable):
            landing.removed(parts.bucket, ["sales/a.csv"], Via.NOTIFICATION)
        landing = parts.landing_with(cast(ObjectStore, Away(versions, whole=True)))
        with pytest.raises(StoreUnavailable, match="at all"):
            landing.removed(parts.bucket, ["sales/a.csv"], Via.NOTIFICATION, skip=skip)
    assert skipped == ["sales/a.csv"] * 2
    assert parts.states("sales/a.csv") == [State.PENDING]


def test_minio_waits_while_the_ledger_is_away(tmp_path: Path, minio: Store) -> None:
    """A 503 is for the store to send again; the edge says so, and takes it when the ledger is back."""
    with parts_in(tmp_path, minio.server) as parts:

        class Away(Landing):
            away = True

            def keep_unusable(self, found: Any) -> int:
                if self.away:
                    raise LedgerUnavailable
                return super().keep_unusable(found)

        landing = Away(store=parts.store, ledger=parts.ledger, datasets=parts.datasets, bucket=parts.bucket)
        with served(parts, minio.port, landing) as edge:
            assert edge.post(b"rubbish").status_code == 503
            landing.away = False
            assert edge.post(b"rubbish").status_code == 200
        assert len(parts.ledger.facts.by_state(State.QUARANTINED)) == 1


def test_a_bucket_that_told_of_puts_tells_of_removals_too(tmp_path: Path, minio: Store) -> None:
    """What an older penstock asked for is replaced; what others asked for stays; asking again changes nothing."""
    arn = "arn:minio:sqs::PENSTOCK:webhook"
    with parts_in(tmp_path, minio.server) as parts:
        client = parts.store._client
        old = QueueConfig(queue=arn, events=["s3:ObjectCreated:*"], config_id="penstock-PENSTOCK")
        theirs = QueueConfig(queue=arn, events=["s3:ObjectAccessed:Get"], config_id="theirs")
        client.set_bucket_notification(parts.bucket, NotificationConfig(queue_config_list=[old, theirs]))
        for _ in range(2):
            parts.store.notify(parts.bucket, "PENSTOCK")
            found = client.get_bucket_notification(parts.bucket).queue_config_list
            assert sorted(queue.events for queue in found) == [
                ["s3:ObjectAccessed:Get"],
                ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"],
            ]
