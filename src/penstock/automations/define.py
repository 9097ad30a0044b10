"""What `automations/*.py` are made of: Prefect's own triggers and actions, with deployments referred to by name.

In names and in a trigger's `match`, `{project}` stands for the project's name, so that one file serves every copy of
the project.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from prefect.events.actions import ActionTypes
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture, TriggerTypes
from prefect.events.schemas.events import ResourceSpecification

from penstock.errors import DeclarationError
from penstock.events import DATASET_PENDING

_PROJECT = "{project}"


@dataclass(frozen=True, kw_only=True)
class RunDeploymentByName:
    """Prefect's 'run a deployment' with the deployment's name (`flow/deployment`) instead of its id."""

    deployment: str
    parameters: Mapping[str, Any] | None = None
    job_variables: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.deployment.count("/") != 1:
            raise DeclarationError(f"deployment {self.deployment!r} must look like 'flow/deployment'")


@dataclass(frozen=True, kw_only=True)
class Automation:
    """When these events, then these actions."""

    name: str
    trigger: TriggerTypes
    actions: Sequence[ActionTypes | RunDeploymentByName]
    description: str = ""
    tags: Sequence[str] = field(default=())


def run_deployment(deployment: str, **parameters: Any) -> RunDeploymentByName:
    """Run `flow/deployment`, with `parameters` over its own."""
    return RunDeploymentByName(deployment=deployment, parameters=parameters or None)


def on_arrival(dataset: str) -> Automation:
    """Run the dataset's `ingest` deployment when something new waits in it."""
    return Automation(
        name=f"{_PROJECT}: {dataset} on arrival",
        description=f"Loads what is new in {dataset} as soon as penstock says that something waits.",
        trigger=EventTrigger(
            expect={DATASET_PENDING},
            match=ResourceSpecification({"prefect.resource.id": f"penstock.{_PROJECT}.dataset.{dataset}"}),
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        ),
        actions=[run_deployment(f"ingest/{_PROJECT}.{dataset}")],
    )


def owner_tag(project: str) -> str:
    """The tag by which penstock knows its own automations among others on the server."""
    return f"penstock:{project}"


def resolve(automation: Automation, *, project: str, deployment_ids: Mapping[str, Any]) -> AutomationCore:
    """The automation as Prefect wants it. Raises DeclarationError for a deployment that does not exist."""
    actions: list[dict[str, Any]] = []
    for action in automation.actions:
        if not isinstance(action, RunDeploymentByName):
            actions.append(action.model_dump(mode="json"))
            continue
        name = action.deployment.replace(_PROJECT, project)
        if name not in deployment_ids:
            known = ", ".join(sorted(deployment_ids)) or "none"
            raise DeclarationError(
                f"automation {automation.name!r} runs the deployment {name!r}, which does not exist; there are: {known}"
            )
        actions.append(
            {
                "type": "run-deployment",
                "source": "selected",
                "deployment_id": str(deployment_ids[name]),
                "parameters": dict(action.parameters) if action.parameters else None,
                "job_variables": dict(action.job_variables) if action.job_variables else None,
            }
        )
    return AutomationCore.model_validate(
        {
            "name": automation.name.replace(_PROJECT, project),
            "description": automation.description,
            "tags": sorted({owner_tag(project), *automation.tags}),
            "trigger": _substitute(automation.trigger.model_dump(mode="json", exclude={"id"}), project),
            "actions": actions,
        }
    )


def _substitute(value: Any, project: str) -> Any:
    if isinstance(value, str):
        return value.replace(_PROJECT, project)
    if isinstance(value, list):
        return [_substitute(item, project) for item in value]
    if isinstance(value, dict):
        return {_substitute(key, project): _substitute(item, project) for key, item in value.items()}
    return value
