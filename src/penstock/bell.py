"""A bell between processes: whoever leaves the relay something to send rings, and the relay looks at once.

A named pipe in PENSTOCK_HOME. A ring is a hint: it may be lost or heard late, and from another machine, or where no
pipe can be made, nobody hears it. Looking every so often stays the truth.
"""

from __future__ import annotations

import contextlib
import os
import select
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_NAME = "relay.bell"
_DRAIN = 65_536


def bell_path(home: Path) -> Path:
    """Where the bell of a project's relay is."""
    return home / _NAME


def ring(path: Path) -> None:
    """Tell whoever listens; never waits, and never fails: with nobody there, nothing happens."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
                os.write(descriptor, b"\0")
        finally:
            os.close(descriptor)


@contextmanager
def listening(path: Path) -> Iterator[Callable[[float], bool]]:
    """Gives a function that waits so many seconds at most and says whether the bell rang; with no pipe it waits."""
    try:
        descriptor = _open(path)
    except (OSError, AttributeError):
        yield _only_wait
        return
    try:
        yield lambda seconds: _heard(descriptor, seconds)
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.suppress(FileExistsError):
        os.mkfifo(path, 0o600)
    # For writing too: a pipe whose last writer left would be readable for ever.
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileExistsError(path)
    return descriptor


def _heard(descriptor: int, seconds: float) -> bool:
    ready, _, _ = select.select([descriptor], [], [], seconds)
    if ready:
        with contextlib.suppress(BlockingIOError):
            os.read(descriptor, _DRAIN)
    return bool(ready)


def _only_wait(seconds: float) -> bool:
    time.sleep(seconds)
    return False
