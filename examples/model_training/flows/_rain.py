"""What is learnt, from which days, and who is promoted: was it a wet day? Pure, and without scikit-learn."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple

COLUMNS = ("date", "temp_max", "temp_min", "wind", "weather")
WET = ("drizzle", "rain", "snow")
LEAST_DAYS, LEAST_HELD_OUT = 100, 30
# By how much more of the held-out days, both kinds counting the same, a challenger must be right.
MARGIN = 0.01

Day = Mapping[str, Any]


class Split(NamedTuple):
    """Days to learn from, and days to judge by."""

    training: list[Day]
    held_out: list[Day]


class Verdict(NamedTuple):
    """Whether a challenger is promoted, and why or why not."""

    promoted: bool
    reason: str


def is_held_out(day: date) -> bool:
    """Whether a day is kept for judging, as every fourth is or so.

    Its own hash decides: it stays on its side whatever other days come, so that no model is judged by what it, or an
    earlier one, has learnt from.
    """
    return int(hashlib.sha256(day.isoformat().encode()).hexdigest()[:8], 16) % 4 == 0


def split(days: Sequence[Day]) -> Split:
    """The two sides."""
    return Split(
        training=[day for day in days if not is_held_out(day["date"])],
        held_out=[day for day in days if is_held_out(day["date"])],
    )


def too_little(days: Split) -> str | None:
    """Why no model can be trained and judged with these, if so."""
    for side, least, what in ((days.training, LEAST_DAYS, "training"), (days.held_out, LEAST_HELD_OUT, "judging")):
        if len(side) < least:
            return f"{len(side)} days for {what}; {least} are needed"
        if len({is_wet(day) for day in side}) < 2:
            return f"all {len(side)} days for {what} are of one kind, {'wet' if is_wet(side[0]) else 'dry'}"
    return None


def is_wet(day: Day) -> bool:
    """The label."""
    return day["weather"] in WET


def features(day: Day) -> list[float]:
    """What is known of a day without its label; the time of the year as a point on a circle."""
    angle = 2 * math.pi * day["date"].timetuple().tm_yday / 365.25
    return [day["temp_max"], day["temp_min"], day["wind"], math.cos(angle), math.sin(angle)]


def fingerprint(training: Sequence[Day], how: Mapping[str, Any]) -> str:
    """A model's name: the same days, learnt from in the same way, are the same model."""
    rows = [[day["date"].isoformat(), *(day[column] for column in COLUMNS[1:])] for day in training]
    text = json.dumps([sorted(rows), how], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def judge(score: float, champion: str | None, champion_score: float | None) -> Verdict:
    """Scores are of the same held-out days; there is no champion at first."""
    if champion is None or champion_score is None:
        return Verdict(promoted=True, reason=f"{score:.3f}: it is the first one")
    gain = round(score - champion_score, 9)
    said = f"{score:.3f} against {champion_score:.3f} of {champion}"
    if gain >= MARGIN:
        return Verdict(promoted=True, reason=f"{said}: better by {gain:.4f}")
    if gain > 0:
        return Verdict(promoted=False, reason=f"{said}: better by {gain:.4f}, and {MARGIN} is asked for")
    return Verdict(promoted=False, reason=f"{said}: no better")
