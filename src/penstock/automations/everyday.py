"""The automations that people write every day, one function each, on Prefect's own triggers.

Each is named `{project}: …`; with `name` the part after the colon is yours, which the second one of a kind for the same
dataset needs. `**options` are the other fields of `Automation`: `description`, `tags`, `enabled`, `adopt`, `allow`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TypeAlias, TypedDict, Unpack

from prefect.events.actions import ActionTypes
from prefect.events.schemas.automations import CompoundTrigger, EventTrigger, Posture, TriggerTypes
from prefect.events.schemas.events import ResourceSpecification

from penstock.automations.define import PROJECT, Automation, ByName, run_deployment
from penstock.errors import DeclarationError
from penstock.events import DATASET_LOADED, DATASET_PENDING, OBJECT_ARRIVED, OBJECT_QUARANTINED

Action: TypeAlias = ActionTypes | ByName

# A run that takes longer than its flow allows is of type FAILED, but its event is named for the state's own name.
FAILED_RUN = frozenset({"prefect.flow-run.Failed", "prefect.flow-run.TimedOut", "prefect.flow-run.Crashed"})

# Prefect refuses less for a proactive trigger.
_LEAST_SILENCE = timedelta(seconds=10)


class Options(TypedDict, total=False):
    """The fields of `Automation` that every function here passes on."""

    description: str
    tags: Sequence[str]
    enabled: bool | None
    adopt: bool
    allow: Sequence[str]


def on_arrival(dataset: str, *, flow: str = "ingest") -> Automation:
    """Run the dataset's `ingest` deployment when something new waits in it, or that of the `flow` that consumes it.

    Fires on each `penstock.dataset.pending`, the wake-up. A dataset without it is loaded by its schedule only.
    """
    return Automation(
        name=f"{PROJECT}: {dataset} on arrival",
        description=f"Loads what is new in {dataset} as soon as penstock says that something waits.",
        trigger=_event(DATASET_PENDING, match={"prefect.resource.id": _dataset(dataset)}),
        actions=[run_deployment(_ingest(dataset, flow))],
    )


def on_loaded(dataset: str, *actions: Action, name: str | None = None, **options: Unpack[Options]) -> Automation:
    """Act on each load of the dataset: on every `penstock.dataset.loaded`, once for each.

    One load is one warehouse transaction, which may be of many objects (`event.payload.objects`, `.rows`, `.rejected`).
    Prefect does an action at most once: work that must not be missed takes what is new from the warehouse itself.
    """
    return _automation(
        name or f"{dataset} loaded",
        _event(DATASET_LOADED, match={"prefect.resource.id": _dataset(dataset)}),
        actions,
        {"description": f"Acts on each load of {dataset}.", **options},
    )


def on_quarantined(
    dataset: str,
    *actions: Action,
    more_than: int = 0,
    within: timedelta = timedelta(0),
    name: str | None = None,
    **options: Unpack[Options],
) -> Automation:
    """Act when an object or delivery of the dataset goes into quarantine (`event.payload.key`, `.reason`).

    Fires on each `penstock.object.quarantined`. With `within` it fires once more than `more_than` came in one window
    and is then quiet until that window ends: the first opens with the first event, and they follow one another, so that
    a burst over the edge of two counts in each by half. With `more_than=0` the window throttles: the first fires.
    Files and keys that belong to no dataset are not told of. Raises DeclarationError for `more_than` without `within`.
    """
    if more_than and not within:
        raise DeclarationError(
            f"on_quarantined({dataset!r}) with more_than={more_than} needs within=: the time in which they come"
        )
    trigger = _event(
        OBJECT_QUARANTINED,
        match={"prefect.resource.id": f"penstock.{PROJECT}.object.*"},
        match_related=[{"prefect.resource.role": "dataset", "prefect.resource.id": _dataset(dataset)}],
        threshold=_threshold(more_than),
        within=within,
    )
    often = f" more than {more_than} times" if more_than else ""
    return _automation(
        name or f"{dataset} quarantined{often}",
        trigger,
        actions,
        {"description": f"Acts when objects of {dataset} go into quarantine.", **options},
    )


def when_silent(
    dataset: str, silence: timedelta, *actions: Action, name: str | None = None, **options: Unpack[Options]
) -> Automation:
    """Act when nothing of the dataset arrived for so long: since its last arrival, or since this was applied.

    Fires at the end of the silence, to the few seconds in which Prefect looks at the clock; while it goes on, again
    after every two further such times. `event` in a template is the last arrival, and nothing where none came yet.
    Raises DeclarationError for less than 10 seconds.

    An arrival is `penstock.object.arrived` on the dataset. Every arrival is in such a summary, with
    `event_per_object` too, so that one trigger sees them all. That it both begins the wait and ends it (`after` and
    `expect`) makes the wait begin again with each arrival; without `after` Prefect compares fixed windows one after the
    other, and a silence can be nearly twice as long before it is noticed.
    """
    if silence < _LEAST_SILENCE:
        raise DeclarationError(f"when_silent({dataset!r}, {silence}): Prefect can wait for 10 seconds or longer")
    trigger = EventTrigger(
        after={OBJECT_ARRIVED},
        expect={OBJECT_ARRIVED},
        match=ResourceSpecification({"prefect.resource.id": _dataset(dataset)}),
        posture=Posture.Proactive,
        threshold=1,
        within=silence,
    )
    return _automation(
        name or f"{dataset} silent",
        trigger,
        actions,
        {"description": f"Acts when nothing of {dataset} arrived for {silence}.", **options},
    )


def when_failing(
    what: str,
    *actions: Action,
    more_than: int,
    within: timedelta,
    name: str | None = None,
    **options: Unpack[Options],
) -> Automation:
    """Act when more than so many runs ended failed, crashed or timed out within the time.

    `what` is a dataset, whose ingest runs are meant, or `flow/deployment`, or `flow/*` for every run of a flow. A run
    that Prefect tries again counts when its last attempt failed, and one whose flow gave the failed state a name of its
    own does not count. Fires once in a window, with the run that is one too many, and is then quiet until that window
    ends: the first opens with the first failure, and they follow one another, so that failures over the edge of two
    count in each by half. With `more_than=0` the window throttles: the first failure fires. Raises DeclarationError for
    `within` of no time.
    """
    if within <= timedelta(0):
        raise DeclarationError(f"when_failing({what!r}): within must be more than no time")
    flow, _, deployment = (what if "/" in what else _ingest(what)).partition("/")
    if not flow or not deployment:
        raise DeclarationError(f"when_failing({what!r}): say a dataset, 'flow/deployment' or 'flow/*'")
    related = [{"prefect.resource.role": "flow", "prefect.resource.name": flow}]
    if deployment != "*":
        related.append({"prefect.resource.role": "deployment", "prefect.resource.name": deployment})
    trigger = _event(
        *FAILED_RUN,
        match={"prefect.resource.id": "prefect.flow-run.*"},
        match_related=related,
        threshold=_threshold(more_than),
        within=within,
    )
    return _automation(
        name or f"{what} failing",
        trigger,
        actions,
        {"description": f"Acts when more than {more_than} runs of {what} failed within {within}.", **options},
    )


def after_all(
    *datasets: str,
    run: str | Action,
    within: timedelta | None = None,
    name: str | None = None,
    **options: Unpack[Options],
) -> Automation:
    """Run something once all of these datasets were loaded, in any order.

    `run` is a dataset, whose ingest deployment is run, or `flow/deployment`, or any action. Fires with the load that is
    the last one missing, and forgets them all: the next time needs a new load of each. Further loads of one while
    another is missing count as one. With `within` a load counts for so long only; without, for ever (a change of the
    automation forgets them too). Prefect goes by when it saw the loads. Raises DeclarationError for less than two
    datasets.
    """
    if len(set(datasets)) < 2 or len(set(datasets)) < len(datasets):
        raise DeclarationError(
            f"after_all{datasets!r} needs two datasets or more, each once; for one there is on_loaded"
        )
    if within is not None and within <= timedelta(0):
        raise DeclarationError(f"after_all{datasets!r}: within must be more than no time, or None for no limit")
    trigger = CompoundTrigger(
        require="all",
        triggers=[_event(DATASET_LOADED, match={"prefect.resource.id": _dataset(dataset)}) for dataset in datasets],
        within=within,
    )
    action = run_deployment(run if "/" in run else _ingest(run)) if isinstance(run, str) else run
    then = f", then {run}" if isinstance(run, str) else ""
    listed = " and ".join(datasets)
    return _automation(
        name or f"{listed} loaded{then}",
        trigger,
        [action],
        {"description": f"Acts when {listed} were all loaded.", **options},
    )


def _automation(name: str, trigger: TriggerTypes, actions: Sequence[Action], options: Options) -> Automation:
    return Automation(name=f"{PROJECT}: {name}", trigger=trigger, actions=actions, **options)


def _event(
    *expect: str,
    match: dict[str, str],
    match_related: list[dict[str, str]] | None = None,
    threshold: int = 1,
    within: timedelta = timedelta(0),
) -> EventTrigger:
    related = [ResourceSpecification(dict(one)) for one in match_related or []]
    return EventTrigger(
        expect=set(expect),
        match=ResourceSpecification(dict(match)),
        **({"match_related": related} if related else {}),
        posture=Posture.Reactive,
        threshold=threshold,
        within=within,
    )


def _threshold(more_than: int) -> int:
    if more_than < 0:
        raise DeclarationError(f"more_than={more_than}: how many may come without anything being done, from 0")
    return more_than + 1


def _dataset(dataset: str) -> str:
    return f"penstock.{PROJECT}.dataset.{dataset}"


def _ingest(dataset: str, flow: str = "ingest") -> str:
    return f"{flow}/{PROJECT}.{dataset}"
