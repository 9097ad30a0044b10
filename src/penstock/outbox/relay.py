"""The relay: sends wake-ups and events to Prefect, and keeps sending until they are answered or accepted.

Wake-ups have a lane of their own and go first. One that no run answers is sent again with a new attempt; after
`DIRECT_AFTER` attempts the relay creates the run itself, unless the automation was paused or removed on purpose.
Nothing is sent again while a run of the dataset waits for a worker: with none for an hour, one run waits for each.
Two relays at once do no harm: taking a wake-up is one statement, and ids are derived from the content.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Protocol

from penstock import events, faults
from penstock.errors import LedgerUnavailable, PrefectFailed, PrefectRefused, PrefectUnavailable
from penstock.ledger import Ledger
from penstock.ledger.database import utc_now
from penstock.ledger.wakeups import WakeUp
from penstock.model import OutboxEvent
from penstock.outbox.prefect_api import Reach

log = logging.getLogger(__name__)

DIRECT_AFTER = 3
BATCH = 200
FLOW = "ingest"
# Between two passes that had something to send: what a burst leaves meanwhile goes together.
_BREATH_SECONDS = 0.05
# How long other events wait after a wake-up, so that the server makes a run of that first.
_WAKE_SECONDS = 0.25
_A_RUN_WAITS = "a run waits for a worker; is one running? penstock worker"


class Server(Protocol):
    """What the relay needs of a Prefect server; `PrefectApi` is the real one."""

    def post_events(self, found: list[OutboxEvent]) -> None:
        """Emit events; returning means that the server took them."""

    def reach(self, *, flow: str, deployment: str) -> Reach:
        """How a deployment can be woken."""

    def create_run(self, deployment_id: str, *, idempotency_key: str, reason: str) -> str:
        """Create a run of a deployment; the same key again is the same run."""

    def waiting(self, *, flow: str, deployment: str, now: datetime) -> int:
        """How many runs of a deployment wait for a worker."""


@dataclass(frozen=True, kw_only=True)
class Pass:
    """What one pass of the relay did. A wake-up for which a run waits already is not counted."""

    wakeups: int = 0
    direct: int = 0
    events: int = 0


class Relay:
    """One pass is `run_once`; `run` repeats it until told to stop."""

    def __init__(
        self,
        ledger: Ledger,
        server: Server,
        *,
        project: str,
        unanswered_after: timedelta,
        retry_after: timedelta = timedelta(seconds=2),
        clock: Callable[[], datetime] = utc_now,
        alive: Callable[[], None] = lambda: None,
        consumers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._ledger = ledger
        self._server = server
        self._project = project
        self._unanswered_after = unanswered_after
        self._retry_after = retry_after
        self._clock = clock
        self._alive = alive
        # The flow that takes what is new in a dataset, where it is not FLOW.
        self._consumers = consumers

    def run_once(self, *, events: bool = True) -> Pass:
        """Send what is due: wake-ups, then the other events; without `events`, wake-ups only.

        Raises PrefectUnavailable or LedgerUnavailable; nothing is lost by it.
        """
        woken, direct = self._wake()
        sent = 0
        while events and (batch := self._ledger.outbox.unsent(BATCH)):
            self._alive()
            self._post(batch)
            faults.point("relay.events_after_send")
            self._ledger.outbox.sent([event.row for event in batch])
            sent += len(batch)
            more_woken, more_direct = self._wake()
            woken, direct = woken + more_woken, direct + more_direct
        return Pass(wakeups=woken, direct=direct, events=sent)

    def run(
        self,
        stop: threading.Event,
        *,
        interval: timedelta = timedelta(milliseconds=250),
        find_every: timedelta = timedelta(seconds=1),
        monotonic: Callable[[], float],
        wait: Callable[[float], object] | None = None,
    ) -> None:
        """Repeat `run_once`; while a server is away it waits, says so once, and goes on when it is back.

        `wait` waits so many seconds at most, and less when there is something to send (default: until `stop`). So the
        first arrival of a burst does not wait, and what comes in the moment after it goes together.
        """
        away = False
        look_at = monotonic()
        quiet_until = look_at - _WAKE_SECONDS
        while not stop.is_set():
            self._alive()
            try:
                if monotonic() >= look_at:
                    self._ledger.wakeups.find()
                    look_at = monotonic() + find_every.total_seconds()
                done = self.run_once(events=False)
                now = monotonic()
                # Wake-ups of other datasets do not put off the end of a quiet time that has begun.
                if done.wakeups and now >= quiet_until + _WAKE_SECONDS:
                    quiet_until = now + _WAKE_SECONDS
                if now >= quiet_until:
                    done = self.run_once()
            except (PrefectUnavailable, LedgerUnavailable) as error:
                if not away:
                    log.warning("%s; arrivals go on being recorded, and are sent when it is back", error)
                away = True
                stop.wait(self._retry_after.total_seconds())
                continue
            if away:
                log.info("the relay goes on")
            away = False
            if done.wakeups or done.events:
                log.debug("relayed %s", done)
                stop.wait(_BREATH_SECONDS)
            else:
                (wait or stop.wait)(interval.total_seconds())

    def _wake(self) -> tuple[int, int]:
        due = self._ledger.wakeups.take_due(again_after=self._unanswered_after)
        left = list(due)
        direct = waiting = 0

        def send(wakeups: list[WakeUp]) -> None:
            if not wakeups:
                return
            faults.point("relay.before_send")
            self._post([self._event(wakeup) for wakeup in wakeups])
            faults.point("relay.after_send")
            for wakeup in wakeups:
                left.remove(wakeup)
                if wakeup.note == _A_RUN_WAITS:
                    self._ledger.wakeups.explain(wakeup, None)

        try:
            # What is new does not wait for questions about what is old.
            send([wakeup for wakeup in due if wakeup.attempt == 1])
            for wakeup in list(left):
                self._alive()
                if self._has_run(wakeup):
                    self._later(wakeup, _A_RUN_WAITS)
                    left.remove(wakeup)
                    waiting += 1
            send([wakeup for wakeup in left if wakeup.attempt <= DIRECT_AFTER])
            for wakeup in list(left):
                try:
                    direct += self._run_directly(wakeup)
                except (PrefectFailed, PrefectRefused) as error:
                    # The server works; what it fails at must not hold up the other datasets.
                    self._later(wakeup, str(error))
                left.remove(wakeup)
        except PrefectUnavailable:
            for wakeup in left:
                self._ledger.wakeups.not_sent(wakeup, again_after=self._retry_after)
            raise
        return len(due) - waiting, direct

    def _has_run(self, wakeup: WakeUp) -> bool:
        """Whether a run of the dataset waits for a worker. Where the server cannot say, one too many does no harm."""
        deployment = events.deployment_name(self._project, wakeup.dataset)
        try:
            return self._server.waiting(flow=self._flow(wakeup), deployment=deployment, now=self._clock()) > 0
        except (PrefectFailed, PrefectRefused) as error:
            log.debug("%s", error)
            return False

    def _flow(self, wakeup: WakeUp) -> str:
        return self._consumers.get(wakeup.dataset, FLOW)

    def _later(self, wakeup: WakeUp, note: str) -> None:
        """Not now: the attempt does not count and stays due."""
        self._explain(wakeup, note)
        self._ledger.wakeups.not_sent(wakeup, again_after=self._unanswered_after)

    def _post(self, batch: list[OutboxEvent]) -> None:
        """Emit events. One that the server never takes is dropped and logged, so that it holds up no other."""
        try:
            self._server.post_events(batch)
        except PrefectRefused as error:
            if len(batch) > 1:
                for event in batch:
                    self._post([event])
            else:
                resource = batch[0].resource.get("prefect.resource.id")
                log.error("%s; the event %s of %s is dropped", error, batch[0].name, resource)  # noqa: TRY400

    def _run_directly(self, wakeup: WakeUp) -> bool:
        deployment = events.deployment_name(self._project, wakeup.dataset)
        flow = self._flow(wakeup)
        reach = self._server.reach(flow=flow, deployment=deployment)
        if reach.deployment is None:
            note = f"the deployment {flow}/{deployment} does not exist; create it with: penstock apply"
        elif reach.automation == "paused":
            note = "its automation is paused; enable it to load what waits"
        elif reach.automation == "scheduled":
            note = "no automation runs its deployment: the next run of its schedule takes it"
        elif reach.automation == "none":
            note = "no automation runs its deployment; create it with: penstock apply"
        else:
            reason = f"wake-up {wakeup.id} had no answer after {DIRECT_AFTER} attempts"
            try:
                run = self._server.create_run(
                    reach.deployment,
                    idempotency_key=events.event_id(self._project, "run", wakeup.id, wakeup.asked_at, wakeup.attempt),
                    reason=reason,
                )
            except PrefectRefused as error:
                return self._explain(wakeup, str(error))
            self._ledger.wakeups.explain(wakeup, f"{reason}; the relay created the run {run} itself")
            log.warning("%s: %s; created the run %s directly", wakeup.dataset, reason, run)
            return True
        return self._explain(wakeup, note)

    def _explain(self, wakeup: WakeUp, note: str) -> bool:
        if wakeup.note != note:
            log.warning("%s waits: %s", wakeup.dataset, note)
            self._ledger.wakeups.explain(wakeup, note)
        return False

    def _event(self, wakeup: WakeUp) -> OutboxEvent:
        return OutboxEvent(
            row=0,
            id=events.event_id(self._project, events.DATASET_PENDING, wakeup.id, wakeup.asked_at, wakeup.attempt),
            name=events.DATASET_PENDING,
            resource=events.dataset_resource(self._project, wakeup.dataset),
            related=[],
            payload={"dataset": wakeup.dataset, "wakeup": wakeup.id, "attempt": wakeup.attempt},
            occurred_at=wakeup.asked_at,
        )
