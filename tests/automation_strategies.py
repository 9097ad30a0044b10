"""Automations, triggers and actions of every type that Prefect has, made up for Hypothesis.

`prefect_automations` are Prefect's own models, whose actions refer to what `NAMES` has; `forms` are theirs, as read
from a server.
"""

from __future__ import annotations

import string
from datetime import timedelta
from typing import Any
from uuid import UUID

from hypothesis import strategies as st
from prefect.client.schemas.objects import StateType
from prefect.events import actions
from prefect.events.actions import ActionTypes
from prefect.events.schemas.automations import (
    AutomationCore,
    CompoundTrigger,
    EventTrigger,
    MetricTrigger,
    MetricTriggerOperator,
    MetricTriggerQuery,
    Posture,
    PrefectMetric,
    SequenceTrigger,
    TriggerTypes,
)

from penstock.automations.define import PROJECT as PLACE
from penstock.automations.define import Kind
from penstock.automations.forms import Form, Names, normalised, stand_in, with_names

PROJECT = "shop"

NAMED: dict[Kind, list[str]] = {
    "deployment": ["ingest/shop.sales", "ingest/shop.weather", "shop/nightly", 'odd/it\'s "quoted"'],
    "work pool": ["shop", "other"],
    "work queue": ["shop/default", "other/urgent"],
    "block": ["slack-webhook/ops", "webhook/pager"],
    "automation": ["shop: sales on arrival", "another", "a/b"],
}
NAMES = Names.of({kind: [(name, stand_in(kind, name)) for name in names] for kind, names in NAMED.items()})

# What a text may hold that a declaration, or the code of one, could get wrong.
_WORDS = [
    *("shop", "{{ event.resource.id }}", "{{ event.payload['rows'] }}", "'", '"', "\\", "\n", "\t", "{", "}", "\u2028"),
    *("shopping", "my-shop", "penstock.shop.", "Kassenabschluß", "日本", "\x00", "%s", "#", "🚰", "\x1b[31m"),
]
_EVENTS = ["penstock.dataset.pending", "penstock.*", "prefect.flow-run.Failed", "prefect.flow-run.*", "shop.sold", "*"]
_LABELS = ["prefect.resource.id", "penstock.project", "penstock.dataset", "prefect.resource.role", "shop", "a b", "id"]
_VALUES = ["penstock.shop.dataset.sales", "penstock.shopping.dataset.x", "prefect.flow-run.*", "shop", "!x", ""]


def texts(*, max_size: int = 12) -> st.SearchStrategy[str]:
    """A text, short or too long for a line, without what a declaration cannot say."""
    words = st.one_of(st.sampled_from(_WORDS), st.text(string.ascii_letters + " .,-", min_size=1, max_size=20))
    return st.lists(words, max_size=max_size).map(" ".join).filter(lambda text: PLACE not in text)


def durations(*, least: timedelta = timedelta(0)) -> st.SearchStrategy[timedelta]:
    """A duration to the microsecond, mostly a round one."""
    some = [timedelta(0), timedelta(seconds=0.5), timedelta(seconds=90), timedelta(hours=6), timedelta(days=2)]
    exact = st.timedeltas(min_value=least, max_value=timedelta(days=365))
    return st.one_of(st.sampled_from([one for one in some if one >= least] or [least]), exact)


def values() -> st.SearchStrategy[Any]:
    """What JSON can say."""
    leaves = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**6), 10**6),
        st.floats(allow_nan=False, allow_infinity=False),
        texts(max_size=3),
    )
    return st.recursive(leaves, lambda inner: st.one_of(st.lists(inner, max_size=3), _mappings(inner)), max_leaves=5)


def event_triggers() -> st.SearchStrategy[EventTrigger]:
    """Reactive and proactive ones."""
    return st.builds(
        lambda posture, within, **fields: EventTrigger(
            posture=posture,
            within=max(within, timedelta(seconds=10)) if posture is Posture.Proactive else within,
            **fields,
        ),
        st.sampled_from([Posture.Reactive, Posture.Proactive]),
        durations(),
        expect=st.sets(st.sampled_from(_EVENTS), max_size=3),
        after=st.sets(st.sampled_from(_EVENTS), max_size=2),
        for_each=st.sets(st.sampled_from(_LABELS), max_size=2),
        match=_specifications(),
        match_related=st.one_of(_specifications(), st.lists(_specifications(), max_size=3)),
        threshold=st.integers(0, 5),
    )


def metric_triggers() -> st.SearchStrategy[MetricTrigger]:
    """Only Prefect Cloud has them."""
    least = timedelta(seconds=300)
    queries = st.builds(
        MetricTriggerQuery,
        name=st.sampled_from(PrefectMetric),
        threshold=st.floats(0, 1000),
        operator=st.sampled_from(MetricTriggerOperator),
        range=durations(least=least),
        firing_for=durations(least=least),
    )
    return st.builds(MetricTrigger, match=_specifications(), match_related=_specifications(), metric=queries)


def triggers(*, metric: bool = False) -> st.SearchStrategy[TriggerTypes]:
    """Any trigger, nested ones included; those of Prefect Cloud with `metric`."""
    leaves: st.SearchStrategy[Any] = st.one_of(event_triggers(), metric_triggers()) if metric else event_triggers()
    return st.recursive(leaves, _composed, max_leaves=4)


def prefect_actions() -> st.SearchStrategy[ActionTypes]:
    """Any of Prefect's actions."""
    selected: list[tuple[Any, Kind, str]] = [
        (actions.PauseDeployment, "deployment", "deployment_id"),
        (actions.ResumeDeployment, "deployment", "deployment_id"),
        (actions.PauseWorkPool, "work pool", "work_pool_id"),
        (actions.ResumeWorkPool, "work pool", "work_pool_id"),
        (actions.PauseWorkQueue, "work queue", "work_queue_id"),
        (actions.ResumeWorkQueue, "work queue", "work_queue_id"),
        (actions.PauseAutomation, "automation", "automation_id"),
        (actions.ResumeAutomation, "automation", "automation_id"),
    ]
    plain: list[Any] = [
        *(actions.DoNothing, actions.CancelFlowRun, actions.DeleteFlowRun, actions.ResumeFlowRun),
        *(actions.SuspendFlowRun, actions.DeclareIncident),
    ]
    run_fields: dict[str, Any] = {
        "parameters": st.none() | _mappings(values(), keys=_parameter_names()),
        "job_variables": st.none() | _mappings(values()),
        "schedule_after": durations(),
    }
    return st.one_of(
        *(st.builds(model, source=st.just("selected"), **{field: ids(kind)}) for model, kind, field in selected),
        *(st.builds(model, source=st.just("inferred")) for model, _, _ in selected),
        *(st.builds(model) for model in plain),
        st.builds(actions.RunDeployment, deployment_id=ids("deployment"), **run_fields),
        st.builds(actions.RunDeployment, source=st.just("inferred"), **run_fields),
        st.builds(actions.SendNotification, block_document_id=ids("block"), subject=texts(max_size=3), body=texts()),
        st.builds(actions.CallWebhook, block_document_id=ids("block"), payload=texts()),
        st.builds(
            actions.ChangeFlowRunState,
            state=st.sampled_from(StateType),
            name=st.none() | texts(max_size=2),
            message=st.none() | texts(),
            force=st.booleans(),
        ),
    )


def prefect_automations(*, metric: bool = False) -> st.SearchStrategy[AutomationCore]:
    """Prefect's own models, as somebody may have made them by hand."""
    tags = st.lists(st.sampled_from(["nightly", "penstock:shop", "{project}", "shop", "x y"]), unique=True, max_size=3)
    return st.builds(
        AutomationCore,
        name=texts(max_size=4).filter(lambda text: bool(text.strip())),
        description=texts(),
        enabled=st.booleans(),
        tags=tags,
        trigger=triggers(metric=metric),
        actions=st.lists(prefect_actions(), min_size=1, max_size=3),
        actions_on_trigger=st.lists(prefect_actions(), max_size=1),
        actions_on_resolve=st.lists(prefect_actions(), max_size=1),
    )


def forms(*, metric: bool = False) -> st.SearchStrategy[Form]:
    """The forms of such automations, as read from a server that has `NAMES`."""
    return prefect_automations(metric=metric).map(form_there)


def form_there(automation: AutomationCore) -> Form:
    """The form of one that is on a server."""
    return with_names(normalised(automation.model_dump(mode="json")), NAMES)


def ids(kind: Kind) -> st.SearchStrategy[UUID]:
    """The id of something there is."""
    return st.sampled_from([UUID(stand_in(kind, name)) for name in NAMED[kind]])


def _composed(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    children = st.lists(inner, min_size=1, max_size=3)
    within = st.none() | durations()
    sequences = st.builds(SequenceTrigger, triggers=children, within=within)
    return st.one_of(sequences, children.flatmap(lambda found: _compound(found, within)))


def _compound(children: list[Any], within: st.SearchStrategy[timedelta | None]) -> st.SearchStrategy[Any]:
    require = st.one_of(st.sampled_from(["any", "all"]), st.integers(1, len(children)))
    return st.builds(CompoundTrigger, triggers=st.just(children), require=require, within=within)


def _specifications() -> st.SearchStrategy[dict[str, str | list[str]]]:
    value = st.sampled_from(_VALUES)
    return st.dictionaries(st.sampled_from(_LABELS), st.one_of(value, st.lists(value, max_size=3)), max_size=2)


def _parameter_names() -> st.SearchStrategy[str]:
    return st.sampled_from(["table", "deployment", "class", "two words", "self", "ﬁeld", "tags", "id", ""])


def _mappings(inner: st.SearchStrategy[Any], keys: st.SearchStrategy[str] | None = None) -> st.SearchStrategy[Any]:
    return st.dictionaries(texts(max_size=2) if keys is None else keys, inner, max_size=3)
