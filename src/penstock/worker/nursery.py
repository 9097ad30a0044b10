"""Where runs are born: a fork server that has everything imported, or a fresh interpreter where that is not safe."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Mapping
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess, SpawnContext, SpawnProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.worker import child
from penstock.worker.code import Code, changed, imported

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

log = logging.getLogger(__name__)

_PROBES = 3
# Files that a line of the log names.
_NAMED = 3

Born = ForkServerProcess | SpawnProcess


class Nursery:
    """Makes processes for runs. `warm` before the first one, or the first one waits for the imports."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self._context = _context()
        self._born: list[Born] = []
        self._code = Code(root=self._root)
        self._renewing = False

    async def warm(self) -> str:
        """Start the fork server and see that it is safe to fork; returns in words how runs are started."""
        if isinstance(self._context, SpawnContext):
            self._code = imported(self._root, since_ns=time.time_ns())
            return f"a fresh interpreter each, because {sys.platform} has no safe fork: some seconds slower"
        threads = 0
        for _ in range(_PROBES):
            try:
                threads, self._code = await self._probe()
            except (EOFError, OSError) as error:
                # It may be killed while it warms up.
                log.warning("the fork server ended while it warmed up (%r); once more", error)
                continue
            if threads == 1:
                return "forked from a warm process"
            break
        # As long as the code stays as it is.
        self._context, self._code = multiprocessing.get_context("spawn"), imported(self._root, since_ns=time.time_ns())
        return (
            f"a fresh interpreter each, because importing the flows left {threads or 'an unknown number of'} threads "
            "alive, which a fork would not copy: some seconds slower"
        )

    def is_stale(self) -> bool:
        """Whether files of the project were changed since the fork server imported them, or it is being made anew."""
        return self._renewing or bool(changed(self._code))

    async def renew(self) -> str | None:
        """Have a fork server with the code as it is now, unless the one that there is has it, or has runs.

        Returns in words what was changed, or None.
        """
        files = changed(self._code)
        if not files or self.alive():
            return None
        self._renewing = True
        try:
            await asyncio.to_thread(_end_fork_server)
            self._context = _context()
            await self.warm()
        finally:
            self._renewing = False
        return ", ".join(files[:_NAMED]) + (", …" if len(files) > _NAMED else "")

    async def _probe(self) -> tuple[int, Code]:
        receiver, sender = self._context.Pipe(duplex=False)
        with receiver:
            with sender:
                process = self._context.Process(target=child.probe, args=(sender,))
                # In a thread: the first one waits for all imports.
                await asyncio.to_thread(process.start)
            # In a thread: what it tells may be more than a pipe holds, so that it cannot end before it is read.
            found: tuple[int, Code] = await asyncio.to_thread(receiver.recv)
        await ended(process)
        return found

    def start(self, flow_run: FlowRun, entrypoint: str, env: Mapping[str, str], working_dir: str | None) -> Born:
        """Start a run; it is running when this returns."""
        process: Any = self._context.Process(
            target=child.run, args=(flow_run, entrypoint, dict(env), working_dir), name=str(flow_run.id)
        )
        process.start()
        born: Born = process
        self._born = [*self.alive(), born]
        return born

    def alive(self) -> list[Born]:
        """The runs that have not ended."""
        return [process for process in self._born if process.is_alive()]


def _context() -> ForkServerContext | SpawnContext:
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["penstock.worker.preload"])
    return context


def _end_fork_server() -> None:
    """Only while it has no runs. There is no public way; one that is left alone ends with this process."""
    server: Any = forkserver._forkserver
    if server._forkserver_pid is not None:
        # What a run left behind may hold its pipe open, so that it would not end by itself.
        with contextlib.suppress(ProcessLookupError):
            os.kill(server._forkserver_pid, signal.SIGKILL)
        server._stop()


async def ended(process: Born) -> int:
    """Wait for the end without a thread; returns the exit code. Several may wait for one process."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    # A loop has one reader per descriptor, and a second one would leave the first waiting for ever.
    sentinel = os.dup(process.sentinel)
    loop.add_reader(sentinel, done.set)
    try:
        await done.wait()
    finally:
        loop.remove_reader(sentinel)
        os.close(sentinel)
    process.join()
    assert process.exitcode is not None
    return process.exitcode


async def end(process: Born, *, grace: float, cancelled: bool = False) -> int:
    """Ask a run to end, and kill it after `grace` seconds; returns the exit code. `cancelled`: it is to say so."""
    if process.is_alive() and process.pid is not None:
        # It may end at any time, at the first signal too; then there is nobody left to tell.
        with contextlib.suppress(ProcessLookupError):
            if cancelled:
                os.kill(process.pid, child.CANCEL)
            os.kill(process.pid, signal.SIGTERM)
    try:
        return await asyncio.wait_for(ended(process), grace)
    except TimeoutError:
        process.kill()
        return await ended(process)
