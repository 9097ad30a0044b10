"""One exchange over a socket: bytes as they are, and the answers that come back, read strictly."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

# `answer`: it has to be answered, and its connection to end. `any`: an answer, or none, within a moment.
# `slow`: never complete; the server has to close the connection by itself. `gone`: the sender leaves at once.
End = Literal["answer", "any", "slow", "gone"]

_ANSWER_SECONDS = 60.0
_MOMENT_SECONDS = 0.2
_SLOW_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One response. `body` is as it came."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, kw_only=True)
class Told:
    """What came back: answers, and what is wrong with how they came (empty: nothing)."""

    answers: tuple[Answer, ...] = ()
    wrong: str = ""


async def exchange(port: int, pieces: tuple[bytes, ...], end: End, *, head_only: bool) -> Told:
    """Write the pieces one after the other, and read what comes."""
    received = b""
    closed = False
    with suppress(OSError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            for number, piece in enumerate(pieces):
                if number:
                    # Another turn of the loop and another segment, not another moment.
                    await asyncio.sleep(0)
                writer.write(piece)
                with suppress(TimeoutError):
                    # A server that refuses does not read on.
                    async with asyncio.timeout(_MOMENT_SECONDS):
                        await writer.drain()
            if end != "gone":
                received, closed = await _read(reader, end)
        finally:
            writer.close()
    return _told(received, closed, end, head_only)


async def _read(reader: asyncio.StreamReader, end: End) -> tuple[bytes, bool]:
    limit = {"answer": _ANSWER_SECONDS, "slow": _SLOW_SECONDS}.get(end, _MOMENT_SECONDS)
    received = b""
    try:
        async with asyncio.timeout(limit):
            while piece := await reader.read(65536):
                received += piece
    except TimeoutError:
        return received, False
    except OSError:
        pass
    return received, True


def _told(received: bytes, closed: bool, end: End, head_only: bool) -> Told:
    wrong = ""
    if end in ("answer", "slow") and not closed:
        wrong = f"the connection was still open after a minute, with {received[:80]!r}"
    elif end == "answer" and not received:
        wrong = "no answer"
    try:
        return Told(answers=_answers(received, head_only, whole=closed and end == "answer"), wrong=wrong)
    except ValueError as error:
        return Told(wrong=f"{error}: {received[:300]!r}")


def _answers(received: bytes, head_only: bool, *, whole: bool) -> tuple[Answer, ...]:
    """Raises ValueError for what is no HTTP; one that is cut off is left out unless all had to come."""
    found = []
    rest = received
    while rest:
        top, blank, after = rest.partition(b"\r\n\r\n")
        if not blank:
            if whole:
                raise ValueError("an answer's head is cut off")
            break
        first, *lines = top.decode("latin-1").split("\r\n")
        version, _, status = first.partition(" ")
        if version != "HTTP/1.1" or not status[:3].isdigit():
            raise ValueError("no status line")
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon:
                raise ValueError("a header without a colon")
            headers[name.lower()] = value.strip()
        code = int(status[:3])
        size = 0 if head_only or code in (100, 204, 304) else int(headers.get("content-length", len(after)))
        if len(after) < size:
            if whole:
                raise ValueError("an answer's body is cut off")
            break
        if code != 100:
            found.append(Answer(status=code, headers=headers, body=after[:size]))
        rest = after[size:]
    return tuple(found)
