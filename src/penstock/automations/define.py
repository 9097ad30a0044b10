"""What `automations/*.py` are made of: Prefect's own triggers and actions, with what they act on referred to by name.

In names, texts and a trigger's `match`, `{project}` stands for the project's name, so that one file serves every copy
of the project.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from prefect.events.actions import Action, ActionTypes
from prefect.events.schemas.automations import Trigger, TriggerTypes

from penstock.errors import DeclarationError
from penstock.ownership import APPLIED_PREFIX, OWNER_PREFIX

PROJECT = "{project}"
# Not within Jinja's own braces.
_PROJECT = re.compile(r"(?<!\{)\{project\}(?!\})")

Kind = Literal["deployment", "work pool", "work queue", "block", "automation"]

# How many `/` the name of each kind has, and how it is written.
_WRITTEN: dict[Kind, tuple[int | None, str]] = {
    "deployment": (1, "flow/deployment"),
    "work pool": (0, "pool"),
    "work queue": (1, "pool/queue"),
    "block": (1, "block-type/name"),
    "automation": (None, "name"),
}


@dataclass(frozen=True, kw_only=True)
class ByName:
    """One of Prefect's actions (`type`) with the name of what it acts on instead of its id.

    `fields` are the action's others, as Prefect's model has them. Raises DeclarationError for a name of another shape.
    """

    type: str
    kind: Kind
    name: str
    fields: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        slashes, written = _WRITTEN[self.kind]
        parts = self.name.split("/")
        if not self.name or (slashes is not None and (len(parts) != slashes + 1 or not all(parts))):
            raise DeclarationError(f"{self.kind} {self.name!r} must look like {written!r}")


@dataclass(frozen=True, kw_only=True)
class Automation:
    """When these events, then these actions.

    `enabled` None leaves that to whoever operates the server: a new one is enabled, a paused one stays paused.
    `adopt` takes over the automation of that name on the server which this project did not make; with an id, that one
    of several. It is owned from its first change on: while it is as declared nothing is written.
    `allow` names rules of the lint that this automation may break.
    """

    name: str
    trigger: TriggerTypes
    actions: Sequence[ActionTypes | ByName]
    actions_on_trigger: Sequence[ActionTypes | ByName] = ()
    actions_on_resolve: Sequence[ActionTypes | ByName] = ()
    description: str = ""
    tags: Sequence[str] = ()
    enabled: bool | None = None
    adopt: bool | str = False
    allow: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise DeclarationError("an automation needs a name: by it the one on the server is found again")
        if not self.actions and not self.actions_on_trigger and not self.actions_on_resolve:
            raise DeclarationError(f"automation {self.name!r} does nothing: give it actions")
        if not isinstance(self.trigger, Trigger):
            raise DeclarationError(f"automation {self.name!r}: the trigger is a {type(self.trigger).__name__}")
        for actions in (self.actions, self.actions_on_trigger, self.actions_on_resolve):
            if not isinstance(actions, list | tuple):
                raise DeclarationError(f"automation {self.name!r}: actions are a list, not a {type(actions).__name__}")
            for action in actions:
                if not isinstance(action, Action | ByName):
                    raise DeclarationError(f"automation {self.name!r}: {action!r} is no action of Prefect's")
        for tag in self.tags:
            if tag.startswith((OWNER_PREFIX, APPLIED_PREFIX)):
                raise DeclarationError(f"automation {self.name!r}: tags that begin as {tag!r} does are penstock's own")


def run_deployment(deployment: str, **parameters: Any) -> ByName:
    """Run `flow/deployment`, with `parameters` over its own; a text in them may be a Jinja template of the event."""
    return run_deployment_with(deployment, parameters=parameters)


def run_deployment_with(
    deployment: str,
    *,
    parameters: Mapping[str, Any] | None = None,
    job_variables: Mapping[str, Any] | None = None,
    schedule_after: timedelta = timedelta(0),
) -> ByName:
    """Run `flow/deployment`, with everything that Prefect's own action knows."""
    fields = {
        "parameters": dict(parameters) if parameters else None,
        "job_variables": dict(job_variables) if job_variables else None,
        "schedule_after": schedule_after,
    }
    return ByName(type="run-deployment", kind="deployment", name=deployment, fields=fields)


def pause_deployment(deployment: str) -> ByName:
    """Pause the schedules of `flow/deployment`."""
    return ByName(type="pause-deployment", kind="deployment", name=deployment)


def resume_deployment(deployment: str) -> ByName:
    """Resume the schedules of `flow/deployment`."""
    return ByName(type="resume-deployment", kind="deployment", name=deployment)


def pause_work_pool(pool: str) -> ByName:
    """Pause a work pool."""
    return ByName(type="pause-work-pool", kind="work pool", name=pool)


def resume_work_pool(pool: str) -> ByName:
    """Resume a work pool."""
    return ByName(type="resume-work-pool", kind="work pool", name=pool)


def pause_work_queue(queue: str) -> ByName:
    """Pause `pool/queue`."""
    return ByName(type="pause-work-queue", kind="work queue", name=queue)


def resume_work_queue(queue: str) -> ByName:
    """Resume `pool/queue`."""
    return ByName(type="resume-work-queue", kind="work queue", name=queue)


def pause_automation(automation: str) -> ByName:
    """Pause an automation."""
    return ByName(type="pause-automation", kind="automation", name=automation)


def resume_automation(automation: str) -> ByName:
    """Resume an automation."""
    return ByName(type="resume-automation", kind="automation", name=automation)


def notify(block: str, *, body: str, subject: str = "penstock") -> ByName:
    """Send a notification by a block, `block-type/name` (`slack-webhook/ops`); both texts may be Jinja templates."""
    return ByName(type="send-notification", kind="block", name=block, fields={"subject": subject, "body": body})


def call_webhook(block: str, *, payload: str = "") -> ByName:
    """Call a webhook by a block (`webhook/pager`); the payload may be a Jinja template."""
    return ByName(type="call-webhook", kind="block", name=block, fields={"payload": payload})


def with_project(text: str, project: str) -> str:
    """A text with the project's name where it says so."""
    return _PROJECT.sub(lambda _: project, text)
