"""What every object store does behind `penstock.objects`, on the real servers."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import os
import queue
import signal
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import SplitResult, unquote_plus

import pytest
from minio.credentials.credentials import Credentials
from minio.signer import sign_v4_s3
from minio.time import to_amz_date

from penstock.cli.free_ports import free_port
from penstock.errors import (
    CannotListen,
    ObjectChanged,
    ObjectMissing,
    Refused,
    SettingsError,
    StoreUnavailable,
    Transient,
)
from penstock.object_server import Webhook
from penstock.objects import ObjectStore
from tests.real_store import Kind, RealStore, real_store

ODD_KEYS = [
    "sales/with space.csv",
    "sales/a+b.csv",
    "sales/100%.csv",
    "sales/%2B literal.csv",
    "sales/a#b?c&d=e.csv",
    "sales/Zürich/東京 ✓.csv",
    "sales/quote'\"<x>.csv",
    "sales/deep/er/and/deep/er/x.csv",
    "sales/back\\slash.csv",
]
LONG_KEY = "/".join(["é" * 120] * 4)


def test_what_was_put_is_got_back(store: ObjectStore, bucket: str, tmp_path: Path) -> None:
    """Put, stat, get, read and list agree on bytes, size, etag and time."""
    put = store.put_bytes(bucket, "sales/a.csv", b"a,b\n1,2\n", content_type="text/csv")
    found = store.stat(bucket, "sales/a.csv")
    assert (put.bucket, put.key, put.size) == (bucket, "sales/a.csv", 8)
    assert (found.etag, found.size, found.version_id) == (put.etag, 8, put.version_id)
    assert found.etag == hashlib.md5(b"a,b\n1,2\n").hexdigest()  # noqa: S324  that is what an etag is
    assert abs(put.modified - datetime.now(UTC)) < timedelta(seconds=10)
    assert abs(found.modified - put.modified) < timedelta(seconds=3)
    store.get(bucket, "sales/a.csv", tmp_path / "a.csv", etag=put.etag, version_id=put.version_id)
    assert (tmp_path / "a.csv").read_bytes() == b"a,b\n1,2\n"
    assert store.read(bucket, "sales/a.csv") == b"a,b\n1,2\n"
    assert [(s.key, s.etag, s.size) for s in store.list(bucket)] == [("sales/a.csv", put.etag, 8)]


def test_empty_object(store: ObjectStore, bucket: str, tmp_path: Path) -> None:
    """An object of no bytes is an object."""
    put = store.put_bytes(bucket, "sales/empty.csv", b"")
    assert store.stat(bucket, "sales/empty.csv").size == 0
    store.get(bucket, "sales/empty.csv", tmp_path / "e", etag=put.etag)
    assert (tmp_path / "e").read_bytes() == b""


@pytest.mark.parametrize("key", [*ODD_KEYS, LONG_KEY], ids=lambda key: ascii(key)[:30])
def test_odd_keys(store: ObjectStore, bucket: str, key: str) -> None:
    """A key comes back from stat, read and list letter by letter."""
    put = store.put_bytes(bucket, key, key.encode())
    assert store.stat(bucket, key).etag == put.etag
    assert store.read(bucket, key, etag=put.etag) == key.encode()
    assert [s.key for s in store.list(bucket, prefix=key[:7])] == [key]
    store.remove(bucket, key)
    assert list(store.list(bucket)) == []


@pytest.mark.parametrize(
    "key", ["../evil", "sales/../../evil", "./x", "a/./b", "", " ", "/lead", "x\0y", "\udcff", "k" * 256]
)
def test_keys_no_store_takes_are_refused(store: ObjectStore, bucket: str, key: str) -> None:
    """Such a key is Refused by every call, and the message names it."""
    for call in (store.stat, store.read, store.remove):
        with pytest.raises(Refused):
            call(bucket, key)
    with pytest.raises(Refused) as caught:
        store.put_bytes(bucket, key, b"x")
    assert repr(key)[:20].rstrip("'") in str(caught.value)


@pytest.mark.parametrize("key", ["a//b", "folder/"])
def test_folders_and_double_slashes_are_refused(store: ObjectStore, bucket: str, key: str) -> None:
    """What one of the stores would fold into another key is no key."""
    with pytest.raises(Refused, match=key):
        store.put_bytes(bucket, key, b"x")
    assert list(store.list(bucket)) == []


@pytest.mark.parametrize("path", ["/../../evil", "/x/../../../evil"])
def test_the_server_itself_keeps_within_its_folder(server: RealStore, bucket: str, path: str) -> None:
    """A signed PUT with `..` in its path, sent past our own check, writes nothing anywhere."""
    before = set(server.data.parent.rglob("*evil*"))
    with pytest.raises(AssertionError, match="answered 4"):
        _signed_put(server, f"/{bucket}{path}", b"x")
    assert set(server.data.parent.rglob("*evil*")) == before


def test_changed_between_stat_and_get(store: ObjectStore, bucket: str, tmp_path: Path) -> None:
    """An overwrite after the stat is ObjectChanged, and leaves no file."""
    old = store.put_bytes(bucket, "sales/a.csv", b"old")
    store.put_bytes(bucket, "sales/a.csv", b"new")
    with pytest.raises(ObjectChanged):
        store.get(bucket, "sales/a.csv", tmp_path / "a", etag=old.etag)
    with pytest.raises(ObjectChanged):
        store.read(bucket, "sales/a.csv", etag=old.etag)
    assert not (tmp_path / "a").exists()


def test_overwritten_during_the_read(store: ObjectStore, bucket: str) -> None:
    """Bytes of two generations never pass for one."""
    old, new = b"1" * 50_000_000, b"2" * 50_000_000
    etag = store.put_bytes(bucket, "sales/big", old).etag
    chunks = store._chunks(bucket, "sales/big", etag, None)
    got = bytearray(next(chunks))
    # MinIO holds the overwrite back until the read is over; the embedded store does not.
    overwrite = threading.Thread(target=store.put_bytes, args=(bucket, "sales/big", new))
    overwrite.start()
    overwrite.join(2)
    try:
        for chunk in chunks:
            got += chunk
    except (ObjectChanged, StoreUnavailable):
        got = bytearray(old)
    finally:
        overwrite.join(20)
    assert got == old
    assert store.read(bucket, "sales/big") == new


def test_version_pins_the_read(running: Callable[[Kind], RealStore]) -> None:
    """With MinIO's versions, an overwritten and even a removed generation can still be read."""
    store = running("minio").client()
    assert store.ensure_bucket("versions") is True
    assert store.ensure_bucket("versions") is True
    old = store.put_bytes("versions", "k", b"old")
    new = store.put_bytes("versions", "k", b"new")
    assert old.version_id
    assert new.version_id not in (None, old.version_id)
    assert store.read("versions", "k", etag=old.etag, version_id=old.version_id) == b"old"
    store.remove("versions", "k")
    with pytest.raises(ObjectMissing):
        store.stat("versions", "k")
    with pytest.raises(ObjectMissing):
        store.read("versions", "k", etag=new.etag)
    assert store.read("versions", "k", etag=new.etag, version_id=new.version_id) == b"new"
    for unknown in ("00000000-0000-4000-8000-000000000000", "not-a-version"):
        with pytest.raises(ObjectMissing):
            store.read("versions", "k", version_id=unknown)


def test_embedded_has_no_versions(running: Callable[[Kind], RealStore]) -> None:
    """A store without versions is no error."""
    store = running("embedded").client()
    assert store.ensure_bucket("plain") is False
    assert store.put_bytes("plain", "k", b"x").version_id is None


def test_missing(store: ObjectStore, bucket: str, tmp_path: Path) -> None:
    """A key or bucket that is not there is ObjectMissing; removing nothing is nothing."""
    with pytest.raises(ObjectMissing, match="nothing here"):
        store.stat(bucket, "nothing here")
    with pytest.raises(ObjectMissing):
        store.get(bucket, "nothing", tmp_path / "x", etag="0" * 32)
    assert not (tmp_path / "x").exists()
    store.remove(bucket, "nothing")
    for call in (
        lambda: list(store.list("no-such-bucket")),
        lambda: store.read("no-such-bucket", "k"),
        lambda: store.put_bytes("no-such-bucket", "k", b"x"),
    ):
        with pytest.raises(ObjectMissing, match="bucket 'no-such-bucket' does not exist"):
            call()
    with pytest.raises(Refused, match="NOT_a_bucket!"):
        store.ensure_bucket("NOT_a_bucket!")


def test_listing_pages_in_key_order(store: ObjectStore, bucket: str) -> None:
    """More than a page comes in the order of the keys' bytes, from any start, under any prefix."""
    keys = [f"sales/{n:04}.csv" for n in range(1100)]
    keys += ["sales/0001-x", "sales/0001/inner.csv", "sales/0001.a", "Sales/upper", "other/a+b c", "other/é", "other/z"]
    for key in keys:
        store.put_bytes(bucket, key, b"")
    ordered = sorted(keys, key=str.encode)
    assert [s.key for s in store.list(bucket)] == ordered
    sales = [key for key in ordered if key.startswith("sales/")]
    assert [s.key for s in store.list(bucket, prefix="sales/")] == sales
    assert [s.key for s in store.list(bucket, prefix="sales/", start_after=sales[50])] == sales[51:]
    assert [s.key for s in store.list(bucket, prefix="other/", start_after="other/a+b c")] == ["other/z", "other/é"]
    assert next(iter(store.list(bucket, prefix="sales/0500"))).key == "sales/0500.csv"
    assert list(store.list(bucket, prefix="none/")) == []


def test_a_listing_goes_on_after_any_key(store: ObjectStore, bucket: str) -> None:
    """Whatever key a listing stopped at, also one that is not there, the rest is all the keys after it."""
    keys = ["Upper", "_penstock/deliveries/sales/x", *ODD_KEYS, LONG_KEY, "z/last"]
    for key in keys:
        store.put_bytes(bucket, key, b"x")
    ordered = sorted(keys, key=str.encode)
    for index, key in enumerate(ordered):
        assert [s.key for s in store.list(bucket, start_after=key)] == ordered[index + 1 :], key
    assert [s.key for s in store.list(bucket, start_after="sales/nothing is called so")] == [
        key for key in ordered if key.encode() > b"sales/nothing is called so"
    ]
    assert [s.key for s in store.list(bucket, prefix="z/", start_after="a")] == ["z/last"]
    assert list(store.list(bucket, prefix="sales/", start_after="z")) == []


def test_listing_over_overwritten_and_removed_keys(store: ObjectStore, bucket: str) -> None:
    """A listing has each key once, in its newest generation, and none that was removed, wherever it begins."""
    for key in ("a", "b", "c", "d"):
        for content in (b"old", b"older"):
            store.put_bytes(bucket, f"sales/{key}", content)
    newest = store.put_bytes(bucket, "sales/b", b"new")
    for key in ("sales/a", "sales/c"):
        store.remove(bucket, key)
    assert [s.key for s in store.list(bucket)] == ["sales/b", "sales/d"]
    assert next(s.etag for s in store.list(bucket, start_after="sales/a")) == newest.etag
    assert [s.key for s in store.list(bucket, start_after="sales/b")] == ["sales/d"]
    assert [s.key for s in store.list(bucket, start_after="sales/c")] == ["sales/d"]


def test_a_listing_asks_for_no_more_than_is_read(store: ObjectStore, bucket: str) -> None:
    """The first page is there before the second is asked for: a removal in between is seen in the second."""
    for n in range(1002):
        store.put_bytes(bucket, f"sales/{n:04}", b"")
    listing = store.list(bucket)
    assert [next(listing).key for _ in range(1000)][-1] == "sales/0999"
    store.remove(bucket, "sales/1000")
    assert [s.key for s in listing] == ["sales/1001"]


def test_stream_of_twelve_megabytes(store: ObjectStore, bucket: str, tmp_path: Path) -> None:
    """A large stream goes up in parts; put, stat and list give one etag, and it comes down whole."""
    data = os.urandom(12_000_000)
    put = store.put(bucket, "sales/big.bin", io.BytesIO(data + b"not this"), len(data))
    found = store.stat(bucket, "sales/big.bin")
    assert (put.etag, put.size, put.version_id) == (found.etag, len(data), found.version_id)
    assert [s.etag for s in store.list(bucket)] == [put.etag]
    store.get(bucket, "sales/big.bin", tmp_path / "big", etag=put.etag, version_id=put.version_id)
    assert (tmp_path / "big").read_bytes() == data


@pytest.mark.parametrize("size", [10, 12_000_000])
def test_stream_that_ends_early(store: ObjectStore, bucket: str, size: int) -> None:
    """A stream shorter than was said stores nothing and leaves the old object alone."""
    store.put_bytes(bucket, "sales/a", b"old")
    with pytest.raises(Transient, match="ended"):
        store.put(bucket, "sales/a", io.BytesIO(b"x" * (size - 3)), size)
    assert store.read(bucket, "sales/a") == b"old"


def test_half_an_upload_is_nowhere(server: RealStore, store: ObjectStore, bucket: str) -> None:
    """An upload that stopped half-way is in no stat and in no listing, while it hangs and after."""
    connection = _signed_request(server, f"/{bucket}/half.csv", b"x" * 1_000_000, send=600_000)
    try:
        before = {path for path in server.data.rglob("*") if path.is_file()}
        assert before
        with pytest.raises(ObjectMissing):
            store.stat(bucket, "half.csv")
        assert list(store.list(bucket)) == []
    finally:
        connection.close()
    with pytest.raises(ObjectMissing):
        store.stat(bucket, "half.csv")
    assert list(store.list(bucket)) == []


def test_wrong_keys(server: RealStore) -> None:
    """Wrong keys are a SettingsError that names both variables and holds neither value."""
    for access_key, secret_key in ((server.access_key, "wrong-secret-value"), ("unknown-key", server.secret_key)):
        store = ObjectStore(server.endpoint, access_key, secret_key)
        for call in (
            store.ping,
            lambda store=store: store.stat("b12", "k"),
            lambda store=store: store.read("b12", "k"),
        ):
            with pytest.raises(SettingsError) as caught:
                call()
            assert "PENSTOCK_S3_ACCESS_KEY and PENSTOCK_S3_SECRET_KEY" in str(caught.value)
            assert secret_key not in str(caught.value)
            assert caught.value.__suppress_context__


def test_without_keys_nothing_is_given(server: RealStore, store: ObjectStore, bucket: str) -> None:
    """Unsigned requests are refused, reading and writing."""
    store.put_bytes(bucket, "k", b"x")
    for method in ("GET", "HEAD", "PUT", "DELETE"):
        for path in ("", f"{bucket}", f"{bucket}/k"):
            body = b"evil" if method == "PUT" else None
            request = urllib.request.Request(f"http://{server.endpoint}/{path}", method=method, data=body)
            with pytest.raises(HTTPError) as caught:
                urllib.request.urlopen(request, timeout=30)
            caught.value.close()
            assert 400 <= caught.value.code < 500
    assert store.read(bucket, "k") == b"x"


def test_keys_are_on_no_command_line(server: RealStore) -> None:
    """What `ps` shows of the server holds no key."""
    assert server.process
    shown = Path(f"/proc/{server.process.pid}/cmdline").read_bytes()
    assert server.secret_key.encode() not in shown
    assert server.access_key.encode() not in shown


def test_only_loopback_listens(server: RealStore) -> None:
    """The store's port answers on 127.0.0.1 and on no other address of this machine."""
    host, port = server.endpoint.split(":")
    with socket.create_connection((host, int(port)), timeout=2):
        pass
    with pytest.raises(OSError), socket.create_connection(("127.0.0.2", int(port)), timeout=2):  # noqa: PT011
        pass


def test_threads_share_a_store(store: ObjectStore, bucket: str) -> None:
    """Eight threads put and read through one client."""
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(20):
                key = f"t/{number}/{turn}"
                etag = store.put_bytes(bucket, key, key.encode()).etag
                assert store.read(bucket, key, etag=etag) == key.encode()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert len(list(store.list(bucket, prefix="t/"))) == 160


@pytest.mark.parametrize("kind", ["minio", "embedded"])
def test_killed_and_started_again(kind: Kind, tmp_path: Path) -> None:
    """A dead store is StoreUnavailable within seconds; after a restart what was acknowledged is there."""
    with real_store(kind) as server:
        store = server.client()
        store.ensure_bucket("landing")
        put = store.put_bytes("landing", "a.csv", b"kept")
        server.kill()
        for call in (
            store.ping,
            lambda: store.stat("landing", "a.csv"),
            lambda: store.get("landing", "a.csv", tmp_path / "x", etag=put.etag),
            lambda: store.put_bytes("landing", "b", b"x"),
            lambda: list(store.list("landing")),
            lambda: store.ensure_bucket("landing"),
            lambda: next(iter(store.listen("landing", stop=threading.Event()))),
        ):
            started = time.monotonic()
            with pytest.raises(StoreUnavailable) as caught:
                call()
            assert time.monotonic() - started < 20
            assert "X-Amz" not in str(caught.value)
        server.start()
        found = store.stat("landing", "a.csv")
        assert (found.etag, found.version_id) == (put.etag, put.version_id)
        assert [s.etag for s in store.list("landing")] == [put.etag]


def test_nobody_there() -> None:
    """A port where nothing listens is StoreUnavailable."""
    with pytest.raises(StoreUnavailable):
        ObjectStore(f"http://127.0.0.1:{free_port()}", "key", "secret").ping()


def test_the_pinned_minio_holds_notifications_back(running: Callable[[Kind], RealStore]) -> None:
    """The pinned build never flushes its stream: that is told as CannotListen, not as a store that is away."""
    store = running("minio").client()
    store.ensure_bucket("heard")
    with pytest.raises(CannotListen, match="webhook"):
        next(iter(store.listen("heard", stop=threading.Event())))


def test_listening_to_a_hanging_server() -> None:
    """A server that hangs is StoreUnavailable, also for who wants to listen."""
    with real_store("minio") as server:
        store = ObjectStore(server.endpoint, server.access_key, server.secret_key, timeout=2)
        store.ensure_bucket("landing")
        assert server.process
        server.process.send_signal(signal.SIGSTOP)
        with pytest.raises(StoreUnavailable):
            next(iter(store.listen("landing", stop=threading.Event())))


def test_notify_posts_created_keys() -> None:
    """MinIO posts every created key to the webhook with its token, also when that came up after the store."""
    port = free_port()
    with real_store("minio", Webhook(url=f"http://127.0.0.1:{port}/notifications/s3", token="token-x")) as server:
        store = server.client()
        store.ensure_bucket("landing")
        store.notify("landing", "PENSTOCK")
        store.notify("landing", "PENSTOCK")
        store.put_bytes("landing", "lost", b"nobody listens yet")
        with receiving(port) as posts:
            for key in ODD_KEYS:
                store.put_bytes("landing", key, b"x")
            got: list[str] = []
            while len(got) < len(ODD_KEYS):
                token, post = posts.get(timeout=30)
                assert token == "Bearer token-x"
                key = unquote_plus(post["Records"][0]["s3"]["object"]["key"])
                # MinIO may still be trying the first one, or have given it up: the sweep is what is counted on.
                got += [key] if key != "lost" else []
            assert sorted(got) == sorted(ODD_KEYS)
        with pytest.raises(CannotListen):
            store.notify("landing", "OTHER")
        with pytest.raises(ObjectMissing):
            store.notify("no-such-bucket", "PENSTOCK")


@contextmanager
def receiving(port: int) -> Iterator[queue.Queue[tuple[str, Any]]]:
    """What is posted to `port`: the Authorization header and the JSON."""
    posts: queue.Queue[tuple[str, Any]] = queue.Queue()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()
            if body:
                posts.put((self.headers["Authorization"], json.loads(body)))

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Receiver) as receiver:
        receiver.daemon_threads = True
        thread = threading.Thread(target=receiver.serve_forever)
        thread.start()
        try:
            yield posts
        finally:
            receiver.shutdown()
            thread.join(30)


def test_listen_refusals(running: Callable[[Kind], RealStore]) -> None:
    """The embedded store cannot notify; an unknown bucket and wrong keys are told as everywhere."""
    embedded = running("embedded").client()
    embedded.ensure_bucket("quiet")
    with pytest.raises(CannotListen):
        next(iter(embedded.listen("quiet", stop=threading.Event())))
    with pytest.raises(CannotListen):
        embedded.notify("quiet", "PENSTOCK")
    server = running("minio")
    with pytest.raises(ObjectMissing, match="no-such-bucket"):
        next(iter(server.client().listen("no-such-bucket", stop=threading.Event())))
    with pytest.raises(SettingsError):
        next(
            iter(
                ObjectStore(server.endpoint, server.access_key, "wrong-secret").listen("heard", stop=threading.Event())
            )
        )


def _signed_put(server: RealStore, path: str, body: bytes) -> None:
    connection = _signed_request(server, path, body, send=len(body))
    try:
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200, f"answered {answer.status}"
    finally:
        connection.close()


def _signed_request(server: RealStore, path: str, body: bytes, *, send: int) -> http.client.HTTPConnection:
    """A PUT whose path is sent as it is (urllib3 would resolve `..`), with the first `send` bytes of its body."""
    digest, date = hashlib.sha256(body).hexdigest(), datetime.now(UTC)
    headers = sign_v4_s3(
        method="PUT",
        url=SplitResult("http", server.endpoint, path, "", ""),
        region="us-east-1",
        headers={"Host": server.endpoint, "x-amz-content-sha256": digest, "x-amz-date": to_amz_date(date)},
        credentials=Credentials(server.access_key, server.secret_key),
        content_sha256=digest,
        date=date,
    )
    connection = http.client.HTTPConnection(server.endpoint, timeout=30)
    connection.putrequest("PUT", path, skip_host=True)
    for name, value in {**headers, "Content-Length": str(len(body))}.items():
        connection.putheader(name, str(value))
    connection.endheaders()
    connection.send(body[:send])
    return connection


def test_a_bucket_is_asked_for(server: RealStore, store: ObjectStore, bucket: str) -> None:
    """Whether the store is there is one question; whether the bucket is, for these keys, another."""
    store.ping(bucket)
    store.ping()
    with pytest.raises(ObjectMissing, match="nobodys-bucket"):
        store.ping("nobodys-bucket")
    with pytest.raises(SettingsError, match="PENSTOCK_S3_ACCESS_KEY"):
        ObjectStore(server.endpoint, "unknown-key", server.secret_key).ping(bucket)
    with pytest.raises(StoreUnavailable):
        ObjectStore(f"http://127.0.0.1:{free_port()}", "key", "secret").ping(bucket)
