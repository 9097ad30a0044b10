"""Rates: what is over them is refused with the time to wait, and one sender does not use up another's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from penstock.sources import Source
from penstock.verification import bearer
from penstock.webhook.problems import Refusal
from penstock.webhook.rates import Rates

SHOP = Source(name="shop", dataset="d", verify=bearer("S"), rate="3/hour", rate_per_address="2/hour")
FREE = Source(name="free", dataset="d", verify=bearer("S"))


async def taken(hit: Callable[[], Awaitable[None]], times: int) -> int:
    """How many of so many hits are not refused; a refusal says how long to wait."""
    passed = 0
    refused: list[Refusal] = []
    for _ in range(times):
        try:
            await hit()
        except Refusal as refusal:
            refused.append(refusal)
        else:
            passed += 1
    assert {refusal.kind for refusal in refused} <= {"too-many"}
    assert all(1 <= int(refusal.headers["Retry-After"]) <= 3600 for refusal in refused)
    return passed


def test_a_source_takes_no_more_than_its_rate() -> None:
    """Three of five, whoever they come from."""
    rates = Rates([SHOP, FREE])
    assert asyncio.run(taken(lambda: rates.verified("shop"), 5)) == 3


def test_a_source_without_a_rate_takes_all() -> None:
    """No rate, no limit."""
    rates = Rates([SHOP, FREE])
    assert asyncio.run(taken(lambda: rates.verified("free"), 50)) == 50
    assert asyncio.run(taken(lambda: rates.from_address("free", "192.0.2.1"), 50)) == 50


def test_each_address_has_its_own() -> None:
    """One that is over its rate does not shut out another."""

    async def run() -> tuple[int, int]:
        rates = Rates([SHOP])
        return (
            await taken(lambda: rates.from_address("shop", "192.0.2.1"), 5),
            await taken(lambda: rates.from_address("shop", "192.0.2.2"), 5),
        )

    assert asyncio.run(run()) == (2, 2)


@pytest.mark.parametrize(
    ("one", "other"), [("2001:db8::1", "2001:db8::ffff:2"), ("2001:db8:0:0::1", "2001:db8:0:ff::")]
)
def test_a_network_of_ipv6_is_one_address(one: str, other: str) -> None:
    """Whoever has one of them has many."""

    async def run() -> int:
        rates = Rates([SHOP])
        return await taken(lambda: rates.from_address("shop", one), 1) + await taken(
            lambda: rates.from_address("shop", other), 5
        )

    assert asyncio.run(run()) == 2


def test_many_addresses_take_bounded_memory() -> None:
    """However many there are, they share so many windows."""

    async def run() -> int:
        rates = Rates([SHOP])
        for number in range(2000):
            try:
                await rates.from_address("shop", f"198.51.{number // 250}.{number % 250}")
            except Refusal:
                continue
        return len(rates._limiter.storage.storage)  # type: ignore[attr-defined]

    assert asyncio.run(run()) <= 1001


@pytest.mark.parametrize("address", ["", "not an address", "x" * 5000, "\udcff", "::ffff:192.0.2.1", "fe80::1%eth0"])
def test_whatever_stands_for_an_address_is_counted(address: str) -> None:
    """A Unix socket has none."""
    rates = Rates([SHOP])
    assert asyncio.run(taken(lambda: rates.from_address("shop", address), 5)) == 2


def test_a_batch_counts_as_its_deliveries() -> None:
    """One that is larger than the rate takes all of it, and is taken."""

    async def run() -> list[int]:
        rates = Rates([SHOP])
        two, again = (
            await taken(lambda: rates.verified("shop", 2), 1),
            await taken(lambda: rates.verified("shop", 2), 1),
        )
        return [two, again, await taken(lambda: Rates([SHOP]).verified("shop", 500), 1)]

    assert asyncio.run(run()) == [1, 0, 1]


def test_a_flood_of_addresses_shuts_out_nobody() -> None:
    """Whoever has thousands of them is not stopped by this, and nobody else is either."""

    async def run() -> int:
        rates = Rates([SHOP])
        for number in range(1500):
            await rates.from_address("shop", f"2001:db8:{number:x}::1")
            await rates.from_address("shop", f"2001:db8:{number:x}::2")
        return sum([await taken(partial(rates.from_address, "shop", f"192.0.2.{number}"), 2) for number in range(20)])

    assert asyncio.run(run()) == 40


def test_processes_share_a_rate() -> None:
    """Each has its part, one at least."""
    assert asyncio.run(taken(lambda: Rates([SHOP], processes=2).verified("shop"), 1)) == 1

    async def run(processes: int) -> int:
        rates = Rates([SHOP], processes=processes)
        return await taken(lambda: rates.verified("shop"), 5)

    assert [asyncio.run(run(processes)) for processes in (2, 3, 100)] == [2, 1, 1]
