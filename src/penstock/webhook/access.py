"""The outermost layer of the edge: a request's id, the security headers of every answer, and one log line each.

A line is made of closed sets, numbers and what was checked: no header, no body, no path as it was sent.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from functools import lru_cache
from typing import IO

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from penstock.settings import Network
from penstock.webhook.routes import HOOK, HOOKS, SINGLE

# Where a request's id and what its route tells of it stand in the ASGI scope.
REQUEST_ID = "penstock.request"
FACTS = "penstock.facts"

LOGGER = "penstock.access"
log = logging.getLogger(LOGGER)
_own_log = logging.getLogger(__name__)

SECURITY_HEADERS: Sequence[tuple[bytes, bytes]] = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
)

_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_ID_HEADER = b"x-request-id"
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
# Lines that wait for a slow reader of the log. What comes beyond is dropped and counted: a log may not stop the edge.
_LINES_WAITING = 10_000
_LAST_SECONDS = 2.0
_WRITE_SECONDS = 0.1


class Access:
    """Names, protects and logs every request of `app`.

    An id of the sender's is taken from peers within `trusted` only; `unique` makes one otherwise. `sources` are the
    declared names, the only ones that are logged. The line is written when the logger `penstock.access` takes INFO.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        unique: Callable[[], str],
        clock: Callable[[], datetime],
        trusted: Sequence[Network] = (),
        sources: Collection[str] = (),
        seconds: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._app = app
        self._unique = unique
        self._clock = clock
        self._sources = frozenset(sources)
        self._seconds = seconds
        self._trusts = _truster(trusted)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; its route may put `outcome` and `deliveries`, their ids, into `scope[FACTS]`."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, arrived = self._clock(), self._seconds()
        # Before a proxy's word for the client's address is taken further in.
        scope[REQUEST_ID] = request = self._request_id(scope)
        scope[FACTS] = {}
        counted = _Counted(receive, send, request.encode())
        try:
            await self._app(scope, counted.receive, counted.send)
        except Exception:
            counted.status = counted.status or 500
            raise
        finally:
            if log.isEnabledFor(logging.INFO):
                took = self._seconds() - arrived
                text = line(scope, counted, self._sources, began=began, milliseconds=took * 1000)
                # As log.info does, but for the search for who calls, which takes longer than all else here.
                log.handle(logging.LogRecord(LOGGER, logging.INFO, __file__, 0, text, None, None))

    def _request_id(self, scope: Scope) -> str:
        given = [value for name, value in scope["headers"] if name == _ID_HEADER]
        client = scope.get("client")
        if len(given) == 1 and _ID.fullmatch(given[0]) and client and self._trusts(client[0]):
            return str(given[0], "ascii")
        return self._unique()


class _Counted:
    """The two ends of one request: counts what passes, and adds the headers."""

    def __init__(self, receive: Receive, send: Send, request: bytes) -> None:
        self._receive = receive
        self._send = send
        self._request = request
        self.status: int | None = None
        self.bytes_in = 0
        self.bytes_out = 0

    async def receive(self) -> Message:
        message = await self._receive()
        self.bytes_in += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message.get("headers", ()))
            # An own route may know better, a page's policy for instance.
            known = {name.lower() for name, _ in headers}
            headers += [header for header in SECURITY_HEADERS if header[0] not in known]
            headers.append((_ID_HEADER, self._request))
            message = {**message, "headers": headers}
        else:
            self.bytes_out += len(message.get("body", b""))
        await self._send(message)


def line(scope: Scope, counted: _Counted, sources: Collection[str], *, began: datetime, milliseconds: float) -> str:
    """What is logged of a request: one line of JSON in ASCII. `status` is null where nothing was answered."""
    method, client, facts = scope["method"], scope.get("client"), scope[FACTS]
    fields = {
        "time": began.isoformat(timespec="milliseconds"),
        "request": scope[REQUEST_ID],
        "method": method if method in _METHODS else "other",
        "route": route_of(scope, sources),
        "status": counted.status,
        "ms": round(milliseconds, 2),
        "in": counted.bytes_in,
        "out": counted.bytes_out,
        "peer": _address(client[0]) if client else None,
    }
    if "outcome" in facts:
        fields["outcome"] = facts["outcome"]
    if "deliveries" in facts:
        # How many, and not which: the ids are the sender's words. The ledger has them by the request's id.
        fields["deliveries"] = len(facts["deliveries"])
    return json.dumps(fields, ensure_ascii=True)


def route_of(scope: Scope, sources: Collection[str]) -> str:
    """Where the request went, by a closed set of names."""
    path: str = scope["path"]
    if path.startswith(HOOKS):
        name = path[len(HOOKS) :]
        return f"{HOOKS}{name}" if name in sources else HOOK
    if path in SINGLE:
        return path
    # An own route of the project, as it is declared.
    declared = getattr(scope.get("route"), "path", None)
    return declared if isinstance(declared, str) else "(none)"


@lru_cache(maxsize=1024)
def _address(client: str) -> str:
    """An address as such; what a proxy passed on may be anything."""
    try:
        return str(ipaddress.ip_address(client))
    except ValueError:
        return "(none)"


def _truster(trusted: Sequence[Network]) -> Callable[[str], bool]:
    @lru_cache(maxsize=1024)
    def trusts(client: str) -> bool:
        try:
            address = ipaddress.ip_address(client)
        except ValueError:
            return False
        return any(address in network for network in trusted)

    return trusts


class _Writer(logging.Handler):
    """Writes lines from a thread of its own: the loop that logs serves everybody and must not wait for a pipe.

    The thread looks now and then instead of being told of each line, which would cost more than the line does.
    """

    def __init__(self, stream: IO[str]) -> None:
        super().__init__()
        self._stream = stream
        self._lines: deque[str] = deque()
        self._dropped = 0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="access log", daemon=True)
        self._thread.start()

    def handle(self, record: logging.LogRecord) -> bool:
        # Without the lock of a handler that writes; appending needs none.
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        if len(self._lines) < _LINES_WAITING:
            self._lines.append(record.getMessage())
        else:
            self._dropped += 1

    def end(self) -> None:
        """Write what waits, within a short time, and say what was dropped."""
        self._ending.set()
        self._thread.join(_LAST_SECONDS)
        if self._dropped:
            _own_log.warning("%d lines of the access log were dropped: whoever reads it is too slow", self._dropped)

    def _run(self) -> None:
        try:
            ending = False
            while not ending:
                ending = self._ending.wait(_WRITE_SECONDS)
                if self._lines:
                    self._stream.write("".join(f"{self._lines.popleft()}\n" for _ in range(len(self._lines))))
                    self._stream.flush()
        except (OSError, ValueError) as error:
            _own_log.warning("the access log ends here, nobody reads it (%s)", error)


def start_access_log(stream: IO[str], *, on: bool) -> Callable[[], None]:
    """Write the lines to `stream`, or none at all. Returns what ends it, with all lines written."""
    log.propagate = False
    log.setLevel(logging.INFO if on else logging.CRITICAL)
    if not on:
        return lambda: None
    writer = _Writer(stream)
    log.addHandler(writer)

    def end() -> None:
        log.removeHandler(writer)
        writer.end()

    return end
