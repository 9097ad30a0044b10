"""Automations that would fire themselves: what each causes, as events, and whether Prefect's triggers cover them. Pure.

What is caused: a run's changes of state, what penstock's own flows emit, and what Prefect emits of every firing. What
else a flow or the receiver of a webhook does is not known here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any
from uuid import UUID

from prefect.server.events.schemas.automations import EventTrigger, Posture
from prefect.server.events.schemas.events import ReceivedEvent, ResourceSpecification, matches

from penstock import events
from penstock.automations.forms import ACTIONS, Form, Names, stand_in
from penstock.automations.templates import leaves
from penstock.ownership import owner_tag

# The states that a run can go through, with their types; of those at the end it reaches one.
_RUN_STATES = {"Scheduled": "SCHEDULED", "Late": "SCHEDULED", "Pending": "PENDING", "Running": "RUNNING"}
_AGAIN_STATES = {"AwaitingRetry": "SCHEDULED", "Retrying": "RUNNING"}
_END_STATES = {
    "Completed": "COMPLETED",
    "Failed": "FAILED",
    "TimedOut": "FAILED",
    "Crashed": "CRASHED",
    "Cancelling": "CANCELLING",
    "Cancelled": "CANCELLED",
}
_CHANGES = {
    "cancel-flow-run": {"Cancelling": "CANCELLING", "Cancelled": "CANCELLED"},
    "suspend-flow-run": {"Suspended": "PAUSED"},
    "resume-flow-run": {**_RUN_STATES, **_END_STATES},
}
_TYPE_NAMES = {"TIMEDOUT": "TimedOut"}

_SOME = UUID(int=1)
_WHEN = datetime(2000, 1, 1, tzinfo=UTC)
# What a wildcard stands for in a resource that is made up after a trigger's own wish.
_ANY = "some"

Labels = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Effect:
    """An event that an automation causes. Of those of one `group` one firing causes one at most."""

    name: str
    group: str
    by: str
    resource: Labels
    related: Sequence[Labels] = ()
    labels: Labels = field(default_factory=dict)

    @cached_property
    def event(self) -> ReceivedEvent:
        """The event as the server would see it."""
        return ReceivedEvent.model_validate(
            {
                "occurred": _WHEN,
                "received": _WHEN,
                "id": _SOME,
                "event": self.name,
                "resource": {**self.resource, **self.labels},
                "related": list(self.related),
            }
        )


@dataclass(frozen=True, kw_only=True)
class Step:
    """One automation of a loop, and the event by which it fires the next."""

    name: str
    event: str
    by: str


def effects(form: Form, names: Names) -> list[Effect]:
    """Every event that a firing of the automation is known to cause."""
    found = list(_of_firing(form, names))
    mirrored = _mirrored(form)
    for action in (action for list_name in ACTIONS for action in form.get(list_name, [])):
        kind = action.get("type")
        if kind == "run-deployment" and "deployment" in action:
            found += _of_run(action["deployment"], form, names)
        elif kind == "run-deployment" and action.get("source") == "inferred":
            states = {**_RUN_STATES, **_AGAIN_STATES, **_END_STATES}
            found += _of_states(states, "a run of the same deployment", mirrored)
        elif kind == "change-flow-run-state":
            state = str(action.get("state", ""))
            name = action.get("name") or _TYPE_NAMES.get(state, state.capitalize())
            found += _of_states({name: state}, "the change of the run's state", mirrored)
        elif kind in _CHANGES:
            found += _of_states(_CHANGES[kind], f"the action {kind}", mirrored)
    return found


def loops(forms: Sequence[Form], names: Names) -> list[list[Step]]:
    """The loops in which automations fire one another without end, each from its first by name; a loop of one is one.

    An automation is in a loop only if what the automations in loops cause is enough for its whole trigger: for its
    threshold, and for every trigger that a compound one requires. A proactive trigger, which fires at most once in its
    time, is in none.
    """
    graph = _Graph(forms, names)
    alive = graph.endless()
    found: list[list[Step]] = []
    seen: set[int] = set()
    for start in sorted(alive, key=lambda index: (forms[index]["name"], index)):
        if start in seen:
            continue
        path = graph.way_back(start, alive)
        if path:
            seen.update(path)
            found.append([graph.step(one, two) for one, two in zip(path, [*path[1:], start], strict=True)])
    return found


class _Graph:
    """Which automation's effects which leaf of which automation's trigger covers."""

    def __init__(self, forms: Sequence[Form], names: Names) -> None:
        self._forms = forms
        self._leaves = [[_trigger(leaf) for leaf in leaves(form["trigger"])] for form in forms]
        expected = {pattern for row in self._leaves for leaf in row if leaf for pattern in leaf.expect | leaf.after}
        anything = any(leaf is not None and not leaf.expect for row in self._leaves for leaf in row)
        self._effects: dict[str, dict[str, list[tuple[int, Effect]]]] = {}
        for index, form in enumerate(forms):
            for effect in effects(form, names):
                if anything or any(matches(pattern, effect.name) for pattern in expected):
                    by_resource = self._effects.setdefault(effect.name, {})
                    by_resource.setdefault(effect.resource["prefect.resource.id"], []).append((index, effect))
        self._fed = [[self._sources(leaf) for leaf in row] for row in self._leaves]

    def endless(self) -> set[int]:
        """The automations that fire without end once they all have."""
        alive = {
            index for index, row in enumerate(self._leaves) if any(row) and self._forms[index].get("enabled", True)
        }
        while True:
            fires = {index for index in alive if self._fires(index, alive)}
            if fires == alive:
                return alive
            alive = fires

    def way_back(self, start: int, alive: set[int]) -> list[int]:
        """The shortest way from an automation to itself; empty when there is none."""
        before: dict[int, int] = {}
        queue = [start]
        for index in queue:
            for following in sorted(alive):
                if self._effect(index, following) is None or following in before:
                    continue
                before[following] = index
                if following == start:
                    path = [index]
                    while path[-1] != start:
                        path.append(before[path[-1]])
                    return path[::-1]
                queue.append(following)
        return []

    def step(self, one: int, two: int) -> Step:
        """How one automation fires another, which it does."""
        effect = self._effect(one, two)
        assert effect is not None
        return Step(name=self._forms[one]["name"], event=effect.name, by=effect.by)

    def _effect(self, one: int, two: int) -> Effect | None:
        return next((effect for row in self._fed[two] for index, effect in row if index == one), None)

    def _sources(self, leaf: EventTrigger | None) -> list[tuple[int, Effect]]:
        if leaf is None:
            return []
        exact = _exact(leaf)
        return [
            found
            for name, by_resource in self._effects.items()
            if leaf.expects(name) or leaf.starts_after(name)
            for resource in (by_resource if exact is None else sorted(exact & by_resource.keys()))
            for found in by_resource[resource]
            if leaf.covers(found[1].event)
        ]

    def _fires(self, index: int, alive: set[int]) -> bool:
        numbers = iter(range(len(self._leaves[index])))
        return self._satisfied(self._forms[index]["trigger"], index, numbers, alive)

    def _satisfied(self, trigger: Form, index: int, numbers: Iterator[int], alive: set[int]) -> bool:
        if trigger.get("type") in ("compound", "sequence"):
            children = [self._satisfied(child, index, numbers, alive) for child in trigger.get("triggers", [])]
            require = trigger.get("require", "all")
            needed = 1 if require == "any" else len(children) if require == "all" else int(require)
            return sum(children) >= needed
        number = next(numbers)
        leaf = self._leaves[index][number]
        if leaf is None:
            return False
        fed = [(one, effect) for one, effect in self._fed[index][number] if one in alive]
        counted = {(one, effect.group) for one, effect in fed if leaf.expects(effect.name)}
        began = not leaf.after or any(leaf.starts_after(effect.name) for _, effect in fed)
        return began and len(counted) >= max(1, leaf.threshold)


def _trigger(leaf: Form) -> EventTrigger | None:
    """Prefect's own trigger, where it is one that an event can fire."""
    if leaf.get("type") != "event":
        return None
    # Prefect's validation writes into what it is given.
    trigger = EventTrigger.model_validate(dict(leaf))
    return trigger if trigger.posture == Posture.Reactive else None


def _exact(leaf: EventTrigger) -> set[str] | None:
    """The only resources that a trigger can cover, where it names them: hundreds of triggers most often do."""
    wanted = ResourceSpecification.model_validate(leaf.match).get("prefect.resource.id") or []
    return set(wanted) if wanted and not any(set(one) & set("*?[!") for one in wanted) else None


def _of_firing(form: Form, names: Names) -> Iterator[Effect]:
    name = form["name"]
    found = names.id_of("automation", name) or stand_in("automation", name)
    resource = {
        "prefect.resource.id": f"prefect.automation.{found}",
        "prefect.resource.name": name,
        "prefect.trigger-type": str(form["trigger"].get("type", "")),
    }
    if "posture" in form["trigger"]:
        resource["prefect.posture"] = str(form["trigger"]["posture"])
    ends = {"triggered": "triggered", "action.triggered": "action", "action.executed": "end", "action.failed": "end"}
    for event, group in ends.items():
        yield Effect(name=f"prefect.automation.{event}", group=group, by="its own firing", resource=resource)


_OF_A_LOAD = (events.DATASET_LOADED, events.SCHEMA_CHANGED, events.OBJECT_QUARANTINED)


def _of_run(deployment: str, form: Form, names: Names) -> Iterator[Effect]:
    flow, _, name = deployment.partition("/")
    found = names.id_of("deployment", deployment) or stand_in("deployment", deployment)
    automation = names.id_of("automation", form["name"]) or stand_in("automation", form["name"])
    related = [
        _related("flow", f"prefect.flow.{stand_in('deployment', flow)}", flow),
        _related("deployment", f"prefect.deployment.{found}", name),
        _related("creator", f"prefect.automation.{automation}", form["name"]),
    ]
    loaded = names.loads(deployment)
    project, _, dataset = loaded.rpartition(".") if loaded else (name, "", "")
    if loaded or flow in ("verify", "retain"):
        pool = names.id_of("work pool", project) or stand_in("work pool", project)
        related.append(_related("work-pool", f"prefect.work-pool.{pool}", project))
        related += [_related("tag", f"prefect.tag.{tag}") for tag in sorted({owner_tag(project), dataset} - {""})]
    by = f"a run of {deployment}"
    yield from _of_states({**_RUN_STATES, **_AGAIN_STATES, **_END_STATES}, by, related)
    if loaded and project:
        yield from _of_penstock(project, dataset, _OF_A_LOAD, by)
    if flow == "verify":
        for other in names.datasets_of(project):
            yield from _of_penstock(project, other, (events.OBJECT_LOST, events.DATASET_PENDING), by)


def _of_penstock(project: str, dataset: str, emitted: Sequence[str], by: str) -> Iterator[Effect]:
    resource = events.dataset_resource(project, dataset)
    for name in emitted:
        if "dataset" in events.PAYLOADS[name]:
            yield Effect(name=name, group=f"{name} {dataset}", by=by, resource=resource)
        else:
            of_object = events.object_resource(project, _ANY, f"{dataset}/{_ANY}")
            related = [{**resource, "prefect.resource.role": "dataset"}]
            yield Effect(name=name, group=f"{name} {dataset}", by=by, resource=of_object, related=related)


def _of_states(states: dict[str, str], by: str, related: Sequence[Labels]) -> Iterator[Effect]:
    for state, kind in states.items():
        labels = {
            "prefect.run-count": "1",
            "prefect.state-message": _ANY,
            "prefect.state-name": state,
            "prefect.state-timestamp": _WHEN.isoformat(),
            "prefect.state-type": kind,
        }
        yield Effect(
            name=f"prefect.flow-run.{state}",
            group=f"{by} end" if state in _END_STATES else f"{by} {state}",
            by=by,
            resource={"prefect.resource.id": f"prefect.flow-run.{_SOME}", "prefect.resource.name": _ANY},
            related=related,
            labels=labels,
        )


def _mirrored(form: Form) -> list[Labels]:
    """The related resources that the automation's own trigger wishes for: what it acts on has them."""
    found: list[Labels] = []
    for leaf in leaves(form["trigger"]):
        wishes = leaf.get("match_related") or []
        for wish in wishes if isinstance(wishes, list) else [wishes]:
            labels = {label: _like(wanted) for label, wanted in wish.items()}
            if labels:
                found.append({"prefect.resource.id": _ANY, "prefect.resource.role": _ANY, **labels})
    return found


def _like(wanted: Any) -> str:
    """A value that the pattern matches."""
    one = wanted[0] if isinstance(wanted, list) and wanted else wanted
    text = str(one or _ANY)
    return _ANY if text.startswith("!") else text.replace("*", _ANY) or _ANY


def _related(role: str, found: str, name: str = "") -> Labels:
    labels = {"prefect.resource.id": found, "prefect.resource.role": role}
    return {**labels, "prefect.resource.name": name} if name else labels
