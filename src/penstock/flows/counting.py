"""What is told of a batch besides what became of its objects, and how far the dataset's events have come."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

import pyarrow as pa

from penstock.declarations import Dataset
from penstock.errors import LedgerUnavailable
from penstock.flows.event_times import event_times, late_rows
from penstock.flows.judging import Judged
from penstock.flows.report import Counts, both
from penstock.ledger import Ledger
from penstock.model import ObjectRef, Outcome, State
from penstock.warehouse.base import LoadPart

log = logging.getLogger(__name__)


class Counting:
    """Counts one batch: `begin`, each object as it was `judged`, all as they ended (`noted`), and `settled`."""

    def __init__(self, dataset: Dataset, ledger: Ledger) -> None:
        self._dataset = dataset
        self._ledger = ledger
        self._watermark: datetime | None = None
        self._told: dict[int, tuple[int, dict[str, int]]] = {}
        self._counts = Counts()

    def begin(self) -> None:
        """What comes late is told by what was loaded before this batch."""
        if self._dataset.event_time is not None and (found := self._ledger.watermarks.of(self._dataset.name)):
            self._watermark = found.event_time

    def judged(self, ref: ObjectRef, judged: Judged) -> None:
        """Keep what is told of an object, if it is loaded.

        The first time counts: what a flow gives in the place of its rows is not checked again.
        """
        self._told.setdefault(ref.id, (judged.filtered, judged.warnings(self._dataset)))

    def noted(self, outcomes: Sequence[Outcome], parts: Mapping[int, LoadPart]) -> list[Outcome]:
        """The outcomes, those of what was loaded with what their history says of warnings, filtered and late rows."""
        self._counts = Counts()
        first: dict[int, pa.Table] = {}
        old: list[pa.Table] = []
        for outcome in outcomes:
            filtered, warnings = self._told.get(outcome.ref.id, (0, {}))
            if outcome.state in (State.LOADED, State.EMPTY):
                self._counts.filtered += filtered
            if outcome.state is State.LOADED:
                self._counts.warn(warnings)
                part = parts.get(outcome.ref.id)
                if part is not None and not (part.again or part.only_rejected):
                    if outcome.ref.old:
                        old.append(part.rows)
                    else:
                        first[outcome.ref.id] = part.rows
        late: dict[int, int] = {}
        if (column := self._dataset.event_time) is not None:
            since, lateness = self._watermark, self._dataset.lateness
            fresh = event_times(list(first.values()), column, watermark=since, lateness=lateness)
            # What a backfill brings was never expected earlier.
            self._counts.times = both(fresh, event_times(old, column, watermark=None, lateness=lateness))
            if fresh is not None and fresh.late:
                late = late_rows(first, column, watermark=since, lateness=lateness)
        return [
            replace(outcome, note=_note(*self._told.get(outcome.ref.id, (0, {})), late.get(outcome.ref.id, 0)))
            if outcome.state is State.LOADED
            else outcome
            for outcome in outcomes
        ]

    def settled(self) -> Counts:
        """What there is to tell; the watermark moves on, by the event times of what came for the first time."""
        if (times := self._counts.times) is not None:
            try:
                self._ledger.watermarks.advance(self._dataset.name, times.greatest, late=times.late)
            except LedgerUnavailable as error:
                # What was loaded is loaded: the next batch moves it on.
                log.warning("the watermark of %s stays where it is: %s", self._dataset.name, error)
        return self._counts


def _note(filtered: int, warnings: Mapping[str, int], late: int) -> str | None:
    told = [f"{rows:,} warned of by {name}" for name, rows in sorted(warnings.items())]
    told += [f"{filtered:,} passed over by where"] if filtered else []
    told += [f"{late:,} late"] if late else []
    return "; ".join(told) or None
