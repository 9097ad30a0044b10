"""`penstock.objects` without a store: names, endpoints, and a stream of notifications as a healthy MinIO sends it."""

from __future__ import annotations

import json
import queue
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from penstock import object_server
from penstock.errors import SettingsError, StoreUnavailable
from penstock.object_server import Webhook, local_store
from penstock.objects import ObjectStore
from tests.waiting import wait_for

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
PING = b'{"Records":null}\n'


class FlushingMinio:
    """One listener's connection, with pings; what a MinIO before October 2025 sends is in cmd/listen-*.go."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.settimeout(10)
        self.endpoint = f"127.0.0.1:{self._server.getsockname()[1]}"
        self.request = b""
        self.connection: socket.socket | None = None
        self._pings = threading.Event()
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def _accept(self) -> None:
        try:
            connection, _ = self._server.accept()
        except OSError:
            return
        self.request = connection.recv(65536)
        connection.sendall(HEAD)
        self.connection = connection
        while not self._pings.wait(0.2):
            self.send(PING)

    def send(self, data: bytes) -> None:
        """One chunk."""
        assert self.connection
        try:
            self.connection.sendall(b"%x\r\n%s\r\n" % (len(data), data))
        except OSError:
            self._pings.set()

    def fall_silent(self) -> None:
        """Send nothing more, and leave the connection open."""
        self._pings.set()
        self._thread.join(30)

    def close(self) -> None:
        """Close everything; a listener that is still there sees the connection break."""
        self._server.close()
        self.fall_silent()
        if self.connection:
            self.connection.close()


@pytest.fixture
def minio() -> Iterator[FlushingMinio]:
    """A server that flushes."""
    server = FlushingMinio()
    yield server
    server.close()


class Listening:
    """A thread that listens until it is told to stop; what it heard and how it ended."""

    def __init__(self, store: ObjectStore, bucket: str, prefix: str = "") -> None:
        self.stop, self.opened = threading.Event(), threading.Event()
        self.heard: queue.Queue[str] = queue.Queue()
        self.ended_by: BaseException | None = None
        self._arguments = (store, bucket, prefix)
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        store, bucket, prefix = self._arguments
        try:
            for change in store.listen(bucket, prefix=prefix, stop=self.stop, on_open=self.opened.set):
                self.heard.put(change.key + (" is gone" if change.removed else ""))
        except BaseException as error:
            self.ended_by = error


@contextmanager
def listening(store: ObjectStore, bucket: str, prefix: str = "") -> Iterator[Listening]:
    """A `Listening` whose subscription stands; ended at the end."""
    found = Listening(store, bucket, prefix)
    found.thread.start()
    try:
        wait_for(lambda: found.opened.is_set() or found.ended_by, what="the subscription stands")
        yield found
    finally:
        found.stop.set()
        found.thread.join(30)
        assert not found.thread.is_alive()


def _event(*keys: str, name: str = "s3:ObjectCreated:Put") -> bytes:
    records = [{"eventName": name, "s3": {"bucket": {"name": "landing"}, "object": {"key": key}}} for key in keys]
    return json.dumps({"Records": records}).encode() + b"\n"


def test_keys_come_letter_by_letter(minio: FlushingMinio) -> None:
    """A key is not unescaped (the stream does not escape), and a line cut in two chunks is one event."""
    with listening(ObjectStore(minio.endpoint, "key", "secret"), "landing", "sales/") as found:
        whole = _event("sales/a b+c%2B.csv") + _event("sales/é", "sales/second")
        minio.send(whole[:20])
        minio.send(whole[20:])
        assert [found.heard.get(timeout=30) for _ in range(3)] == ["sales/a b+c%2B.csv", "sales/é", "sales/second"]
        minio.send(b"no JSON\n" + _event("sales/a b+c%2B.csv", name="s3:ObjectRemoved:Delete"))
        assert found.heard.get(timeout=30) == "sales/a b+c%2B.csv is gone"
        assert b"prefix=sales%2F" in minio.request
        assert b"events=s3%3AObjectRemoved%3A%2A" in minio.request
        assert b"ping=1" in minio.request


def test_stop_is_noticed_promptly(minio: FlushingMinio) -> None:
    """A stop ends the iteration without an error."""
    with listening(ObjectStore(minio.endpoint, "key", "secret"), "landing") as found:
        started = time.monotonic()
        found.stop.set()
        found.thread.join(5)
        assert time.monotonic() - started < 4, "not only by the silence of 5 s"
        assert found.ended_by is None


def test_a_broken_connection_ends_the_listening(minio: FlushingMinio) -> None:
    """A connection that breaks is StoreUnavailable at once."""
    with listening(ObjectStore(minio.endpoint, "key", "secret"), "landing") as found:
        minio.fall_silent()
        assert minio.connection
        minio.connection.shutdown(socket.SHUT_RDWR)
        found.thread.join(30)
        assert isinstance(found.ended_by, StoreUnavailable)


def test_silence_ends_the_listening(minio: FlushingMinio) -> None:
    """A connection on which nothing comes any more is StoreUnavailable after the silence, not for ever."""
    with listening(ObjectStore(minio.endpoint, "key", "secret", timeout=1), "landing") as found:
        minio.fall_silent()
        found.thread.join(30)
        assert isinstance(found.ended_by, StoreUnavailable)


@pytest.mark.parametrize(
    "endpoint", ["", "http://", "ftp://host", "http://user:hunter2@host", "http://host/path", "host:port:x"]
)
def test_wrong_endpoints(endpoint: str) -> None:
    """An endpoint that cannot be right names its variable and tells no password."""
    with pytest.raises(SettingsError, match="PENSTOCK_S3_ENDPOINT") as caught:
        ObjectStore(endpoint, "key", "secret")
    assert "hunter2" not in str(caught.value)


def test_a_store_that_is_away_names_where_it_was_looked_for() -> None:
    """The address, and the variable that says it."""
    with socket.socket() as taken:
        # Bound and not listening, it refuses.
        taken.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(StoreUnavailable, match=f"{endpoint} does not answer .*PENSTOCK_S3_ENDPOINT"):
            ObjectStore(endpoint, "key", "secret", timeout=2).ping()


@pytest.mark.parametrize(("access_key", "secret_key"), [("", "secret"), ("key", "")])
def test_no_keys(access_key: str, secret_key: str) -> None:
    """A store is never used without keys."""
    with pytest.raises(SettingsError, match="PENSTOCK_S3_SECRET_KEY"):
        ObjectStore("host:9000", access_key, secret_key)


def test_no_minio_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where MinIO was asked for and there is none, the message says how to get it; `auto` takes the embedded one."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(SettingsError, match="make minio"):
        local_store("minio", tmp_path, 9000, None, "access", "secret-key")
    assert local_store("auto", tmp_path, 9000, None, "access", "secret-key").kind == "embedded"


def test_a_built_minio_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `make minio` built is found in the cache, listens on loopback only, and gets its secrets by environment."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    binary = object_server.cached_minio()
    binary.parent.mkdir(parents=True)
    binary.touch(mode=0o755)
    webhook = Webhook(url="http://127.0.0.1:8484/notifications/s3", token="secret-token")
    store = local_store("auto", tmp_path / "data", 9000, None, "access", "secret-key", webhook)
    assert store.kind == "minio"
    assert store.argv[0] == str(binary)
    assert "127.0.0.1:9000" in store.argv
    assert not any("secret" in word or "access" in word for word in store.argv)
    assert "secret" not in repr(store)
    assert store.env["MINIO_ROOT_PASSWORD"] == "secret-key"
    assert store.env["MINIO_BROWSER"] == "off"
    assert store.env["MINIO_NOTIFY_WEBHOOK_AUTH_TOKEN_PENSTOCK"] == "secret-token"


@pytest.mark.parametrize("secret", ["with,comma", 'with"quote', "with\nline", ""])
def test_keys_the_embedded_store_cannot_be_told(tmp_path: Path, secret: str) -> None:
    """A key that would read as two in rclone's variable is refused, since rclone would then ask for none."""
    with pytest.raises(SettingsError) as caught:
        local_store("embedded", tmp_path, 9000, None, "access", secret)
    assert not secret or secret not in str(caught.value)
