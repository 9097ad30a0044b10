"""Gzip bodies: what they hold comes back, within the limit, and anything else is refused."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.webhook.bodies import Memory, inflate, read_gzip
from penstock.webhook.problems import Refusal
from tests.examples import examples

LIMIT = 200_000


@given(parts=st.lists(st.binary(max_size=2000), min_size=1, max_size=4), repeat=st.integers(1, 80))
@settings(max_examples=examples(100))
def test_what_was_compressed_comes_back(parts: list[bytes], repeat: int) -> None:
    """Of one member or several."""
    body = b"".join(gzip.compress(part * repeat, mtime=0) for part in parts)
    whole = b"".join(part * repeat for part in parts)
    if len(whole) > LIMIT:
        with pytest.raises(Refusal, match="too-large"):
            inflate(body, limit=LIMIT)
    else:
        assert inflate(body, limit=LIMIT) == whole


def test_the_limit_is_exact() -> None:
    """A byte more is too large."""
    assert len(inflate(gzip.compress(b"x" * LIMIT), limit=LIMIT)) == LIMIT
    with pytest.raises(Refusal, match="too-large"):
        inflate(gzip.compress(b"x" * (LIMIT + 1)), limit=LIMIT)


def test_a_bomb_is_cut_off_before_it_is_inflated() -> None:
    """A hundred megabytes from a tenth of one cost what the limit costs."""
    member = zlib.compressobj(9, wbits=31)
    bomb = b"".join(member.compress(bytes(1_000_000)) for _ in range(100)) + member.flush()
    assert len(bomb) < 110_000
    memory = Memory(4 * LIMIT, free=0)

    async def run() -> None:
        with memory.hold("a") as reserve:
            await read_gzip(bomb, limit=LIMIT, reserve=reserve)

    with pytest.raises(Refusal, match="too-large"):
        asyncio.run(run())
    assert memory.used == 0


def test_what_it_holds_counts_as_held() -> None:
    """While it is there, and no more than it has."""
    memory = Memory(10_000_000, free=0)

    async def run() -> int:
        with memory.hold("a") as reserve:
            await read_gzip(gzip.compress(b"x" * 5000), limit=LIMIT, reserve=reserve)
            return memory.used

    assert asyncio.run(run()) == 5000
    assert memory.used == 0


def test_it_is_refused_where_memory_is_full() -> None:
    """What it may hold at most must find room."""

    async def run() -> None:
        with Memory(1000, free=0).hold("a") as reserve:
            await read_gzip(gzip.compress(b"x" * 5000), limit=LIMIT, reserve=reserve)

    with pytest.raises(Refusal, match="busy"):
        asyncio.run(run())


WHOLE = gzip.compress(b'{"a": 1}' * 50, mtime=0)


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        WHOLE[:-1],
        WHOLE[:20],
        WHOLE + b"rubbish",
        WHOLE[:-5] + b"\0" + WHOLE[-4:],
        zlib.compress(b"x"),
        b"\x1f\x8b",
    ],
    ids=["plain", "no-end", "cut", "trailing", "wrong-sum", "zlib", "head"],
)
def test_what_is_no_gzip_is_refused(body: bytes) -> None:
    """A wrong sum, and what stands behind, included."""
    with pytest.raises(Refusal, match="unparseable"):
        inflate(body, limit=LIMIT)


@given(body=st.binary(max_size=300), at=st.integers(0, len(WHOLE) - 1), flip=st.integers(1, 255))
@settings(max_examples=examples(200))
def test_any_bytes_are_inflated_or_refused(body: bytes, at: int, flip: int) -> None:
    """Nothing else is ever raised."""
    changed = WHOLE[:at] + bytes([WHOLE[at] ^ flip]) + WHOLE[at + 1 :]
    for one in (body, WHOLE[:10] + body, changed):
        with suppress(Refusal):
            assert len(inflate(one, limit=LIMIT)) <= LIMIT
