"""When an alert begins and ends: pure. Two thresholds and a number of windows, so that noise around one is no news."""

from dataclasses import dataclass, replace
from datetime import datetime


@dataclass(frozen=True, kw_only=True)
class Limits:
    """An alert fires when `windows` in a row were above `upper`, and resolves with the first one below `lower`."""

    upper: float
    lower: float
    windows: int


@dataclass(frozen=True, kw_only=True)
class State:
    """How a sensor stands after a window: how many in a row were above `upper`, and since when an alert is open."""

    streak: int = 0
    alert_since: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Change:
    """An alert that begins, or ends (`until`), with the window that decided it."""

    sensor: str
    since: datetime
    until: datetime | None
    mean: float

    @property
    def kind(self):
        """As the event's name ends."""
        return "resolved" if self.until else "fired"


def after(state, start, mean, limits):
    """How a sensor stands after one window more."""
    streak = state.streak + 1 if mean > limits.upper else 0
    if state.alert_since is None and streak >= limits.windows:
        return State(streak=streak, alert_since=start)
    if state.alert_since is not None and mean < limits.lower:
        return State()
    return replace(state, streak=streak)


def decide(windows, known, limits):
    """Each window with how its sensor stands after it, and the changes, in their order.

    `windows` are rows in the order of time, `known` is how sensors stood after windows that were judged before, by
    sensor and start; what is judged now is added to it. A window is judged once, when it is closed: what changes in it
    later changes its figures, not what was decided. One that is found only after a later one was judged, is never.
    """
    last = {}
    for sensor, start in known:
        last[sensor] = max(start, last.get(sensor, start))
    rows, changes = [], []
    for row in windows:
        sensor, start = key = row["sensor"], row["window_start"]
        if row["closed"] and (sensor not in last or last[sensor] < start):
            before = known.get((sensor, last.get(sensor)), State())
            now = known[key] = after(before, start, row["mean"], limits)
            last[sensor] = start
            if now.alert_since != before.alert_since:
                since = now.alert_since or before.alert_since
                until = None if now.alert_since else start
                changes.append(Change(sensor=sensor, since=since, until=until, mean=row["mean"]))
        state = known.get(key)
        rows.append(
            {**row, "streak": state.streak if state else None, "alert_since": state.alert_since if state else None}
        )
    return rows, changes
