"""Sends prepared HTTP requests over keep-alive connections and measures the answers.

One thread, one event loop, no HTTP library: the requests are rendered before the first one is sent, so that what is
measured is the server. The same load goes to what is measured and to what it is measured against.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

_STATUS = re.compile(rb"HTTP/1\.1 ([0-9]{3}) ")
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came back: answers a second from the first byte sent to the last read, seconds of one answer, statuses."""

    per_second: float
    p50: float
    p99: float
    statuses: Mapping[int, int]


def render(path: str, host: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """One POST as it goes over the wire."""
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


def run(url: str, requests: Sequence[bytes], connections: int) -> Result:
    """Send every request once, `connections` at a time, each connection the next as soon as it has its answer.

    Raises ConnectionError when the server closes a connection that waits for an answer, ValueError for an answer
    without Content-Length, and TimeoutError when nothing at all is answered for 60 seconds.
    """
    return asyncio.run(_run(url, requests, connections))


async def _run(url: str, requests: Sequence[bytes], connections: int) -> Result:
    address = urlsplit(url)
    host, port = str(address.hostname), address.port or 80
    loop = asyncio.get_running_loop()
    waiting = iter(requests)
    ended: asyncio.Future[None] = loop.create_future()
    load = _Load(waiting, len(requests), ended)
    clients = [
        (await loop.create_connection(lambda: _Connection(load), host, port))[1]
        for _ in range(min(connections, len(requests)))
    ]
    try:
        started = time.perf_counter()
        for client in clients:
            client.send_next()
        answered = -1
        while not ended.done() and answered < len(load.seconds):
            answered = len(load.seconds)
            await asyncio.wait([ended], timeout=60)
        if not ended.done():
            raise TimeoutError(f"{answered} of {len(requests)} requests were answered, and none for 60 seconds")
        ended.result()
        took = time.perf_counter() - started
    finally:
        for client in clients:
            client.close()
    seconds = sorted(load.seconds)
    return Result(
        per_second=len(seconds) / took,
        p50=seconds[len(seconds) // 2],
        p99=seconds[min(len(seconds) - 1, len(seconds) * 99 // 100)],
        statuses=dict(load.statuses),
    )


class _Load:
    """What the connections share."""

    def __init__(self, waiting: Iterator[bytes], count: int, ended: asyncio.Future[None]) -> None:
        self.waiting = waiting
        self.seconds: list[float] = []
        self.statuses: Counter[int] = Counter()
        self._count = count
        self._ended = ended

    def answered(self, status: int, seconds: float) -> None:
        self.statuses[status] += 1
        self.seconds.append(seconds)
        if len(self.seconds) == self._count and not self._ended.done():
            self._ended.set_result(None)

    def fail(self, error: Exception) -> None:
        if not self._ended.done():
            self._ended.set_exception(error)


class _Connection(asyncio.Protocol):
    """Sends one request, reads its answer, sends the next."""

    def __init__(self, load: _Load) -> None:
        self._load = load
        self._buffer = b""
        # When the request was sent that waits for its answer; 0 when none does.
        self._sent_at = 0.0
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._sent_at:
            self._load.fail(ConnectionError(f"the server closed a connection that waited for an answer ({exc})"))

    def send_next(self) -> None:
        request = next(self._load.waiting, None)
        if request is None:
            self._sent_at = 0.0
            return
        if self._transport.is_closing():
            self._load.fail(ConnectionError("the server closed a connection between two requests"))
            return
        self._sent_at = time.perf_counter()
        self._transport.write(request)

    def close(self) -> None:
        self._sent_at = 0.0
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        status = _STATUS.match(self._buffer)
        length = _LENGTH.search(self._buffer, 0, end + 2)
        if status is None or length is None:
            self._load.fail(ValueError(f"not an answer with Content-Length: {self._buffer[:end]!r}"))
            return
        whole = end + 4 + int(length.group(1))
        if len(self._buffer) < whole:
            return
        self._buffer = self._buffer[whole:]
        self._load.answered(int(status.group(1)), time.perf_counter() - self._sent_at)
        self.send_next()
