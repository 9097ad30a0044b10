"""A supervised process tree: starts children, restarts one that dies, and leaves nothing running.

Each child leads a session of its own, so that Ctrl-C reaches only the supervisor, which ends them in reverse order.
On Linux the kernel ends them too when the supervisor itself is killed. Start children from the main thread: the
kernel's signal follows the thread that made them.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from penstock.errors import Transient

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
GRACE_SECONDS = 10.0
_LONGEST_PAUSE = 30.0
# What ran for so long was not ended by its own start.
_SETTLED_SECONDS = 10.0
_LARGEST_LOG = 10_000_000


class ChildFailed(Transient):
    """A part did not start."""


@dataclass(frozen=True, kw_only=True)
class Child:
    """What to run. `ready` tells whether it does its work; without it, running is enough.

    `grace_seconds` after SIGTERM it is killed.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    ready: Callable[[], bool] | None = None
    cwd: Path | None = None
    grace_seconds: float = GRACE_SECONDS


@dataclass(kw_only=True)
class _Running:
    child: Child
    process: subprocess.Popen[bytes]
    started: float
    failures: int = 0
    restart_at: float | None = None


@dataclass(kw_only=True)
class Supervisor:
    """Starts, watches and ends children. Their output goes to `logs/<name>.log`."""

    logs: Path
    monotonic: Callable[[], float] = time.monotonic
    _running: dict[str, _Running] = field(default_factory=dict)

    def start(self, child: Child) -> int:
        """Start a child; returns its pid."""
        self.logs.mkdir(parents=True, exist_ok=True, mode=0o700)
        process = self._spawn(child)
        self._running[child.name] = _Running(child=child, process=process, started=self.monotonic())
        return process.pid

    def wait_ready(self, *names: str, seconds: float) -> None:
        """Wait until these children are ready. Raises ChildFailed with the end of the log of one that is not."""
        deadline = self.monotonic() + seconds
        for name in names:
            running = self._running[name]
            while running.child.ready is not None and not running.child.ready():
                if running.process.poll() is not None:
                    raise ChildFailed(f"{name} ended with code {running.process.returncode}:\n{self._tail(name)}")
                if self.monotonic() > deadline:
                    raise ChildFailed(f"{name} was not ready within {seconds:.0f} s:\n{self._tail(name)}")
                time.sleep(0.05)

    def watch(self) -> list[str]:
        """Restart what died, with a pause that grows; returns what happened, one line each."""
        now = self.monotonic()
        said = []
        for running in self._running.values():
            self._bound_log(running.child.name)
            if running.restart_at is not None:
                if now >= running.restart_at:
                    running.process = self._spawn(running.child)
                    running.started, running.restart_at = now, None
                    said.append(f"{running.child.name} is started again (pid {running.process.pid})")
                continue
            code = running.process.poll()
            if code is None:
                continue
            # One that ran for a while begins to count anew.
            running.failures = 1 if now - running.started > _SETTLED_SECONDS else running.failures + 1
            pause = 0.0 if running.failures == 1 else min(2.0 ** (running.failures - 2), _LONGEST_PAUSE)
            running.restart_at = now + pause
            _signal_group(running.process.pid, signal.SIGKILL)
            said.append(
                f"{running.child.name} ended with code {code}; "
                f"log: {self.logs / (running.child.name + '.log')}; again in {pause:.0f} s"
            )
        return said

    def pids(self) -> dict[str, int]:
        """The pid of each child that runs."""
        return {name: running.process.pid for name, running in self._running.items() if running.process.poll() is None}

    def stop(self) -> None:
        """End every child, the last started first: SIGTERM, and SIGKILL for what does not go."""
        for name, running in reversed(list(self._running.items())):
            if running.process.poll() is None:
                running.process.terminate()
                try:
                    running.process.wait(running.child.grace_seconds)
                except subprocess.TimeoutExpired:
                    log.warning("%s did not end within %.0f s and is killed", name, running.child.grace_seconds)
            # The group, because a child's own children must not outlive it.
            _signal_group(running.process.pid, signal.SIGKILL)
            running.process.wait()
        self._running.clear()

    def _spawn(self, child: Child) -> subprocess.Popen[bytes]:
        with (self.logs / f"{child.name}.log").open("ab") as output:
            return subprocess.Popen(
                list(child.argv),
                env=dict(child.env),
                cwd=child.cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )

    def _bound_log(self, name: str) -> None:
        """Begin a log anew that has grown large: who may post to the webhook decides how many lines there are.

        The child keeps its file and goes on at its end; what it writes in this very moment may be lost.
        """
        path = self.logs / f"{name}.log"
        if path.exists() and path.stat().st_size > _LARGEST_LOG:
            # On a full disk there is no copy, and all the more reason to begin anew.
            with contextlib.suppress(OSError):
                shutil.copyfile(path, path.with_suffix(".log.1"))
            os.truncate(path, 0)

    def _tail(self, name: str, lines: int = 15) -> str:
        text = (self.logs / f"{name}.log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])


_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    # Runs between fork and exec: nothing here may take a lock.
    assert _libc is not None
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
