"""Why an automation did not fire: the first condition that failed, in words. Pure.

Whether an event matches is Prefect's to say: `Outcome.nearest` is what its own functions answered.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from penstock.automations.engine import Event, Firing, Look, Nearest, Outcome
from penstock.automations.forms import Form

Condition = Literal[
    "refused",
    "enabled",
    "paused",
    "waiting",
    "events",
    "name",
    "match",
    "related",
    "after",
    "threshold",
    "absence",
    "parts",
    "order",
    "unknown",
]

_MOST_NAMED = 4
# How long Prefect's server keeps a count whose time is over, by default.
_KEPT_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class Reason:
    """The condition that failed. `event` is the id of the event that came nearest; `trigger` counts as in Firing."""

    condition: Condition
    text: str
    trigger: int = 0
    event: str | None = None


def why_not(form: Form, outcome: Outcome, events: Sequence[Event], *, until: datetime) -> list[Reason]:
    """Why the automation did not fire of these events up to `until`; nothing for one that did.

    The first reason is the automation's own; more follow for the parts that a compound or a sequence misses.
    """
    if outcome.firings:
        return []
    if outcome.refused:
        return [Reason(condition="refused", text=f"Prefect's server would refuse this: {outcome.refused}")]
    if form.get("enabled") is False:
        return [Reason(condition="enabled", text="it is paused: `enabled` is False")]
    # What firings caused is looked at like any other event.
    seen = {str(event["id"]): event for event in [*events, *outcome.caused]}
    told = _Told(outcome=outcome, events=seen, until=until)
    triggers = walk(form["trigger"])
    return _paused(triggers, told) or _waiting(told) or _of(0, triggers, told)


def walk(trigger: Form) -> list[Form]:
    """A trigger and all that it holds, a composite before its parts: the order in which Firing counts them."""
    return [trigger, *(one for part in trigger.get("triggers", []) for one in walk(part))]


@dataclass(frozen=True, kw_only=True)
class _Told:
    outcome: Outcome
    events: Mapping[str, Event]
    until: datetime

    def nearest(self, trigger: int) -> Nearest | None:
        return next((one for one in self.outcome.nearest if one.trigger == trigger), None)

    def fired(self, trigger: int) -> list[Firing]:
        return [one for one in self.outcome.parts if one.trigger == trigger]

    def name(self, look: Look) -> str:
        event = self.events.get(look.event)
        return _named(event) if event else look.event

    def at(self, look: Look) -> datetime:
        return datetime.fromisoformat(str(self.events[look.event]["occurred"]))


def _paused(triggers: Sequence[Form], told: _Told) -> list[Reason]:
    """Whether it was paused while it had something to fire on."""
    paused = told.outcome.paused
    if paused is None:
        return []
    end = paused.end or told.until
    missed = [
        look
        for nearest in told.outcome.nearest
        for look in nearest.best
        if look.expects and nearest.rank == 4 and paused.at <= told.at(look) and told.at(look) <= end
    ]
    if not missed and all(trigger.get("posture") != "Proactive" for trigger in triggers):
        return []
    text = f"automation {paused.by!r} paused it at {_clock(paused.at)}"
    text += f" until {_clock(paused.end)}" if paused.end else ""
    text += f", and {told.name(missed[0])} came after" if missed else ""
    return [Reason(condition="paused", text=text, event=missed[0].event if missed else None)]


def _waiting(told: _Told) -> list[Reason]:
    """Whether what it would fire on still waits for the event that it follows."""
    for nearest in told.outcome.nearest:
        for look in nearest.best:
            if nearest.rank >= 3 and look.event in told.outcome.waiting:
                text = (
                    f"{told.name(look)} follows an event that did not come before it; Prefect's server waits "
                    f"15 min for that, and it was looked at until {_clock(told.until)}"
                )
                return [Reason(condition="waiting", text=text, trigger=nearest.trigger, event=look.event)]
    return []


def _of(index: int, triggers: Sequence[Form], told: _Told) -> list[Reason]:
    trigger = triggers[index]
    if "triggers" in trigger:
        return _composite(index, triggers, told)
    if not told.events and trigger["posture"] == "Reactive":
        return [Reason(condition="events", text="nothing happened: there are no events", trigger=index)]
    nearest = told.nearest(index)
    assert nearest is not None
    if trigger["posture"] == "Proactive":
        return [_absence(index, trigger, nearest, told)]
    return [_unmatched(index, trigger, nearest, told) or _uncounted(index, trigger, nearest, told)]


def _unmatched(index: int, trigger: Form, nearest: Nearest, told: _Told) -> Reason | None:
    """Why even the event that came nearest does not match; nothing where one does."""
    look = nearest.best[0] if nearest.best else None
    if look is None or nearest.rank == 0:
        names = Counter(str(event["event"]) for event in told.events.values())
        wanted = _either([*trigger.get("after", []), *trigger["expect"]])
        text = f"no event has a name that it expects: it expects {wanted}; there is {_counted(names)}"
        return Reason(condition="name", text=text, trigger=index)
    if nearest.rank == 1:
        differing = "; ".join(_label(label) for label in look.labels)
        return Reason(
            condition="match",
            text=f"`match` differs for {told.name(look)}: {differing}",
            trigger=index,
            event=look.event,
        )
    if nearest.rank == 2:
        wanted = " and ".join(_specification(one) for one in look.related)
        there = told.events[look.event].get("related") or []
        has = ", ".join(_related(one) for one in there) or "none"
        text = f"`match_related` finds nothing in {told.name(look)}: it wants {wanted}; related are {has}"
        return Reason(condition="related", text=text, trigger=index, event=look.event)
    return None


def _uncounted(index: int, trigger: Form, nearest: Nearest, told: _Told) -> Reason:
    """Why a reactive trigger does not fire although events match it."""
    counted = [look for look in nearest.best if look.expects]
    starting = [look for look in nearest.best if look.starts]
    if trigger.get("after"):
        if not counted:
            first = starting[0]
            text = f"{told.name(first)} began it, and no {_either(trigger['expect'])} came after"
            return Reason(condition="after", text=text, trigger=index, event=first.event)
        same = [(one, two) for one in starting for two in counted if one.key == two.key and one.event != two.event]
        within = _seconds(trigger)
        if not any(told.at(one) <= told.at(two) < told.at(one) + within for one, two in same):
            last = counted[-1]
            text = f"{told.name(last)} came, and no {_either(trigger['after'])} before it (`after`)"
            if any(told.at(one) <= told.at(two) for one, two in same):
                text += f" within {_long(within)}"
            elif starting and not same and trigger.get("for_each"):
                text += " with the same values of `for_each`"
            return Reason(condition="after", text=text, trigger=index, event=last.event)
    return _under_threshold(index, trigger, counted, told)


def _under_threshold(index: int, trigger: Form, counted: Sequence[Look], told: _Told) -> Reason:
    wanted, within = int(trigger.get("threshold", 1)), _seconds(trigger)
    by_key: dict[tuple[str, ...], list[Look]] = defaultdict(list)
    for look in counted:
        by_key[look.key].append(look)
    best, sliding = 0, 0
    key: tuple[str, ...] = ()
    for found_key, looks in by_key.items():
        times = sorted(told.at(look) for look in looks)
        windowed = _windowed(times, within or timedelta(seconds=_KEPT_SECONDS))
        if windowed > best:
            best, sliding, key = windowed, _sliding(times, within), found_key
    if best >= wanted:
        text = f"{told.name(counted[-1])} matches, and Prefect did not count it: it came too late, or twice"
        return Reason(condition="unknown", text=text, trigger=index, event=counted[-1].event)
    text = f"{best} of {wanted} within {_long(within) if within else 'about a minute (`within` is 0)'}"
    if trigger.get("for_each"):
        names = sorted(trigger["for_each"])
        text += " for " + ", ".join(f"{name}={value}" for name, value in zip(names, key, strict=True))
    if sliding >= wanted:
        text += (
            f" ({sliding} came within {_long(within)} of one another; but Prefect's windows begin with their first "
            "event and do not slide)"
        )
    elif len(counted) > best:
        text += f" ({len(counted)} in all)"
    return Reason(condition="threshold", text=text, trigger=index, event=counted[-1].event)


def _absence(index: int, trigger: Form, nearest: Nearest, told: _Told) -> Reason:
    """Why a proactive trigger does not fire: what it waits for came, or its time is not over, or never began."""
    threshold = int(trigger.get("threshold", 1))
    starting = [look for look in nearest.best if look.starts]
    # One that both begins it and is expected is the first of its value's only by beginning it.
    begun = {look.key: look for look in reversed(starting)}
    came = [look for look in nearest.best if look.expects and begun.get(look.key) is not look]
    waiting = [
        count
        for count in told.outcome.counts
        if count.trigger == index and count.count < threshold and count.end > told.until
    ]
    if came and trigger.get("after") and trigger.get("for_each") and not starting:
        text = f"{told.name(came[-1])} came, and no {_either(trigger['after'])} began it (`after`)"
        return Reason(condition="after", text=text, trigger=index, event=came[-1].event)
    if len(came) >= threshold:
        look = came[-1]
        text = f"the expected event came: {told.name(look)} at {_clock(told.at(look))}"
        if waiting:
            text += f"; after it, not over before {_clock(max(count.end for count in waiting))}"
        return Reason(condition="absence", text=text, trigger=index, event=look.event)
    if waiting:
        text = f"its {_long(_seconds(trigger))} are not over before {_clock(min(count.end for count in waiting))}"
        return Reason(condition="absence", text=f"{text}; looked until {_clock(told.until)}", trigger=index)
    unmatched = _unmatched(index, trigger, nearest, told) if told.events else None
    if unmatched:
        text = f"it begins with the first event that fits, for each value of `for_each`: {unmatched.text}"
        return Reason(condition=unmatched.condition, text=text, trigger=index, event=unmatched.event)
    text = f"its {_long(_seconds(trigger))} did not begin; looked until {_clock(told.until)}"
    return Reason(condition="absence", text=text, trigger=index)


def _composite(index: int, triggers: Sequence[Form], told: _Told) -> list[Reason]:
    trigger = triggers[index]
    parts = _parts(index, triggers)
    fired = [part for part in parts if told.fired(part)]
    missing = [part for part in parts if part not in fired]
    require = trigger.get("require", "all")
    wanted = {"any": 1, "all": len(parts)}.get(str(require)) or int(require)
    if len(fired) < wanted:
        named = ", ".join(_part(part, index, parts, triggers) for part in missing)
        text = f"{len(fired)} of {wanted} triggers fired; missing: {named}"
        own = Reason(condition="parts", text=text, trigger=index)
        return [own, *(reason for part in missing for reason in _of(part, triggers, told))]
    moments = sorted((firing.at, part) for part in fired for firing in told.fired(part))
    seen = ", ".join(f"{_part(part, index, parts, triggers)} at {_clock(at)}" for at, part in moments)
    within = f" within {_long(_seconds(trigger))}" if trigger.get("within") else ""
    if trigger["type"] == "sequence":
        order = iter(part for _, part in moments)
        if all(part in order for part in parts):
            text = f"all fired, but not in their order{within} (the last time of each counts): {seen}"
        else:
            text = f"all fired, but not in their order: {seen}"
        return [Reason(condition="order", text=text, trigger=index)]
    return [Reason(condition="parts", text=f"{wanted} fired, but not{within} of one another: {seen}", trigger=index)]


def _parts(index: int, triggers: Sequence[Form]) -> list[int]:
    """The places of a composite's own parts."""
    found, place = [], index + 1
    for part in triggers[index]["triggers"]:
        found.append(place)
        place += len(walk(part))
    return found


def _part(part: int, parent: int, parts: Sequence[int], triggers: Sequence[Form]) -> str:
    trigger = triggers[part]
    number = parts.index(part) + 1
    return f"{number} ({trigger['type']})" if "triggers" in trigger else f"{number} ({_either(trigger['expect'])})"


def _windowed(times: Sequence[datetime], within: timedelta) -> int:
    """The most in one window, where each begins with the first event after the one before it."""
    best, count, end = 0, 0, None
    for at in times:
        if end is None or at >= end:
            count, end = 0, at + within
        count += 1
        best = max(best, count)
    return best


def _sliding(times: Sequence[datetime], within: timedelta) -> int:
    return max((sum(begin <= at < begin + within for at in times) for begin in times), default=0)


def _seconds(trigger: Form) -> timedelta:
    return timedelta(seconds=float(trigger.get("within") or 0))


def _named(event: Event) -> str:
    resource = event["resource"]
    return f"{event['event']} of {resource.get('prefect.resource.name') or resource['prefect.resource.id']}"


def _counted(names: Counter[str]) -> str:
    shown = [f"{name} ({count})" if count > 1 else name for name, count in names.most_common(_MOST_NAMED)]
    more = len(names) - len(shown)
    return (", ".join(shown) + (f" and {more} more" if more > 0 else "")) or "none"


def _label(differing: Mapping[str, Any]) -> str:
    got = "it has none" if differing["got"] is None else f"it is {differing['got']!r}"
    return f"label {differing['label']} is to be {_either([repr(one) for one in differing['wanted']])}; {got}"


def _specification(wanted: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{label}={_either(value if isinstance(value, list) else [value])}" for label, value in sorted(wanted.items())
    )


def _related(resource: Mapping[str, str]) -> str:
    return f"{resource.get('prefect.resource.role', '?')} {resource['prefect.resource.id']}"


def _either(names: Sequence[str]) -> str:
    return " or ".join(names) or "any event"


def _long(within: timedelta) -> str:
    """`90 s`, `10 min`, `6 h`, `2 d`."""
    seconds = within.total_seconds()
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def _clock(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"
