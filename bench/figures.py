"""What a bench found, as values: figures, what they are held against, and whether they reach it. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Literal

On = Literal["value", "times", "faster"]


class Wrong(Exception):
    """A bench's result is not correct, so that its time does not count."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """What must be reached. `on` says of what: the value, how many `times` the peer's, how many times `faster`."""

    on: On
    bound: float
    at_least: bool = False

    def met_by(self, figure: float) -> bool:
        """Whether a figure reaches it; the bound itself does."""
        return figure >= self.bound if self.at_least else figure <= self.bound


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured figure. `name` is unique in a run; `peer` is the figure of `against`, in the same unit.

    `note` says in a few words what it is made of. Without a target it is only reported.
    """

    name: str
    what: str
    value: float
    unit: str
    against: str = ""
    peer: float | None = None
    target: Target | None = None
    note: str = ""

    def ratio(self, on: On) -> float | None:
        """How many times the peer's it is, or how many times faster; None without a peer."""
        if self.peer is None or on == "value":
            return None
        above, below = (self.value, self.peer) if on == "times" else (self.peer, self.value)
        return above / below if below else math.inf

    @property
    def judged(self) -> float | None:
        """What the target is about; None where there is no target, or nothing to hold it against."""
        if self.target is None:
            return None
        return self.value if self.target.on == "value" else self.ratio(self.target.on)

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; None where there is none. What could not be compared is not reached."""
        if self.target is None:
            return None
        return self.judged is not None and self.target.met_by(self.judged)


@dataclass(kw_only=True)
class Result:
    """What one bench found. `verified` says in words what was compared before any time counted."""

    name: str
    title: str
    method: str = ""
    figures: list[Figure] = field(default_factory=list)
    spread: dict[str, dict[str, float]] = field(default_factory=dict)
    detail: dict[str, Any] = field(default_factory=dict)
    verified: str = ""
    failed: str = ""
    skipped: str = ""
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Everything, with what was judged."""
        found = asdict(self)
        for shown, figure in zip(found["figures"], self.figures, strict=True):
            on = figure.target.on if figure.target and figure.target.on != "value" else "times"
            shown.update(ratio=figure.ratio(on), judged=figure.judged, reached=figure.reached)
        return found


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that so large a share of them does not exceed (nearest rank)."""
    if not values:
        raise Wrong("no value was measured")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def spread(values: Sequence[float]) -> dict[str, float]:
    """How values lie: how many, the least, p50, p95, p99, the greatest."""
    return {
        "n": len(values),
        "min": min(values),
        "p50": percentile(values, 0.5),
        "p95": percentile(values, 0.95),
        "p99": percentile(values, 0.99),
        "max": max(values),
    }


def middle(values: Sequence[float]) -> float:
    """The median of repeated measurements."""
    if not values:
        raise Wrong("nothing was measured")
    return median(values)
