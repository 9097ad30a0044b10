"""Ports for what `up` starts, chosen so that two of them that start at once do not choose the same.

A port that was free a moment ago may be another's by the time a server binds it. Each chosen port is therefore locked
by a file of the user's own until this process ends, and what is not preferred lies under the range from which Linux
takes the ports of outgoing connections (32768 and up).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import filelock

from penstock.errors import NotRunning

_LOWEST, _HIGHEST = 20_000, 32_000
_TRIES = 200
_held: list[filelock.BaseFileLock] = []


def free_port(preferred: int = 0, *, host: str = "127.0.0.1", keep: bool = True) -> int:
    """`preferred` when nobody has it, else any free port; with `keep` it is this process's own until it ends."""
    for port in _candidates(preferred):
        lock = _lock(port)
        if lock is None:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            if keep:
                _held.append(lock)
            else:
                lock.release()
            return port
        lock.release()
    raise NotRunning(f"no free port on {host}")


def _candidates(preferred: int) -> Iterator[int]:
    if preferred:
        yield preferred
    for _ in range(_TRIES):
        yield _LOWEST + secrets.randbelow(_HIGHEST - _LOWEST)


def _lock(port: int) -> filelock.BaseFileLock | None:
    folder = Path(tempfile.gettempdir(), f"penstock-ports-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    lock = filelock.FileLock(folder / f"{port}.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return None
    return lock
