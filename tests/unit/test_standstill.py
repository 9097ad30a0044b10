"""What stands still is given up: the watchdog of a service, and the limit of a run."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from penstock.errors import Stalled
from penstock.flows.lease import kept
from penstock.ledger import Ledger
from penstock.watchdog import EXIT_CODE, Watchdog
from tests.conformance.ledgers import sqlite_bench


def test_a_silent_loop_ends_the_process() -> None:
    """Only when a loop has been silent for longer than the limit does the watchdog end the process."""
    now = 0.0
    ends: list[int] = []
    dog = Watchdog(10, monotonic=lambda: now, end=ends.append)
    one, _ = dog.loop("one"), dog.loop("two")
    now = 10.0
    dog.check()
    assert not ends
    one()
    now = 10.5
    assert dog.silent() == ["two"]
    dog.check()
    assert ends == [EXIT_CODE]


def test_a_hung_process_really_ends() -> None:
    """A process whose main thread hangs is gone, with the stacks of its threads in the log."""
    code = (
        "import threading, time\n"
        "from penstock.watchdog import Watchdog\n"
        "dog = Watchdog(0.2, monotonic=time.monotonic); dog.loop('the sensor'); dog.start()\n"
        "threading.Event().wait()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == EXIT_CODE
    assert "the sensor stood still" in done.stderr
    assert "threading.py" in done.stderr


def hold(ledger: Ledger, *, stall: float, work: str) -> None:
    """Keep a lease around a piece of work in a thread."""
    lease = ledger.work.acquire("sales", holder="one", ttl=timedelta(seconds=30))
    assert lease is not None
    never = threading.Event()

    async def main() -> None:
        async with kept(ledger, lease, ttl=timedelta(seconds=30), stall=timedelta(seconds=stall)) as progress:
            if work == "hangs":
                hung = asyncio.get_running_loop().run_in_executor(None, never.wait)
                try:
                    await hung
                finally:
                    never.set()
            else:
                for _ in range(20):
                    await asyncio.to_thread(never.wait, stall / 5)
                    await asyncio.to_thread(progress)

    asyncio.run(main())


def test_a_run_that_gets_on_is_left_alone(tmp_path: Path) -> None:
    """Twenty steps, each well inside the limit, together far over it."""
    with sqlite_bench(tmp_path) as bench:
        hold(bench.ledger, stall=0.5, work="gets on")


def test_a_run_that_hangs_is_given_up(tmp_path: Path) -> None:
    """A call that never returns ends the work with Stalled, which names the setting."""
    with sqlite_bench(tmp_path) as bench, pytest.raises(Stalled, match="PENSTOCK_STALL_SECONDS"):
        hold(bench.ledger, stall=0.2, work="hangs")
