"""What happens in the fork: one flow run, by Prefect's own engine.

The flow comes from the module path of its deployment. Prefect's own loader would change the working directory and
`sys.path`, which the fork has right already.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib
import logging
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any, cast
from uuid import UUID

_PR_SET_PDEATHSIG = 1


def is_module_path(entrypoint: str) -> bool:
    """Whether an entrypoint is `package.module.flow` (which a fork can import), not `file.py:flow`."""
    parts = entrypoint.split(".")
    return len(parts) > 1 and all(part.isidentifier() for part in parts)


def run(flow_run_id: UUID, entrypoint: str, env: Mapping[str, str], working_dir: str | None) -> None:
    """Run a flow run to its end; the process's exit code is the engine's."""
    from prefect.engine import handle_engine_signals
    from prefect.flow_engine import load_flow_run, run_flow
    from prefect.logging.loggers import flow_run_logger

    _die_with_server()
    os.environ.update(env)
    if working_dir:
        os.chdir(working_dir)
    with handle_engine_signals(flow_run_id):
        flow_run = load_flow_run(flow_run_id=flow_run_id)
        logger = flow_run_logger(flow_run=flow_run)
        try:
            module, _, name = entrypoint.rpartition(".")
            flow = getattr(importlib.import_module(module), name)
        except Exception:
            logger.exception("the flow %s cannot be imported", entrypoint)
            raise
        result: Any = run_flow(flow, flow_run=flow_run, error_logger=cast(logging.Logger, logger))
        if asyncio.iscoroutine(result):
            # On the main thread, so that Prefect's engine can catch SIGTERM.
            asyncio.run(result)


def probe() -> None:
    """End with the number of threads that were alive in the fork server after preloading."""
    from penstock.worker.preload import THREADS

    sys.exit(THREADS)


def _die_with_server() -> None:
    # The fork server ends with the worker; a run that outlived both would work beside its successor.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
