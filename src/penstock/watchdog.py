"""Ends this process when one of its loops stands still: whoever supervises it starts it again, whole.

A call that never returns (a dead network file system, a lock nobody will release) is not to be told from slow work but
by time. Everything in penstock may be killed at any moment without loss, so that is also the cure for what hangs.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)

# EX_SOFTWARE of sysexits.h.
EXIT_CODE = 70


class Watchdog:
    """Loops tell that they are alive; one that has been silent for `limit` seconds ends the process."""

    def __init__(
        self,
        limit: float,
        *,
        monotonic: Callable[[], float],
        end: Callable[[int], None] = os._exit,
    ) -> None:
        self._limit = limit
        self._monotonic = monotonic
        self._end = end
        self._last: dict[str, float] = {}

    def loop(self, name: str) -> Callable[[], None]:
        """Watch a loop from now on; returns what it calls whenever it gets on."""
        self._last[name] = self._monotonic()

        def alive() -> None:
            self._last[name] = self._monotonic()

        return alive

    def silent(self) -> list[str]:
        """The loops that have been silent for too long."""
        now = self._monotonic()
        return sorted(name for name, last in self._last.items() if now - last > self._limit)

    def check(self) -> None:
        """End the process if a loop is silent, leaving every thread's stack in the log."""
        stuck = self.silent()
        if stuck:
            log.error(
                "%s stood still for %g s: this process ends, to be started again; where each thread was:",
                ", ".join(stuck),
                self._limit,
            )
            faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
            self._end(EXIT_CODE)

    def start(self) -> None:
        """Check now and then, until the process ends."""
        never = threading.Event()

        def run() -> None:
            while not never.wait(self._limit / 5):
                self.check()

        threading.Thread(target=run, name="watchdog", daemon=True).start()
