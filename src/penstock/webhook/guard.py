"""Who may ask the edge for what, besides the senders: they are told apart by their signatures.

On loopback whoever is on this machine may, but a web page that one of them looks at may not: a page can post to
127.0.0.1, and by DNS rebinding it can even read the answer. What it cannot do is forge Host, Origin or Sec-Fetch-Site.
Elsewhere a token is asked for.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from penstock.webhook.access import FACTS
from penstock.webhook.authorization import is_authorized
from penstock.webhook.problems import Refusal, answer
from penstock.webhook.routes import HEALTH, HOOK_METHODS, HOOKS, NOTIFICATIONS

NOT_LOCAL = "not-local"
OPERATIONS_OFF = "operations-off"
# What the routes of the operations may be refused with, for the OpenAPI document.
REFUSALS = ("unverified", NOT_LOCAL, OPERATIONS_OFF)

_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::[0-9]{1,5})?")
_ORIGIN = re.compile(r"https?://(.+)")
# A proxy that stands before the edge may say so by one of these: then it is not this machine that asks. nginx as it
# comes says nothing at all, so that this is no proof of the contrary.
_FORWARDED = re.compile(
    rb"forwarded|via|x-forwarded(-.*)?|x-real-ip|x-client-ip|true-client-ip|cf-.*|fly-.*", re.DOTALL
)


class Area(Enum):
    """What a path belongs to; `ASKED` has what each asks of a request."""

    OPEN = "open"
    UNVERIFIED = "unverified"
    NOTIFICATIONS = "notifications"
    OPERATIONS = "operations"


ASKED: Mapping[Area, str] = {
    Area.OPEN: "nothing: a source that verifies its senders looks itself, and that the process is up is no secret",
    Area.UNVERIFIED: "that no web page sent it, on loopback: Host and Origin are this machine's own; elsewhere nothing",
    Area.NOTIFICATIONS: "`PENSTOCK_NOTIFY_TOKEN`, as bearer token or as the password of the user `penstock`; on "
    "loopback, that no page of another site sent it",
    Area.OPERATIONS: "`PENSTOCK_API_TOKEN` as bearer token; without it only what a program on this machine sends over "
    "loopback, past no proxy, with Host and Origin its own",
}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a request says of where it comes from; the headers as often as they were sent."""

    hosts: Collection[bytes] = ()
    origins: Collection[bytes] = ()
    sites: Collection[bytes] = ()
    authorizations: Collection[bytes] = ()
    forwarded: bool = False
    client: str = ""


def area_of(method: str, path: str, verified: Collection[str], unverified: Collection[str]) -> Area:
    """What a request is for. `verified` are the names of sources that verify their senders, `unverified` of the others.

    Where a name is no source's, our own routes answer that there is none; what else is there is the project's own.
    """
    if path.startswith(HOOKS):
        name = path[len(HOOKS) :]
        if name in unverified:
            return Area.UNVERIFIED
        undeclared = bool(name) and "/" not in name and method in HOOK_METHODS
        return Area.OPEN if name in verified or undeclared else Area.OPERATIONS
    if path == NOTIFICATIONS:
        return Area.NOTIFICATIONS
    return Area.OPEN if path == HEALTH else Area.OPERATIONS


def decide(area: Area, asked: Asked, *, loopback: bool, token: bytes, proxied: bool = False) -> Refusal | None:
    """Why the request is refused, or None.

    `loopback` is whether the server listens on this machine only, `proxied` whether a proxy is declared: what comes
    from this machine may then come from anywhere.
    """
    if area is Area.OPEN:
        return None
    if area is not Area.OPERATIONS:
        if not loopback or _of_no_page(asked, host_too=area is Area.UNVERIFIED):
            return None
        return _not_local()
    if token and any(is_authorized(given, "bearer", token) for given in asked.authorizations):
        return None
    if not loopback or proxied or asked.forwarded or not is_loopback(asked.client):
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
    """Refuses what `decide` refuses, before anything of the request is read; `refused` is told of what, and why."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        loopback: bool,
        token: str,
        verified: Iterable[str],
        unverified: Iterable[str],
        proxied: bool = False,
        refused: Callable[[str, str], None] = lambda area, kind: None,
    ) -> None:
        self._app = app
        self._loopback = loopback
        self._proxied = proxied
        self._token = token.encode()
        self._verified = frozenset(verified)
        self._unverified = frozenset(unverified)
        self._refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer with a problem."""
        if scope["type"] == "http":
            area = area_of(scope["method"], scope["path"], self._verified, self._unverified)
            if area is not Area.OPEN:
                refusal = decide(area, _asked(scope), loopback=self._loopback, token=self._token, proxied=self._proxied)
                if refusal is not None:
                    self._refused(area.value, refusal.kind)
                    scope.setdefault(FACTS, {})["outcome"] = refusal.kind
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
        forwarded=any(_FORWARDED.fullmatch(name) for name in headers),
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


def _not_local() -> Refusal:
    return Refusal(NOT_LOCAL, "This is for programs on the machine itself; Host and Origin must be its own.")


def _token_needed() -> Refusal:
    return Refusal("unverified", "A bearer token is needed.", {"WWW-Authenticate": "Bearer"})


def _off() -> Refusal:
    return Refusal(OPERATIONS_OFF, "Set PENSTOCK_API_TOKEN, and send it as a bearer token.")
