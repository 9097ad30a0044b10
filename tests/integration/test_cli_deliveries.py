"""`penstock deliveries` on a real project folder, a real ledger, a real store and real HTTP servers."""

from __future__ import annotations

import json
import os
import pty
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from penstock.cli.main import cli
from penstock.declarations import Dataset
from penstock.landing import Landing
from penstock.ledger import Ledger
from penstock.model import Delivery, Outcome, State
from penstock.notifications import Unusable
from penstock.sources import Source
from penstock.verification import standard_webhooks
from penstock.webhook.rejected import make_rejected
from penstock.webhook.verify import verify
from tests.loading import another_project
from tests.real_store import RealStore, real_store

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SHOP = Source(name="shop", dataset="sales", verify=standard_webhooks("SHOP_SECRET"))
SOURCES = """
from penstock import Source
from penstock.verification import bearer, standard_webhooks
SOURCE = Source(name="{name}", dataset="sales", verify={verify}, headers=["x-shop", "host", "content-encoding"])
"""
ANSI = b'{"name": "\x1b]0;owned\x07\x1b[31mred\xc2\x9b2J\xe2\x80\xae"}'
JSON = "application/json"

_buckets = count(1)


@pytest.fixture(scope="module")
def server() -> Iterator[RealStore]:
    with real_store("embedded") as store:
        yield store


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No setting of the machine's own, and each test's declarations are importable in that test only."""
    for name in list(os.environ):
        if name.startswith("PENSTOCK_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("SHOP_SECRET", SECRET)
    monkeypatch.setenv("BANK_TOKEN", "the-token-of-the-bank")
    with another_project():
        yield


class Desk:
    """A project with two sources, what it landed, and the command line."""

    def __init__(self, folder: Path, server: RealStore) -> None:
        self.folder = folder
        self.bucket = f"deliveries-{next(_buckets)}"
        (folder / "flows").mkdir()
        (folder / "flows" / "sales.py").write_text('from penstock import Dataset\nDATASET = Dataset(name="sales")\n')
        (folder / "webhook").mkdir()
        for name, how in (("shop", 'standard_webhooks("SHOP_SECRET")'), ("bank", 'bearer("BANK_TOKEN")')):
            (folder / "webhook" / f"{name}.py").write_text(SOURCES.format(name=name, verify=how))
        (folder / ".env").write_text(
            f"PENSTOCK_PROJECT=desk\nPENSTOCK_S3_ENDPOINT={server.endpoint}\nPENSTOCK_S3_ACCESS_KEY={server.access_key}\n"
            f"PENSTOCK_S3_SECRET_KEY={server.secret_key}\nPENSTOCK_BUCKET={self.bucket}\n"
        )
        self.store = server.client()
        self.store.ensure_bucket(self.bucket)
        self.now = datetime.now(UTC)
        self.ledger = Ledger(f"sqlite:///{folder / '.penstock' / 'ledger.db'}", project="desk", clock=lambda: self.now)
        self.ledger.migrate(lock_folder=folder / ".penstock")
        self.landing = Landing(
            store=self.store, ledger=self.ledger, datasets=[Dataset(name="sales")], bucket=self.bucket
        )

    def deliver(self, id: str, body: bytes = b"{}", *, source: str = "shop", **more: Any) -> Delivery:
        """Accept one, in an envelope of its own."""
        found = Delivery(
            **{
                "id": id,
                "source": source,
                "dataset": "sales",
                "received_at": self.now,
                "content_type": JSON,
                "headers": {},
                "body": body,
                "request": f"r-{id}",
                **more,
            }
        )
        assert self.landing.accept([found]) == [False]
        self.now += timedelta(seconds=1)
        return found

    def load(self) -> None:
        """What is pending is loaded."""
        lease = self.ledger.work.acquire("sales", holder="x", ttl=timedelta(seconds=30))
        assert lease is not None
        refs = self.ledger.work.claim(lease, run="r", max_objects=100, max_bytes=10**9)
        self.ledger.work.settle(lease, [Outcome(ref=ref, state=State.LOADED, rows=1) for ref in refs], run="r")
        assert self.ledger.work.finish(lease)

    def refuse(self, body: bytes = b'{"a": 1}', *, size: int | None = None) -> None:
        """Keep one that was refused."""
        headers = [
            (b"content-encoding", b"gzip"),
            (b"webhook-id", b"w-1"),
            (b"webhook-signature", b"v1,forged"),
            (b"content-type", JSON.encode()),
        ]
        rejected = make_rejected(
            SHOP,
            at=self.now,
            kind="unverified",
            detail="The request is not signed as this source says.",
            address="192.0.2.1",
            request="r-refused",
            headers=headers,
            body=body,
            size=size,
        )
        self.ledger.rejections.keep([(rejected, self.now + timedelta(days=1))])

    def run(self, *words: str, columns: int = 160) -> Result:
        """One command."""
        return CliRunner(env={"COLUMNS": str(columns)}).invoke(
            cli, ["--project", str(self.folder), "deliveries", *words], standalone_mode=False
        )

    def why(self, key: str) -> Result:
        """What `penstock why` says of it."""
        return CliRunner(env={"COLUMNS": "160"}).invoke(cli, ["--project", str(self.folder), "why", key])

    def facts(self, *words: str) -> Any:
        """What a command says with --json."""
        result = self.run(*words, "--json")
        assert result.exception is None, result.output
        return json.loads(result.stdout)

    def program(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        """The command as a process of its own."""
        argv = [sys.executable, "-m", "penstock.cli", "--project", str(self.folder), "deliveries", *words]
        return subprocess.run(argv, capture_output=True, timeout=60, check=False)

    def on_terminal(self, *words: str) -> tuple[int, bytes]:
        """The command with a terminal for its output, and what that was sent."""
        argv = [sys.executable, "-m", "penstock.cli", "--project", str(self.folder), "deliveries", *words]
        near, far = pty.openpty()
        told = []

        def read() -> None:
            while True:
                try:
                    if not (chunk := os.read(near, 65_536)):
                        return
                except OSError:  # the last writer is gone
                    return
                told.append(chunk)

        reader = threading.Thread(target=read)
        reader.start()
        try:
            ended = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=far, stderr=far, timeout=60, check=False)
        finally:
            os.close(far)
            reader.join(30)
            os.close(near)
        return ended.returncode, b"".join(told)


@pytest.fixture
def desk(tmp_path: Path, server: RealStore) -> Iterator[Desk]:
    made = Desk(tmp_path, server)
    yield made
    made.ledger.close()


class Elsewhere:
    """Another HTTP server: what it was sent, and what it answers."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.status = 200
        self.headers: dict[str, str] = {}
        self.answer: Callable[[Any], None] = lambda out: None
        self.url = ""


@contextmanager
def elsewhere() -> Iterator[Elsewhere]:
    found = Elsewhere()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            found.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(found.status)
            for name, value in found.headers.items():
                self.send_header(name, value)
            self.end_headers()
            found.answer(self.wfile)

        do_GET = do_POST

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_port}/in"
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_ls(desk: Desk) -> None:
    """The newest come first with their facts, narrowed and a page at a time, and `more` says when there are more."""
    for number in range(4):
        desk.deliver(f"d{number}", source="bank" if number == 2 else "shop")
    told = desk.run("ls").stdout
    assert [told.index(f"d{number}") for number in (3, 2, 1, 0)] == sorted(told.index(f"d{n}") for n in range(4))
    assert [one["delivery"] for one in desk.facts("ls", "--source", "shop")["deliveries"]] == ["d3", "d1", "d0"]
    first = desk.facts("ls", "--limit", "3")
    assert first["more"] is True
    assert f"--before {first['deliveries'][-1]['number']}" in desk.run("ls", "--limit", "3").stderr
    rest = desk.facts("ls", "--before", str(first["deliveries"][-1]["number"]))
    assert ([one["delivery"] for one in rest["deliveries"]], rest["more"]) == (["d0"], False)
    assert desk.facts("ls", "--state", "loaded")["deliveries"] == []
    assert desk.facts("ls", "--dataset", "sales", "--since", "2h")["more"] is False
    assert "Nothing was accepted so." in desk.run("ls", "--since", "2090-01-01").stdout
    desk.load()
    key = first["deliveries"][0]["key"]
    desk.ledger.archive.retire(desk.ledger.archive.of_keys([(desk.bucket, key)]))
    assert len(desk.facts("ls")["deliveries"]) == 3
    assert "archived, loaded" in desk.run("ls", "--archived").stdout


@pytest.mark.parametrize(
    "words",
    [
        ["ls", "--limit", "0"],
        ["ls", "--before", "99"],
        ["ls", "--source", "nope"],
        ["ls", "--source", "nope", "--rejected", "--json"],
        ["ls", "--rejected", "--dataset", "sales"],
        ["show"],
        ["show", "d", "--body", "--json"],
        ["replay"],
        ["replay", "d", "--unsigned"],
        ["replay", "d", "--force", "--to", "http://127.0.0.1/"],
        ["replay", "d", "--to", "file:///etc/passwd"],
        ["replay", "d", "--to", "http://ann:hush@127.0.0.1/"],
        ["replay", "d", "--to", "http://127.0.0.1:port/"],
        ["replay", "d", "--to", "https:///nowhere"],
        ["replay", "rejected/1"],
        ["replay", "1", "--rejected"],
    ],
    ids=" ".join,
)
def test_usage_errors(desk: Desk, words: list[str]) -> None:
    """What does not say enough, says nonsense, or names a URL that is not posted to is a usage error."""
    desk.deliver("d")
    desk.refuse()
    result = desk.run(*words)
    assert isinstance(result.exception, click.UsageError), result
    assert "hush" not in result.exception.format_message()


def test_show(desk: Desk) -> None:
    """By id, request and full name: facts, kept headers and the body."""
    found = desk.deliver("d", b'{"a": [1, 2]}', headers={"x-shop": "seven"})
    for name in ("d", "shop:d", "r-d", desk.facts("show", "d")["name"]):
        told = desk.run("show", name).stdout
        for word in (
            "shop:d",
            "pending",
            "request r-d",
            "x-shop: seven",
            "content type application/json",
            '{"a": [1, 2]}',
        ):
            assert word in told, (name, word)
    facts = desk.facts("show", "d")
    assert (facts["body"], facts["headers"], facts["content_type"]) == ('{"a": [1, 2]}', [["x-shop", "seven"]], JSON)
    assert desk.run("show", "d", "--body").stdout_bytes == found.body
    code, seen = desk.on_terminal("show", "d")
    assert (code, b'"a": [\r\n    1,' in seen) == (0, True), seen
    assert "nothing of the name" in str(desk.run("show", "x").exception)


def test_an_id_of_several_sources_is_not_guessed(desk: Desk) -> None:
    """Each is named; --source, or source:id, says which; of a request's deliveries too."""
    desk.deliver("42", b'"of the shop"')
    desk.deliver("42", b'"of the bank"', source="bank")
    for words in (["show", "42"], ["show", "42", "--body"], ["replay", "42"]):
        error = str(desk.run(*words).exception)
        assert "shop:42" in error, words
        assert "bank:42" in error, words
    assert desk.run("show", "42", "--source", "bank", "--body").stdout == '"of the bank"'
    assert desk.run("show", "shop:42", "--body").stdout == '"of the shop"'
    for id in ("a", "b"):
        desk.deliver(id, request="one-request")
    assert "shop:a" in str(desk.run("show", "one-request").exception)


def test_a_body_does_nothing_to_a_terminal(desk: Desk) -> None:
    """What a terminal would obey is shown escaped, in facts as well, and --body is not written to one."""
    desk.deliver("d", ANSI, content_type="\x1b[2Jx", headers={"x-shop": "\x1b]52;c;aGk=\x07\nforged: line"})
    forged = "id\x1b]0;owned\x07"  # no sender can have one like it, but who writes to the bucket can
    desk.deliver(forged)
    for words in (["show", "d"], ["ls"], ["show", forged], ["show", "d", "--body"]):
        _, seen = desk.on_terminal(*words)
        for what in (b"\x1b]", b"\x1b[2J", b"\x1b[31mred", b"\x07", b"\xc2\x9b", b"\xe2\x80\xae", b"\nforged:"):
            assert what not in seen, (words, seen)
    shown = desk.run("show", "d").stdout
    assert "\x1b" not in shown
    assert r"\x1b[31mred\x9b2J\u202e" in shown
    assert desk.facts("show", "d")["body"] == ANSI.decode()
    code, seen = desk.on_terminal("show", "d", "--body")
    assert (code, b"send it to a file" in seen) == (1, True)
    assert desk.program("show", "d", "--body").stdout == ANSI
    desk.deliver("plain", '{"a":\n\t"ü"}'.encode())
    assert desk.on_terminal("show", "plain", "--body")[0] == 0


def test_a_binary_body(desk: Desk) -> None:
    """Its bytes come out as they went in; shown it is escaped and cut, with how much is left."""
    body = bytes(range(256)) * 100
    desk.deliver("d", body, content_type="application/octet-stream")
    assert desk.program("show", "d", "--body").stdout == body
    shown = desk.run("show", "d").stdout
    assert r"\x00\x01" in shown
    assert "\x00" not in shown
    assert "21,504 bytes more" in shown
    assert len(shown) < 30_000
    assert "body_base64" in desk.facts("show", "d")
    desk.deliver("long", b'"' + b"x" * 100_000 + b'"')
    assert "95,906 bytes more" in desk.run("show", "long").stdout


def test_an_envelope_that_is_gone(desk: Desk) -> None:
    """Facts are shown and what became of the body is said; what needs the body fails."""
    desk.deliver("d")
    facts = desk.facts("show", "d")
    desk.store.remove_versions(desk.bucket, [(facts["key"], None)])
    shown = desk.run("show", "d")
    assert (shown.exception, "shop:d" in shown.stdout) == (None, True)
    assert "is not in the store any more" in shown.stderr
    assert "is not in the store any more" in desk.facts("show", "d")["trouble"]
    assert "is not in the store any more" in str(desk.run("show", "d", "--body").exception)
    with elsewhere() as other:
        failed = desk.run("replay", "d", "--to", other.url)
        assert (failed.exit_code, "is not in the store any more" in failed.stderr) == (1, True)
        assert other.requests == []
    desk.load()
    desk.ledger.archive.retire(desk.ledger.archive.of_keys([(desk.bucket, facts["key"])]))
    assert "retention removed" in desk.run("show", "d").stderr


def test_an_envelope_that_somebody_wrote_over(desk: Desk) -> None:
    """Other bytes under an envelope's key are never shown as the delivery that was accepted."""
    desk.deliver("d", b'"true"')
    facts = desk.facts("show", "d")
    written = desk.store.read(desk.bucket, facts["key"]).replace(b"true", b"fals")
    desk.store.put_bytes(desk.bucket, facts["key"], written)
    assert desk.run("show", "d", "--body").exception is not None
    assert "fals" not in desk.run("show", "d").output


def test_into_the_pipe(desk: Desk) -> None:
    """Without --to they are loaded again as `penstock replay` does, one or all of a request; others are not touched."""
    for id in ("a", "b"):
        desk.deliver(id, request="one-request")
    desk.deliver("c")
    desk.load()
    refused = desk.run("replay", "a")
    assert ("(shop:a)" in refused.stderr, "--force" in refused.stderr, "_penstock" in refused.output) == (
        True,
        True,
        False,
    )
    assert desk.facts("replay", "one-request", "--force", "--dry-run")["would_replay"] == 2
    done = desk.facts("replay", "one-request", "a", "--force")
    assert (done["replayed"], sorted(done["first"])) == (2, ["shop:a", "shop:b"])
    assert [one["delivery"] for one in desk.facts("ls", "--state", "pending")["deliveries"]] == ["b", "a"]
    assert desk.run("replay", "c", "nothing", "--force").exception is not None
    assert [one["delivery"] for one in desk.facts("ls", "--state", "loaded")["deliveries"]] == ["c"]


def test_to_another_url(desk: Desk) -> None:
    """Body, type and kept headers arrive with a signature made now, which verifies; nothing of the ledger changes."""
    body = b'{"a": 1}'
    kept = {"x-shop": "seven", "host": "evil.example", "content-encoding": "gzip", "webhook-signature": "v1,old"}
    desk.deliver("d", body, headers=kept)
    with elsewhere() as other:
        other.answer = lambda out: out.write(b"got \x1b[31mit" + b"x" * 100_000)
        result = desk.run("replay", "d", "--to", other.url + "?key=hush")
        ((path, headers, sent),) = other.requests
        assert (result.exception, path, sent) == (None, "/in?key=hush", body)
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        assert verify(SHOP.verify, [SECRET], raw, sent, datetime.now(UTC)) == "d"
        assert (headers["x-shop"], headers["content-type"]) == ("seven", JSON)
        assert headers["host"] == other.url.split("/")[2]
        assert "content-encoding" not in headers
        assert "v1,old" not in headers["webhook-signature"]
        assert r"200: shop:d to" in result.stdout
        assert r"got \x1b[31mit" in result.stdout
        assert len(result.stdout) < 1500
        assert "hush" not in result.output
        assert desk.run("replay", "d", "--to", other.url, "--unsigned").exception is None
        assert not [name for name in other.requests[1][1] if name.startswith("webhook-")]
        dry = desk.run("replay", "d", "--to", other.url, "--dry-run")
        assert "Would be posted" in dry.stdout
        assert len(other.requests) == 2
    assert [one["state"] for one in desk.facts("ls")["deliveries"]] == ["pending"]


def test_no_redirect_is_followed_and_no_proxy_asked(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A redirect is shown with where it leads, and is a failure; the environment's proxy sees nothing."""
    desk.deliver("d")
    with elsewhere() as other, elsewhere() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        for status in (301, 302, 307, 308):
            other.status, other.headers = status, {"Location": f"{proxy.url}/\xa0\xad"}
            result = desk.run("replay", "d", "--to", other.url)
            assert f"{status}, to {proxy.url}" in result.stdout
            assert "not followed" in result.stdout
            assert r"/\xa0\xad" in result.stdout
            assert isinstance(result.exception, SystemExit)
            assert result.exit_code == 1
        assert proxy.requests == []
        assert len(other.requests) == 4


@pytest.mark.parametrize("status", [400, 404, 500, 503])
def test_an_answer_that_is_no_success(desk: Desk, status: int) -> None:
    """Exit code 1, the answer shown, and the others posted all the same."""
    for id in "de":
        desk.deliver(id)
    with elsewhere() as other:
        other.status = status
        result = desk.run("replay", "d", "e", "--to", other.url)
        assert (result.exit_code, result.stdout.count(f"{status}: ")) == (1, 2)
    nobody = desk.run("replay", "d", "--to", other.url)
    assert (nobody.exit_code, "does not answer" in nobody.stderr) == (1, True)


def test_one_that_cannot_be_posted_keeps_no_other_back(desk: Desk) -> None:
    """Each is posted and told of, as facts too, whatever became of those before it; exit code 1."""
    for id in "def":
        desk.deliver(id)
    desk.deliver("token", source="bank")
    desk.store.remove_versions(desk.bucket, [(desk.facts("show", "d")["key"], None)])
    with elsewhere() as other:
        result = desk.run("replay", "d", "e", "f", "--to", other.url, "--json")
        assert [headers["webhook-id"] for _, headers, _ in other.requests] == ["e", "f"]
        told = json.loads(result.stdout)["posted"]
        assert [(one["id"], one.get("status"), "error" in one) for one in told] == [
            ("shop:d", None, True),
            ("shop:e", 200, False),
            ("shop:f", 200, False),
        ]
        assert "is not in the store any more" in told[0]["error"]
        plain = desk.run("replay", "d", "e", "--to", other.url)
        assert ("Not posted: shop:d: " in plain.stderr, "200: shop:e to" in plain.stdout) == (True, True)
        assert (result.exit_code, plain.exit_code) == (1, 1)
        assert desk.run("replay", "d", "e", "--to", other.url, "--dry-run").exit_code == 1
    away = desk.run("replay", "token", "e", "f", "--to", "http://192.0.2.1.invalid/", "--json")
    assert ["error" in one for one in json.loads(away.stdout)["posted"]] == [True] * 3


def test_an_answer_without_end(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that never ends is read no further than is shown; one that drips is left when the time is over."""
    desk.deliver("d")
    monkeypatch.setattr("penstock.cli.post_to._ALL_SECONDS", 0.5)
    ended = threading.Event()

    def flood(out: Any) -> None:
        try:
            while True:
                out.write(b"x" * 65_536)
        except OSError:
            ended.set()

    def drip(out: Any) -> None:
        try:
            while True:
                out.write(b"y")
                ended.wait(0.05)
        except OSError:
            ended.set()

    with elsewhere() as other:
        for answer in (flood, drip):
            other.answer = answer
            ended.clear()
            result = desk.run("replay", "d", "--to", other.url)
            assert (result.exception, len(result.stdout) < 1000) == (None, True)
            assert result.stdout.count("y") < 200
            assert ended.wait(30)


def test_a_secret_that_is_the_signature_stays_here(desk: Desk) -> None:
    """A token goes to this machine only: elsewhere the command says --unsigned, and sends nothing."""
    desk.deliver("d", source="bank")
    for url in ("http://example.invalid/", "http://127.0.0.1.example.invalid/", "http://192.0.2.1/"):
        failed = desk.run("replay", "d", "--to", url)
        assert (failed.exit_code, "--unsigned" in failed.stderr) == (1, True), url
        assert "the-token" not in failed.output
    with elsewhere() as other:
        assert desk.run("replay", "d", "--to", other.url).exception is None
        assert other.requests[0][1]["authorization"] == "Bearer the-token-of-the-bank"
        assert desk.run("replay", "d", "--to", other.url, "--unsigned").exception is None
        assert "authorization" not in other.requests[1][1]


def test_a_source_that_is_no_longer_declared(desk: Desk) -> None:
    """It is said, and --unsigned posts all the same."""
    desk.deliver("d", source="gone", headers={"x-own-signature": "old"})
    with elsewhere() as other:
        assert "--unsigned" in desk.run("replay", "d", "--to", other.url).stderr
        assert desk.run("replay", "d", "--to", other.url, "--unsigned").exception is None
        assert "x-own-signature" not in other.requests[0][1]


def test_what_was_refused(desk: Desk) -> None:
    """It is listed with why, shown without its signature, and sent on unsigned unless somebody vouches for it."""
    desk.refuse()
    (listed,) = desk.facts("ls", "--rejected")["rejected"]
    assert (listed["kind"], listed["request"], listed["address"]) == ("unverified", "r-refused", "192.0.2.1")
    assert "unverified" in desk.run("ls", "--rejected").stdout
    for words in (["rejected/1"], ["1", "--rejected"], ["r-refused"]):
        shown = desk.run("show", *words)
        for word in ("not signed as this source says", "webhook-id: w-1", "webhook-signature: (redacted)", '{"a": 1}'):
            assert word in shown.stdout, words
    assert "forged" not in shown.stdout
    assert desk.facts("show", "rejected/1")["body"] == '{"a": 1}'
    with elsewhere() as other:
        assert desk.run("replay", "rejected/1", "--to", other.url).exception is None
        assert desk.run("replay", "rejected/1", "--to", other.url, "--signed").exception is None
        unsigned, signed = (headers for _, headers, _ in other.requests)
        assert "webhook-signature" not in unsigned
        assert unsigned["content-encoding"] == "gzip", "its body is kept as it came"
        raw = [(name.encode(), value.encode()) for name, value in signed.items()]
        assert verify(SHOP.verify, [SECRET], raw, b'{"a": 1}', datetime.now(UTC)) != "w-1"
    assert desk.facts("ls")["deliveries"] == []


def test_what_was_refused_and_is_not_whole(desk: Desk) -> None:
    """Only its beginning is there, which is said and not sent."""
    desk.refuse(b"[1, 2", size=10_000_000)
    assert "of which 5 are kept" in desk.run("show", "rejected/1").stdout
    with elsewhere() as other:
        assert "only the first 5" in desk.run("replay", "rejected/1", "--to", other.url).stderr
        assert other.requests == []


def test_an_id_is_not_broken(desk: Desk) -> None:
    """On a narrow terminal too each id stands whole on its line; for what was refused, other columns go first."""
    ids = ["0f9d0b3e-6a0c-4b86-9d4e-2f8f6c9b1a11", "https://shop.example/orders#" + "x" * 100]
    for id in ids:
        desk.deliver(id)
    desk.refuse()
    for columns in (40, 80):
        told = desk.run("ls", columns=columns).stdout
        assert [id for id in ids if id in told] == ids, columns
    wide, narrow = (desk.run("ls", "--rejected", columns=columns).stdout for columns in (160, 60))
    assert ("192.0.2.1" in wide, "r-refused" in wide) == (True, True)
    assert ("192.0.2.1" in narrow, "r-refused" in narrow) == (False, False)
    assert "rejected/1" in narrow
    assert max(map(len, narrow.splitlines())) <= 60


def test_a_source_that_was_never_there(desk: Desk) -> None:
    """It is said, with those that are; a declared one without deliveries, or one whose file is gone, is not wrong."""
    assert "bank, shop" in str(desk.run("ls", "--source", "nope").exception)
    assert "Nothing was accepted so." in desk.run("ls", "--source", "bank").stdout
    desk.deliver("d", source="gone")
    assert [one["delivery"] for one in desk.facts("ls", "--source", "gone")["deliveries"]] == ["d"]
    assert "Nothing was accepted so." in desk.run("ls", "--source", "gone", "--since", "2090-01-01").stdout


def test_a_name_that_means_nothing(desk: Desk) -> None:
    """What a name must be is said, and what the numbers of --json are for; an id of digits is an id."""
    desk.deliver("d")
    for id, says in (("1", "only for --before"), ("x", "a request's id or rejected/N")):
        assert says in str(desk.run("show", id).exception), id
    assert "--before" not in str(desk.run("show", "x").exception)
    desk.deliver("1")
    assert "shop:1" in desk.run("show", "1").stdout


def test_what_is_advised_can_be_done(desk: Desk) -> None:
    """`show` and `why` of a delivery end with a command that loads it again, whatever characters its id has."""
    for id in ("d", "it's #1; $(x)"):
        desk.deliver(id)
        desk.load()
        for result in (desk.run("show", id), desk.why(id)):
            (advice,) = [line for line in result.stdout.splitlines() if line.startswith("  next: ")]
            words = shlex.split(advice.rpartition("penstock ")[2])
            assert words == ["deliveries", "replay", f"shop:{id}", "--force"]
        assert desk.facts(*words[1:])["replayed"] == 1
        desk.load()


def test_why_knows_what_was_refused(desk: Desk) -> None:
    """By its request and by its number: why, and the command that shows it; also beside what the request brought."""
    desk.refuse()
    for key in ("r-refused", "rejected/1"):
        told = desk.why(key)
        assert told.exit_code == 0, key
        for word in ("unverified", "not signed as this source says", "next: penstock deliveries show rejected/1"):
            assert word in told.stdout, key
    facts = CliRunner().invoke(cli, ["--project", str(desk.folder), "why", "r-refused", "--json"])
    (one,) = json.loads(facts.stdout)
    assert (one["id"], one["state"], one["kind"]) == ("rejected/1", "refused", "unverified")
    desk.deliver("d", request="r-refused")
    both = desk.why("r-refused").stdout
    assert ("delivery d," in both, "rejected/1" in both) == (True, True)
    for key in ("rejected/2", "rejected/x", "2"):
        assert desk.why(key).exit_code == 1, key


def test_why_of_a_notification_that_is_no_use(desk: Desk) -> None:
    """It is no object: what is advised is not to load it again, and what is advised works."""
    assert desk.ledger.unusable.keep([Unusable(reason="it is no JSON", part=b"<xml/>")]) == 1
    (story,) = desk.ledger.facts.by_state(State.QUARANTINED)
    told = desk.why(story.name).stdout
    assert "replay" not in told
    assert "penstock sweep" in told
    words = shlex.split(told.rpartition("penstock ")[2])
    assert words[:2] == ["quarantine", "drop"]
    assert CliRunner().invoke(cli, ["--project", str(desk.folder), *words]).exit_code == 0
    assert "replay" not in desk.why(story.name).stdout


def test_help_is_there(desk: Desk) -> None:
    """The command stands in penstock's help, and its own help says what --to does."""
    assert "deliveries" in CliRunner().invoke(cli, ["--help"]).output
    told = " ".join(desk.run("replay", "--help").output.split())
    assert "A redirect is shown and not followed" in told
