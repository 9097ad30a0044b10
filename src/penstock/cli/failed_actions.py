"""Which failed actions of automations concerned an object: for `penstock why`, as far as Prefect answers quickly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from penstock import events
from penstock.errors import PrefectUnavailable
from penstock.model import State
from penstock.settings import Settings

if TYPE_CHECKING:
    from penstock.ledger.facts import Story
    from penstock.outbox.prefect_history import FailedAction

_SECONDS = 1.0
_STATES = frozenset(state.value for state in State)
_WAITING = frozenset({State.PENDING.value, State.CLAIMED.value})


@dataclass(frozen=True, kw_only=True)
class Concerned:
    """The failed actions of each story, by its id; `note` says what of them is not known."""

    of: Mapping[int, Sequence[FailedAction]] = field(default_factory=dict)
    asked: bool = True
    note: str | None = None


def failed_actions(settings: Settings, stories: Sequence[Story], now: datetime) -> Concerned:
    """The failed actions that concerned these objects. Never raises for a server that does not answer."""
    from penstock.outbox.prefect_history import PrefectHistory

    if not settings.prefect_api_url or not stories:
        return Concerned(asked=False)
    server = PrefectHistory(settings.prefect_api_url, settings.prefect_auth.get_secret_value(), seconds=_SECONDS)
    try:
        # A minute for a server whose clock is another.
        some = timedelta(minutes=1)
        found = server.failures(since=min(story.arrived_at for story in stories) - some, until=now + some)
    except PrefectUnavailable as error:
        return Concerned(asked=False, note=f"Prefect not asked: {error}")
    finally:
        server.close()
    return Concerned(
        of={
            story.id: [one for one in found.actions if concerns(one.cause, story, settings.project)]
            for story in stories
        },
        note=None if found.complete else "only the first failed actions since then were looked at",
    )


def concerns(cause: Mapping[str, Any] | None, story: Story, project: str) -> bool:
    """Whether the event is about the object: about itself, its delivery, its load, or its dataset while it waited."""
    if cause is None:
        return False
    resource: str = cause["resource"]["prefect.resource.id"]
    payload: Mapping[str, Any] = cause.get("payload") or {}
    if resource.startswith(f"penstock.{project}.object."):
        named = payload.get("object")
        return story.name == named if named else _is_arrival_of(story, resource, payload, project)
    if story.source and resource == events.source_resource(project, story.source)["prefect.resource.id"]:
        return bool(payload.get("delivery") == story.delivery)
    if not story.dataset or resource != events.dataset_resource(project, story.dataset)["prefect.resource.id"]:
        return False
    if cause["event"] == events.DATASET_LOADED:
        return payload.get("run") in {story.run, *(fact.run for fact in story.facts)} - {None}
    return waited(story, datetime.fromisoformat(cause["occurred"]))


def waited(story: Story, at: datetime) -> bool:
    """Whether the object waited for a run at that moment."""
    if at < story.arrived_at:
        return False
    told = [fact for fact in story.facts if fact.what in _STATES or fact.what == "replayed"]
    before = [fact.what for fact in told if fact.at <= at]
    if before:
        return before[-1] in _WAITING or before[-1] == "replayed"
    return bool(told) or story.state.value in _WAITING or at <= story.changed_at


def _is_arrival_of(story: Story, resource: str, payload: Mapping[str, Any], project: str) -> bool:
    name, _, generation = story.name.rpartition("@")
    return resource == f"penstock.{project}.object.{name}" and str(payload.get("generation")) == generation
