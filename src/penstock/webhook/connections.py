"""What connections may take: how long heads and readers are waited for, what is queued, and how many there are.

uvicorn waits for a head and for a reader for ever, keeps every head that is sent ahead of its turn, of any length, and
takes as many connections as the process may open files.
"""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from penstock.webhook.access import SECURITY_HEADERS
from penstock.webhook.problems import MEDIA_TYPE, problem, try_later

log = logging.getLogger(__name__)

HEAD_SECONDS = 15.0
# From the moment on at which an answer does not fit what the system holds for its reader.
READER_SECONDS = 30.0
MOST_CONNECTIONS = 2000
# Requests sent ahead of their turn, headers of one request (and fields after its body), and bytes of which nothing
# comes: an endless head. A read of the socket has up to 256 kB, so what is kept may be that much more.
MOST_AHEAD = 16
MOST_HEADERS = 200
MOST_HEAD_BYTES = 64_000
# How long one that is turned away has to read why.
_LEAVING_SECONDS = 1.0
_TELL_SECONDS = 60.0


class _Refused(Exception):
    """The parser makes it a 400, and the connection ends."""


class Limited(HttpToolsProtocol):
    """uvicorn's connection within bounds; see `limited`, which makes the class of one server."""

    head_seconds: float
    reader_seconds: float
    most: int
    # Those of one server that are open and answer nothing, the longest waiting first; and those that are sent away.
    waiting: dict[Limited, None]
    leaving: set[Limited]
    told_at: list[float]

    _head: asyncio.TimerHandle | None = None
    _reader: asyncio.TimerHandle | None = None
    _nothing_of = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take it; when there are too many, in the place of the one that waits longest, or send it away."""
        if len(self.connections) >= self.most and not self._make_room():
            self._send_away(transport)
            return
        super().connection_made(transport)
        self.waiting[self] = None
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Parse it, within what a head may have."""
        if self in self.leaving:
            # Read, or the connection would be reset, and the answer with it.
            self.transport.close()
            return
        self._nothing_of += len(data)
        super().data_received(data)
        if self._nothing_of > MOST_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The head is too large.")
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._stop_head()
        self._stop_reader()
        self.waiting.pop(self, None)
        if self in self.leaving:
            self.leaving.discard(self)
        else:
            super().connection_lost(exc)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or one field after a body."""
        super().on_header(name, value)
        if len(self.headers) > MOST_HEADERS:
            raise _Refused

    def on_headers_complete(self) -> None:
        """A head: it is answered, or waits for its turn."""
        self._nothing_of = 0
        super().on_headers_complete()
        if len(self.pipeline) > MOST_AHEAD:
            raise _Refused

    def on_body(self, body: bytes) -> None:
        """Some of a body, which has bounds of its own."""
        self._nothing_of = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request's end."""
        self._nothing_of = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """An answer is written; it is not read yet."""
        self._stop_head()
        super().on_response_complete()
        if self.cycle.response_complete:
            self.waiting[self] = None
        self._watch_end()

    def pause_writing(self) -> None:
        """More is written than is read."""
        if self in self.leaving:
            return
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """It was read."""
        if self in self.leaving:
            return
        super().resume_writing()
        if not self.transport.is_closing():
            self._stop_reader()

    def send_400_response(self, msg: str) -> None:
        """The last answer."""
        super().send_400_response(msg)
        self._watch_end()

    def timeout_keep_alive_handler(self) -> None:
        """Nothing came any more."""
        super().timeout_keep_alive_handler()
        self._watch_end()

    def shutdown(self) -> None:
        """The server ends."""
        super().shutdown()
        self._watch_end()

    def cut(self) -> None:
        """End it at once, if it is its peer that is waited for: the rest of a body, or the reading of an answer."""
        if self.flow.write_paused or self.transport.is_closing():
            self.transport.abort()
        elif self.cycle is not None and self.cycle.more_body and not self.cycle.response_complete:
            self.transport.close()

    def _watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self.waiting.pop(self, None)
            self._stop_head()
        elif self._head is None and not self.transport.is_closing():
            self._head = self.loop.call_later(self.head_seconds, self._close)

    def _close(self) -> None:
        self.transport.close()
        self._watch_end()

    def _watch_end(self) -> None:
        # Closing waits for what is written to be read.
        if self.transport.is_closing():
            self._watch_reader()

    def _watch_reader(self) -> None:
        if self._reader is None:
            self._reader = self.loop.call_later(self.reader_seconds, self.transport.abort)

    def _stop_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _stop_reader(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            self._reader = None

    def _make_room(self) -> bool:
        longest = next(iter(self.waiting), None)
        if longest is None:
            return False
        del self.waiting[longest]
        longest._close()
        return True

    def _send_away(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        now = self.loop.time()
        if now - self.told_at[0] >= _TELL_SECONDS:
            self.told_at[0] = now
            log.warning("%d connections are open, and each has a request under way: more are sent away", self.most)
        self.leaving.add(self)
        if len(self.leaving) > self.most:
            transport.abort()
            return
        transport.write(_full())
        self._head = self.loop.call_later(_LEAVING_SECONDS, transport.abort)


def limited(
    *, head_seconds: float = HEAD_SECONDS, reader_seconds: float = READER_SECONDS, most: int = MOST_CONNECTIONS
) -> type[asyncio.Protocol]:
    """The class of one server's connections. An answer that is not read in `reader_seconds` ends its connection."""

    class _OfOneServer(Limited):
        pass

    _OfOneServer.head_seconds, _OfOneServer.reader_seconds, _OfOneServer.most = head_seconds, reader_seconds, most
    _OfOneServer.waiting, _OfOneServer.leaving, _OfOneServer.told_at = {}, set(), [float("-inf")]
    return _OfOneServer


def _full() -> bytes:
    refusal = try_later("busy", "Too many connections are open.")
    found = problem(refusal)
    body = found.model_dump_json().encode()
    headers: list[tuple[bytes, Any]] = [
        *((name.encode(), value.encode()) for name, value in refusal.headers.items()),
        (b"content-type", MEDIA_TYPE.encode()),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
        *SECURITY_HEADERS,
    ]
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    return b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (found.status, HTTPStatus(found.status).phrase.encode(), lines, body)
