"""Several processes that serve the webhook on one socket: started, started again when they die, ended together.

They share the listening socket, so that a connection waits for whichever is free, also while one of them is killed.
Each holds the reading end of a pipe, its leash, whose other end only this process has: when it is gone, however it
ended, they drain and end too.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client.multiprocess import mark_process_dead

log = logging.getLogger(__name__)

# `main` ends with this for settings and declarations, which a second start would find no better.
_USAGE = 2
_LOOK_SECONDS = 0.2
_LONGEST_PAUSE = 30.0
# What ran for so long was not ended by its own start.
_SETTLED_SECONDS = 10.0


@dataclass(kw_only=True)
class _Worker:
    number: int = 0
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    failures: int = 0
    start_at: float = 0.0


@dataclass(kw_only=True)
class Workers:
    """`count` processes of `argv`, which gets the socket, the leash, the folder of metrics and its number as options.

    One that does not end within `grace_seconds` of SIGTERM is killed.
    """

    count: int
    argv: Sequence[str]
    env: Mapping[str, str]
    bound: socket.socket
    metrics: Path
    grace_seconds: float
    monotonic: Callable[[], float] = time.monotonic
    _workers: list[_Worker] = field(default_factory=list)

    def run(self, stop: threading.Event) -> int:
        """Keep them running until `stop`, then let them answer what came. Returns the exit code."""
        shutil.rmtree(self.metrics, ignore_errors=True)
        self.metrics.mkdir(parents=True, mode=0o700)
        leash, hand = os.pipe()
        code = 0
        try:
            self._workers = [_Worker(number=number) for number in range(self.count)]
            while not stop.is_set() and code == 0:
                code = max(self._look(worker, leash) for worker in self._workers)
                stop.wait(_LOOK_SECONDS)
        finally:
            self._end()
            os.close(leash)
            os.close(hand)
            shutil.rmtree(self.metrics, ignore_errors=True)
        return code

    def _look(self, worker: _Worker, leash: int) -> int:
        """Start a worker that does not run, once it is due; the code of one that a new start would not help."""
        now = self.monotonic()
        if worker.process is not None:
            code = worker.process.poll()
            if code is None:
                return 0
            # Its counters stay, and who comes after it goes on with them; what it had waiting is gone.
            mark_process_dead(worker.number, path=str(self.metrics))  # type: ignore[no-untyped-call]
            settled = now - worker.started > _SETTLED_SECONDS
            worker.failures = 1 if settled else worker.failures + 1
            pause = 0.0 if worker.failures == 1 else min(2.0 ** (worker.failures - 2), _LONGEST_PAUSE)
            log.warning("worker %d ended with code %d; again in %.0f s", worker.process.pid, code, pause)
            worker.process, worker.start_at = None, now + pause
            if code == _USAGE and not settled:
                return code
        if now >= worker.start_at:
            worker.process, worker.started = self._spawn(worker.number, leash), now
        return 0

    def _spawn(self, number: int, leash: int) -> subprocess.Popen[bytes]:
        shared = self.bound.fileno()
        options = {"socket": shared, "leash": leash, "metrics": self.metrics, "number": number}
        return subprocess.Popen(
            [*self.argv, *(part for name, value in options.items() for part in (f"--{name}", str(value)))],
            # Read when prometheus_client is imported; nothing of ours looks at it.
            env={**self.env, "PROMETHEUS_MULTIPROC_DIR": str(self.metrics)},
            stdin=subprocess.DEVNULL,
            pass_fds=(shared, leash),
        )

    def _end(self) -> None:
        # First: what connects from now on is refused, and not left waiting in a backlog that nobody empties.
        self.bound.close()
        processes = [worker.process for worker in self._workers if worker.process is not None]
        for process in processes:
            process.send_signal(signal.SIGTERM)
        deadline = self.monotonic() + self.grace_seconds
        for process in processes:
            try:
                process.wait(max(deadline - self.monotonic(), 0.0))
            except subprocess.TimeoutExpired:
                log.warning("worker %d did not end within %.0f s and is killed", process.pid, self.grace_seconds)
                process.kill()
                process.wait()


def worker_argv(project_dir: Path) -> list[str]:
    """How one worker is started, but for its options."""
    return [sys.executable, "-m", "penstock.cli", "--project", str(project_dir), "serve"]


def end_with_parent(leash: int) -> None:
    """Send this process SIGTERM when whoever holds the other end of the leash is gone."""

    def wait() -> None:
        os.read(leash, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="leash", daemon=True).start()
