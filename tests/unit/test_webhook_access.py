"""The outermost layer: ids, security headers, and the line of each request."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from io import StringIO
from itertools import count
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from penstock.sources import Source
from penstock.testing.intake import MemoryIntake
from penstock.verification import unverified
from penstock.webhook.access import (
    FACTS,
    LOGGER,
    REQUEST_ID,
    SECURITY_HEADERS,
    Access,
    start_access_log,
)
from penstock.webhook.app import create_app

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PROXIES = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("2001:db8::/64"))
ROUTES = {"/healthz", "/readyz", "/metrics", "/openapi.json", "/notifications/s3", "/hooks/{source}", "/hooks/shop"}


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(record.getMessage())


@pytest.fixture(autouse=True)
def logger_as_it_was() -> Iterator[None]:
    """What a test sets of the logger holds for that test only."""
    log = logging.getLogger(LOGGER)
    before = log.level, log.propagate
    yield
    log.setLevel(before[0])
    log.propagate = before[1]


@pytest.fixture
def lines() -> Iterator[list[str]]:
    handler, log = _Lines(), logging.getLogger(LOGGER)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield handler.found
    log.removeHandler(handler)


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads the body, and gives the request's id back."""
    more = True
    while more:
        more = (await receive()).get("more_body", False)
    await PlainTextResponse(scope[REQUEST_ID])(scope, receive, send)


def access(app: ASGIApp, **settings: Any) -> Access:
    made, ticks = count(1), count()
    return Access(
        app,
        **{
            "unique": lambda: f"made-{next(made)}",
            "clock": lambda: NOW,
            "seconds": lambda: next(ticks) * 0.25,
            "trusted": PROXIES,
            "sources": ["shop"],
            **settings,
        },
    )


def ask(app: ASGIApp, method: str = "GET", path: str = "/", *, client: str = "192.0.2.7", **parts: Any) -> Any:
    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(app, client=(client, 1), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://edge") as asking:
            return await asking.request(method, path, **parts)

    return asyncio.run(run())


def raw(app: ASGIApp, **parts: Any) -> list[Message]:
    """Runs a request no client library would send; returns what was sent back."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "client": ("192.0.2.7", 1), **parts}
    asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]
    return sent


@pytest.mark.parametrize(
    ("client", "given", "taken"),
    [
        ("10.1.2.3", "abc-1.2_Z", True),
        ("10.1.2.3", "x" * 64, True),
        ("2001:db8::1", "abc", True),
        ("192.0.2.7", "abc", False),
        ("127.0.0.1", "abc", False),
        ("10.1.2.3", "x" * 65, False),
        ("10.1.2.3", "", False),
        ("10.1.2.3", "a b", False),
        ("10.1.2.3", "a\x1b[31m", False),
        ("10.1.2.3", 'a","status":200', False),
        ("10.1.2.3", "\xfc", False),
        ("testclient", "abc", False),
    ],
)
def test_an_id_is_taken_from_a_trusted_proxy_only(client: str, given: str, taken: bool) -> None:
    """An id of the right form from a trusted peer stays; any other request gets a new one; both are answered."""
    found = ask(access(echo), client=client, headers={b"x-request-id": given.encode("latin-1")})
    assert found.text == found.headers["x-request-id"] == (given if taken else "made-1")


def test_two_ids_are_none() -> None:
    """With the header twice, which of them the proxy set is not to be known."""
    headers = [("x-request-id", "a"), ("x-request-id", "b")]
    assert ask(access(echo), client="10.0.0.1", headers=headers).text == "made-1"


def test_a_spoofed_forward_changes_nothing(lines: list[str]) -> None:
    """X-Forwarded-For moves the logged address behind a trusted proxy only; nor does it make one trusted."""
    inner = ProxyHeadersMiddleware(echo, [str(network) for network in PROXIES])  # type: ignore[arg-type]
    app = access(inner)  # type: ignore[arg-type]
    headers = {"x-forwarded-for": "10.9.9.9, 198.51.100.4", "x-request-id": "forged"}
    assert ask(app, client="192.0.2.7", headers=headers).text == "made-1"
    assert ask(app, client="10.0.0.1", headers=headers).text == "forged"
    # The client wrote the first address itself, naming a proxy: its own id must not be believed for it.
    assert ask(app, client="192.0.2.7", headers={**headers, "x-forwarded-for": "10.0.0.1"}).text == "made-2"
    assert [json.loads(line)["peer"] for line in lines] == ["192.0.2.7", "198.51.100.4", "192.0.2.7"]


def test_every_answer_has_the_security_headers() -> None:
    """Each is there once; what a route says itself stays."""

    async def own(scope: Scope, receive: Receive, send: Send) -> None:
        await Response("<p>", headers={"Content-Security-Policy": "default-src 'self'"})(scope, receive, send)

    for app, policy in ((echo, "default-src 'none'; frame-ancestors 'none'"), (own, "default-src 'self'")):
        found = ask(access(app)).headers
        assert found.get_list("content-security-policy") == [policy]
        assert found["x-content-type-options"] == "nosniff"
        assert found["cache-control"] == "no-store"
        assert found["referrer-policy"] == "no-referrer"


def edge(around: Callable[[ASGIApp], ASGIApp]) -> tuple[FastAPI, MemoryIntake]:
    intake = MemoryIntake()
    app = create_app(
        sources=[Source(name="shop", dataset="orders", verify=unverified(because="a test"), max_bytes=100)],
        intake=intake,
        resolve_secret=lambda name: "",
        notify_token="",
        buckets=[],
        clock=lambda: NOW,
        version="0",
        around=around,
    )
    return app, intake


def test_a_crash_is_logged_named_and_shows_no_trace(lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """An error nobody foresaw is 500 with id and headers, a line of the log, and no word of what it was."""

    def crash(*_: object, **__: object) -> str:
        raise RuntimeError("very secret")

    app, _ = edge(access)
    monkeypatch.setattr("penstock.webhook.hooks.identify", crash)
    found = ask(app, "POST", "/hooks/shop", content=b"{}")
    assert found.status_code == 500
    assert found.headers["x-request-id"] == "made-1"
    assert {name.decode() for name, _ in SECURITY_HEADERS} <= set(found.headers)
    assert "secret" not in found.text
    assert "Traceback" not in found.text
    [line] = lines
    assert (json.loads(line)["status"], json.loads(line)["request"]) == (500, "made-1")
    assert "secret" not in line


def test_an_app_that_answers_nothing_is_logged_as_failed(lines: list[str]) -> None:
    """A crash outside of the framework is a line too, and goes on to the server."""

    async def crash(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("very secret")

    with pytest.raises(RuntimeError):
        raw(access(crash))
    assert json.loads(lines[0])["status"] == 500
    assert "secret" not in lines[0]


def test_the_line_says_what_happened(lines: list[str]) -> None:
    """Time, id, method, route, status, duration, bytes both ways, peer, and what the route found."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope[FACTS].update(outcome="accepted", deliveries=["d-1", "d-2"])
        await echo(scope, receive, send)

    ask(access(app), "POST", "/hooks/shop?token=secret", content=b"12345", headers={"authorization": "Bearer secret"})
    [line] = lines
    assert json.loads(line) == {
        "time": "2026-03-01T12:00:00.000+00:00",
        "request": "made-1",
        "method": "POST",
        "route": "/hooks/shop",
        "status": 200,
        "ms": 250.0,
        "in": 5,
        "out": len("made-1"),
        "peer": "192.0.2.7",
        "outcome": "accepted",
        "deliveries": 2,
    }


def test_an_own_route_is_logged_as_declared(lines: list[str]) -> None:
    """A project's route by its template; what there is no route for by no name of the sender's."""
    app, _ = edge(access)
    app.add_api_route("/own/{thing}", lambda thing: thing)
    ask(app, path="/own/private?x=1")
    ask(app, path="/nowhere/private")
    ask(app, path="/hooks/private")
    assert [json.loads(line)["route"] for line in lines] == ["/own/{thing}", "(none)", "/hooks/{source}"]


_nasty = st.one_of(
    st.text(max_size=200),
    st.sampled_from(
        ["/hooks/x\n{}", "/\r\n2026 INFO forged", "/hooks/\x1b[2J", "/\u2028", "/" + "x" * 100_000, "\ud800"]
    ),
)


@given(path=_nasty, method=_nasty, client=_nasty, header=st.binary(max_size=100), name=st.binary(max_size=30))
def test_nothing_a_sender_writes_gets_into_the_log(
    path: str, method: str, client: str, header: bytes, name: bytes
) -> None:
    """Newlines, control sequences and huge values: one short line of printable ASCII, of closed sets only."""
    handler, log = _Lines(), logging.getLogger(LOGGER)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        raw(
            access(echo),
            path=path,
            method=method,
            client=(client, 1),
            headers=[(name.lower(), header), (b"x-request-id", header)],
        )
    finally:
        log.removeHandler(handler)
    [line] = handler.found
    assert line.isascii()
    assert line.isprintable()
    assert len(line) < 400
    found: Mapping[str, Any] = json.loads(line)
    assert found["route"] in ROUTES | {"(none)"}
    assert found["method"] in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other"}
    assert found["request"] == "made-1"
    assert found["peer"] == "(none)" or ipaddress.ip_address(found["peer"])


class _Stuck(StringIO):
    """A reader of the log that takes nothing until told to."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def write(self, text: str) -> int:
        self.gate.wait(10)
        return super().write(text)


def test_a_slow_reader_of_the_log_holds_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """Lines wait up to a bound and are dropped beyond it; what waits is written at the end, and the loss is told."""
    stream = _Stuck()
    end = start_access_log(stream, on=True)
    log = logging.getLogger(LOGGER)
    for number in range(30_000):
        log.info("%s", number)
    stream.gate.set()
    end()
    written = [int(number) for number in stream.getvalue().split()]
    # What the writer took before its reader stood still made room for as many again.
    assert 10_000 <= len(written) <= 20_000
    assert written[:10_000] == list(range(10_000))
    assert written == sorted(written)
    assert f"{30_000 - len(written)} lines of the access log were dropped" in caplog.text


def test_without_the_log_there_is_no_line() -> None:
    """Switched off, nothing is written and nothing is made to be written."""
    stream = StringIO()
    end = start_access_log(stream, on=False)
    assert ask(access(echo, clock=lambda: NOW)).status_code == 200
    end()
    assert stream.getvalue() == ""
