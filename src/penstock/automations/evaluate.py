"""Prefect's own evaluation of automations, without a server and in time of its own: JSON lines in, JSON lines out.

Everything private of Prefect's that penstock uses to simulate is here. `penstock.automations.engine` starts this file
as a process of its own, because it replaces Prefect's clock and what Prefect does when an automation fires. It imports
nothing of penstock's. A contract test compares it with a real server (docs/design/simulate.md).
"""

from __future__ import annotations

import asyncio
import json
import os
import queue
import select
import shutil
import signal
import sys
import threading
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

import prefect.types._datetime
import sqlalchemy
from cachetools import TTLCache
from prefect.server.database import provide_database_interface
from prefect.server.events import actions as _actions
from prefect.server.events import messaging as _messaging
from prefect.server.events import triggers as _triggers
from prefect.server.events.actions import ActionFailed, CallWebhook, ExternalDataAction, RunDeployment, SendNotification
from prefect.server.events.ordering import (
    PRECEDING_EVENT_LOOKBACK,
    SEEN_EXPIRATION,
    EventArrivedEarly,
    get_triggers_causal_ordering,
)
from prefect.server.events.schemas.automations import (
    Automation,
    EventTrigger,
    Firing,
    Posture,
    TriggeredAction,
)
from prefect.server.events.schemas.events import ReceivedEvent, ResourceSpecification, matches
from prefect.server.utilities.user_templates import matching_types_in_templates, maybe_template
from pydantic import ValidationError

# Private to Prefect, and some of it replaced here: nothing about them is promised to a type checker.
actions: Any = _actions
messaging: Any = _messaging
triggers: Any = _triggers

# How often Prefect's server forgets counts whose time is over.
_TICK = timedelta(seconds=5)
_INSTANT = timedelta(microseconds=1)
_STEP = timedelta(milliseconds=1)
# Firings that cause firings so many times over, or so many of them, do not end.
_DEEPEST = 20
_MOST_CAUSED = 1000
# So many of the events that came nearest to each trigger are told of.
_MOST_LOOKS = 20
_MOST_COUNTED = 1000
# How often to look whether whoever asks still lives.
_LOOK_SECONDS = 1.0
_TABLES = ("automation", "automation_bucket", "composite_trigger_child_firing")
_PAUSES = {"pause-automation": False, "resume-automation": True}


class _NeedsServer(Exception):
    """A template asks for an object that only a server has."""


class _Refused(Exception):
    """Prefect's server would not take this."""


class _TooMuch(Exception):
    """What waits for nothing to happen was looked at too often to go on."""


class _Fired:
    """A trigger that fired. A trigger knows its automation only for as long as that is loaded, so it is kept here."""

    def __init__(self, firing: Firing, at: datetime) -> None:
        self.firing, self.at = firing, at
        self.automation: UUID = firing.trigger.automation.id
        self.whole = isinstance(firing.trigger.parent, Automation)

    def told(self) -> dict[str, Any]:
        event = self.firing.triggering_event
        return {
            "at": self.at.isoformat(),
            "event": str(event.id) if event else None,
            "events": [str(event.id) for event in self.firing.all_events()],
            "labels": self.firing.triggering_labels,
        }


class _Clock:
    """What Prefect's code takes for the time."""

    def __init__(self) -> None:
        self.now: datetime = prefect.types._datetime.now("UTC")

    def __call__(self, _tz: Any = "UTC") -> datetime:
        return self.now

    def go_to(self, moment: datetime) -> None:
        """Never back, so that what happens at one moment keeps its order."""
        self.now = prefect.types._datetime.create_datetime_instance(max(moment, self.now))

    def seconds(self) -> float:
        """Since 1970."""
        return self.now.timestamp()

    def set(self, moment: datetime) -> None:
        """To where another simulation begins."""
        self.now = prefect.types._datetime.create_datetime_instance(moment)


class _World:
    """Prefect's triggers, their counts in a database in memory, and what they did."""

    def __init__(self) -> None:
        self.clock = _Clock()
        self.automations: list[Automation] = []
        self.fired: list[_Fired] = []
        self.actions: dict[UUID, list[TriggeredAction]] = {}
        self.caused: list[ReceivedEvent] = []
        # The caused ones, as they were taken.
        self.taken: list[ReceivedEvent] = []
        # Automations that another one paused, the last time: by which, when, and until when.
        self.paused_by: dict[UUID, dict[str, str]] = {}
        self.to_pause: list[TriggeredAction] = []
        self.asked_for: list[str] = []
        self._causes: Counter[UUID] = Counter()
        self._looked = self._most = 0
        self._ticked: datetime | None = None
        self._evaluated_at: datetime | None = None

    async def open(self) -> None:
        """Put the clock and the recorders in place, and make the tables."""
        prefect.types._datetime.now = self.clock  # type: ignore[assignment]
        fire = triggers.fire

        async def recorded(session: Any, firing: Firing) -> None:
            firing.id = self._firing_id(firing)
            self.fired.append(_Fired(firing, self.clock.now))
            # A sequence goes by when its parts fired: no two do so at one moment.
            self.clock.go_to(self.clock.now + _INSTANT)
            await fire(session, firing)

        triggers.fire = recorded
        messaging.publish = self._publish
        messaging.create_actions_publisher = self._actions_publisher
        ExternalDataAction.orchestration_client = self._no_server  # type: ignore[assignment, method-assign]
        actions.matching_types_in_templates = self._types_in
        database = provide_database_interface()
        metadata = database.Base.metadata
        engine = await database.engine()
        async with engine.begin() as connection:
            await connection.run_sync(metadata.create_all, tables=[metadata.tables[name] for name in _TABLES])

    async def simulate(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Answer one request: what each automation does of these events."""
        start, until = (datetime.fromisoformat(request[name]) for name in ("start", "until"))
        read = [_automation_or_why(form) for form in request["automations"]]
        await self._load([one for one in read if isinstance(one, Automation)], start)
        self._most = request["most"]
        events = [_received(event) for event in request["events"]]
        stopped: datetime | None = None
        try:
            endless = await self._events(events, start, until)
        except _TooMuch:
            endless, stopped = False, self.clock.now
            events = [event for event in events if event.received <= stopped]
        return {
            "endless": endless,
            "stopped": stopped.isoformat() if stopped else None,
            "automations": [
                {"refused": one} if isinstance(one, str) else await self._told(one, [*events, *self.taken])
                for one in read
            ],
        }

    async def _events(self, events: Sequence[ReceivedEvent], start: datetime, until: datetime) -> bool:
        """Take the events, and evaluate what waits for none between them; whether firings do not end."""
        known = {event.id for event in events}
        endless = await self._proactive(start)
        for event in events:
            endless = await self._proactive(event.received) or endless
            self.clock.go_to(max(event.received, self.clock.now + _INSTANT))
            await self._tick()
            if event.follows and event.follows not in known:
                # What it follows was before the first of these: waiting for it would delay this one by 15 minutes.
                await get_triggers_causal_ordering().record_event_as_seen(
                    event.model_copy(update={"id": event.follows})
                )
            endless = await self._take(event) or endless
        return await self._proactive(until) or endless

    async def _load(self, automations: Sequence[Automation], start: datetime) -> None:
        database = provide_database_interface()
        self.fired, self.caused, self.to_pause = [], [], []
        self.taken = []
        self.actions, self.paused_by = {}, {}
        self._causes, self._looked = Counter(), 0
        self._ticked = self._evaluated_at = None
        self.automations = [*automations]
        await triggers.reset()
        ordering: Any = get_triggers_causal_ordering()
        ordering.clear()
        ordering._seen_events = TTLCache(maxsize=10_000, ttl=SEEN_EXPIRATION.total_seconds(), timer=self.clock.seconds)
        self.clock.set(start)
        async with triggers.automations_session(begin_transaction=True) as session:
            for table in reversed(_TABLES):
                await session.execute(sqlalchemy.delete(database.Base.metadata.tables[table]))
            for automation in self.automations:
                session.add(database.Automation(**automation.model_dump(exclude={"created", "updated"})))
        await triggers.reconcile_automations(force=True)

    async def _take(self, event: ReceivedEvent) -> bool:
        """One event and those that it causes; whether they do not end."""
        if event.event == "prefect.log.write" or await get_triggers_causal_ordering().event_has_been_seen(event.id):
            return False
        # It is kept until its leader comes, by which it is then taken.
        await _unless_early(event)
        return await self._follow()

    async def _follow(self) -> bool:
        """Take what the firings cause: their own events, and automations paused or resumed. Whether it does not end."""
        taken = 0
        for _ in range(_DEEPEST):
            await self._pauses()
            if not self.caused:
                return False
            caused, self.caused = self.caused, []
            for event in caused:
                self.clock.go_to(self.clock.now + _INSTANT)
                received = event.model_copy(update={"received": self.clock.now})
                self.taken.append(received)
                await _unless_early(received)
            taken += len(caused)
            if taken > _MOST_CAUSED:
                break
        endless = bool(self.caused)
        self.caused.clear()
        return endless

    async def _pauses(self) -> None:
        database = provide_database_interface()
        while self.to_pause:
            triggered = self.to_pause.pop(0)
            try:
                found = await triggered.action.automation_id_to_use(triggered)  # type: ignore[union-attr]
            except ActionFailed:
                continue
            if not _PAUSES[triggered.action.type]:
                self.paused_by[found] = {"by": triggered.automation.name, "at": self.clock.now.isoformat()}
            elif found in self.paused_by:
                self.paused_by[found].setdefault("end", self.clock.now.isoformat())
            changed = (
                sqlalchemy.update(database.Automation)
                .where(database.Automation.id == found)
                .values(enabled=_PAUSES[triggered.action.type])
            )
            async with triggers.automations_session(begin_transaction=True) as session:
                await session.execute(changed)
            await triggers.automation_changed(found, "automation__updated")

    async def _proactive(self, until: datetime) -> bool:
        """Evaluate what waits for nothing to happen, each when it is due, up to a moment; whether it does not end."""
        endless = False
        while True:
            due = await self._due()
            if due is None or due > until + _STEP:
                return endless
            # Prefect counts the events' clock in floats: what is due and was not quite, is due again in a moment.
            self.clock.go_to(max(due, self.clock.now + _STEP) if self._evaluated_at == self.clock.now else due)
            await self._tick(lost=True)
            if self._looked >= self._most:
                raise _TooMuch
            fired = len(self.fired)
            await triggers.evaluate_proactive_triggers()
            self._looked += max(1, len(self.fired) - fired)
            self._evaluated_at = self.clock.now
            for trigger in triggers.triggers.values():
                if trigger.posture == Posture.Proactive and trigger.id not in triggers.next_proactive_runs:
                    raise RuntimeError(f"Prefect could not evaluate the automation {trigger.automation.name!r}")
            endless = await self._follow() or endless

    async def _due(self) -> datetime | None:
        # Prefect evaluates as of the events' clock, which is behind when events come late.
        behind = timedelta(seconds=await triggers.get_events_clock_offset())
        waiting: dict[UUID, datetime] = get_triggers_causal_ordering()._waitlist  # type: ignore[attr-defined]
        moments = [received + PRECEDING_EVENT_LOOKBACK for received in waiting.values()]
        for trigger in triggers.triggers.values():
            if trigger.posture == Posture.Proactive:
                planned = triggers.next_proactive_runs.get(trigger.id)
                moments.append(self.clock.now if planned is None else planned - behind)
        return min(moments, default=None)

    async def _tick(self, *, lost: bool = False) -> None:
        if lost or self._ticked is None or self.clock.now - self._ticked >= _TICK:
            self._ticked = self.clock.now
            await triggers.periodic_evaluation(self.clock.now)

    async def _publish(self, events: Iterable[ReceivedEvent]) -> None:
        """Take the events of the firing that was recorded last, under ids that are the same in every simulation."""
        for event in events:
            event.id = uuid5(self.fired[-1].firing.id, event.event)
            self.caused.append(event)

    def _firing_id(self, firing: Firing) -> UUID:
        """Of what fires and why, so that two versions of the automations can be compared."""
        event, trigger = firing.triggering_event, firing.trigger
        cause = str(event.id) if event else self.clock.now.isoformat(timespec="seconds")
        fired = trigger.automation.id if isinstance(trigger.parent, Automation) else trigger.id
        found = uuid5(fired, json.dumps([cause, firing.triggering_labels], sort_keys=True))
        self._causes[found] += 1
        return uuid5(found, str(self._causes[found]))

    @asynccontextmanager
    async def _actions_publisher(self) -> AsyncIterator[Any]:
        yield self

    async def publish_data(self, data: bytes, _attributes: Mapping[str, str]) -> None:
        """Take an action as Prefect's actions service would have it."""
        triggered = TriggeredAction.model_validate_json(data)
        if triggered.firing:
            self.actions.setdefault(triggered.firing.id, []).append(triggered)
        if triggered.action.type in _PAUSES:
            self.to_pause.append(triggered)

    @staticmethod
    async def _no_server(*_: Any) -> Any:
        raise _NeedsServer

    def _types_in(self, templates: list[str], types: set[str]) -> list[str]:
        self.asked_for = sorted(matching_types_in_templates(templates, types))
        return self.asked_for

    async def _told(self, automation: Automation, events: Sequence[ReceivedEvent]) -> dict[str, Any]:
        position = {trigger.id: index for index, trigger in enumerate(automation.triggers())}
        own = [fired for fired in self.fired if fired.automation == automation.id]
        firings = []
        for fired in own:
            if fired.whole:
                rendered = [await self._rendered(one) for one in self.actions.get(fired.firing.id, [])]
                firings.append({**fired.told(), "actions": rendered})
        waiting: dict[UUID, Any] = get_triggers_causal_ordering()._waitlist  # type: ignore[attr-defined]
        return {
            "firings": firings,
            "paused": self.paused_by.get(automation.id),
            "waiting": [str(event.id) for event in events if event.id in waiting],
            "caused": [_named(event) for event in self.taken],
            "parts": [{"trigger": position[fired.firing.trigger.id], **fired.told()} for fired in own],
            "counts": await self._counts(automation, position),
            "looks": [] if firings else _looks(automation, position, events),
        }

    async def _counts(self, automation: Automation, position: Mapping[UUID, int]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        async with triggers.automations_session() as session:
            for trigger in automation.triggers_of_type(EventTrigger):
                async for bucket in triggers.read_buckets_for_automation(session, trigger):
                    found.append(
                        {
                            "trigger": position[trigger.id],
                            "labels": dict(zip(sorted(trigger.for_each), bucket.bucketing_key, strict=True)),
                            "count": bucket.count,
                            "start": bucket.start.isoformat(),
                            "end": bucket.end.isoformat(),
                        }
                    )
        return found

    async def _rendered(self, triggered: TriggeredAction) -> dict[str, Any]:
        """Every field of an action that is a template, as Prefect renders it; and what it cannot without a server."""
        told: dict[str, Any] = {"index": triggered.action_index, "fields": {}, "needs": {}, "errors": {}}
        action = triggered.action
        if isinstance(action, RunDeployment):
            for name, value in (action.parameters or {}).items():
                single = action.model_copy(update={"parameters": {name: value}})

                async def parameter(single: RunDeployment = single, name: str = name) -> Any:
                    return (await single.render_parameters(triggered))[name]

                await self._render_into(told, f"parameters.{name}", value, parameter)
        elif isinstance(action, SendNotification | CallWebhook):
            names = ("payload",) if isinstance(action, CallWebhook) else ("subject", "body")
            for name in names:
                template = getattr(action, name)

                async def text(template: str = template) -> str:
                    return (await action._render([template], triggered))[0]

                await self._render_into(told, name, template, text)
        return told

    async def _render_into(self, told: dict[str, Any], name: str, template: Any, render: Any) -> None:
        self.asked_for = []
        written = json.dumps(template, default=str)
        if maybe_template(written) and not os.environ.get("PREFECT_UI_URL"):
            links = [word for word in ("ui_url", "ui_resource_events_url", "event.url") if word in written]
            if links:
                told["needs"][name] = links
                return
        try:
            told["fields"][name] = await render()
        except _NeedsServer:
            told["needs"][name] = self.asked_for or ["variables"]
        except ActionFailed as error:
            told["errors"][name] = error.reason
        except Exception as error:
            # Prefect's server fails the action for whatever its template raises.
            told["errors"][name] = f"{type(error).__name__}: {error}"


def _automation(form: Mapping[str, Any]) -> Automation:
    try:
        automation = Automation.model_validate(form)
    except ValidationError as error:
        raise _Refused(f"automation {form['name']!r}: {_first(error, form)}") from error
    for index, trigger in enumerate(automation.triggers()):
        # Prefect goes through what an event concerns in the order of these.
        trigger.id = uuid5(automation.id, str(index))
    return automation


def _received(event: Mapping[str, Any]) -> ReceivedEvent:
    try:
        return ReceivedEvent.model_validate({**event, "received": event.get("received") or event["occurred"]})
    except ValidationError as error:
        raise _Refused(f"event {event.get('id')}: {_first(error, event)}") from error


def _automation_or_why(form: Mapping[str, Any]) -> Automation | str:
    try:
        return _automation(form)
    except _Refused as error:
        return str(error)


def _first(error: ValidationError, form: Mapping[str, Any]) -> str:
    """What is wrong, and where: of the kinds of action or trigger, only the one that the form's `type` names."""
    errors = error.errors()
    others = [one["loc"][:-1] for one in errors if one["type"] == "literal_error" and one["loc"][-1:] == ("type",)]
    own = [one for one in errors if not any(one["loc"][: len(other)] == other for other in others)]
    found = (own or errors)[0]
    # Between the fields, Prefect's models say which of a union they are.
    places = [part for part in found["loc"] if isinstance(part, int) or (part.isidentifier() and part.islower())]
    if not own:
        return f"{_place(places, form)}: {found['input']!r} is none that Prefect knows"
    return f"{_place(places, form)}{': ' if places else ''}{found['msg'].removeprefix('Value error, ')}"


def _place(places: Sequence[int | str], form: Mapping[str, Any]) -> str:
    if len(places) > 1 and str(places[0]).startswith("actions") and isinstance(places[1], int):
        kind = form[str(places[0])][places[1]].get("type")
        more = ".".join(str(part) for part in places[2:])
        listed = "" if places[0] == "actions" else f" of {places[0]}"
        return f"action {places[1] + 1} ({kind}){listed}{f', {more}' if more else ''}"
    return ".".join(str(part) for part in places)


def _named(event: ReceivedEvent) -> dict[str, Any]:
    return event.model_dump(mode="json", include={"id", "occurred", "event", "resource", "related"})


async def _unless_early(event: ReceivedEvent) -> None:
    try:
        await triggers.reactive_evaluation(event)
    except EventArrivedEarly:
        return


def _looks(automation: Automation, position: Mapping[UUID, int], events: Sequence[ReceivedEvent]) -> list[Any]:
    """For each trigger that waits for events, those that came nearest to it, and what each has and lacks."""
    found: list[Any] = []
    for trigger in automation.triggers_of_type(EventTrigger):
        match, related = _specifications(trigger.match)[0], _specifications(trigger.match_related)
        looked = [_look(trigger, match, related, event) for event in events]
        best = max((look["rank"] for look in looked), default=0)
        # What begins a count is told of beside what is counted.
        nearest = [look for look in looked if look["rank"] >= min(best, 3)]
        most = _MOST_LOOKS if best < 3 else _MOST_COUNTED
        found.append({"trigger": position[trigger.id], "rank": best, "of": len(nearest), "best": nearest[:most]})
    return found


def _look(
    trigger: EventTrigger, match: ResourceSpecification, related: Sequence[ResourceSpecification], event: ReceivedEvent
) -> dict[str, Any]:
    expects, starts = trigger.expects(event.event), trigger.starts_after(event.event)
    look: dict[str, Any] = {"event": str(event.id), "expects": expects, "starts": starts}
    if not expects and not starts:
        return {**look, "rank": 0}
    if not match.includes([event.resource]):
        return {**look, "rank": 1, "labels": _differing(match, event.resource.root)}
    missed = [one for one in related if not one.includes(event.related)]
    if missed:
        return {**look, "rank": 2, "related": [one.model_dump(mode="json") for one in missed]}
    return {**look, "rank": 4 if expects else 3, "key": list(trigger.bucketing_key(event))}


def _specifications(found: Any) -> list[ResourceSpecification]:
    return [ResourceSpecification.model_validate(one) for one in (found if isinstance(found, list) else [found])]


def _differing(wanted: ResourceSpecification, labels: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {"label": label, "wanted": expected, "got": labels.get(label)}
        for label, expected in wanted.items()
        if not any(matches(candidate, labels.get(label)) for candidate in expected)
    ]


def _questions(parent: int, home: str) -> queue.Queue[str]:
    """Lines of stdin, read aside: the process ends with whoever asks, also while it computes."""
    found: queue.Queue[str] = queue.Queue()

    def read() -> None:
        while os.getppid() == parent:
            # One question at a time: nothing more is in the buffer than the line.
            if select.select([sys.stdin], [], [], _LOOK_SECONDS)[0]:
                line = sys.stdin.readline()
                if not line:
                    break
                found.put(line)
        _end(home)

    threading.Thread(target=read, daemon=True).start()
    return found


def _end(home: str) -> None:
    """End at once, and leave nothing behind: nothing here is to be kept."""
    shutil.rmtree(home, ignore_errors=True)
    os._exit(0)


async def _serve(parent: int, home: str) -> None:
    # Who asks is told of it too, and says when to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: _end(home))
    questions = _questions(parent, home)
    # What anything else prints must not come between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    world = _World()
    await world.open()
    while True:
        # In pieces, so that a signal is heard at once on every system.
        try:
            line = questions.get(timeout=_LOOK_SECONDS)
        except queue.Empty:
            continue
        try:
            answer = await world.simulate(json.loads(line))
        except _Refused as error:
            answer = {"refused": str(error)}
        except Exception as error:
            # The next question may well be answered.
            traceback.print_exc()
            answer = {"failed": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
        answers.write(json.dumps(answer, default=str) + "\n")
        answers.flush()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), sys.argv[2]))
