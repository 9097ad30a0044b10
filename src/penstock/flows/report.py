"""What a run did, added up batch by batch. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from penstock import formats
from penstock.model import Outcome, State


@dataclass(frozen=True, kw_only=True)
class EventTimes:
    """The least and the greatest event time of a load, and how many of its rows came too late."""

    least: datetime
    greatest: datetime
    late: int = 0


@dataclass(kw_only=True)
class Counts:
    """What is counted of a batch besides its rows: those passed over, by check those it warned of, event times."""

    filtered: int = 0
    warnings: dict[str, int] = field(default_factory=dict)
    times: EventTimes | None = None

    def warn(self, warnings: Mapping[str, int]) -> None:
        """Count an object's, or another batch's."""
        for name, rows in warnings.items():
            self.warnings[name] = self.warnings.get(name, 0) + rows


@dataclass(kw_only=True)
class Report(Counts):
    """What a run did: the counts of its batches, and their outcomes."""

    loaded: int = 0
    rows: int = 0
    rejected: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)

    def add(self, outcomes: Sequence[Outcome], figures: dict[str, Any], counts: Counts | None = None) -> None:
        """Count a settled batch."""
        for outcome in outcomes:
            self.outcomes[outcome.state.value] = self.outcomes.get(outcome.state.value, 0) + 1
            if outcome.state is State.LOADED:
                self.loaded += 1
                self.rows += outcome.rows
                self.rejected += outcome.rejected
        self.figures = formats.merge_reports(self.figures, figures)
        if counts is not None:
            self.filtered += counts.filtered
            self.warn(counts.warnings)
            self.times = both(self.times, counts.times)

    def told(self) -> dict[str, Any]:
        """What is only told where there is any of it, JSON-able."""
        found: dict[str, Any] = {}
        if self.filtered:
            found["filtered"] = self.filtered
        if self.warnings:
            found["warnings"] = dict(self.warnings)
        if self.times is not None:
            found["event_times"] = {
                "least": self.times.least.isoformat(),
                "greatest": self.times.greatest.isoformat(),
                "late": self.times.late,
            }
        return found


def both(a: EventTimes | None, b: EventTimes | None) -> EventTimes | None:
    """The event times of both loads together."""
    if a is None or b is None:
        return b if a is None else a
    return EventTimes(least=min(a.least, b.least), greatest=max(a.greatest, b.greatest), late=a.late + b.late)
