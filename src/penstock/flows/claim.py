"""`penstock.claim`: what is new in a dataset, once, for a flow of one's own.

The block's end decides: its rows and the markers are written in one warehouse transaction and then the ledger is told,
or, after an exception, nothing is written and everything goes back. The lease is kept by a thread meanwhile. How long
the flow may take in the block is for its own `timeout_seconds` to say; penstock's steps are given up when they stall.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from datetime import timedelta
from types import TracebackType

from penstock import faults
from penstock.errors import LeaseLost, Transient
from penstock.flows.claimed import Claim, Misused
from penstock.flows.given import FlowBatch
from penstock.flows.lease import Heartbeat, Patience
from penstock.flows.working import Work, acquire, let_go, open_work, outrun
from penstock.ledger import Ledger
from penstock.model import Lease, State
from penstock.project import load_project
from penstock.settings import load_settings
from penstock.wiring import open_ledger, spool_folder

log = logging.getLogger(__name__)

# As the ingest flow tries again; the markers make it harmless.
_LOAD_PAUSES = (1.0, 2.0, 4.0)
_TAKING_SECONDS = 5.0


class Claiming:
    """The context manager that `claim` gives, for `with` and for `async with`."""

    def __init__(self, dataset: str) -> None:
        self._dataset = dataset
        self._run = _run_id()
        self._given_up = False
        # Held while the lease is taken: who gives up meanwhile waits for it, or it would be nobody's.
        self._taking = threading.Lock()
        self._ledger: Ledger | None = None
        self._lease: Lease | None = None
        self._work: Work | None = None
        self._beat: Heartbeat | None = None
        self._patience: Patience | None = None
        self._batch: FlowBatch | None = None
        self._claim = Claim(dataset)

    def __enter__(self) -> Claim:
        try:
            return self._begin()
        except BaseException as error:
            self._fail(error)
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is not None:
            self._fail(error)
            return
        try:
            self._end()
        except BaseException as failure:
            self._fail(failure)
            raise

    async def __aenter__(self) -> Claim:
        try:
            return await asyncio.to_thread(self._begin)
        except BaseException as error:
            await self._fail_soon(error)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if error is not None:
            await self._fail_soon(error)
            return
        try:
            await asyncio.to_thread(self._end)
        except BaseException as failure:
            await self._fail_soon(failure)
            raise

    async def _fail_soon(self, error: BaseException) -> None:
        if isinstance(error, Exception):
            await asyncio.to_thread(self._fail, error)
        else:
            # Cancelled or terminated. On this thread, since the process may be killed soon and the others may hang.
            self._fail(error)

    def _begin(self) -> Claim:
        settings = load_settings()
        project = load_project(settings.project_dir, only=["flows"])
        project.dataset(self._dataset)
        self._claim = Claim(self._dataset)
        self._ledger = ledger = open_ledger(settings)
        with self._taking:
            lease = None
            if not self._given_up:
                self._lease = lease = acquire(ledger, self._dataset, settings=settings, run=self._run)
            if lease is None:
                self._close()
                self._claim.busy = True
                return self._claim
            self._beat = Heartbeat(ledger, lease, ttl=timedelta(seconds=settings.lease_seconds))
        self._work = work = open_work(settings, project, self._dataset, ledger, lease, run=self._run)
        self._patience = patience = Patience(timedelta(seconds=settings.stall_seconds))
        faults.point("ingest.after_lease")
        patience.run(work.fence)
        number = 0
        while True:
            refs = work.claim()
            if not refs:
                self._beat.stop()
                if ledger.work.finish(lease):
                    self._close()
                    return self._claim
                self._beat = Heartbeat(ledger, lease, ttl=timedelta(seconds=settings.lease_seconds))
                continue
            faults.point("ingest.after_claim")
            number += 1
            spool = spool_folder(settings) / f"{self._dataset}-{lease.token}-{number}"
            spool.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._batch = batch = FlowBatch(refs, spool=spool, progress=patience.progress, **work.parts)
            patience.run(batch.fetch)
            patience.run(batch.prepare)
            self._claim = Claim(self._dataset, batch, spool)
            if self._claim:
                return self._claim
            # Nothing for the flow to see: loaded by a run that died, removed since, without a byte.
            patience.run(batch.settle)
            batch.clean()

    def _end(self) -> None:
        if not self._claim:
            return
        work, batch, patience = self._work, self._batch, self._patience
        assert work is not None
        assert batch is not None
        assert patience is not None
        # What is lost is known before anything is written; from here on the warehouse's token sees to it.
        work.ledger.work.renew(work.lease, ttl=timedelta(seconds=work.settings.lease_seconds))
        patience.run(self._claim.bring)
        self._load(batch, patience)
        outcomes, _ = patience.run(batch.settle)
        faults.point("ingest.after_settle")
        batch.clean()
        loaded = [outcome for outcome in outcomes if outcome.state is State.LOADED]
        log.info("%s: %d objects, %d rows", self._dataset, len(loaded), sum(outcome.rows for outcome in loaded))
        if self._beat:
            self._beat.stop()
        work.ledger.work.release(work.lease)
        faults.point("ingest.after_finish")
        self._close()

    def _load(self, batch: FlowBatch, patience: Patience) -> None:
        for pause in (*_LOAD_PAUSES, None):
            try:
                patience.run(batch.load)
            except (Transient, OSError) as error:
                if pause is None or self._given_up:
                    raise
                log.warning("%s: again in %g s: %s", self._dataset, pause, error)
                time.sleep(pause)
            else:
                return

    def _fail(self, error: BaseException) -> None:
        """Give everything back, as far as it was taken."""
        self._given_up = True
        if self._taking.acquire(timeout=_TAKING_SECONDS):
            self._taking.release()
        if self._beat:
            self._beat.stop()
        if self._claim:
            self._claim.end()
        # Cancelled at its end, the block may close both on another thread meanwhile.
        ledger, lease = self._ledger, self._lease
        if ledger is not None and lease is not None:
            if isinstance(error, LeaseLost):
                if error.greater is not None:
                    outrun(ledger, lease, error.greater)
            else:
                let_go(ledger, lease, error, self._run, blame=not isinstance(error, Misused))
        if self._batch:
            self._batch.clean()
        self._close()

    def _close(self) -> None:
        ledger, self._ledger, self._lease = self._ledger, None, None
        if ledger is not None:
            ledger.close()


def claim(dataset: str) -> Claiming:
    """Take what is new in a dataset, exactly once, for the time of a `with` or `async with`.

    The claim is falsy when nothing is new, or another run has the dataset. Leave the block having said what became of
    each object (`load`, `done`, `quarantine`), or with an exception, which gives all of it back. One batch at a time:
    for what waits beyond that another run is asked for.
    """
    return Claiming(dataset)


def _run_id() -> str:
    # In a script without Prefect there is no run, and its import would take a second.
    if "prefect" not in sys.modules:
        return "by hand"
    from prefect.runtime import flow_run

    return str(flow_run.get_id() or "by hand")
