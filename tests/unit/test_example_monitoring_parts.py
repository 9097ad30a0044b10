"""What `examples/monitoring` decides: when an alert begins and ends, what its automations do, how its sender signs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import standard_webhooks
from penstock.errors import Unverified
from penstock.testing import arrived, does_not_fire, event, fires, loaded
from penstock.testing.automations import BEGIN
from penstock.webhook import verify
from tests.loading import module_at

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "monitoring"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


hysteresis = module_at(EXAMPLE / "flows" / "_hysteresis.py")
sender = module_at(EXAMPLE / "send_readings.py")
LIMITS = hysteresis.Limits(upper=80.0, lower=70.0, windows=3)

Row = dict[str, Any]


def windows(*means: float, sensor: str = "kiln", first: int = 0, closed: bool = True) -> list[Row]:
    """One window after the other, from the one of that number on."""
    return [
        {"sensor": sensor, "window_start": start(first + number), "mean": mean, "closed": closed}
        for number, mean in enumerate(means)
    ]


def start(number: int) -> datetime:
    """When the window of that number begins."""
    return NOON + timedelta(seconds=10 * number)


def told(changes: Sequence[Any]) -> list[tuple[str, str, datetime, float]]:
    """Of each change what, of which sensor, with which window, and its mean."""
    return [(one.kind, one.sensor, one.until or one.since, one.mean) for one in changes]


def test_an_alert_fires_once_and_resolves_once() -> None:
    """With the third hot window in a row, and the first one that is cool; in between nothing is news."""
    means = [81, 90, 79, 81, 82, 83, 99, 75, 81, 81, 81, 70, 69.9, 60, 71, 81, 81, 79]
    rows, changes = hysteresis.decide(windows(*means), {}, LIMITS)
    assert told(changes) == [("fired", "kiln", start(5), 83), ("resolved", "kiln", start(12), 69.9)]
    assert [one.since for one in changes] == [start(5)] * 2, "both are of one alert"
    assert [row["streak"] for row in rows] == [1, 2, 0, 1, 2, 3, 4, 0, 1, 2, 3, 0, 0, 0, 0, 1, 2, 0]
    assert [row["alert_since"] for row in rows] == [None] * 5 + [start(5)] * 7 + [None] * 6


@pytest.mark.parametrize("mean", [80.0, 70.0])
def test_a_threshold_itself_is_neither_above_nor_below(mean: float) -> None:
    """It begins nothing, and ends nothing."""
    _, changes = hysteresis.decide(windows(*[mean] * 9), {}, LIMITS)
    assert changes == []
    _, changes = hysteresis.decide(windows(90, 90, 90, *[mean] * 9), {}, LIMITS)
    assert [one.kind for one in changes] == ["fired"]


def test_sensors_stand_for_themselves() -> None:
    """Hot windows of two are no row of either."""
    rows = [*windows(90, 90), *windows(90, 90, sensor="oven"), *windows(90, first=2)]
    _, changes = hysteresis.decide(rows, {}, LIMITS)
    assert told(changes) == [("fired", "kiln", start(2), 90)]


def test_what_is_not_over_is_not_judged() -> None:
    """It comes again when it is closed, and counts once."""
    known: dict[Any, Any] = {}
    for closed in (False, False, True, True):
        _, changes = hysteresis.decide(windows(90, 90, 90, closed=closed), known, LIMITS)
        assert len(known) == (3 if closed else 0)
    assert changes == [], "they had been judged"


def test_a_late_reading_changes_figures_and_no_decision() -> None:
    """A window that was judged keeps how its sensor stood after it; one that appears behind it has no say."""
    known: dict[Any, Any] = {}
    _, changes = hysteresis.decide([*windows(90, 90), *windows(90, first=3)], known, LIMITS)
    assert [one.kind for one in changes] == ["fired"]
    rows, changes = hysteresis.decide([*windows(10, 10, 10), *windows(10, first=3)], known, LIMITS)
    assert changes == []
    assert [row["mean"] for row in rows] == [10] * 4
    assert [(row["streak"], row["alert_since"]) for row in rows] == [
        (1, None),
        (2, None),
        (None, None),
        (3, start(3)),
    ]
    _, changes = hysteresis.decide(windows(10, first=4), known, LIMITS)
    assert told(changes) == [("resolved", "kiln", start(4), 10)], "it goes on from where it stood"


@given(
    st.lists(st.sampled_from([60.0, 69.0, 75.0, 81.0, 90.0]), max_size=30),
    st.lists(st.tuples(st.integers(1, 6), st.booleans(), st.integers(0, 4)), max_size=12),
)
def test_however_it_comes_the_same_is_told(means: list[float], batches: list[tuple[int, bool, int]]) -> None:
    """In batches of any size, of which some are done again with more (their run was killed), some bring old windows."""
    every = windows(*means)
    _, expected = hysteresis.decide(every, {}, LIMITS)
    kinds = [one.kind for one in expected]
    assert kinds == [("fired", "resolved")[number % 2] for number in range(len(kinds))]

    written: dict[Any, Any] = {}
    said: list[Any] = []
    begin = 0
    for size, killed, again in [*batches, (len(every), False, 0)]:
        known = dict(written)
        _, changes = hysteresis.decide(every[max(0, begin - again) : begin + size], known, LIMITS)
        said += [one for one in changes if one not in said]
        if not killed:
            written, begin = known, begin + size
    assert said == expected


def test_a_run_comes_after_every_load_and_not_for_every_load() -> None:
    """Of many loads a run is asked for at most once in 5 s, and each load is before the begin of one."""
    (automation,) = [one for one in automations() if one.name == "{project}: windows of what was loaded"]
    at = [timedelta(seconds=second) for second in (0, 1, 2.5, 4.9, 5, 5.1, 9.9, 10, 12, 14.9, 23, 24, 27.9, 28.1, 60)]
    firings = fires(automation, [loaded("readings", at=moment) for moment in at])
    delay = automation.actions[0].fields["schedule_after"]
    # Prefect rounds the wait to whole seconds, so that a run may begin half of one too early.
    begins = [firing.at + delay - timedelta(seconds=0.5) for firing in firings]
    assert len(begins) == 6
    for moment in at:
        assert any(BEGIN + moment < begin <= BEGIN + moment + delay for begin in begins), moment


def test_an_alert_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its beginning and its end, of this project's deployment only."""
    monkeypatch.setenv("MONITORING_BLOCK", "slack-webhook/ops")
    (automation,) = [one for one in automations() if one.name == "{project}: alerts are told"]
    found = []
    for kind, until in (("fired", None), ("resolved", NOON.isoformat())):
        (firing,) = fires(automation, [alert(kind, until=until, deployment="test.windows")])
        found.append(firing.actions[0].fields["body"])
    assert found == [
        "kiln-1: above its threshold, 81.3 °C on average",
        "kiln-1: below its threshold, 81.3 °C on average",
    ]
    does_not_fire(automation, [alert("fired", until=None, deployment="other.windows")], because="related")


def alert(kind: str, *, until: str | None, deployment: str) -> Any:
    """The event of an alert."""
    return event(
        f"monitoring.alert.{kind}",
        "monitoring.sensor.kiln-1",
        related={"deployment": {"prefect.resource.id": "prefect.deployment.1", "prefect.resource.name": deployment}},
        sensor="kiln-1",
        until=until,
        mean=81.26,
    )


def test_a_silence_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five minutes after the last arrival, and not while readings come."""
    monkeypatch.setenv("MONITORING_BLOCK", "slack-webhook/ops")
    (automation,) = [one for one in automations() if one.name == "{project}: readings silent"]
    coming = [arrived("readings", at=timedelta(minutes=minute)) for minute in range(0, 12, 4)]
    does_not_fire(automation, coming)
    (firing,) = fires(automation, coming, until=timedelta(minutes=6))
    assert firing.at == BEGIN + timedelta(minutes=8 + 5)
    assert firing.actions[0].fields["body"] == "no readings for 300 seconds"


def automations() -> list[Any]:
    """The example's, in this environment."""
    return list(module_at(EXAMPLE / "automations" / "monitoring.py").AUTOMATIONS)


def test_the_sender_signs_as_the_source_wants_it() -> None:
    """With the very secret, and a signature of another body is none."""
    scheme, body = standard_webhooks("ANY"), b'[{"sensor": "kiln-1"}]'
    secret = verify.new_secret(scheme, bytes(range(32)))
    headers = sender.signed(secret, "one", body, int(NOON.timestamp()))
    sent = [(name.encode(), value.encode()) for name, value in headers.items()]
    assert verify.verify(scheme, [secret], sent, body, NOON) == "one"
    with pytest.raises(Unverified):
        verify.verify(scheme, [secret], sent, body + b" ", NOON)


def test_the_kilns_are_the_same_each_time() -> None:
    """One is hot in the middle, the other never; a seed is a seed."""
    found = list(sender.readings(NOON, 150, 1))
    assert found == list(sender.readings(NOON, 150, 1))
    assert found != list(sender.readings(NOON, 150, 2))
    hot = {one["sensor"] for one in found if one["celsius"] > 80}
    assert hot == {"kiln-1"}
    assert max(one["celsius"] for one in found[:20]) < 72
    assert max(one["celsius"] for one in found[-60:]) < 70
