"""An automation's unit test in three lines: `fires`, `why_not`, and events that never happened.

    def test_a_load_of_sales_tells_the_team() -> None:
        (firing,) = fires(TOLD, [loaded("sales", rows=3)])
        assert firing.actions[0].fields["body"] == "3 rows in sales"

Nothing but Prefect's package is needed: no server, no project folder. Events begin at one fixed moment; `at` is how
long after it they occur, or the moment itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from prefect.events.schemas.events import Event

from penstock import events as names
from penstock.automations.define import Automation
from penstock.automations.engine import Firing, Rendered
from penstock.automations.forms import form_of
from penstock.automations.samples import BEGIN, made, sample, since
from penstock.automations.simulate import Simulated, as_event, simulate
from penstock.errors import DeclarationError

__all__ = [
    "BEGIN",
    "Firing",
    "Rendered",
    "accepted",
    "arrived",
    "does_not_fire",
    "event",
    "fires",
    "loaded",
    "lost",
    "pending",
    "quarantined",
    "why_not",
]

PROJECT = "test"
At = datetime | timedelta | None
Until = datetime | timedelta | None


def fires(
    automation: Automation,
    events: Sequence[Event | Mapping[str, Any]],
    *,
    project: str = PROJECT,
    until: Until = None,
) -> list[Firing]:
    """Every time that the automation fires of these events, in their order; none is an empty list.

    `until` is how long after the last event it is looked at (or up to which moment): what waits for nothing to happen
    needs it. Time is the events' own: nothing is waited for.
    """
    return list(_simulated(automation, events, project, until).outcome.firings)


def why_not(
    automation: Automation,
    events: Sequence[Event | Mapping[str, Any]],
    *,
    project: str = PROJECT,
    until: Until = None,
) -> str:
    """The first condition that failed, in words; empty where the automation fires."""
    return "\n".join(reason.text for reason in _simulated(automation, events, project, until).why_not)


def does_not_fire(
    automation: Automation,
    events: Sequence[Event | Mapping[str, Any]],
    *,
    because: str = "",
    project: str = PROJECT,
    until: Until = None,
) -> None:
    """Raise AssertionError where the automation fires, or not for a reason that says `because`."""
    found = _simulated(automation, events, project, until)
    fired = ", ".join(firing.at.isoformat() for firing in found.outcome.firings)
    assert not fired, f"{found.name!r} fires at {fired}"
    reasons = "\n".join(reason.text for reason in found.why_not)
    assert because in reasons, f"{found.name!r} does not fire, but because: {reasons}"


def pending(dataset: str, *, project: str = PROJECT, at: At = None, **payload: Any) -> Event:
    """Something new waits in the dataset: the wake-up."""
    return _sample(names.DATASET_PENDING, dataset, project, at, payload=payload)


def arrived(dataset: str, *, key: str | None = None, project: str = PROJECT, at: At = None, **payload: Any) -> Event:
    """A batch arrived for the dataset; with a `key`, that object (where the dataset asks for one event each)."""
    return _sample(names.OBJECT_ARRIVED, dataset, project, at, key=key, payload=payload)


def loaded(
    dataset: str, *, rows: int = 1, rejected: int = 0, project: str = PROJECT, at: At = None, **payload: Any
) -> Event:
    """Rows of the dataset were loaded."""
    return _sample(names.DATASET_LOADED, dataset, project, at, payload={"rows": rows, "rejected": rejected, **payload})


def quarantined(
    dataset: str,
    *,
    key: str | None = None,
    reason: str = "1 of 3 rows are bad",
    project: str = PROJECT,
    at: At = None,
    **payload: Any,
) -> Event:
    """An object of the dataset cannot be loaded."""
    return _sample(names.OBJECT_QUARANTINED, dataset, project, at, key=key, reason=reason, payload=payload)


def lost(dataset: str, *, key: str | None = None, project: str = PROJECT, at: At = None, **payload: Any) -> Event:
    """The warehouse lost an object's rows, and they are loaded again."""
    return _sample(names.OBJECT_LOST, dataset, project, at, key=key, payload=payload)


def accepted(source: str, *, project: str = PROJECT, at: At = None, **payload: Any) -> Event:
    """The webhook accepted a delivery of the source."""
    return _sample(names.DELIVERY_ACCEPTED, source, project, at, payload=payload)


def event(
    name: str,
    resource: str | Mapping[str, str],
    *,
    related: Mapping[str, str | Mapping[str, str]] | None = None,
    at: At = None,
    follows: UUID | None = None,
    **payload: Any,
) -> Event:
    """Any event: of a resource (its id, or its labels), with related ones by their role."""
    _check_time("at", at)
    others = [{**_labels(one), "prefect.resource.role": role} for role, one in (related or {}).items()]
    found = made(name, _labels(resource), related=others, payload=payload, occurred=since(BEGIN, at))
    return Event.model_validate({**found, "follows": follows})


def _sample(name: str, subject: str, project: str, at: At, **given: Any) -> Event:
    _check_time("at", at)
    if not isinstance(subject, str):
        raise TypeError(f"the dataset (or source) is a name, and this is {type(subject).__name__}")
    return Event.model_validate(sample(name, subject, project=project, occurred=since(BEGIN, at), **given))


def _check_time(name: str, found: Any) -> None:
    if found is not None and not isinstance(found, datetime | timedelta):
        raise TypeError(f"`{name}` is a timedelta or a datetime, and this is {found!r}: timedelta(minutes=10), say")
    if isinstance(found, datetime) and found.tzinfo is None:
        raise TypeError(f"`{name}` needs a time zone, such as datetime(2026, 1, 15, tzinfo=UTC); this is {found!r}")


def _labels(resource: str | Mapping[str, str]) -> dict[str, str]:
    return {"prefect.resource.id": resource} if isinstance(resource, str) else dict(resource)


def _simulated(
    automation: Automation, events: Sequence[Event | Mapping[str, Any]], project: str, until: Until
) -> Simulated:
    if not isinstance(automation, Automation):
        raise TypeError(f"an automation is asked for (penstock's Automation), and this is {type(automation).__name__}")
    if isinstance(events, Event | Mapping | str):
        raise TypeError("a list of events is asked for, also of one: [loaded('sales')]")
    for index, one in enumerate(events):
        if not isinstance(one, Event | Mapping):
            raise TypeError(f"event {index + 1} is {type(one).__name__}, not an event such as loaded('sales')")
    _check_time("until", until)
    form = form_of(automation, project=project)
    found = simulate([form], [as_event(one) for one in events], now=BEGIN, until=until)
    if found.automations[0].refused:
        raise DeclarationError(found.automations[0].refused)
    assert not found.stopped, f"{automation.name!r} is due too often to be looked at so long: a shorter `until`"
    assert not found.endless, f"{automation.name!r} fires of its own firing, without end"
    return found.automations[0]
