"""What a Prefect server tells of its automations: how often they acted, and why they could not. Reads only.

Sources: `POST /api/events/count-by/resource` counts on the server, whatever there is; `POST /api/events/filter` and
`GET /api/events/filter/next` give events, 50 a page.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

import httpx

from penstock.errors import PrefectUnavailable
from penstock.outbox.prefect_api import PrefectApi, as_expected

TRIGGERED = "prefect.automation.triggered"
EXECUTED = "prefect.automation.action.executed"
FAILED = "prefect.automation.action.failed"

_PAGE = 50
_AUTOMATION = "prefect.automation."
_EVENT = "prefect.event."


@dataclass(frozen=True, kw_only=True)
class Count:
    """How many events of one kind an automation had, and when the last one was."""

    count: int
    last: datetime


@dataclass(frozen=True, kw_only=True)
class FailedAction:
    """An action that could not be done. `cause` is the event that triggered it; None where none did, or it is gone."""

    at: datetime
    automation_id: str
    automation: str
    action: str
    reason: str
    cause: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class FailedActions:
    """Failed actions, in the order asked for; `complete` says that there are no more."""

    actions: Sequence[FailedAction]
    complete: bool


class PrefectHistory(PrefectApi):
    """Questions about the past. Raises PrefectUnavailable for every one that is not answered in time.

    `seconds` is the time for all questions together.
    """

    def __init__(
        self,
        url: str,
        auth: str,
        *,
        seconds: float = math.inf,
        monotonic: Callable[[], float] = time.monotonic,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        super().__init__(url, auth, timeout=min(seconds, 10.0), transport=transport)
        self._seconds = seconds
        self._monotonic = monotonic
        self._until = monotonic() + seconds

    def automations(self) -> list[dict[str, Any]]:
        """Every automation as the server has it."""
        return self._automations()

    def counts(self, event: str, *, since: datetime, until: datetime) -> dict[str, Count]:
        """How many events of that name each automation had, by its id."""
        wanted = {
            "filter": {"event": {"name": [event]}, "occurred": _occurred(since, until)},
            "time_unit": "day",
            "time_interval": 1.0,
        }
        found = self._ask("POST", "/events/count-by/resource", wanted)
        with as_expected():
            return {
                one["value"].removeprefix(_AUTOMATION): Count(
                    count=int(one["count"]), last=datetime.fromisoformat(one["end_time"])
                )
                for one in found
            }

    def last_failures(self, *, since: datetime, until: datetime, most: int = 5000) -> FailedActions:
        """The last failed action of each automation that had one."""
        only = {
            "event": {"name": [FAILED]},
            "resource": {"id_prefix": [_AUTOMATION], "distinct": True},
            "occurred": _occurred(since, until),
        }
        events, complete = self._events({**only, "order": "DESC"}, most)
        with as_expected():
            return FailedActions(actions=[_failed(event, {}) for event in events], complete=complete)

    def failures(self, *, since: datetime, until: datetime, most: int = 200) -> FailedActions:
        """The failed actions, oldest first, each with the event that triggered it."""
        only = {"event": {"name": [FAILED]}, "occurred": _occurred(since, until), "order": "ASC"}
        events, complete = self._events(only, most)
        with as_expected():
            ids = sorted({found for event in events if (found := _cause_id(event)) is not None})
        causes: dict[str, Mapping[str, Any]] = {}
        for start in range(0, len(ids), _PAGE):
            some, _ = self._events({"id": {"id": ids[start : start + _PAGE]}}, _PAGE)
            with as_expected():
                causes.update({event["id"]: event for event in some})
        with as_expected():
            return FailedActions(actions=[_failed(event, causes) for event in events], complete=complete)

    def _events(self, only: Mapping[str, Any], most: int) -> tuple[list[dict[str, Any]], bool]:
        page = self._ask("POST", "/events/filter", {"filter": only, "limit": _PAGE})
        with as_expected():
            found: list[dict[str, Any]] = list(page["events"])
            while page["next_page"] and len(found) < most:
                # Its host is how the server sees itself, which need not be how it is reached from here.
                token = parse_qs(urlsplit(page["next_page"]).query)["page-token"][0]
                page = self._ask("GET", str(httpx.URL("/events/filter/next", params={"page-token": token})))
                found += page["events"]
            return found[:most], not page["next_page"] and len(found) <= most

    def _ask(self, method: Literal["GET", "POST"], path: str, body: Any = None) -> Any:
        left = self._until - self._monotonic()
        if left <= 0:
            raise PrefectUnavailable(f"Prefect's server did not answer within {self._seconds:g} s")
        self._client.timeout = httpx.Timeout(min(left, 10.0))
        return self._send(method, path, body)


def _occurred(since: datetime, until: datetime) -> dict[str, str]:
    return {"since": since.isoformat(), "until": until.isoformat()}


def _failed(event: Mapping[str, Any], causes: Mapping[str, Mapping[str, Any]]) -> FailedAction:
    resource, payload = event["resource"], event["payload"]
    cause_id = _cause_id(event)
    return FailedAction(
        at=datetime.fromisoformat(event["occurred"]),
        automation_id=resource["prefect.resource.id"].removeprefix(_AUTOMATION),
        automation=resource.get("prefect.resource.name", ""),
        action=payload.get("action_type", ""),
        reason=payload.get("reason", "the server does not say why"),
        cause=_original(causes.get(cause_id)) if cause_id is not None else None,
    )


def _cause_id(event: Mapping[str, Any]) -> str | None:
    for related in event["related"]:
        if related.get("prefect.resource.role") == "triggering-event":
            return str(related["prefect.resource.id"]).removeprefix(_EVENT)
    return None


def _original(event: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    # An action on a trigger's change of state has that change for its cause, which holds the event behind it.
    if event is not None and event["event"].startswith(_AUTOMATION):
        return (event.get("payload") or {}).get("triggering_event") or event
    return event
