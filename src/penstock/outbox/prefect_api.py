"""The few calls to Prefect's HTTP API that the relay makes. No import of Prefect: the relay stays small.

Sources: `POST /api/events` (an event's fields as in Prefect's `Event` model), `GET /api/deployments/name/…`,
`POST /api/deployments/{id}/create_flow_run`, `POST /api/automations/filter`, `POST /api/flow_runs/count`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import httpx

from penstock.errors import PrefectFailed, PrefectRefused, PrefectUnavailable
from penstock.model import OutboxEvent

# Prefect answers 204 to an event over 1.5 MB and drops it; stay well under.
LARGEST_EVENT = 1_000_000

# What says that it is the request, not the server: the same again has the same answer.
_REFUSALS = frozenset({400, 409, 413, 422})

# How long a run may wait in a state before it is taken for lost (its worker died with it, or none looks where it is).
_WAITING = {"SCHEDULED": timedelta(hours=1), "PENDING": timedelta(minutes=1)}

# A page of `POST /api/automations/filter`.
_PAGE = 200


@dataclass(frozen=True, kw_only=True)
class Reach:
    """How a deployment can be woken: its id (None: there is none), and the automations that run it.

    `scheduled`: there are none, and it runs by a schedule.
    """

    deployment: str | None
    automation: Literal["enabled", "paused", "none", "scheduled"]


class PrefectApi:
    """A Prefect server, over HTTP. Raises PrefectUnavailable whenever it does not do what was asked.

    PrefectFailed, which is one, says that it answered with an error; PrefectRefused, that it always will.
    """

    def __init__(
        self, url: str, auth: str, *, timeout: float = 10.0, transport: httpx.BaseTransport | None = None
    ) -> None:
        headers = {"Authorization": "Basic " + base64.b64encode(auth.encode()).decode()} if auth else {}
        self._client = httpx.Client(base_url=url, headers=headers, timeout=timeout, transport=transport)

    def post_events(self, found: Sequence[OutboxEvent]) -> None:
        """Emit events; returning means that the server took them."""
        self._send("POST", "/events", [_wire(event) for event in found])

    def reach(self, *, flow: str, deployment: str) -> Reach:
        """How a deployment can be woken: whether it exists, and whether an enabled automation runs it."""
        found = self._call("GET", f"/deployments/name/{flow}/{deployment}")
        if found.status_code == httpx.codes.NOT_FOUND:
            return Reach(deployment=None, automation="none")
        answer = self._checked(found)
        with as_expected():
            deployment_id = str(answer["id"])
            enabled = [
                automation["enabled"]
                for automation in self._automations()
                if any(
                    action.get("type") == "run-deployment" and action.get("deployment_id") == deployment_id
                    for action in automation["actions"]
                )
            ]
            scheduled = not answer["paused"] and any(schedule["active"] for schedule in answer["schedules"])
        if not enabled:
            return Reach(deployment=deployment_id, automation="scheduled" if scheduled else "none")
        return Reach(deployment=deployment_id, automation="enabled" if any(enabled) else "paused")

    def create_run(self, deployment_id: str, *, idempotency_key: str, reason: str) -> str:
        """Create a run of a deployment and return its id; the same key again is the same run."""
        run = self._send(
            "POST",
            f"/deployments/{deployment_id}/create_flow_run",
            {
                "idempotency_key": idempotency_key,
                "tags": ["penstock:fallback"],
                "state": {"type": "SCHEDULED", "message": reason},
            },
        )
        with as_expected():
            return str(run["id"])

    def waiting(self, *, flow: str, deployment: str, now: datetime) -> int:
        """How many runs of a deployment wait for a worker; one that a schedule planned for later does not."""
        return sum(self._count(flow, deployment, state, now - longest, now) for state, longest in _WAITING.items())

    def is_up(self) -> bool:
        """Whether the server answers its health check."""
        try:
            self._send("GET", "/health")
        except PrefectUnavailable:
            return False
        return True

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _count(self, flow: str, deployment: str, state: str, after: datetime, before: datetime) -> int:
        found = self._send(
            "POST",
            "/flow_runs/count",
            {
                "flows": {"name": {"any_": [flow]}},
                "deployments": {"name": {"any_": [deployment]}},
                "flow_runs": {
                    "state": {"type": {"any_": [state]}},
                    "expected_start_time": {"after_": after.isoformat(), "before_": before.isoformat()},
                },
            },
        )
        with as_expected():
            return int(found)

    def _automations(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            page = self._send("POST", "/automations/filter", {"limit": _PAGE, "offset": len(found)})
            found += page
            if len(page) < _PAGE:
                return found

    def _send(self, method: str, path: str, body: Any = None) -> Any:
        return self._checked(self._call(method, path, body))

    def _call(self, method: str, path: str, body: Any = None) -> httpx.Response:
        try:
            return self._client.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise PrefectUnavailable(f"Prefect's server does not answer: {type(error).__name__}: {error}") from error

    def _checked(self, response: httpx.Response) -> Any:
        if response.is_error:
            kind = PrefectRefused if response.status_code in _REFUSALS else PrefectFailed
            raise kind(f"Prefect's server answered {response.status_code} to {_asked(response)}")
        try:
            return response.json() if response.content else None
        except ValueError:
            raise PrefectFailed(
                f"what answers {_asked(response)} is no Prefect API; look at PENSTOCK_PREFECT_API_URL"
            ) from None


@contextmanager
def as_expected() -> Iterator[None]:
    """An answer of another shape than is known is PrefectFailed."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PrefectFailed(f"Prefect's answer is not of the shape that is known: {error!r}") from error


def _asked(response: httpx.Response) -> str:
    return f"{response.request.method} {response.request.url.path}"


def _wire(event: OutboxEvent) -> dict[str, Any]:
    payload = event.payload
    if len(json.dumps(payload)) > LARGEST_EVENT:
        payload = {"penstock": "the payload was larger than Prefect takes; ask `penstock why`"}
    return {
        "id": event.id,
        "occurred": event.occurred_at.isoformat(),
        "event": event.name,
        "resource": event.resource,
        "related": event.related,
        "payload": payload,
    }
