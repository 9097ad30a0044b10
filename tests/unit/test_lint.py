"""What the rules find in declared automations, and what they leave alone."""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prefect.client.schemas.objects import StateType
from prefect.events import actions
from prefect.events.schemas.automations import (
    CompoundTrigger,
    EventTrigger,
    MetricTrigger,
    MetricTriggerQuery,
    Posture,
    PrefectMetric,
    SequenceTrigger,
    TriggerTypes,
)

from penstock.automations.define import Automation, call_webhook, notify, run_deployment, run_deployment_with
from penstock.automations.everyday import after_all, on_arrival, on_loaded, on_quarantined, when_failing, when_silent
from penstock.automations.forms import Form, Names, form_of, stand_in
from penstock.automations.lint import RULES, lint
from penstock.automations.parameters import Accepts
from penstock.plan import Finding
from tests.automation_strategies import NAMES as MADE_UP
from tests.automation_strategies import forms

PROJECT = "shop"
HOUR = timedelta(hours=1)
TELL = notify("slack-webhook/ops", body="{{ event.event }}")
DEPLOYMENTS = ["ingest/shop.sales", "ingest/shop.weather", "ingest/shop.report", "verify/shop", "etl/daily"]
NAMES = Names.of(
    {
        "deployment": [(name, stand_in("deployment", name)) for name in DEPLOYMENTS],
        "block": [("slack-webhook/ops", stand_in("block", "slack-webhook/ops"))],
        "automation": [("another", stand_in("automation", "another"))],
    }
)
SCHEMA = {
    "type": "object",
    "properties": {"day": {"type": "string"}, "rows": {"type": "integer", "default": 0}},
    "required": ["day"],
}
DATASET_FIELDS = {"prefect.resource.id": "penstock.{project}.dataset.sales"}
ETL_RUNS = [
    {"prefect.resource.role": "flow", "prefect.resource.name": "etl"},
    {"prefect.resource.role": "deployment", "prefect.resource.name": "daily"},
]


def found(
    *automations: Automation, foreign: Collection[str] = (), files: Mapping[str, str] | None = None
) -> list[Finding]:
    declared = [(form_of(one, project=PROJECT), one) for one in automations]
    schemas = {"etl/daily": Accepts(schema=SCHEMA, given={"day": "today"})}
    return lint(declared, names=NAMES, schemas=schemas, foreign=foreign, files=files or {})


def rules(*automations: Automation, **more: Any) -> list[str]:
    return [finding.rule for finding in found(*automations, **more)]


def when(*expect: str, doing: Any = TELL, name: str = "{project}: it", **trigger: Any) -> Automation:
    own = {name: trigger.pop(name) for name in ("allow", "adopt", "enabled") if name in trigger}
    return Automation(name=name, trigger=EventTrigger(expect=set(expect), **trigger), actions=[doing], **own)


def on(trigger: TriggerTypes, doing: Any = TELL) -> Automation:
    return Automation(name="{project}: it", trigger=trigger, actions=[doing])


def failing_runs(doing: Any, **more: Any) -> Automation:
    return when("prefect.flow-run.Failed", doing=doing, match_related=ETL_RUNS, **more)


LOADED = EventTrigger(expect={"penstock.dataset.loaded"}, match=DATASET_FIELDS)
ANY = EventTrigger(expect={"*"}, match={"prefect.resource.id": "*"})
METRIC = MetricTrigger(metric=MetricTriggerQuery(name=PrefectMetric.duration, threshold=1, operator="<"))

# By the rule: what it finds, and what is near it and is not found.
FINDS: dict[str, dict[str, Automation]] = {
    "unresolved": {
        "a deployment": on_loaded("sales", run_deployment("etl/dayly")),
        "an id": on_loaded("sales", actions.RunDeployment(deployment_id=uuid4())),
        "a dataset": on_loaded("salse", TELL),
        "a related dataset": on_quarantined("salse", TELL),
        "an event": when("penstock.dataset.load", match=DATASET_FIELDS),
    },
    "no-block": {
        "a notification's": on_loaded("sales", notify("slack-webhook/nobody", body="x")),
        "a webhook's": on_loaded("sales", call_webhook("webhook/none")),
    },
    "not-on-this-server": {
        "a metric": on(METRIC),
        "a metric within": on(CompoundTrigger(require="any", triggers=[METRIC, LOADED], within=None)),
        "an incident": on_loaded("sales", actions.DeclareIncident()),
    },
    "matches-everything": {
        "nothing said": when(),
        "stars": on(ANY),
        "nothing said of silence": when(posture=Posture.Proactive, within=HOUR),
        "within a compound": on(CompoundTrigger(require="all", triggers=[LOADED, ANY], within=None)),
    },
    "throttles": {
        "a run": when("penstock.dataset.loaded", doing=run_deployment("etl/daily"), match=DATASET_FIELDS, within=HOUR),
        "within a sequence": on(
            SequenceTrigger(triggers=[LOADED.model_copy(update={"within": HOUR}), LOADED], within=None),
            run_deployment("etl/daily"),
        ),
    },
    "template": {
        "that does not parse": on_loaded("sales", notify("slack-webhook/ops", body="{{ event.payload")),
        "with an unknown filter": on_loaded("sales", notify("slack-webhook/ops", body="{{ event | shorter }}")),
        "that the sandbox refuses": on_loaded("sales", notify("slack-webhook/ops", body="{{ event.__class__ }}")),
        "with too many loops": on_loaded(
            "sales", notify("slack-webhook/ops", body="{% for x in y %}{% endfor %}" * 11)
        ),
        "in a list": on_loaded("sales", run_deployment("etl/other", days=[["{{ event"]])),
        "of Prefect's kind": on_loaded(
            "sales", run_deployment("etl/other", day={"__prefect_kind": "jinja", "template": "{% if %}"})
        ),
        "whose filter takes too little": on_loaded(
            "sales", run_deployment("etl/daily", rows="{{ event.payload.rows + 1 }}")
        ),
        "in job variables": on_loaded(
            "sales", run_deployment_with("etl/daily", job_variables={"env": {"A": "{{ event.id }}"}})
        ),
    },
    "unknown-field": {
        "of the payload": on_loaded("sales", notify("slack-webhook/ops", body="{{ event.payload.reason }}")),
        "by its key": on_loaded("sales", notify("slack-webhook/ops", body="{{ event.payload['reason'] }}")),
        "of the resource": on_loaded(
            "sales", notify("slack-webhook/ops", body="{{ event.resource['penstock.datum'] }}")
        ),
        "of the event": on_loaded("sales", notify("slack-webhook/ops", body="{{ event.data.rows }}")),
        "of nothing": on_loaded("sales", notify("slack-webhook/ops", body="{{ payload.rows }}")),
        "that is a method": on_loaded("sales", notify("slack-webhook/ops", body="{{ event.payload.keys }}")),
        "in a subject": on_loaded("sales", notify("slack-webhook/ops", subject="{{ event.rows }}", body="")),
        "in a run's event": failing_runs(notify("slack-webhook/ops", body="{{ event.payload.reason }}")),
        "in any of a compound": after_all(
            "sales", "weather", run=notify("slack-webhook/ops", body="{{ event.payload.reason }}")
        ),
        "in a firing's own event": Automation(
            name="{project}: it",
            trigger=LOADED,
            actions=[],
            actions_on_trigger=[notify("slack-webhook/ops", body="{{ event.payload.rows }}")],
        ),
    },
    "unknown-parameter": {"a slip": on_loaded("sales", run_deployment("etl/daily", row=1))},
    "wrong-parameter-type": {
        "a literal": on_loaded("sales", run_deployment("etl/daily", rows="many")),
        "a text for a number": on_loaded("sales", run_deployment("etl/daily", rows="{{ event.payload.rows }} rows")),
        "a text of the event for a number": on_loaded(
            "sales", run_deployment("etl/daily", rows="{{ event.payload.run }}")
        ),
    },
    "unknown-rule": {"a slip": on_loaded("sales", TELL, allow=["throttle"])},
    "fires-itself": {
        "by its own run": failing_runs(run_deployment("etl/daily")),
        "by its own dataset": on_loaded("sales", run_deployment("ingest/{project}.sales")),
        "by any run": when(
            "prefect.flow-run.*", doing=run_deployment("etl/daily"), match={"prefect.state-type": "COMPLETED"}
        ),
        "by its own firing": when("prefect.automation.*", match={"prefect.resource.id": "prefect.automation.*"}),
        "by the run it changes": failing_runs(actions.ChangeFlowRunState(state=StateType.FAILED, force=True)),
        "by what verify finds": when("penstock.object.lost", doing=run_deployment("verify/{project}")),
        "by three of a run's states": when(
            "prefect.flow-run.*", doing=run_deployment("etl/daily"), match_related=ETL_RUNS, threshold=3, within=HOUR
        ),
    },
}
LEAVES: dict[str, dict[str, Automation]] = {
    "unresolved": {
        "names that are there": on_loaded("sales", run_deployment("etl/daily"), TELL),
        "an id that is there": on_loaded(
            "sales", actions.PauseAutomation(automation_id=stand_in("automation", "another"))
        ),
        "what is found from the event": failing_runs(actions.PauseDeployment(source="inferred")),
        "a wildcard": when("penstock.object.*", match={"prefect.resource.id": "penstock.{project}.dataset.*"}),
    },
    "matches-everything": {
        "an event's name": when("shop.sold"),
        "a resource": when(match={"prefect.resource.id": "shop.*"}),
        "a related resource": when("*", match_related={"prefect.resource.role": "flow"}),
    },
    "throttles": {
        "a notification": when_failing("sales", TELL, more_than=0, within=HOUR),
        "a count": when_failing("sales", run_deployment("etl/daily"), more_than=1, within=HOUR),
        "a silence": when_silent("sales", HOUR, run_deployment("etl/daily")),
    },
    "template": {
        "a condition": on_loaded(
            "sales", notify("slack-webhook/ops", body="{% if event.payload.rows > 1 %}{{ 2 + 2 }}{% endif %}")
        ),
        "parentheses": on_loaded("sales", run_deployment("etl/daily", rows="{{ (event.payload.rows + 1) }}")),
        "a filter": on_loaded("sales", run_deployment("etl/daily", rows="{{ event.payload.rows | default(1) }}")),
        "Prefect's filters": on_loaded("sales", notify("slack-webhook/ops", body="{{ flow_run | ui_url }}")),
        "the worker's own": on_loaded(
            "sales", run_deployment_with("etl/daily", job_variables={"image": "{{ prefect.variables.image }}"})
        ),
        "braces": on_loaded("sales", run_deployment("etl/daily", day="{'a': {}}")),
    },
    "unknown-field": {
        "a field": on_quarantined(
            "sales", notify("slack-webhook/ops", body="{{ event.payload.key }}: {{ event.payload.reason }}")
        ),
        "a method's name by its key": on_loaded(
            "sales", notify("slack-webhook/ops", body="{{ event.payload['keys'] | join }}")
        ),
        "a method": on_loaded(
            "sales", notify("slack-webhook/ops", body="{% for k, v in event.payload.items() %}{{ k }}{% endfor %}")
        ),
        "a label": on_loaded(
            "sales",
            notify("slack-webhook/ops", body="{{ event.resource['penstock.dataset'] }}{{ event.resource.name }}"),
        ),
        "what Prefect gives": failing_runs(
            notify(
                "slack-webhook/ops",
                body="{{ flow_run.name }} {{ flow.name }} {{ event.url }} {{ automation.name }} {{ firing.id }}",
            )
        ),
        "a state": failing_runs(notify("slack-webhook/ops", body="{{ event.payload.validated_state.message }}")),
        "a name of its own": on_loaded(
            "sales", notify("slack-webhook/ops", body="{% set n = event.payload.rows %}{{ n }}")
        ),
        "an event nobody knows": when("shop.sold", doing=notify("slack-webhook/ops", body="{{ event.payload.price }}")),
        "any of several events": when(
            "penstock.dataset.loaded", "shop.sold", doing=notify("slack-webhook/ops", body="{{ event.payload.price }}")
        ),
        "a wildcard's": when(
            "penstock.object.*",
            doing=notify("slack-webhook/ops", body="{{ event.payload.reason }}{{ event.payload.generation }}"),
        ),
    },
    "wrong-parameter-type": {
        "a number for a number": on_loaded("sales", run_deployment("etl/daily", rows="{{ event.payload.rows }}")),
        "nobody knows": on_loaded("sales", run_deployment("etl/daily", rows="{{ event.payload.run | int }}")),
        "a text for a text": on_loaded("sales", run_deployment("etl/daily", day="{{ event.payload.rows }} rows")),
    },
    "fires-itself": {
        "on_arrival": on_arrival("sales"),
        "another dataset": on_loaded("sales", run_deployment("ingest/{project}.weather")),
        "after_all": after_all("sales", "weather", run="report"),
        "half of after_all": after_all("sales", "report", run="report"),
        "a notification": failing_runs(TELL),
        "too few to go on": when_failing("sales", run_deployment("ingest/{project}.sales"), more_than=3, within=HOUR),
        "another deployment": failing_runs(run_deployment("ingest/{project}.sales")),
        "a silence": when_silent("sales", HOUR, run_deployment("ingest/{project}.sales")),
        "a paused one": failing_runs(run_deployment("etl/daily"), enabled=False),
        "one that ends it": failing_runs(run_deployment("etl/daily"), allow=["fires-itself"]),
        "another's firing": when("prefect.automation.*", match={"prefect.resource.name": "!{project}: it"}),
    },
}


def cases(of: dict[str, dict[str, Automation]]) -> list[Any]:
    return [
        pytest.param(rule, one, id=f"{rule}: {what}") for rule, found_in in of.items() for what, one in found_in.items()
    ]


@pytest.mark.parametrize(("rule", "automation"), cases(FINDS))
def test_what_a_rule_finds(rule: str, automation: Automation) -> None:
    """The rule finds it, and says of which automation and in which file."""
    findings = [one for one in found(automation, files={automation.name: "automations/x.py"}) if one.rule == rule]
    assert findings
    for finding in findings:
        assert finding.name == form_of(automation, project=PROJECT)["name"]
        assert finding.reason.startswith("automations/x.py: ")


@pytest.mark.parametrize(("rule", "automation"), cases(LEAVES))
def test_what_a_rule_leaves_alone(rule: str, automation: Automation) -> None:
    """What is near it and meant is not found."""
    assert rule not in rules(automation)


@pytest.mark.parametrize(
    "automation", [on_arrival("sales"), after_all("sales", "weather", run="report")], ids=["on", "all"]
)
def test_what_ships_is_clean(automation: Automation) -> None:
    """The helpers' own automations have no finding at all."""
    assert found(automation) == []


def test_two_of_one_name() -> None:
    """Two of one name are an error once, in whatever file; two names are none."""
    same = [on_loaded("sales", TELL), on_loaded("sales", run_deployment("etl/daily"))]
    (finding,) = found(*same)
    assert (finding.rule, finding.severity, finding.name) == ("same-name", "error", "shop: sales loaded")
    assert found(on_loaded("sales", TELL), on_loaded("sales", TELL, name="again")) == []


def test_a_name_that_is_somebody_else_s() -> None:
    """A foreign automation of that name is an error, unless it is to be taken over."""
    assert rules(on_arrival("sales"), foreign=["shop: sales on arrival"]) == ["foreign-name"]
    assert rules(on_loaded("sales", TELL, adopt=True), foreign=["shop: sales loaded"]) == []
    assert rules(on_arrival("sales"), foreign=["shop: weather on arrival"]) == []


def test_a_parameter_that_nobody_gives() -> None:
    """What the deployment itself gives need not be given again; what nobody gives is an error."""
    automation = on_loaded("sales", run_deployment("etl/daily", rows=1))
    form = form_of(automation, project=PROJECT)

    def of(accepts: Any) -> list[tuple[str, str]]:
        findings = lint([(form, automation)], names=NAMES, schemas={"etl/daily": accepts}, foreign=(), files={})
        return [(finding.rule, finding.severity) for finding in findings]

    assert of(Accepts(schema=SCHEMA, given={"day": "today"})) == []
    assert of(Accepts(schema=SCHEMA)) == [("missing-parameter", "error")]
    assert of(Accepts(schema=SCHEMA, enforced=False)) == [("missing-parameter", "warning")]
    assert of(Accepts(schema=SCHEMA, given=None)) == []


def test_what_the_server_would_refuse_besides() -> None:
    """Whatever else the server's own model refuses is found, and only where nothing says it better."""
    inferred = when("prefect.flow-run.Running", doing=actions.RunDeployment(source="inferred"))
    assert "fires-itself" in rules(inferred)
    allowed = when("prefect.flow-run.Running", doing=actions.RunDeployment(source="inferred"), allow=["fires-itself"])
    (finding,) = found(allowed)
    assert (finding.rule, finding.severity) == ("refused", "error")
    assert "infinite loop" in finding.reason
    bad = on_loaded("sales", run_deployment("etl/other", day={"__prefect_kind": "json", "value": "{"}))
    assert "refused" not in rules(bad), "the deployment is not there, which comes first"


def test_a_loop_is_told_by_its_names() -> None:
    """A loop over several automations is one finding, with every step of it."""
    around = [
        on_loaded("sales", run_deployment("ingest/{project}.weather")),
        on_loaded("weather", run_deployment("etl/daily")),
        failing_runs(run_deployment("ingest/{project}.sales"), name="{project}: again"),
        on_loaded("report", TELL),
    ]
    (finding,) = found(*around)
    assert (finding.rule, finding.severity, finding.name) == ("fires-itself", "error", "shop: again")
    steps = re.findall(r"'([^']+)' causes ([^ ]+) \(a run of ([^)]+)\), which fires '([^']+)'", finding.reason)
    assert steps == [
        ("shop: again", "penstock.dataset.loaded", "ingest/shop.sales", "shop: sales loaded"),
        ("shop: sales loaded", "penstock.dataset.loaded", "ingest/shop.weather", "shop: weather loaded"),
        ("shop: weather loaded", "prefect.flow-run.Failed", "etl/daily", "shop: again"),
    ]
    for index in range(3):
        assert found(*(one for number, one in enumerate(around) if number != index)) == []


def test_a_loop_through_a_compound_needs_all_of_it() -> None:
    """A compound trigger goes round only if the loop brings everything it requires."""
    both = after_all("sales", "weather", run="report", name="both")
    back = [
        on_loaded("report", run_deployment("ingest/{project}.sales"), name="one"),
        on_loaded("report", run_deployment("ingest/{project}.weather"), name="two"),
    ]
    assert rules(both, back[0]) == []
    names = [finding.name for finding in found(both, *back) if finding.rule == "fires-itself"]
    assert names == ["shop: both", "shop: two"], "one for each way around"


def test_allow_silences_warnings_alone() -> None:
    """A warning that is allowed is not told; an error is, allowed or not."""
    throttled = when("penstock.dataset.loaded", doing=run_deployment("etl/daily"), match=DATASET_FIELDS, within=HOUR)
    assert rules(throttled) == ["throttles"]
    allowed = when(
        "penstock.dataset.loaded",
        doing=run_deployment("etl/daily"),
        match=DATASET_FIELDS,
        within=HOUR,
        allow=["throttles", "unresolved"],
    )
    assert rules(allowed) == []
    assert rules(on_loaded("sales", call_webhook("webhook/none"), allow=["no-block"])) == ["no-block"]


def test_the_order_is_always_the_same() -> None:
    """Findings come by name and rule, however the automations are ordered."""
    some = [one for found_in in FINDS.values() for one in found_in.values()][:6]
    renamed = [Automation(**{**vars(one), "name": f"{{project}}: {n}"}) for n, one in enumerate(some)]
    assert found(*renamed) == found(*reversed(renamed))
    names = [finding.name for finding in found(*renamed)]
    assert names == sorted(names)


def test_every_rule_has_a_case_and_stands_in_the_docs() -> None:
    """No rule is without a test above, nor without its line in docs/automations.md."""
    # `consumer` has its test with the flows that consume.
    alone = {"same-name", "foreign-name", "missing-parameter", "refused", "consumer"}
    assert set(RULES) == alone | set(FINDS)
    docs = Path(__file__).parents[2] / "docs" / "automations.md"
    told = re.findall(r"^\| `([a-z-]+)` \| (?:error|warning)", docs.read_text(encoding="utf-8"), re.MULTILINE)
    assert told == list(RULES)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(forms(metric=True), min_size=1, max_size=3))
def test_no_automation_breaks_the_lint(made: list[Form]) -> None:
    """Whatever can be declared gets its findings, and the same ones each time."""
    declared = [(form, Automation(name=form["name"], trigger=LOADED, actions=[TELL])) for form in made]
    schemas = {name: Accepts(schema=SCHEMA) for name in MADE_UP.known("deployment")}
    before = copy.deepcopy(made)
    once = lint(declared, names=MADE_UP, schemas=schemas, foreign=(), files={})
    assert made == before, "the forms are applied after it"
    assert once == lint(declared[::-1], names=MADE_UP, schemas=schemas, foreign=(), files={})
    assert {finding.rule for finding in once} <= set(RULES)
