"""What the fork server imports before it forks anything: Prefect, the project's flows, and their heavy libraries.

Importing this module does the work. `THREADS` is how many threads that left alive: a fork copies only the one that
forks, so more than one makes forking unsafe and the worker spawns instead. `IMPORTED` are the project's files.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from importlib import import_module
from pathlib import Path

from pydantic import BaseModel

from penstock.worker.code import imported

_HEAVY = (
    "prefect.client.orchestration",
    "prefect.flow_engine",
    "prefect.task_engine",
    "prefect.utilities.visualization",
    "anyio._backends._asyncio",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "penstock.flows.ingest",
    "penstock.warehouse.duckdb",
)

# A fork takes milliseconds.
_PROBE_SECONDS = 5.0


def threads_alive() -> int:
    """The threads of this process, those of C libraries included where the system tells."""
    try:
        return len(os.listdir("/proc/self/task"))
    except FileNotFoundError:
        return threading.active_count()


def _import_without_threads() -> None:
    # Arrow's allocator would start a thread to purge memory; DuckDB's default connection, made at import, has one for
    # every further core, which end when it is told to use one. A run's own connections are not touched by either.
    os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")
    import_module("duckdb").execute("SET threads = 1")
    for name in _HEAVY:
        import_module(name)


def _complete_models() -> None:
    # Pydantic leaves a model that names another for its first use: in each run, and half a second for all of them.
    waiting = BaseModel.__subclasses__()
    while waiting:
        model = waiting.pop()
        waiting += model.__subclasses__()
        if not model.__pydantic_complete__:
            # One that cannot be made fails where it is used, if it is.
            with contextlib.suppress(Exception):
                model.model_rebuild(raise_errors=False)


def _import_project(root: Path) -> None:
    from penstock.errors import PenstockError
    from penstock.project import load_project

    try:
        load_project(root, only=["flows"])
    except PenstockError as error:
        # A run of a healthy deployment must not suffer for a broken file; the run itself will name it.
        sys.stderr.write(f"penstock: {error}\n")


def _threads_that_stay() -> int:
    """The threads after a fork, which some libraries end their own for; `threads_alive` where a fork hangs.

    NumPy's OpenBLAS has a thread for every further core from its import on. It ends them before a fork, and begins new
    ones where it computes.
    """
    before = threads_alive()
    if before == 1:
        return 1
    child = os.fork() or os._exit(0)
    deadline = time.monotonic() + _PROBE_SECONDS
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            # It waits for a lock that a thread had which is not there: so would every run.
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return before
        time.sleep(0.01)
    return threads_alive()


_BEGAN = time.time_ns()
_import_without_threads()
_ROOT = import_module("penstock.settings").load_settings().project_dir.resolve()
_import_project(_ROOT)
_complete_models()
THREADS = _threads_that_stay()
IMPORTED = imported(_ROOT, since_ns=_BEGAN)
