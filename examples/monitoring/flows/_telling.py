"""An alert's beginning or end: as a row for the dataset `alerts`, and as an event. Told twice, it is there once."""

import json
from uuid import NAMESPACE_URL, uuid5

from prefect.client.orchestration import get_client
from prefect.events import Event
from prefect.runtime import deployment

import penstock


def tell(change):
    """The object's key and the event's id come of the alert itself. Raises when store or server do not take it."""
    alert = f"{change.sensor}@{change.since:%Y-%m-%dT%H:%M:%SZ}"
    # The deployment's name has the project's in it: several of them may share a Prefect server.
    number = uuid5(NAMESPACE_URL, f"{deployment.name}/{alert}/{change.kind}")
    row = {
        "alert": alert,
        "sensor": change.sensor,
        "since": change.since.isoformat(),
        "until": change.until.isoformat() if change.until else None,
        "mean": change.mean,
    }
    penstock.land(f"alerts/{number}.json", json.dumps(row))
    event = Event(
        id=number,
        event=f"monitoring.alert.{change.kind}",
        resource={"prefect.resource.id": f"monitoring.sensor.{change.sensor}"},
        related=[
            {
                "prefect.resource.id": f"prefect.deployment.{deployment.id}",
                "prefect.resource.role": "deployment",
                "prefect.resource.name": deployment.name,
            }
        ],
        payload=row,
    )
    # Not `emit_event`, which returns before the server has the event: a run that is killed then would never tell it.
    with get_client(sync_client=True) as client:
        client.request("POST", "/events", json=[event.model_dump(mode="json")]).raise_for_status()
