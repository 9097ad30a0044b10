"""Automations as the code that `penstock import` writes."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from prefect.events import actions
from prefect.events.schemas.automations import AutomationCore, CompoundTrigger, EventTrigger, Posture, SequenceTrigger

from penstock.automations.forms import Form, form_of
from penstock.automations.source import declared_form, declared_in, file_name, source_of
from penstock.errors import DeclarationError
from penstock.ownership import owner_tag
from tests.automation_strategies import NAMED, NAMES, PROJECT, form_there, forms

ROOT = Path(__file__).resolve().parents[2]


def there(**fields: object) -> Form:
    """The form of one on the server, with what does not matter filled in."""
    filled = {"name": "x", "trigger": EventTrigger(expect={"a"}), "actions": [actions.DoNothing()], **fields}
    return form_there(AutomationCore.model_validate(filled))


def turned_back(source: str, project: str = PROJECT) -> Form:
    """The form of the one automation that the code declares."""
    (automation,) = declared_in(source, filename="automations/imported.py")
    return form_of(automation, project=project)


def identity(kind: str, name: str) -> str:
    """The id of what the made-up server has."""
    found = NAMES.id_of(kind, name)  # type: ignore[arg-type]
    assert found is not None
    return found


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(form=forms(metric=True))
def test_the_code_declares_the_very_same_automation(form: Form) -> None:
    """Whatever Prefect can hold, the code that is written for it turns back into the same form."""
    source = source_of(form, project=PROJECT)
    assert turned_back(source) == declared_form(form, project=PROJECT)


def test_what_the_code_looks_like() -> None:
    """Names for ids, the project's name as {project}, durations in words, and nothing that is the default."""
    form = there(
        name="shop: quiet",
        description="Nobody sold anything.",
        tags=["ops", "penstock.applied:0123456789ab"],
        trigger=EventTrigger(
            expect={"penstock.dataset.pending", "penstock.dataset.loaded"},
            match={"prefect.resource.id": "penstock.shop.dataset.shop"},
            posture=Posture.Proactive,
            within=timedelta(hours=6),
        ),
        actions=[
            actions.RunDeployment(
                deployment_id=identity("deployment", "ingest/shop.sales"),
                parameters={"table": "{{ event.resource.id }}"},
            ),
            actions.SendNotification(
                block_document_id=identity("block", "slack-webhook/ops"),
                subject="penstock",
                body="shop: nothing for 6 hours, although there is a sale every few minutes at this time of the day.\n"
                "Look at {{ event.resource.id }}",
            ),
        ],
    )
    assert (
        source_of(form, project=PROJECT)
        == '''"""Imported from the Prefect server."""

from datetime import timedelta

from prefect.events import EventTrigger, Posture

from penstock import Automation, notify, run_deployment

AUTOMATIONS = [
    Automation(
        name="{project}: quiet",
        description="Nobody sold anything.",
        trigger=EventTrigger(
            expect={"penstock.dataset.loaded", "penstock.dataset.pending"},
            match={"prefect.resource.id": "penstock.{project}.dataset.shop"},
            posture=Posture.Proactive,
            within=timedelta(hours=6),
        ),
        actions=[
            run_deployment("ingest/{project}.sales", table="{{ event.resource.id }}"),
            notify(
                "slack-webhook/ops",
                body=(
                    "shop: nothing for 6 hours, although there is a sale every few minutes at this time of the day.\\n"
                    "Look at {{ event.resource.id }}"
                ),
            ),
        ],
        tags=["ops"],
        adopt=True,
    ),
]
'''
    )


@pytest.mark.parametrize(
    ("fields", "written"),
    [
        pytest.param({"tags": [owner_tag(PROJECT)]}, "adopt", id="own"),
        pytest.param({"enabled": True}, "enabled", id="enabled"),
        pytest.param({"description": ""}, "description", id="no-description"),
        pytest.param({"trigger": EventTrigger(expect={"a"})}, "within", id="no-window"),
    ],
)
def test_what_needs_no_saying_is_left_out(fields: dict[str, object], written: str) -> None:
    """An automation that the project owns is not adopted, and defaults are not written."""
    assert f"{written}=" not in source_of(there(**fields), project=PROJECT)


def test_a_paused_one_stays_paused() -> None:
    """What is paused on the server is declared as paused."""
    assert "enabled=False" in source_of(there(enabled=False), project=PROJECT)


@pytest.mark.parametrize("project", ["penstock", "project", "sales", "dataset"])
def test_projects_whose_name_is_a_word(project: str) -> None:
    """A project called like something else in the automation is put in its own place only."""
    form = there(
        name=f"{project}: sales on arrival",
        trigger=EventTrigger(
            expect={"penstock.dataset.pending"},
            match={"prefect.resource.id": f"penstock.{project}.dataset.sales", "penstock.dataset": "sales"},
        ),
    )
    source = source_of(form, project=project)
    assert 'name="{project}: sales on arrival"' in source
    assert '"penstock.{project}.dataset.sales"' in source
    assert '"penstock.dataset": "sales"' in source
    assert '{"penstock.dataset.pending"}' in source
    assert turned_back(source, project) == declared_form(form, project=project)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"name": "of {project}"}, id="name"),
        pytest.param({"description": "see {project}"}, id="description"),
        pytest.param({"trigger": EventTrigger(expect={"{project}.sold"})}, id="expect"),
        pytest.param({"trigger": EventTrigger(match={"{project}": "x"})}, id="label"),
    ],
)
def test_the_place_of_the_project_cannot_be_said(fields: dict[str, object]) -> None:
    """An automation whose own text has {project} is refused, with the text, rather than written as another."""
    with pytest.raises(DeclarationError, match=r"has the text '.*\{project\}.*stands for the project's name"):
        source_of(there(**fields), project=PROJECT)


def test_a_tag_may_say_what_it_likes() -> None:
    """The project's name is not put into tags, so that {project} is a tag like others."""
    form = there(tags=["{project}"])
    assert turned_back(source_of(form, project=PROJECT))["tags"] == [owner_tag(PROJECT), "{project}"]


def test_what_is_gone_is_named() -> None:
    """An action on a deployment that no longer exists cannot be declared: the error has its id."""
    gone = uuid4()
    form = there(actions=[actions.RunDeployment(deployment_id=gone)])
    with pytest.raises(DeclarationError, match=f"'x' has an action run-deployment for a deployment .*{gone}"):
        source_of(form, project=PROJECT)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        pytest.param({"actions": [{"type": "make-coffee"}]}, "an action 'make-coffee'", id="action"),
        pytest.param({"actions": [{"type": "toast", "block": "a/b"}]}, "an action 'toast'", id="action-on-a-block"),
        pytest.param({"actions": [{"type": "do-nothing", "how": 1}]}, "do-nothing with how", id="action's field"),
        pytest.param({"trigger": {"type": "moon"}}, "a trigger of the type 'moon'", id="trigger"),
        pytest.param({"trigger": {"type": "event", "moon": 1}}, "its trigger with moon", id="trigger's field"),
        pytest.param({"colour": "red"}, "the automation with colour", id="field"),
    ],
)
def test_what_is_unknown_is_named(change: dict[str, object], error: str) -> None:
    """What a newer server has and this penstock does not know is an error, never left out silently."""
    with pytest.raises(DeclarationError, match=f"automation 'x' has {error}"):
        source_of({**there(), **change}, project=PROJECT)


@pytest.mark.parametrize(
    ("name", "written"),
    [
        pytest.param("table", 'run_deployment("ingest/{project}.sales", table=1)', id="a word"),
        pytest.param("deployment", "run_deployment_with(", id="the helper's own"),
        pytest.param("class", "run_deployment_with(", id="Python's own"),
        pytest.param("two words", "run_deployment_with(", id="two words"),
        pytest.param("\ufb01eld", "run_deployment_with(", id="what Python takes for another"),
    ],
)
def test_names_of_parameters(name: str, written: str) -> None:
    """A parameter is written as a keyword only where the keyword is that parameter."""
    deployment = identity("deployment", "ingest/shop.sales")
    form = there(actions=[{"type": "run-deployment", "deployment_id": deployment, "parameters": {name: 1}}])
    source = source_of(form, project=PROJECT)
    assert written in source
    assert turned_back(source) == declared_form(form, project=PROJECT)


def test_every_action_on_something_has_a_helper() -> None:
    """What acts on something is written with the name and penstock's own helper."""
    for kind, field, names in [
        ("Deployment", "deployment_id", NAMED["deployment"]),
        ("WorkPool", "work_pool_id", NAMED["work pool"]),
        ("WorkQueue", "work_queue_id", NAMED["work queue"]),
        ("Automation", "automation_id", NAMED["automation"]),
    ]:
        for verb in ("Pause", "Resume"):
            acted_on = identity(field.removesuffix("_id").replace("_", " "), names[0])
            form = there(actions=[getattr(actions, verb + kind)(**{field: acted_on})])
            source = source_of(form, project=PROJECT)
            assert "prefect.events.actions" not in source
            assert turned_back(source) == declared_form(form, project=PROJECT)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("shop: sales on arrival", "sales_on_arrival.py"),
        ("Restart the worker!", "restart_the_worker.py"),
        ("3 failures", "automation_3_failures.py"),
        ("日本", "automation.py"),
        ("class", "automation_class.py"),
        ("shopping", "shopping.py"),
    ],
)
def test_file_names(name: str, expected: str) -> None:
    """The file goes by the automation's name, and can be imported."""
    assert file_name(there(name=name), project=PROJECT) == expected


def test_the_code_is_formatted() -> None:
    """Linter and formatter of this repository find nothing to change in what is written."""
    long = "prefect.resource." + "long" * 12
    inner = EventTrigger(
        expect={"penstock.dataset.loaded"},
        match={"prefect.resource.id": ["penstock.shop.dataset.sales", "penstock.shop.dataset." + "weather" * 9]},
        match_related=[{long: "x", "role": "y"}, {}],
        threshold=3,
        within=timedelta(minutes=90),
    )
    form = there(
        name='the "quoted" one\'s',
        trigger=CompoundTrigger(
            require=1, within=timedelta(days=1), triggers=[SequenceTrigger(triggers=[inner, inner]), inner]
        ),
        actions=[
            actions.RunDeployment(
                deployment_id=identity("deployment", "ingest/shop.sales"),
                parameters={"a b": [1, 2.5, None, True, {"deep": "x" * 60}], "text": "word " * 40, "empty": {}},
                job_variables={"env": {"A": "1"}},
                schedule_after=timedelta(milliseconds=1500),
            ),
            actions.RunDeployment(deployment_id=identity("deployment", "ingest/shop.sales"), parameters={}),
            actions.PauseDeployment(source="inferred"),
            actions.ChangeFlowRunState(state="FAILED", message="it\tstood \\ still\n" * 9),
            actions.CallWebhook(block_document_id=identity("block", "webhook/pager"), payload='{"a": "b"}\n' * 20),
            *(getattr(actions, name)() for name in ("CancelFlowRun", "DeleteFlowRun", "SuspendFlowRun")),
            *(getattr(actions, name)() for name in ("ResumeFlowRun", "DoNothing")),
        ],
    )
    source = source_of(form, project=PROJECT)
    assert turned_back(source) == declared_form(form, project=PROJECT)
    ruff = [sys.executable, "-m", "ruff"]
    for command in (["format", "--diff"], ["check"]):
        done = subprocess.run(
            [*ruff, *command, "--stdin-filename", "automations/imported.py", "-"],
            input=source,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{source}"
