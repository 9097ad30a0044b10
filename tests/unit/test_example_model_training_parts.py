"""What is decided about models in examples/model_training."""

from __future__ import annotations

from datetime import date, timedelta
from types import ModuleType
from typing import Any

import pytest

from tests.acceptance.running import ROOT
from tests.loading import module_at

DAYS = [date(2012, 1, 1) + timedelta(days=n) for n in range(1461)]


@pytest.fixture(scope="module")
def rain() -> ModuleType:
    """Its module of pure functions."""
    return module_at(ROOT / "examples/model_training/flows/_rain.py")


def days(number: int, weather: str = "rain sun") -> list[dict[str, Any]]:
    """So many days, with these labels by turns."""
    labels = weather.split()
    return [
        {"date": day, "temp_max": 10.0, "temp_min": 2.0, "wind": 3.0, "weather": labels[n % len(labels)]}
        for n, day in enumerate(DAYS[:number])
    ]


def test_every_fourth_day_or_so_is_held_out(rain: ModuleType) -> None:
    """Of four years it is a quarter, and in each month some days are on either side."""
    held_out = [day for day in DAYS if rain.is_held_out(day)]
    assert len(held_out) == 383
    for year in range(2012, 2016):
        for month in range(1, 13):
            sides = {rain.is_held_out(day) for day in DAYS if (day.year, day.month) == (year, month)}
            assert sides == {True, False}, (year, month)


def test_a_day_never_changes_sides(rain: ModuleType) -> None:
    """Whatever days come besides, and in whatever order, and with whatever label."""
    few, many = days(100), days(1461, "snow fog")
    side = {day["date"]: day in rain.split(few).training for day in few}
    later = rain.split(list(reversed(many)))
    assert side == {day["date"]: day in later.training for day in many if day["date"] in side}
    assert not {day["date"] for day in later.training} & {day["date"] for day in later.held_out}
    assert len(later.training) + len(later.held_out) == 1461


@pytest.mark.parametrize(
    ("number", "weather", "said"),
    [
        (0, "rain sun", "0 days for training; 100 are needed"),
        (129, "rain sun", "99 days for training; 100 are needed"),
        (130, "rain sun", None),
        (366, "sun fog", "all 277 days for training are of one kind, dry"),
        (366, "snow rain drizzle", "all 277 days for training are of one kind, wet"),
        (366, "rain sun", None),
    ],
)
def test_what_is_too_little_is_said(rain: ModuleType, number: int, weather: str, said: str | None) -> None:
    """How many days there are, or of what kind they all are."""
    assert rain.too_little(rain.split(days(number, weather))) == said


def test_held_out_days_of_one_kind_judge_nobody(rain: ModuleType) -> None:
    """Whoever says that kind of every day would be right."""
    found = rain.split(days(366))
    dry = [{**day, "weather": "sun"} for day in found.held_out]
    said = rain.too_little(rain.Split(training=found.training, held_out=dry))
    assert said == "all 89 days for judging are of one kind, dry"
    assert rain.too_little(rain.Split(training=found.training, held_out=dry[:29])) == (
        "29 days for judging; 30 are needed"
    )


def test_the_ends_of_a_year_are_neighbours(rain: ModuleType) -> None:
    """The features of the last day of December are close to those of the first of January."""
    last, first = (
        {**days(1)[0], "date": date(year, month, day)} for year, month, day in ((2012, 12, 31), (2013, 1, 1))
    )
    assert all(abs(one - other) < 0.02 for one, other in zip(rain.features(last), rain.features(first), strict=True))


def test_a_model_is_named_by_what_it_learnt(rain: ModuleType) -> None:
    """The order of the days is nothing; a label, a day more, or another setting is another model."""
    training = days(200)
    name = rain.fingerprint(training, {"strength": 1.0})
    assert rain.fingerprint(list(reversed(training)), {"strength": 1.0}) == name
    others = {
        rain.fingerprint(training[:-1], {"strength": 1.0}),
        rain.fingerprint([*training[:-1], {**training[-1], "weather": "fog"}], {"strength": 1.0}),
        rain.fingerprint(training, {"strength": 2.0}),
    }
    assert len(others | {name}) == 4


@pytest.mark.parametrize(
    ("score", "champion_score", "promoted", "reason"),
    [
        (0.57, 0.56, True, "0.570 against 0.560 of old: better by 0.0100"),
        (0.8099, 0.8, False, "0.810 against 0.800 of old: better by 0.0099, and 0.01 is asked for"),
        (0.805, 0.8, False, "0.805 against 0.800 of old: better by 0.0050, and 0.01 is asked for"),
        (0.8, 0.8, False, "0.800 against 0.800 of old: no better"),
        (0.5, 0.8, False, "0.500 against 0.800 of old: no better"),
    ],
)
def test_a_challenger_has_to_be_better_by_the_margin(
    rain: ModuleType, score: float, champion_score: float, promoted: bool, reason: str
) -> None:
    """Exactly the margin is enough; what is not promoted is told why."""
    assert rain.judge(score, "old", champion_score) == (promoted, reason)


def test_the_first_one_is_promoted(rain: ModuleType) -> None:
    """There is nobody to be compared with."""
    assert rain.judge(0.6, None, None) == (True, "0.600: it is the first one")
