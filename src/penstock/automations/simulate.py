"""What automations would do of events, and what two versions of them would do differently."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from prefect.events.schemas.events import Event as PrefectEvent
from pydantic import ValidationError

from penstock.automations.engine import Engine, Event, Firing, Outcome, Rendered, engine, received
from penstock.automations.explain import Reason, why_not
from penstock.automations.forms import Form
from penstock.errors import DeclarationError

# What is a template, and shown as rendered.
_TEMPLATES = frozenset({"parameters", "subject", "body", "payload"})


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """One automation: what it did, and why it did nothing."""

    name: str
    form: Form
    outcome: Outcome
    why_not: tuple[Reason, ...] = ()

    @property
    def fires(self) -> bool:
        """Whether it fired at least once."""
        return bool(self.outcome.firings)

    @property
    def refused(self) -> str:
        """Why Prefect's server would not take it; empty where it would."""
        return self.outcome.refused and f"Prefect's server would refuse this: {self.outcome.refused}"


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """Every automation against the same events."""

    automations: tuple[Simulated, ...]
    events: tuple[Event, ...]
    start: datetime
    until: datetime
    # Firings went on causing firings, and were stopped.
    endless: bool = False
    # What waits for nothing to happen was due too often: nothing after `until` was looked at, though it was asked for.
    stopped: bool = False

    def event(self, found: str | None) -> Event | None:
        """The event of that id, if it is one of these: a firing's own events are not."""
        return next((event for event in self.events if event["id"] == found), None)


@dataclass(frozen=True, kw_only=True)
class Effect:
    """One action of one firing: what would be done to the world."""

    automation: str
    firing: Firing
    rendered: Rendered


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Two versions of the automations: what only the one would have done, and only the other."""

    gone: tuple[Effect, ...]
    new: tuple[Effect, ...]
    same: int


def simulate(
    forms: Sequence[Form],
    events: Sequence[Event],
    *,
    now: datetime,
    start: datetime | None = None,
    until: datetime | timedelta | None = None,
    asked: Engine | None = None,
) -> Simulation:
    """What each automation does of these events.

    They are in force from `start` (default: the first event) and looked at up to `until`: a moment, or so long after
    the last event (default: up to the last event). Without events both count from `now`.
    """
    begin = start or min(map(received, events), default=now)
    last = max(map(received, events), default=begin)
    try:
        end = until if isinstance(until, datetime) else last + (until or timedelta(0))
    except OverflowError:
        raise DeclarationError(f"{until} after {last} is beyond the end of all calendars: a shorter `until`") from None
    answer = (asked or engine()).ask(forms, events, start=begin, until=end)
    if answer.stopped:
        end = answer.stopped
        events = [event for event in events if received(event) <= end]
    automations = tuple(
        Simulated(
            name=form["name"],
            form=form,
            outcome=outcome,
            why_not=tuple(why_not(form, outcome, events, until=end)),
        )
        for form, outcome in zip(forms, answer.outcomes, strict=True)
    )
    return Simulation(
        automations=automations,
        events=tuple(events),
        start=begin,
        until=end,
        endless=answer.endless,
        stopped=answer.stopped is not None,
    )


def compared(before: Simulation, after: Simulation) -> Compared:
    """What of `before` would not happen after the change, and what of `after` would: by what is done, not by name."""
    old, new = _effects(before), _effects(after)
    old_counts, new_counts = Counter(key for key, _ in old), Counter(key for key, _ in new)
    return Compared(gone=_over(old, new_counts), new=_over(new, old_counts), same=(old_counts & new_counts).total())


def as_event(found: PrefectEvent | Mapping[str, Any], *, where: str = "event") -> Event:
    """An event as Prefect's JSON has it. Raises DeclarationError, naming `where`, for what is none."""
    try:
        event = found if isinstance(found, PrefectEvent) else PrefectEvent.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise DeclarationError(f"{where}: {f'{place}: ' if place else ''}{first['msg']}") from None
    told: Event = event.model_dump(mode="json", include={*PrefectEvent.model_fields})
    moment = getattr(found, "received", None) if isinstance(found, PrefectEvent) else found.get("received")
    if moment is not None:
        told["received"] = _moment(moment, where).isoformat()
    return told


def _moment(found: Any, where: str) -> datetime:
    try:
        moment = found if isinstance(found, datetime) else datetime.fromisoformat(str(found))
    except ValueError:
        raise DeclarationError(f"{where}: received: {found!r} is no moment") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _effects(simulation: Simulation) -> list[tuple[str, Effect]]:
    return [
        (_key(effect), effect)
        for simulated in simulation.automations
        for firing in simulated.outcome.firings
        for rendered in firing.actions
        for effect in [Effect(automation=simulated.name, firing=firing, rendered=rendered)]
    ]


def _key(effect: Effect) -> str:
    firing, rendered = effect.firing, effect.rendered
    fixed = {name: value for name, value in rendered.action.items() if name not in _TEMPLATES}
    # What rests on an event is known by it; what rests on none, by its time.
    cause = firing.event or firing.at.isoformat(timespec="seconds")
    told = [fixed, cause, dict(rendered.fields), dict(rendered.needs), dict(rendered.errors)]
    return json.dumps(told, sort_keys=True, default=str)


def _over(effects: Sequence[tuple[str, Effect]], others: Counter[str]) -> tuple[Effect, ...]:
    left = Counter(others)
    found = []
    for key, effect in effects:
        if left[key] > 0:
            left[key] -= 1
        else:
            found.append(effect)
    return tuple(found)
