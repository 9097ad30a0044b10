"""Keeping a dataset's lease while the work gets on, and giving up when it stands still."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import TypeVar

from penstock.errors import LeaseLost, LedgerUnavailable, Stalled
from penstock.ledger import Ledger
from penstock.model import Lease

log = logging.getLogger(__name__)

T = TypeVar("T")


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


class Heartbeat:
    """Renews the lease from a thread of its own, for work that is not ours and may hold up the event loop."""

    def __init__(self, ledger: Ledger, lease: Lease, *, ttl: timedelta) -> None:
        self._ledger = ledger
        self._lease = lease
        self._ttl = ttl
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"lease of {lease.dataset}", daemon=True)
        self._thread.start()

    def stop(self, seconds: float = 5.0) -> None:
        """End it; what it is about to write may take so long."""
        self._stop.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        while not self._stop.wait(self._ttl.total_seconds() / 3):
            try:
                self._ledger.work.renew(self._lease, ttl=self._ttl)
            except LedgerUnavailable as error:
                log.warning("the lease of %s could not be renewed: %s", self._lease.dataset, error)
            except LeaseLost:
                log.warning("the lease of %s is lost; another run takes over", self._lease.dataset)
                return


class Patience:
    """Runs steps in threads and gives up one of which nothing was heard for `stall`, as `kept` does for a whole run."""

    def __init__(self, stall: timedelta, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._stall = stall.total_seconds()
        self._monotonic = monotonic
        self._heard = monotonic()

    def progress(self) -> None:
        """To be called, from any thread, whenever the step gets on."""
        self._heard = self._monotonic()

    def run(self, step: Callable[[], T]) -> T:
        """What the step returns or raises. Raises Stalled; the thread that hangs cannot be ended from here."""
        results: list[T] = []
        raised: list[BaseException] = []
        over = threading.Event()

        def work() -> None:
            try:
                results.append(step())
            except BaseException as error:  # raised again below, in the thread that asked
                raised.append(error)
            finally:
                over.set()

        self.progress()
        threading.Thread(target=work, daemon=True).start()
        while not over.wait(max(0.0, self._heard + self._stall - self._monotonic())):
            if self._monotonic() - self._heard >= self._stall:
                raise Stalled(f"nothing got on for {self._stall:g} s; see PENSTOCK_STALL_SECONDS")
        if raised:
            raise raised[0]
        return results[0]
