"""How many requests a source takes, in all and from one address: sliding windows in this process's memory.

With several processes each takes its share of a rate, so that they hold it together; which process a connection goes to
is the kernel's choice, so that a few connections may meet the limit a little early.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections.abc import Iterable
from hashlib import blake2b

from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from penstock.sources import Source
from penstock.webhook.problems import Refusal

# Addresses share this many windows, by a keyed hash: memory and time are bounded however many there are, and an
# address that floods shuts out one in so many others.
_SLOTS = 256


class Rates:
    """Counts what the sources take. `salt` keeps it secret which addresses share a window."""

    def __init__(self, sources: Iterable[Source], *, processes: int = 1, salt: bytes = b"") -> None:
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._salt = salt
        declared = tuple(sources)
        self._whole = {one.name: _share(one.rate, processes) for one in declared if one.rate}
        self._each = {one.name: _share(one.rate_per_address, processes) for one in declared if one.rate_per_address}

    async def from_address(self, source: str, address: str) -> None:
        """Count a request before anything of it is believed. Raises Refusal `too-many`."""
        if source in self._each:
            await self._hit(self._each[source], "address", source, self._slot(address))

    async def verified(self, source: str) -> None:
        """Count a request that is from its sender: others must not use up what it may send. Raises `too-many`."""
        if source in self._whole:
            await self._hit(self._whole[source], "source", source)

    async def _hit(self, rate: RateLimitItem, *key: str) -> None:
        if await self._limiter.hit(rate, *key):
            return
        stats = await self._limiter.get_window_stats(rate, *key)
        wait = max(1, math.ceil(stats.reset_time - time.time()))
        raise Refusal("too-many", "The source takes no more at this moment.", {"Retry-After": str(wait)})

    def _slot(self, address: str) -> str:
        try:
            found = ipaddress.ip_address(address)
            # Whoever has one IPv6 address has the network's other 2^64.
            network = ipaddress.ip_network((found, 64 if found.version == 6 else 32), strict=False)
            address = str(network)
        except ValueError:
            pass
        digest = blake2b(address.encode("utf-8", "surrogateescape"), key=self._salt, digest_size=8).digest()
        return str(int.from_bytes(digest) % _SLOTS)


def _share(rate: str, processes: int) -> RateLimitItem:
    """The part of a rate that one of so many processes has, one at least."""
    whole = parse(rate)
    return type(whole)(max(1, math.ceil(whole.amount / processes)), whole.multiples)
