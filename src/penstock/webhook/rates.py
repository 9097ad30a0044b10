"""How many requests a source takes, in all and from one address: sliding windows in this process's memory.

With several processes each takes its share of a rate, so that they hold it together; which process a connection goes to
is the kernel's choice, so that a few connections may meet the limit a little early.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Iterable

from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from penstock.sources import Source
from penstock.webhook.problems import Refusal

# Of so many addresses the counts are kept, the longest silent one's goes first: memory and time are bounded, and a
# flood from ever new addresses shuts out nobody else. It is a proxy's to stop.
_MOST_ADDRESSES = 1000
_LONGEST_ADDRESS = 64


class Rates:
    """Counts what the sources take."""

    def __init__(self, sources: Iterable[Source], *, processes: int = 1) -> None:
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._heard: OrderedDict[tuple[str, str], None] = OrderedDict()
        declared = tuple(sources)
        self._whole = {one.name: _share(one.rate, processes) for one in declared if one.rate}
        self._each = {one.name: _share(one.rate_per_address, processes) for one in declared if one.rate_per_address}

    async def from_address(self, source: str, address: str) -> None:
        """Count a request before anything of it is believed. Raises Refusal `too-many`."""
        if source in self._each:
            network = _network(address)
            self._heard[source, network] = None
            self._heard.move_to_end((source, network))
            while len(self._heard) > _MOST_ADDRESSES:
                (of, silent), _ = self._heard.popitem(last=False)
                await self._limiter.clear(self._each[of], "address", of, silent)
            await self._hit(self._each[source], 1, "address", source, network)

    async def verified(self, source: str, deliveries: int = 1) -> None:
        """Count deliveries that are from their sender: others must not use up what it may send. Raises `too-many`.

        A batch that is larger than the rate counts as all of it, or it would never be taken.
        """
        if source in self._whole:
            rate = self._whole[source]
            await self._hit(rate, min(deliveries, rate.amount), "source", source)

    async def _hit(self, rate: RateLimitItem, cost: int, *key: str) -> None:
        if await self._limiter.hit(rate, *key, cost=cost):
            return
        stats = await self._limiter.get_window_stats(rate, *key)
        wait = max(1, math.ceil(stats.reset_time - time.time()))
        raise Refusal("too-many", "The source takes no more at this moment.", {"Retry-After": str(wait)})


def _network(address: str) -> str:
    """What counts as one address: of IPv6 a /56, since whoever has one address there has many."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address[:_LONGEST_ADDRESS]
    if isinstance(found, ipaddress.IPv4Address) or found.ipv4_mapped is not None:
        return str(getattr(found, "ipv4_mapped", found))
    return str(ipaddress.IPv6Network((found.packed, 56), strict=False))


def _share(rate: str, processes: int) -> RateLimitItem:
    """The part of a rate that one of so many processes has, one at least."""
    whole = parse(rate)
    return type(whole)(max(1, math.ceil(whole.amount / processes)), whole.multiples)
