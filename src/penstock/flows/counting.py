"""What is told of a batch besides what became of its objects, and how far the dataset's events have come."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime

from penstock.declarations import Dataset
from penstock.errors import LedgerUnavailable
from penstock.flows.event_times import event_times
from penstock.flows.judging import Judged
from penstock.flows.report import Counts
from penstock.ledger import Ledger
from penstock.model import ObjectRef, Outcome, State
from penstock.warehouse.base import LoadPart

log = logging.getLogger(__name__)


class Counting:
    """Counts one batch: `begin`, each object as it was `judged`, and once the ledger knows, all that are `settled`."""

    def __init__(self, dataset: Dataset, ledger: Ledger) -> None:
        self._dataset = dataset
        self._ledger = ledger
        self._watermark: datetime | None = None
        self._told: dict[int, tuple[int, dict[str, int]]] = {}

    def begin(self) -> None:
        """What comes late is told by what was loaded before this batch."""
        if self._dataset.event_time is not None and (found := self._ledger.watermarks.of(self._dataset.name)):
            self._watermark = found.event_time

    def judged(self, ref: ObjectRef, judged: Judged) -> None:
        """Keep what is told of an object, if it is loaded."""
        self._told[ref.id] = (judged.filtered, judged.warnings(self._dataset))

    def settled(self, outcomes: Sequence[Outcome], parts: Mapping[int, LoadPart]) -> Counts:
        """What there is to tell; the watermark moves on, by the event times of what came for the first time."""
        counts = Counts()
        first = []
        for outcome in outcomes:
            filtered, warnings = self._told.get(outcome.ref.id, (0, {}))
            if outcome.state in (State.LOADED, State.EMPTY):
                counts.filtered += filtered
            if outcome.state is State.LOADED:
                counts.warn(warnings)
                part = parts.get(outcome.ref.id)
                first += [part.rows] if part is not None and not (part.again or part.only_rejected) else []
        dataset = self._dataset
        if dataset.event_time is None:
            return counts
        times = event_times(first, dataset.event_time, watermark=self._watermark, lateness=dataset.lateness)
        if times is not None:
            counts.times = times
            try:
                self._ledger.watermarks.advance(dataset.name, times.greatest, late=times.late)
            except LedgerUnavailable as error:
                # What was loaded is loaded: the next batch moves it on.
                log.warning("the watermark of %s stays where it is: %s", dataset.name, error)
        return counts
