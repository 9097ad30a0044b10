"""The automations of every day: what fires them and what does not, by Prefect's own evaluation."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from prefect.events.schemas.automations import CompoundTrigger, EventTrigger, Posture
from prefect.events.schemas.events import Event

from penstock.automations.define import Automation, notify, run_deployment
from penstock.automations.everyday import (
    after_all,
    on_arrival,
    on_loaded,
    on_quarantined,
    when_failing,
    when_silent,
)
from penstock.automations.forms import form_of
from penstock.errors import DeclarationError
from penstock.testing import arrived, does_not_fire, event, fires, loaded, pending, quarantined

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
TELL = notify("slack-webhook/ops", body="{{ event.event }}")


def run(state: str, deployment: str = "test.sales", *, flow: str = "ingest", at: timedelta | None = None) -> Event:
    """What Prefect emits when a run's state changes: `prefect/server/models/events.py`."""
    related: dict[str, Any] = {
        "flow": {"prefect.resource.id": "prefect.flow.1", "prefect.resource.name": flow},
        "work-pool": {"prefect.resource.id": "prefect.work-pool.1", "prefect.resource.name": deployment},
    }
    if deployment:
        of = {"prefect.resource.id": "prefect.deployment.1", "prefect.resource.name": deployment}
        related["deployment"] = of
    return event(f"prefect.flow-run.{state}", "prefect.flow-run.1", related=related, at=at)


def times(automation: Automation, events: list[Event], *, until: timedelta | None = None) -> list[timedelta]:
    """When it fires, from the first event on."""
    found = fires(automation, events, until=until)
    return [firing.at - events[0].occurred for firing in found]


def test_on_arrival_is_what_it_always_was() -> None:
    """Not a letter of it may change, or every project's automations are sent anew and lose their counts."""
    assert on_arrival("sales") == Automation(
        name="{project}: sales on arrival",
        description="Loads what is new in sales as soon as penstock says that something waits.",
        trigger=EventTrigger(
            expect={"penstock.dataset.pending"},
            match={"prefect.resource.id": "penstock.{project}.dataset.sales"},
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        ),
        actions=[run_deployment("ingest/{project}.sales")],
    )


def test_on_arrival_fires_on_each_wake_up_of_its_dataset() -> None:
    """Each wake-up of the dataset runs its ingest deployment; another's does nothing."""
    found = fires(on_arrival("sales"), [pending("sales"), pending("weather"), pending("sales", at=MINUTE)])
    assert [firing.actions[0].action["deployment"] for firing in found] == ["ingest/test.sales"] * 2
    does_not_fire(on_arrival("sales"), [loaded("sales"), pending("sales", project="other")])


def test_on_loaded_fires_on_each_load_with_what_was_loaded() -> None:
    """Each load of the dataset acts, and its numbers can be given to a deployment as numbers."""
    automation = on_loaded("sales", run_deployment("report/daily", rows="{{ event.payload.rows }}"))
    found = fires(automation, [loaded("sales", rows=3), loaded("sales", rows=4), loaded("weather")])
    assert [firing.actions[0].fields for firing in found] == [{"parameters.rows": 3}, {"parameters.rows": 4}]
    does_not_fire(automation, [pending("sales"), arrived("sales"), loaded("weather")])


def test_on_quarantined_knows_the_dataset_by_the_related_resource() -> None:
    """The event is the object's; the dataset is related to it."""
    automation = on_quarantined("sales", notify("slack-webhook/ops", body="{{ event.payload.reason }}"))
    (firing,) = fires(automation, [quarantined("sales", reason="no rows"), quarantined("weather")])
    assert firing.actions[0].fields["body"] == "no rows"
    does_not_fire(automation, [quarantined("weather"), loaded("sales"), arrived("sales", key="sales/a.csv")])


def test_on_quarantined_can_wait_for_more_than_so_many() -> None:
    """With more_than and within it fires at the first one too many, and once in the window."""
    automation = on_quarantined("sales", TELL, more_than=2, within=HOUR)
    every_minute = [quarantined("sales", key=f"sales/{n}", at=n * MINUTE) for n in range(6)]
    assert times(automation, every_minute) == [2 * MINUTE]
    does_not_fire(automation, every_minute[:2])
    does_not_fire(automation, [quarantined("sales", at=n * HOUR) for n in range(4)])


def test_when_silent_counts_from_the_last_arrival() -> None:
    """It fires so long after the last arrival, whenever that was, and not before."""
    automation = when_silent("sales", 6 * HOUR, TELL)
    once = [arrived("sales")]
    assert times(automation, once, until=5.9 * HOUR) == []
    assert times(automation, once, until=7 * HOUR) == [6 * HOUR]
    again = [arrived("sales"), arrived("sales", at=5 * HOUR), arrived("weather", at=9 * HOUR)]
    assert times(automation, again, until=1.9 * HOUR) == []
    assert times(automation, again, until=3 * HOUR) == [11 * HOUR]


def test_when_silent_goes_on_saying_so() -> None:
    """A silence that lasts is told of again after every two such times, one with no arrival at all too."""
    automation = when_silent("sales", 6 * HOUR, TELL)
    assert times(automation, [arrived("sales")], until=31 * HOUR) == [6 * HOUR, 18 * HOUR, 30 * HOUR]
    assert times(automation, [arrived("weather")], until=7 * HOUR) == [6 * HOUR]


def test_when_silent_is_quiet_while_something_arrives() -> None:
    """Any number of arrivals, each within the time, keeps it quiet."""
    automation = when_silent("sales", 6 * HOUR, TELL)
    does_not_fire(automation, [arrived("sales", at=n * 5 * HOUR) for n in range(10)], until=5 * HOUR)


@pytest.mark.parametrize("state", ["Failed", "Crashed", "TimedOut"])
def test_when_failing_fires_with_the_run_that_is_one_too_many(state: str) -> None:
    """The first three bad ends are borne, the fourth within the hour fires, and then it is quiet until that is over."""
    automation = when_failing("sales", TELL, more_than=3, within=HOUR)
    bad = [run(state, at=n * MINUTE) for n in range(9)]
    assert times(automation, bad) == [3 * MINUTE]
    does_not_fire(automation, bad[:3])


def test_when_failing_counts_the_dataset_s_runs_alone() -> None:
    """Good ends, other deployments and other flows do not count."""
    automation = when_failing("sales", TELL, more_than=0, within=HOUR)
    others = [run("Completed"), run("Failed", "test.weather"), run("Failed", flow="verify"), run("AwaitingRetry")]
    does_not_fire(automation, others)
    assert len(fires(automation, [*others, run("Failed")])) == 1


def test_when_failing_takes_any_flow() -> None:
    """A deployment by its name, or with a star every run of a flow, those without a deployment too."""
    one = when_failing("report/daily", TELL, more_than=1, within=HOUR)
    every = when_failing("report/*", TELL, more_than=1, within=HOUR)
    daily = [run("Failed", "daily", flow="report", at=n * MINUTE) for n in range(2)]
    mixed = [run("Failed", "daily", flow="report"), run("Crashed", "", flow="report", at=MINUTE)]
    assert len(fires(one, daily)) == len(fires(every, daily)) == len(fires(every, mixed)) == 1
    does_not_fire(one, mixed)
    does_not_fire(every, [run("Failed"), run("Failed", at=MINUTE)])


def test_after_all_waits_for_the_last_one() -> None:
    """It fires with the load that was missing, in any order, and needs every one anew for the next time."""
    automation = after_all("weather", "sales", run="report")
    both = [loaded("sales"), loaded("sales", at=MINUTE), loaded("weather", at=2 * MINUTE)]
    (firing,) = fires(automation, both)
    assert firing.actions[0].action["deployment"] == "ingest/test.report"
    assert times(automation, both) == [2 * MINUTE]
    does_not_fire(automation, both[:2])
    assert times(automation, [*both, loaded("weather", at=3 * MINUTE)]) == [2 * MINUTE]
    assert times(automation, [*both, loaded("sales", at=4 * MINUTE), loaded("weather", at=5 * MINUTE)]) == [
        2 * MINUTE,
        5 * MINUTE,
    ]


def test_after_all_forgets_what_is_too_old() -> None:
    """With within, a load counts for so long only."""
    apart = [loaded("sales"), loaded("weather", at=2 * HOUR)]
    does_not_fire(after_all("sales", "weather", run="a/b", within=HOUR), apart)
    assert len(fires(after_all("sales", "weather", run="a/b", within=3 * HOUR), apart)) == 1
    assert len(fires(after_all("sales", "weather", run="a/b"), apart)) == 1


def test_after_all_runs_whatever_it_is_told() -> None:
    """A dataset, a deployment, or any action."""
    runs = [after_all("a", "b", run=what).actions for what in ("c", "flow/c", TELL)]
    assert runs == [[run_deployment("ingest/{project}.c")], [run_deployment("flow/c")], [TELL]]
    trigger = after_all("a", "b", run="c").trigger
    assert isinstance(trigger, CompoundTrigger)
    assert trigger.require == "all"


EVERY: dict[str, Callable[..., Automation]] = {
    "on_loaded": lambda **more: on_loaded("sales", TELL, **more),
    "on_quarantined": lambda **more: on_quarantined("sales", TELL, **more),
    "when_silent": lambda **more: when_silent("sales", HOUR, TELL, **more),
    "when_failing": lambda **more: when_failing("sales", TELL, more_than=1, within=HOUR, **more),
    "after_all": lambda **more: after_all("sales", "weather", run="report", **more),
}


@pytest.mark.parametrize("helper", EVERY)
def test_names_begin_with_the_project(helper: str) -> None:
    """Each is named after its dataset and its kind, unless it is given a name; the project stands in front."""
    assert re.fullmatch(r"shop: sales .*", form_of(EVERY[helper](), project="shop")["name"])
    named = EVERY[helper](name="mine", description="why", tags=["t"], enabled=False, adopt=True, allow=["throttles"])
    form = form_of(named, project="shop")
    assert (form["name"], form["description"], form["enabled"]) == ("shop: mine", "why", False)
    assert form["tags"] == ["penstock:shop", "t"]
    assert (named.adopt, named.allow) == (True, ["throttles"])


def test_what_cannot_be_meant_is_refused() -> None:
    """What Prefect would refuse or do otherwise than it reads is an error where it is written."""
    refused: list[Callable[[], Automation]] = [
        lambda: when_silent("sales", timedelta(seconds=9), TELL),
        lambda: when_failing("sales", TELL, more_than=1, within=timedelta(0)),
        lambda: when_failing("sales", TELL, more_than=-1, within=HOUR),
        lambda: when_failing("report/", TELL, more_than=1, within=HOUR),
        lambda: on_quarantined("sales", TELL, more_than=1),
        lambda: after_all("sales", run="report"),
        lambda: after_all("sales", "sales", run="report"),
        lambda: after_all("sales", "weather", run="report", within=timedelta(0)),
        lambda: on_loaded("sales"),
    ]
    for wrong in refused:
        with pytest.raises(DeclarationError):
            wrong()
