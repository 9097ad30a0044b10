"""Who may ask the edge for what, besides the senders: they are told apart by their signatures.

On loopback whoever is on this machine may, but a web page that one of them looks at may not: a page can post to
127.0.0.1, and by DNS rebinding it can even read the answer. What it cannot do is forge Host, Origin or Sec-Fetch-Site.
Elsewhere a token is asked for.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import Enum

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from penstock.webhook.problems import Refusal, answer

NOT_LOCAL = "not-local"
OPERATIONS_OFF = "operations-off"
# What the routes of the operations may be refused with, for the OpenAPI document.
REFUSALS = ("unverified", NOT_LOCAL, OPERATIONS_OFF)

_HOOKS = "/hooks/"
_NOTIFICATIONS = "/notifications/s3"
_HEALTH = "/healthz"
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::[0-9]{1,5})?")
_ORIGIN = re.compile(r"https?://(.+)")
# A proxy that stands before the edge says so by one of these: then it is not this machine that asks.
_FORWARDED = frozenset((b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip"))


class Area(Enum):
    """What a path belongs to."""

    OPEN = "open"
    """Anybody may ask: a source that verifies its senders, and whether the process is up."""
    UNVERIFIED = "unverified"
    """A source that verifies nothing: no web page may post to it."""
    NOTIFICATIONS = "notifications"
    """Has a token of its own."""
    OPERATIONS = "operations"
    """Everything else: readiness, metrics, the OpenAPI document, the project's own routes."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a request says of where it comes from; the headers as often as they were sent."""

    hosts: Collection[bytes] = ()
    origins: Collection[bytes] = ()
    sites: Collection[bytes] = ()
    authorizations: Collection[bytes] = ()
    forwarded: bool = False
    client: str = ""


def area_of(path: str, unverified: Collection[str]) -> Area:
    """What `path` belongs to. `unverified` are the names of sources that verify nothing."""
    if path.startswith(_HOOKS):
        name = path[len(_HOOKS) :]
        if name in unverified:
            return Area.UNVERIFIED
        return Area.OPEN if name and "/" not in name else Area.OPERATIONS
    if path == _NOTIFICATIONS:
        return Area.NOTIFICATIONS
    return Area.OPEN if path == _HEALTH else Area.OPERATIONS


def decide(area: Area, asked: Asked, *, loopback: bool, token: bytes) -> Refusal | None:
    """Why the request is refused, or None. `loopback` is whether the server listens on this machine only."""
    if area is Area.OPEN:
        return None
    if area is not Area.OPERATIONS:
        if not loopback or _of_no_page(asked, host_too=area is Area.UNVERIFIED):
            return None
        return _not_local()
    if token and any(_is_token(given, token) for given in asked.authorizations):
        return None
    if not loopback or asked.forwarded or not is_loopback(asked.client):
        return _token_needed() if token else _off()
    return None if _of_no_page(asked, host_too=True) else _not_local()


def is_loopback(name: str) -> bool:
    """Whether a host's name or address, without a port, is this machine's own."""
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class Guard:
    """Refuses what `decide` refuses, before anything of the request is read."""

    def __init__(self, app: ASGIApp, *, loopback: bool, token: str, unverified: Iterable[str]) -> None:
        self._app = app
        self._loopback = loopback
        self._token = token.encode()
        self._unverified = frozenset(unverified)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer with a problem."""
        if scope["type"] == "http":
            area = area_of(scope["path"], self._unverified)
            if area is not Area.OPEN:
                refusal = decide(area, _asked(scope), loopback=self._loopback, token=self._token)
                if refusal is not None:
                    await answer(Request(scope), refusal)(scope, receive, send)
                    return
        await self._app(scope, receive, send)


def _asked(scope: Scope) -> Asked:
    headers: dict[bytes, list[bytes]] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name, []).append(value)
    client = scope.get("client")
    return Asked(
        hosts=headers.get(b"host", ()),
        origins=headers.get(b"origin", ()),
        sites=headers.get(b"sec-fetch-site", ()),
        authorizations=headers.get(b"authorization", ()),
        forwarded=not _FORWARDED.isdisjoint(headers),
        client=client[0] if client else "",
    )


def _of_no_page(asked: Asked, *, host_too: bool) -> bool:
    """Whether no page of another site can have sent this."""
    if any(site.strip().lower() == b"cross-site" for site in asked.sites):
        return False
    if not all(_is_own_origin(origin) for origin in asked.origins):
        return False
    # Two Host headers are none: which of them the page could choose is not to be known.
    return not host_too or (len(asked.hosts) == 1 and all(_is_own_authority(host) for host in asked.hosts))


def _is_own_origin(raw: bytes) -> bool:
    found = _ORIGIN.fullmatch(raw.decode("latin-1"))
    return found is not None and _is_own_authority(found[1].encode("latin-1"))


def _is_own_authority(raw: bytes) -> bool:
    found = _AUTHORITY.fullmatch(raw.decode("latin-1"))
    return found is not None and is_loopback(found[1].strip("[]"))


def _is_token(given: bytes, token: bytes) -> bool:
    scheme, _, value = given.partition(b" ")
    same = hmac.compare_digest(value.strip(), token)
    return scheme.lower() == b"bearer" and same


def _not_local() -> Refusal:
    return Refusal(NOT_LOCAL, "This is for programs on the machine itself; Host and Origin must be its own.")


def _token_needed() -> Refusal:
    return Refusal("unverified", "A bearer token is needed.", {"WWW-Authenticate": "Bearer"})


def _off() -> Refusal:
    return Refusal(OPERATIONS_OFF, "Set PENSTOCK_API_TOKEN, and send it as a bearer token.")
