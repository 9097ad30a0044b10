"""A pipeline of `examples/` as its user runs it: a copy of its folder, and a `penstock up` of its own."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.acceptance.running import ROOT, Up

EXAMPLES = ROOT / "examples"


@contextmanager
def example(name: str, folder: Path, *, store: str = "minio", extra: Mapping[str, str] | None = None) -> Iterator[Up]:
    """`examples/<name>` copied to `folder`/<name>, with `penstock up` running there; ended in any case.

    `extra` are environment variables. Its own tests/ and what it had made before are not copied.
    """
    here = folder / name
    left = shutil.ignore_patterns("__pycache__", ".penstock", ".venv", "inbox", "tests")
    shutil.copytree(EXAMPLES / name, here, ignore=left)
    running = Up(folder=here, store=store, extra=dict(extra or {}))
    try:
        running.start()
        yield running
    finally:
        if running.process is not None:
            running.stop(signal.SIGTERM)
