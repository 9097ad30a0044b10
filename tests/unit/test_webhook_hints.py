"""POST /notifications/s3: whoever has the token is answered 200, or 503 where trying again helps."""

from __future__ import annotations

import asyncio
import json
import urllib.parse
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope

from penstock.errors import LedgerUnavailable, StoreUnavailable, Terminal
from penstock.model import Via
from penstock.testing.intake import MemoryIntake
from penstock.webhook import app
from penstock.webhook.app import Limits, create_app
from penstock.webhook.hints import KEPT_PER_MINUTE, MAX_BYTES, MOST_FAILURES, Notifications
from penstock.webhook.problems import LINGER_BYTES
from tests.unit.test_webhook_notifications import body, json_values, record, sns

TOKEN = "notify-token"
NOTHING = {"seen": 0, "removed": 0, "ignored": 0, "skipped": 0, "unusable": 0, "failed": 0}


class Edge:
    """The app with its double."""

    def __init__(self, *, limits: Limits | None = None) -> None:
        self.intake = MemoryIntake()
        self.app = create_app(
            sources=[],
            intake=self.intake,
            resolve_secret=lambda name: "",
            notify_token=TOKEN,
            buckets=["landing", "other"],
            clock=lambda: datetime(2026, 3, 1, 12, tzinfo=UTC),
            version="1",
            limits=limits,
        )

    def notify(
        self, content: bytes | AsyncIterator[bytes], headers: dict[str, str] | None = None, token: str = TOKEN
    ) -> httpx.Response:
        """POST a notification."""

        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://edge") as client:
                sent = {"authorization": f"Bearer {token}", **(headers or {})}
                return await client.post("/notifications/s3", content=content, headers=sent)

        return asyncio.run(send())

    def noted(self, content: bytes, headers: dict[str, str] | None = None) -> dict[str, int]:
        """POST a notification that is answered 200; what is other than 0."""
        found = self.notify(content, headers)
        assert found.status_code == 200, found.text
        assert found.json().keys() == NOTHING.keys()
        return {name: count for name, count in found.json().items() if count}

    def receive(self, receive: Receive, headers: list[tuple[bytes, bytes]] | None = None) -> tuple[int, bytes]:
        """The answer to a request that comes as `receive` gives it."""
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(dict(message))

        scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": "/notifications/s3",
            "raw_path": b"/notifications/s3",
            "query_string": b"",
            "headers": [(b"host", b"edge"), (b"authorization", f"Bearer {TOKEN}".encode()), *(headers or [])],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8484),
        }
        asyncio.run(self.app(scope, receive, send))
        return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])

    def reasons(self) -> list[str]:
        """Why what is kept is kept."""
        return [part.reason for part in self.intake.unusable.values()]


@pytest.fixture
def edge() -> Edge:
    return Edge()


def removal(key: str, bucket: str = "landing") -> dict[str, Any]:
    return record(key, event="s3:ObjectRemoved:Delete", bucket=bucket)


def test_what_was_put_and_what_was_removed_go_to_the_intake(edge: Edge) -> None:
    """Each bucket's keys go together, in the order in which they changed; of other buckets and penstock's own none."""
    found = edge.noted(
        body(
            record("b"),
            removal("gone+1"),
            record("a"),
            record("x", bucket="other"),
            record("y", bucket="foreign"),
            removal("_penstock%2Fdeliveries%2Fz"),
            removal("gone+2"),
            record("s", event="s3:ObjectAccessed:Get"),
        )
    )
    assert found == {"seen": 3, "removed": 2, "ignored": 2, "skipped": 1}
    assert edge.intake.seen_calls == [
        ("landing", ["b", "a"], Via.NOTIFICATION),
        ("other", ["x"], Via.NOTIFICATION),
    ]
    assert edge.intake.removed_calls == [("landing", ["gone 1", "gone 2"], Via.NOTIFICATION)]
    assert edge.intake.unusable == {}


@pytest.mark.parametrize("named", [record("a"), removal("a")], ids=["put", "removed"])
@pytest.mark.parametrize("failure", [StoreUnavailable, LedgerUnavailable])
def test_what_helps_to_send_again_is_503(edge: Edge, named: dict[str, Any], failure: type[Exception]) -> None:
    """While store or ledger are away the sender is asked to come back, for a hint and for what must be kept."""
    edge.intake.failure = failure()
    for content in (body(named), b"rubbish"):
        found = edge.notify(content)
        assert (found.status_code, found.json()["type"]) == (503, "urn:penstock:problem:unavailable")
        assert "retry-after" in found.headers
    edge.intake.failure = None
    assert edge.noted(b"rubbish") == {"unusable": 1}
    assert len(edge.intake.unusable) == 1


def test_a_removal_that_fails_for_good_does_not_hold_the_others(edge: Edge) -> None:
    """One key the intake refuses is counted as failed, one that it skips too; the others are taken."""

    def refuse(keys: Any) -> None:
        if "bad" in keys:
            raise Terminal("no")

    edge.intake.refuse_keys = refuse
    edge.intake.skip_keys["slow"] = StoreUnavailable("not now")
    found = edge.noted(body(removal("a"), removal("bad"), removal("slow"), removal("b")))
    assert found == {"removed": 2, "failed": 2}


def test_rubbish_is_kept_once_and_the_next_one_is_read(edge: Edge, caplog: pytest.LogCaptureFixture) -> None:
    """The same bytes twice are one thing in quarantine and one line in the log; nothing waits behind them."""
    assert edge.noted(b'{"Records": 7}\n') == {"unusable": 1}
    assert edge.noted(b'{"Records": 7}\n') == {"unusable": 1}
    assert edge.noted(body(record("a"), {"eventName": "\x1b[31m", "x": 1}, {}, {})) == {
        "seen": 1,
        "skipped": 1,
        "unusable": 2,
    }
    assert len(edge.reasons()) == 2
    assert sum("cannot be used" in line.getMessage() for line in caplog.records) == 2
    assert edge.noted(body(record("b"))) == {"seen": 1}


def test_a_subscription_is_answered_and_kept(edge: Edge, caplog: pytest.LogCaptureFixture) -> None:
    """An SNS confirmation is 200; the log says what to do, and without the address or its secret."""
    assert edge.noted(sns("confirm", "SubscriptionConfirmation").encode()) == {"unusable": 1}
    assert "open the SubscribeURL yourself" in edge.reasons()[0]
    assert "arn:aws:sns:us-west-2:123456789012:MyTopic" in caplog.text
    assert "169.254" not in caplog.text


def test_rubbish_is_kept_within_bounds(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """So many a minute are kept; the others are counted, and said once. The next minute some more are."""
    now = [100.0]
    monkeypatch.setattr(app, "Notifications", partial(Notifications, monotonic=lambda: now[0]))
    edge = Edge()
    for number in range(3 * KEPT_PER_MINUTE):
        assert edge.noted(f"rubbish {number}".encode()) == {"unusable": 1}
    assert len(edge.reasons()) == KEPT_PER_MINUTE
    assert sum("in a minute" in line.getMessage() for line in caplog.records) == 1
    assert edge.noted(body(*range(50), record("a"))) == {"seen": 1, "unusable": 50}
    now[0] += 61
    assert edge.noted(body(*range(1000, 1050))) == {"unusable": 50}
    assert len(edge.reasons()) == 2 * KEPT_PER_MINUTE


def test_the_same_rubbish_uses_nothing_up(edge: Edge) -> None:
    """Who sends the same again and again does not hide what another sends."""
    for _ in range(3 * KEPT_PER_MINUTE):
        edge.noted(b"same")
    edge.noted(b"other")
    assert len(edge.reasons()) == 2


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
def test_too_much_is_read_over_and_kept_as_such(edge: Edge, declared: bool) -> None:
    """A body beyond the limit is 200; its beginning is kept, with the reason and who finds what it named."""
    content = body(record("a")) + b" " * MAX_BYTES

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(content), 60_000):
            yield content[start : start + 60_000]

    found = edge.notify(content if declared else pieces())
    assert (found.status_code, found.json()) == (200, {**NOTHING, "unusable": 1})
    assert edge.intake.seen_calls == []
    (part,) = edge.intake.unusable.values()
    assert f"At most {MAX_BYTES} bytes" in part.reason
    assert "sweep" in part.reason
    assert b"s3:ObjectCreated:Put" in part.part
    assert len(part.part) < 5_000


def test_an_endless_body_is_answered() -> None:
    """Of a body without an end no more is read over than the bound."""
    edge = Edge()
    given = 0

    async def receive() -> Message:
        nonlocal given
        given += 1
        return {"type": "http.request", "body": b"x" * 100_000, "more_body": True}

    status, answer = edge.receive(receive)
    assert (status, json.loads(answer)) == (200, {**NOTHING, "unusable": 1})
    assert given * 100_000 < MAX_BYTES + LINGER_BYTES + 200_001


def test_a_body_that_does_not_come_to_its_end_is_answered() -> None:
    """A sender that stands still is 200 after the time a body has, and that is one thing in quarantine."""
    edge = Edge(limits=Limits(read_seconds=0.01))

    async def receive() -> Message:
        await asyncio.sleep(3600)
        raise AssertionError("nobody waits so long")

    for _ in range(2):
        status, answer = edge.receive(receive)
        assert (status, json.loads(answer)["unusable"]) == (200, 1)
    assert len(edge.reasons()) == 1


def test_a_connection_that_breaks_is_nothing_to_keep(edge: Edge) -> None:
    """The sender, who had no answer, sends it again."""

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    status, _ = edge.receive(receive)
    assert (status, edge.reasons()) == (200, [])


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([(b"content-length", b"ten")], id="length-no-number"),
        pytest.param([(b"content-length", b"1"), (b"content-length", b"2")], id="two-lengths"),
        pytest.param([(b"content-encoding", b"gzip")], id="gzip"),
        pytest.param([(b"content-encoding", b"x\xff")], id="encoding-unheard-of"),
        pytest.param([(b"content-type", b"text/\xff; charset=none")], id="type"),
        pytest.param([(b"expect", b"x"), (b"transfer-encoding", b"y")], id="transfer"),
    ],
)
def test_wrong_headers_are_answered(edge: Edge, headers: list[tuple[bytes, bytes]]) -> None:
    """Whatever the request's head says, who has the token is answered 200 and what cannot be read is kept."""
    parts = iter([{"type": "http.request", "body": b"\x1f\x8b\x08rubbish", "more_body": False}])

    async def receive() -> Message:
        return next(parts, {"type": "http.disconnect"})

    status, _ = edge.receive(receive, headers)
    assert (status, len(edge.reasons())) == (200, 1)


def test_too_many_bodies_at_once_are_503() -> None:
    """Where there is no memory for it now, trying again helps."""
    edge = Edge(limits=Limits(memory_bytes=40, free_bytes=0))
    found = edge.notify(body(record("a")))
    assert (found.status_code, found.json()["type"]) == (503, "urn:penstock:problem:busy")


def test_what_keeping_raises_is_not_the_senders_fault(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect there is logged, and the notification is answered all the same."""

    def broken(parts: Any) -> int:
        raise RuntimeError("a defect")

    monkeypatch.setattr(edge.intake, "keep_unusable", broken)
    assert edge.noted(body(record("a"), {})) == {"seen": 1, "unusable": 1}


SHARED: Callable[[], Edge] = lambda edge=Edge(): edge  # type: ignore[misc] # noqa: E731, B008


@given(st.binary(max_size=300))
def test_any_bytes_are_200(rubbish: bytes) -> None:
    """Whoever has the token may send what it likes: it is never refused."""
    SHARED().noted(rubbish)


@given(json_values)
def test_any_json_is_200(value: Any) -> None:
    """Documents of the right words in the wrong shape are never refused, inside SNS neither."""
    text = json.dumps(value)
    SHARED().noted(text.encode())
    SHARED().noted(sns(text).encode())
    SHARED().noted(json.dumps({"Records": [value]}).encode())


@pytest.mark.parametrize("token", ["", "wrong", TOKEN[:-1]])
def test_without_the_token_nothing_is_kept(edge: Edge, token: str) -> None:
    """A stranger's rubbish is 401 and leaves no trace in the ledger."""
    assert edge.notify(b"rubbish", token=token).status_code == 401
    assert (edge.reasons(), edge.intake.seen_calls) == ([], [])


def test_an_intake_that_fails_on_everything_is_not_asked_for_each_key(
    edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    """After so many failures the rest is left to the sweep, and the log has a line or two of it all."""

    def refuse(keys: Any) -> None:
        raise Terminal("no")

    edge.intake.refuse_keys = refuse
    assert edge.noted(body(*[record(f"k{n}") for n in range(1000)])) == {"failed": 1000}
    assert len(edge.intake.seen_calls) == MOST_FAILURES
    assert len(caplog.records) == 2


def test_the_few_that_fail_are_found_among_many(edge: Edge) -> None:
    """Each of the others is taken, in the order in which they changed, with few questions."""

    def refuse(keys: Any) -> None:
        if not {"k17", "k940"}.isdisjoint(keys):
            raise Terminal("no")

    edge.intake.refuse_keys = refuse
    assert edge.noted(body(*[record(f"k{n}") for n in range(1000)])) == {"seen": 998, "failed": 2}
    taken = [keys for _, keys, _ in edge.intake.seen_calls if {"k17", "k940"}.isdisjoint(keys)]
    assert [key for keys in taken for key in keys] == [f"k{n}" for n in range(1000) if n not in (17, 940)]
    assert len(edge.intake.seen_calls) < 50


def test_a_key_in_the_log_is_escaped(edge: Edge, caplog: pytest.LogCaptureFixture) -> None:
    """Newlines, control sequences and what turns text around are shown, and do nothing."""
    key = "a\x1b[31m\r\nb\u202e.csv"
    edge.intake.skip_keys[key] = StoreUnavailable("not now")
    assert edge.noted(body(record(urllib.parse.quote(key)))) == {"failed": 1}
    [line] = [record.getMessage() for record in caplog.records]
    assert line.isprintable()
    assert "x1b" in line
