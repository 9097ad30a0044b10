"""What happens in the fork: one flow run, by Prefect's own engine.

The flow comes from the module path of its deployment. Prefect's own loader would change the working directory and
`sys.path`, which the fork has right already.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import importlib
import logging
import os
import signal
import sys
import traceback
from collections.abc import Coroutine, Mapping
from multiprocessing.connection import Connection
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, cast

from prefect.exceptions import TerminationSignal

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

_PR_SET_PDEATHSIG = 1
# Sent before SIGTERM when somebody cancelled the run: its engine then reports Cancelled instead of Crashed.
CANCEL = signal.SIGUSR1
_TERMINATED = 128 + signal.SIGTERM
_FLUSH_SECONDS = 5.0
_LEFTOVER_SECONDS = 1.0


def is_module_path(entrypoint: str) -> bool:
    """Whether an entrypoint is `package.module.flow` (which a fork can import), not `file.py:flow`."""
    parts = entrypoint.split(".")
    return len(parts) > 1 and all(part.isidentifier() for part in parts)


def run(flow_run: FlowRun, entrypoint: str, env: Mapping[str, str], working_dir: str | None) -> NoReturn:
    """Run a flow run to its end; the process's exit code is the engine's.

    The process ends then, whatever threads are left: one that hangs must not keep a run that has been reported.
    """
    code = 1
    try:
        _run(flow_run, entrypoint, env, working_dir)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    except TerminationSignal:
        code = _TERMINATED
    except BaseException:
        traceback.print_exc()
    finally:
        _flush()
        os._exit(code)


def _run(flow_run: FlowRun, entrypoint: str, env: Mapping[str, str], working_dir: str | None) -> None:
    from prefect.engine import handle_engine_signals
    from prefect.flow_engine import run_flow
    from prefect.logging.loggers import flow_run_logger

    # Before the engine is there, and after it, a signal simply ends the process; the worker reports it.
    signal.signal(signal.SIGTERM, _exit)
    signal.signal(CANCEL, _note_cancellation)
    _die_with_server()
    os.environ.update(env)
    if working_dir:
        os.chdir(working_dir)
    with handle_engine_signals(flow_run.id):
        logger = flow_run_logger(flow_run=flow_run)
        try:
            module, _, name = entrypoint.rpartition(".")
            flow = getattr(importlib.import_module(module), name)
        except Exception:
            logger.exception("the flow %s cannot be imported", entrypoint)
            raise
        result: Any = run_flow(flow, flow_run=flow_run, error_logger=cast(logging.Logger, logger))
        if asyncio.iscoroutine(result):
            _complete(result)


def probe(tell: Connection) -> None:
    """Tell how many threads were alive in the fork server after preloading, and which of the project's files it has."""
    from penstock.worker.preload import IMPORTED, THREADS

    tell.send((THREADS, IMPORTED))


def _complete(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Run on the main thread, where Prefect's engine can catch SIGTERM; unlike `asyncio.run`, wait for no thread."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    task = loop.create_task(coroutine)
    try:
        loop.run_until_complete(task)
    except BaseException:
        if not task.done():
            # The signal came while the loop waited, and so to none of its tasks.
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                loop.run_until_complete(task)
        raise
    finally:
        left = asyncio.all_tasks(loop)
        for other in left:
            other.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=_LEFTOVER_SECONDS))


def _flush() -> None:
    # What Prefect would do when the interpreter exits; but that waits for every thread first.
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    try:
        for service in (EventsWorker, APILogWorker):
            service.drain_all(timeout=_FLUSH_SECONDS)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()


def _exit(number: int, frame: FrameType | None) -> None:
    sys.exit(_TERMINATED)


def _note_cancellation(number: int, frame: FrameType | None) -> None:
    # What Prefect's own runner tells its children over a socket. Assigned, because the setter takes a lock that the
    # interrupted code may hold.
    from prefect._internal import control_listener

    control_listener._intent = "cancel"


def _die_with_server() -> None:
    # The fork server ends with the worker; a run that outlived both would work beside its successor.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
