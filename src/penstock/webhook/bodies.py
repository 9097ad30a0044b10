"""Reads request bodies within bounds: of size, inflated too, of time, and of memory over all requests."""

from __future__ import annotations

import asyncio
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import anyio.to_thread
from fastapi import Request

from penstock.webhook.problems import BODY_READ, Refusal, try_later

_GZIP = 16 + zlib.MAX_WBITS
_CHUNK = 64 * 1024
_PIECE = 4 * 1024
# Deflate's own limit is 1,032 bytes from one (zlib's technical details).
_MOST_INFLATED = 1032
_LENGTH = re.compile(r"[0-9]{1,19}")


class Memory:
    """How many bytes of bodies may be held at once, over all requests; of one taker's at most a quarter of them.

    The first `free` bytes of each body are not counted: how many requests there are is bounded elsewhere, and large
    bodies of whoever may not send shall not shut out small ones.
    """

    def __init__(self, capacity: int, *, free: int = 0) -> None:
        self._capacity = capacity
        self._free = free
        self._of: Counter[str] = Counter()
        self.used = 0

    @contextmanager
    def hold(self, taker: str) -> Iterator[Callable[[int], None]]:
        """Yield a function that reserves bytes or raises Refusal `busy`; all are given back at the end."""
        held = counted = 0

        def reserve(size: int) -> None:
            nonlocal held, counted
            more = max(0, held + size - self._free) - counted
            if self.used + more > self._capacity or (more > 0 and self._of[taker] + more > self._capacity // 4):
                raise try_later("busy", "Too many bodies are held at this moment.")
            held += size
            counted += more
            self.used += more
            self._of[taker] += more

        try:
            yield reserve
        finally:
            self.used -= counted
            self._of[taker] -= counted


async def read_body(request: Request, *, limit: int, seconds: float, reserve: Callable[[int], None]) -> bytes:
    """The whole body. `limit` is in bytes and holds before the body's end was read; `seconds` is for all of it.

    Raises Refusal: bad-content-length, too-large, too-slow, cut-off, busy.
    """
    if (_declared_length(request) or 0) > limit:
        raise _too_large(limit)
    body = bytearray()
    more = True
    try:
        async with asyncio.timeout(seconds):
            while more:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise Refusal("cut-off", "The connection was closed before the body's end.")
                chunk = message.get("body", b"")
                if len(body) + len(chunk) > limit:
                    raise _too_large(limit)
                reserve(len(chunk))
                body += chunk
                more = message.get("more_body", False)
    except TimeoutError:
        raise Refusal("too-slow", f"The body must come within {seconds:g} seconds.") from None
    request.scope[BODY_READ] = True
    return bytes(body)


async def read_gzip(body: bytes, *, limit: int, reserve: Callable[[int], None]) -> bytes:
    """What a gzip body holds; `limit` is in bytes. Raises Refusal: too-large, unparseable, busy."""
    # What it may hold at most is reserved first: the thread that inflates it cannot reserve.
    most = min(limit, len(body) * _MOST_INFLATED)
    reserve(most)
    found = await anyio.to_thread.run_sync(partial(inflate, body, limit=limit))
    reserve(len(found) - most)
    return found


def inflate(body: bytes, *, limit: int) -> bytes:
    """What a gzip body holds, of one member or several. `limit` is in bytes and holds before more is inflated.

    Raises Refusal: too-large, unparseable. Source: RFC 1952.
    """
    found = bytearray()
    start = 0
    while start < len(body):
        member = zlib.decompressobj(wbits=_GZIP)
        while not member.eof:
            # A piece at a time: what a member leaves over is copied, and there may be a member in every 20 bytes.
            piece = member.unconsumed_tail
            if not piece:
                piece = body[start : start + _PIECE]
                start += len(piece)
            try:
                chunk = member.decompress(piece, _CHUNK)
            except zlib.error:
                raise Refusal("unparseable", "The body is no gzip.") from None
            if len(found) + len(chunk) > limit:
                raise _too_large(limit)
            if not chunk and not piece:
                raise Refusal("unparseable", "The body ends before its gzip does.")
            found += chunk
        start -= len(member.unused_data)
    return bytes(found)


def _too_large(limit: int) -> Refusal:
    return Refusal("too-large", f"At most {limit} bytes are taken.")


def _declared_length(request: Request) -> int | None:
    found = request.headers.getlist("content-length")
    if not found:
        return None
    if len(found) > 1 or not _LENGTH.fullmatch(found[0]):
        raise Refusal("bad-content-length", "Content-Length must be one whole number.")
    return int(found[0])
