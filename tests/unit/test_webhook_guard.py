"""Who may ask the edge for what: the decision, and what is answered."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from penstock.webhook.access import FACTS
from penstock.webhook.guard import Area, Asked, Guard, area_of, decide, is_loopback
from penstock.webhook.metrics import Metrics
from penstock.webhook.problems import KINDS
from penstock.webhook.routes import HOOK, HOOK_METHODS, SINGLE
from tests.edge import Edge

TOKEN = "t0ken-of-the-operations"
VERIFIED = frozenset({"shop"})
UNVERIFIED = frozenset({"open"})
HOST = (b"127.0.0.1:8484",)
SCOPE: dict[str, Any] = {"type": "http", "method": "GET", "path": "/metrics", "client": ("127.0.0.1", 1)}


def kind(area: Area, asked: Asked, *, loopback: bool = True, token: str = TOKEN, proxied: bool = False) -> str | None:
    """The kind of the refusal, or None."""
    refusal = decide(area, asked, loopback=loopback, token=token.encode(), proxied=proxied)
    return refusal.kind if refusal else None


@pytest.mark.parametrize(
    ("path", "area"),
    [
        ("/hooks/shop", Area.OPEN),
        ("/healthz", Area.OPEN),
        ("/hooks/open", Area.UNVERIFIED),
        ("/notifications/s3", Area.NOTIFICATIONS),
        ("/metrics", Area.OPERATIONS),
        ("/readyz", Area.OPERATIONS),
        ("/openapi.json", Area.OPERATIONS),
        ("/", Area.OPERATIONS),
        ("", Area.OPERATIONS),
        ("/hooks", Area.OPERATIONS),
        ("/hooks/", Area.OPERATIONS),
        ("/hooks/shop/own", Area.OPERATIONS),
        ("/hooks/shop/", Area.OPERATIONS),
        ("//hooks/shop", Area.OPERATIONS),
        ("/hooks/../metrics", Area.OPERATIONS),
        ("/HOOKS/shop", Area.OPERATIONS),
        ("/healthz/", Area.OPERATIONS),
        ("/notifications/s3/own", Area.OPERATIONS),
        ("/own", Area.OPERATIONS),
    ],
)
def test_what_is_not_a_senders_is_of_the_operations(path: str, area: Area) -> None:
    """Only a source by its exact path, notifications and health are not; an own route always is."""
    assert area_of("POST", path, VERIFIED, UNVERIFIED) is area


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "HEAD", "TRACE", "post"])
def test_an_own_route_below_hooks_is_of_the_operations(method: str) -> None:
    """Where none of our routes would answer, it is the project's; a source's own path is for its senders."""
    assert area_of(method, "/hooks/own", VERIFIED, UNVERIFIED) is Area.OPERATIONS
    assert area_of(method, "/hooks/shop", VERIFIED, UNVERIFIED) is Area.OPEN
    assert area_of(method, "/hooks/open", VERIFIED, UNVERIFIED) is Area.UNVERIFIED
    for ours in HOOK_METHODS:
        assert area_of(ours, "/hooks/nobody", VERIFIED, UNVERIFIED) is Area.OPEN


def test_the_methods_of_our_routes_are_those_that_are_there() -> None:
    """No route of a project's can come before them."""
    app = Edge([], {}).app
    ours = [route for route in app.routes if isinstance(route, APIRoute) and route.path == HOOK]
    assert {method for route in ours for method in route.methods or ()} == set(HOOK_METHODS)
    assert {route.path for route in app.routes if isinstance(route, Route | APIRoute)} == {HOOK, *SINGLE}


@given(st.text(max_size=60))
def test_no_path_is_open_by_its_looks(path: str) -> None:
    """Whatever the path is: what is open is health, or one name below /hooks/."""
    if area_of("POST", path, VERIFIED, UNVERIFIED) is Area.OPEN:
        assert path == "/healthz" or path.removeprefix("/hooks/") not in ("", path, "open")
        assert path.count("/") == (1 if path == "/healthz" else 2)


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("127.0.0.1", True),
        ("127.9.8.7", True),
        ("localhost", True),
        ("LOCALHOST", True),
        ("::1", True),
        ("0.0.0.0", False),  # noqa: S104 - compared, not bound
        ("::", False),
        ("", False),
        ("localhost.", False),
        ("localhost.evil.example", False),
        ("evil.localhost", False),
        ("127.0.0.1.evil.example", False),
        ("127.1", False),
        ("2130706433", False),
        ("0x7f.0.0.1", False),
        ("127.0.0.01", False),
        ("10.0.0.1", False),
        ("edge", False),
    ],
)
def test_what_is_this_machines_own_name(name: str, own: bool) -> None:
    """Addresses of loopback as they are written in full, and localhost; nothing that only begins or ends so."""
    assert is_loopback(name) is own


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (Asked(hosts=HOST), None),
        (Asked(hosts=(b"localhost",)), None),
        (Asked(hosts=(b"[::1]:8484",)), None),
        (Asked(hosts=HOST, origins=(b"http://127.0.0.1:3000",)), None),
        (Asked(hosts=HOST, origins=(b"https://localhost",), sites=(b"same-site",)), None),
        (Asked(hosts=HOST, origins=(b"http://[::1]:1",), sites=(b"same-origin",)), None),
        (Asked(hosts=HOST, sites=(b"none",)), None),
        (Asked(hosts=()), "not-local"),
        (Asked(hosts=(b"",)), "not-local"),
        (Asked(hosts=(b"rebound.example:8484",)), "not-local"),
        (Asked(hosts=(b"127.0.0.1:8484", b"rebound.example")), "not-local"),
        (Asked(hosts=(b"127.0.0.1:8484@rebound.example",)), "not-local"),
        (Asked(hosts=(b"127.0.0.1:port",)), "not-local"),
        (Asked(hosts=(b"127.0.0.1:8484\n",)), "not-local"),
        (Asked(hosts=(b"127.0.0.1/",)), "not-local"),
        (Asked(hosts=(b"[127.0.0.1",)), "not-local"),
        (Asked(hosts=(b"\xff\xfe",)), "not-local"),
        (Asked(hosts=(b"1" * 100_000,)), "not-local"),
        (Asked(hosts=HOST, origins=(b"null",)), "not-local"),
        (Asked(hosts=HOST, origins=(b"",)), "not-local"),
        (Asked(hosts=HOST, origins=(b"https://evil.example",)), "not-local"),
        (Asked(hosts=HOST, origins=(b"http://127.0.0.1:1", b"https://evil.example")), "not-local"),
        (Asked(hosts=HOST, origins=(b"http://127.0.0.1@evil.example",)), "not-local"),
        (Asked(hosts=HOST, origins=(b"file://",)), "not-local"),
        (Asked(hosts=HOST, origins=(b"http://localhost.evil.example",)), "not-local"),
        (Asked(hosts=HOST, sites=(b"cross-site",)), "not-local"),
        (Asked(hosts=HOST, sites=(b" Cross-Site ",)), "not-local"),
        (Asked(hosts=HOST, sites=(b"same-origin", b"cross-site")), "not-local"),
    ],
    ids=range(28),
)
@pytest.mark.parametrize("area", [Area.OPERATIONS, Area.UNVERIFIED])
def test_on_loopback_no_web_page_gets_in(area: Area, asked: Asked, expected: str | None) -> None:
    """A rebound name, a foreign or unknown origin and a cross-site fetch are refused; a program here is not."""
    local = Asked(hosts=asked.hosts, origins=asked.origins, sites=asked.sites, client="127.0.0.1")
    assert kind(area, local) == expected


def test_what_has_its_own_check_is_not_asked_for_a_host() -> None:
    """Notifications have a token, so only a page is kept off; a verified source takes what is signed, from anywhere."""
    foreign = Asked(hosts=(b"webhook:8484",), client="127.0.0.1")
    page = Asked(hosts=HOST, origins=(b"https://evil.example",), client="127.0.0.1")
    assert kind(Area.NOTIFICATIONS, foreign) is None
    assert kind(Area.NOTIFICATIONS, page) == "not-local"
    assert kind(Area.OPEN, page) is None
    assert kind(Area.UNVERIFIED, foreign) == "not-local"
    assert kind(Area.UNVERIFIED, page, loopback=False) is None


@pytest.mark.parametrize(
    ("given", "right"),
    [
        (f"Bearer {TOKEN}", True),
        (f"bearer {TOKEN}", True),
        (f"Bearer  {TOKEN} ", True),
        (f"Basic {TOKEN}", False),
        (TOKEN, False),
        ("Bearer", False),
        ("Bearer ", False),
        (f"Bearer {TOKEN}x", False),
        (f"Bearer {TOKEN[:-1]}", False),
        ("Bearer \xfc", False),
        ("", False),
    ],
)
def test_elsewhere_the_token_is_needed(given: str, right: bool) -> None:
    """Off loopback the operations ask for the bearer token, whatever Host says; without one they are off."""
    asked = Asked(hosts=HOST, authorizations=(given.encode("latin-1"),), client="10.0.0.9")
    assert kind(Area.OPERATIONS, asked, loopback=False) == (None if right else "unverified")
    assert kind(Area.OPERATIONS, asked, loopback=False, token="") == "operations-off"


def test_a_proxy_before_loopback_does_not_open_it() -> None:
    """Who came through a proxy is not on this machine: the token is needed, and enough."""
    authorized = (f"Bearer {TOKEN}".encode(),)
    for asked in (
        Asked(hosts=HOST, client="203.0.113.9"),
        Asked(hosts=HOST, client="127.0.0.1", forwarded=True),
        Asked(hosts=HOST, client=""),
    ):
        assert kind(Area.OPERATIONS, asked) == "unverified"
        assert kind(Area.OPERATIONS, asked, token="") == "operations-off"
        with_token = Asked(
            hosts=(b"edge.example",), client=asked.client, forwarded=asked.forwarded, authorizations=authorized
        )
        assert kind(Area.OPERATIONS, with_token) is None


def test_a_declared_proxy_before_loopback_closes_it() -> None:
    """Nginx as it comes sends our own address as Host and says nothing of itself: only the settings can know."""
    like_a_program_here = Asked(hosts=HOST, client="127.0.0.1")
    assert kind(Area.OPERATIONS, like_a_program_here) is None
    assert kind(Area.OPERATIONS, like_a_program_here, proxied=True) == "unverified"
    assert kind(Area.OPERATIONS, like_a_program_here, proxied=True, token="") == "operations-off"
    authorized = Asked(hosts=HOST, client="127.0.0.1", authorizations=(f"Bearer {TOKEN}".encode(),))
    assert kind(Area.OPERATIONS, authorized, proxied=True) is None


@pytest.mark.parametrize(
    "header",
    [
        *("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-port"),
        *("x-forwarded-prefix", "x-real-ip", "x-client-ip", "true-client-ip", "cf-connecting-ip", "cf-ray"),
        *("CF-Visitor", "X-Forwarded-Server", "fly-client-ip"),
    ],
)
def test_whatever_a_proxy_adds_tells_of_it(header: str) -> None:
    """Whichever of a proxy's headers there is: it is not this machine that asks."""
    found, passed, refused = asyncio.run(_ask("/metrics", {header: "127.0.0.1"}))
    assert (found.status_code, passed) == (401, [])
    assert refused == [("operations", "unverified")]


def test_a_refusal_is_counted_and_in_the_access_line() -> None:
    """In the metrics by area and kind; the line of the log has its outcome."""
    metrics, scope = Metrics(), {**SCOPE, "headers": [(b"host", b"rebound.example")], FACTS: {}}
    guard = Guard(PlainTextResponse("in"), loopback=True, token="", verified=[], unverified=[], refused=metrics.guarded)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        pass

    asyncio.run(guard(scope, receive, send))
    assert scope[FACTS] == {"outcome": "not-local"}
    counted = 'penstock_guard_refusals_total{area="operations",outcome="not-local"} 1.0'
    assert counted in metrics.text().decode().splitlines()


_junk = st.lists(st.binary(max_size=40), max_size=3)


@given(hosts=_junk, origins=_junk, sites=_junk, authorizations=_junk, forwarded=st.booleans(), client=st.text())
@pytest.mark.parametrize("loopback", [True, False])
@pytest.mark.parametrize("token", ["", TOKEN])
def test_rubbish_is_refused_and_never_a_crash(loopback: bool, token: str, **parts: Any) -> None:
    """Whatever the headers hold: the operations answer nobody who has neither the token nor the place."""
    refused = kind(Area.OPERATIONS, Asked(**parts), loopback=loopback, token=token)
    assert refused is not None
    assert KINDS[refused][0] in (401, 403, 503)


async def _ask(
    path: str, headers: dict[str, str], *, client: str = "127.0.0.1", loopback: bool = True, content: bytes = b""
) -> tuple[httpx.Response, list[str], list[tuple[str, str]]]:
    passed: list[str] = []
    refused: list[tuple[str, str]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        passed.append(scope["path"])
        await PlainTextResponse("in")(scope, receive, send)

    guard = Guard(
        app,
        loopback=loopback,
        token=TOKEN,
        verified=["shop"],
        unverified=["open"],
        refused=lambda area, kind: refused.append((area, kind)),
    )
    transport = httpx.ASGITransport(guard, client=(client, 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8484") as asking:
        return await asking.post(path, headers=headers, content=content), passed, refused


@pytest.mark.parametrize(
    ("path", "headers", "loopback", "status"),
    [
        ("/metrics", {}, True, 200),
        ("/metrics", {"host": "rebound.example"}, True, 403),
        ("/metrics", {"origin": "https://evil.example"}, True, 403),
        ("/metrics", {"x-forwarded-for": "127.0.0.1"}, True, 401),
        ("/hooks/open", {"origin": "https://evil.example"}, True, 403),
        ("/hooks/%6fpen", {"origin": "https://evil.example"}, True, 403),
        ("/hooks/shop", {"origin": "https://evil.example", "host": "edge.example"}, True, 200),
        ("/metrics", {}, False, 401),
        ("/metrics", {"authorization": f"Bearer {TOKEN}"}, False, 200),
        ("/healthz", {"host": "edge.example"}, False, 200),
    ],
)
def test_a_refusal_is_a_problem_and_nothing_is_run(
    path: str, headers: dict[str, str], loopback: bool, status: int
) -> None:
    """What is refused never reaches the app, is a problem and tells nothing of the token."""
    found, passed, refused = asyncio.run(_ask(path, headers, loopback=loopback, content=b"body"))
    assert found.status_code == status
    assert bool(passed) == (status == 200)
    if status != 200:
        assert found.headers["content-type"] == "application/problem+json"
        assert found.json()["status"] == status
        assert TOKEN not in found.text
        area = "unverified" if path.startswith("/hooks/") else "operations"
        assert refused == [(area, found.json()["type"].rpartition(":")[2])]
    if status == 401:
        assert found.headers["www-authenticate"] == "Bearer"
