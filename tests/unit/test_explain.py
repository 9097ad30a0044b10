"""Why an automation did not fire: each condition is named, with what was wanted and what came."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from prefect.events.schemas.automations import CompoundTrigger, EventTrigger, Posture, SequenceTrigger, TriggerTypes
from prefect.events.schemas.events import Event

from penstock.automations.define import Automation, notify, pause_automation
from penstock.automations.explain import why_not as reasons_of
from penstock.automations.forms import form_of
from penstock.automations.simulate import as_event, simulate
from penstock.testing import does_not_fire, event, fires, loaded, pending, why_not
from penstock.testing.automations import BEGIN


def on(*names: str, **more: Any) -> EventTrigger:
    """A trigger that fires at once, unless told otherwise."""
    return EventTrigger(
        **{"expect": set(names), "posture": Posture.Reactive, "threshold": 1, "within": timedelta(0), **more}
    )


def told(trigger: TriggerTypes, enabled: bool | None = None) -> Automation:
    """An automation of that trigger."""
    return Automation(name="told", trigger=trigger, actions=[notify("slack-webhook/ops", body="x")], enabled=enabled)


def minutes(count: float) -> timedelta:
    """So long after the beginning."""
    return timedelta(minutes=count)


ONE = {"owner": {"prefect.resource.id": "me", "k": "w"}}
LOADED = "penstock.dataset.loaded"
ABSENT = on(LOADED, posture=Posture.Proactive, within=timedelta(hours=6))


@pytest.mark.parametrize(
    ("trigger", "events", "parts"),
    [
        pytest.param(on("a"), [], ["nothing happened: there are no events"], id="no events"),
        pytest.param(
            on(LOADED), [pending("sales")], [f"expects {LOADED}", "there is penstock.dataset.pending"], id="name"
        ),
        pytest.param(
            on(LOADED, match={"penstock.dataset": ["sales", "x*"]}),
            [loaded("weather")],
            ["label penstock.dataset is to be 'sales' or 'x*'; it is 'weather'"],
            id="label",
        ),
        pytest.param(
            on("a", match={"k": "1"}), [event("a", "r")], ["label k is to be '1'; it has none"], id="no label"
        ),
        pytest.param(
            on("a", match_related={"k": "v*"}),
            [event("a", "r", related=ONE)],
            ["`match_related` finds nothing in a of r: it wants k=v*; related are owner me"],
            id="related",
        ),
        pytest.param(
            on("b", after={"a"}, within=minutes(1)), [event("b", "r")], ["b of r came, and no a before it"], id="after"
        ),
        pytest.param(
            on("b", after={"a"}, within=minutes(1)),
            [event("a", "r"), event("b", "r", at=minutes(2))],
            ["b of r came, and no a before it (`after`) within 1 min"],
            id="after too late",
        ),
        pytest.param(
            on("b", after={"a"}, within=minutes(1)), [event("a", "r")], ["a of r began it, and no b came"], id="begun"
        ),
        pytest.param(
            on(LOADED, threshold=3, within=minutes(10)),
            [loaded("sales"), loaded("sales", at=minutes(1))],
            ["2 of 3 within 10 min"],
            id="threshold",
        ),
        pytest.param(
            on(LOADED, threshold=2, within=minutes(10), for_each={"penstock.dataset"}),
            [loaded("sales"), loaded("weather")],
            ["1 of 2 within 10 min for penstock.dataset=", "(2 in all)"],
            id="threshold for each",
        ),
        pytest.param(
            on(LOADED, threshold=3, within=minutes(10)),
            [loaded("sales", at=minutes(at)) for at in (0, 9, 11, 12)],
            ["2 of 3 within 10 min", "(3 came within 10 min of one another; but Prefect's windows", "do not slide)"],
            id="windows do not slide",
        ),
        pytest.param(
            CompoundTrigger(require="all", within=minutes(5), triggers=[on(LOADED), on("b")]),
            [loaded("sales")],
            ["1 of 2 triggers fired; missing: 2 (b)", "expects b"],
            id="compound",
        ),
        pytest.param(
            CompoundTrigger(require=2, within=minutes(5), triggers=[on("a"), on("b"), on("c")]),
            [event("a", "r"), event("c", "r", at=minutes(6))],
            ["2 fired, but not within 5 min of one another: 1 (a) at", "3 (c) at"],
            id="compound not within",
        ),
        pytest.param(
            SequenceTrigger(within=minutes(5), triggers=[on("a"), on("b")]),
            [event("b", "r"), event("a", "r", at=minutes(1))],
            ["all fired, but not in their order: 2 (b) at", "1 (a) at"],
            id="sequence",
        ),
        pytest.param(
            SequenceTrigger(
                within=minutes(5),
                triggers=[CompoundTrigger(require="any", within=minutes(1), triggers=[on("a"), on("b")]), on("c")],
            ),
            [event("b", "r")],
            ["1 of 2 triggers fired; missing: 2 (c)"],
            id="nested",
        ),
    ],
)
def test_the_first_condition_that_failed_is_named(trigger: TriggerTypes, events: list[Event], parts: list[str]) -> None:
    """With what it wanted and what came."""
    text = why_not(told(trigger), events)
    for part in parts:
        assert part in text


def test_a_label_that_fits_is_not_named() -> None:
    """Any of the values that are wanted will do."""
    thing = {"prefect.resource.id": "r", "k": "2", "q": "2"}
    text = why_not(told(on("a", match={"k": ["1", "2"], "q": "1"})), [event("a", thing)])
    assert text == "`match` differs for a of r: label q is to be '1'; it is '2'"


@pytest.mark.parametrize(
    ("events", "until", "condition", "part"),
    [
        pytest.param([], timedelta(hours=5), "absence", "its 6 h are not over before", id="not over"),
        pytest.param(
            [loaded("sales", at=timedelta(hours=1))],
            timedelta(hours=6),
            "absence",
            "the expected event came: penstock.dataset.loaded of sales",
            id="came",
        ),
    ],
)
def test_what_waits_for_nothing_says_when_or_what_came(
    events: list[Event], until: timedelta, condition: str, part: str
) -> None:
    """A proactive trigger that does not fire: the event came, or its time is not over."""
    form = form_of(told(ABSENT), project="test")
    found = simulate([form], [as_event(one) for one in events], now=BEGIN, start=BEGIN, until=BEGIN + until)
    (reason,) = found.automations[0].why_not
    assert reason.condition == condition
    assert part in reason.text


def test_a_paused_automation_says_so() -> None:
    """Its events would otherwise make it fire."""
    assert fires(told(on(LOADED), enabled=True), [loaded("sales")])
    assert why_not(told(on(LOADED), enabled=False), [loaded("sales")]) == "it is paused: `enabled` is False"


def test_what_firings_caused_is_looked_at() -> None:
    """It is there like any other event, and may come nearest."""
    first = Automation(name="first", trigger=on(LOADED), actions=[notify("slack-webhook/ops", body="x")])
    second = told(on("prefect.automation.triggered", match={"prefect.resource.name": "other"}))
    third = told(on("a"))
    forms = [form_of(one, project="test") for one in (first, second, third)]
    _, near, far = simulate(forms, [as_event(loaded("sales"))], now=BEGIN).automations
    assert near.why_not[0].text.startswith("`match` differs for prefect.automation.triggered of first: ")
    assert "prefect.automation.triggered" in far.why_not[0].text


def test_one_that_another_paused_says_so() -> None:
    """By which, and what it missed; what came before the pause is no reason."""
    stops = Automation(name="stops", trigger=on("stop"), actions=[pause_automation("told")])
    forms = [form_of(one, project="test") for one in (stops, told(on(LOADED)))]
    events = [event("stop", "r"), loaded("sales", at=minutes(1))]
    _, found = simulate(forms, [as_event(one) for one in events], now=BEGIN).automations
    (reason,) = found.why_not
    assert reason.condition == "paused"
    assert "automation 'stops' paused it at" in reason.text
    assert "penstock.dataset.loaded of sales came after" in reason.text
    events = [pending("sales"), event("stop", "r", at=minutes(1))]
    _, found = simulate(forms, [as_event(one) for one in events], now=BEGIN).automations
    assert found.why_not[0].condition == "name"


def test_an_event_that_waits_for_another_says_so() -> None:
    """Prefect does not take it before that one, or a quarter of an hour."""
    one, two = event("a", "r"), event("b", "r", at=minutes(1))
    one.follows, two.follows = two.id, one.id
    does_not_fire(told(on("b")), [one, two], because="b of r follows an event that did not come before it")
    assert fires(told(on("b")), [one, two], until=minutes(20))


def test_one_that_fires_needs_no_reason() -> None:
    """Nothing is said of it."""
    form = form_of(told(on(LOADED)), project="test")
    found = simulate([form], [as_event(loaded("sales"))], now=BEGIN)
    assert found.automations[0].fires
    assert reasons_of(form, found.automations[0].outcome, found.events, until=found.until) == []
