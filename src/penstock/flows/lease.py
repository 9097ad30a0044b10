"""Keeping a dataset's lease while the work gets on, and giving up when it stands still."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

from penstock.errors import LeaseLost, LedgerUnavailable, Stalled
from penstock.ledger import Ledger
from penstock.model import Lease

log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def kept(ledger: Ledger, lease: Lease, *, ttl: timedelta, stall: timedelta) -> AsyncIterator[Callable[[], None]]:
    """Renew the lease three times in each `ttl`; gives what is to be called, from any thread, whenever work gets on.

    Raises Stalled where nothing was heard for `stall`: a call that never returns must not hold the dataset for ever.
    The thread that hangs cannot be ended from here; should it wake up, the warehouse's token stops it.
    """
    loop = asyncio.get_running_loop()
    beating = asyncio.create_task(_beat(ledger, lease, ttl))
    try:
        async with asyncio.timeout(stall.total_seconds()) as limit:

            def push() -> None:
                if not limit.expired() and not done:
                    limit.reschedule(loop.time() + stall.total_seconds())

            done = False
            try:
                yield lambda: _call_soon(loop, push)
            finally:
                done = True
    except TimeoutError:
        if not limit.expired():
            raise
        raise Stalled(f"nothing got on for {stall.total_seconds():g} s; see PENSTOCK_STALL_SECONDS") from None
    finally:
        beating.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await beating


def _call_soon(loop: asyncio.AbstractEventLoop, push: Callable[[], None]) -> None:
    # A thread that hung and woke up after its run had ended finds the loop closed.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(push)


async def _beat(ledger: Ledger, lease: Lease, ttl: timedelta) -> None:
    while True:
        await asyncio.sleep(ttl.total_seconds() / 3)
        try:
            await asyncio.to_thread(ledger.work.renew, lease, ttl=ttl)
        except LedgerUnavailable as error:
            log.warning("the lease of %s could not be renewed: %s", lease.dataset, error)
        except LeaseLost:
            # Not fatal here: the warehouse's token stops whatever this run still tries to write.
            log.warning("the lease of %s is lost; another run takes over", lease.dataset)
            return
