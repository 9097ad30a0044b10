"""Events that never happened, of the shapes in which penstock emits its own. Pure.

For simulations and for tests of automations; `penstock.events` has the names and fields.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from penstock import events
from penstock.model import Column, Schema

Event = dict[str, Any]

# When everything begins, unless told otherwise: a moment at which no clock is changed.
BEGIN = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
_BUCKET = "landing"
_BYTES = 100
_SCHEMA = Schema(version=1, columns=(Column(name="id", original="id", type="BIGINT"),))


def sample(
    name: str,
    subject: str,
    *,
    project: str,
    occurred: datetime,
    key: str | None = None,
    reason: str = "1 of 3 rows are bad",
    payload: dict[str, Any] | None = None,
) -> Event:
    """An event of penstock's as Prefect has it. `subject` is the dataset, or the source of a delivery.

    `payload` goes over what the event would have; a `key` makes an arrival that of one object instead of a batch.
    """
    keys = [key or f"{subject}/one.csv"]
    resource = events.dataset_resource(project, subject)
    related: list[dict[str, str]] = []
    one_object = name in {events.OBJECT_QUARANTINED, events.OBJECT_LOST} or (name == events.OBJECT_ARRIVED and key)
    if one_object:
        related = [{**resource, "prefect.resource.role": "dataset"}]
        resource = events.object_resource(project, _BUCKET, keys[0])
    found: dict[str, Any] = {}
    if name == events.OBJECT_ARRIVED:
        found = {"key": keys[0], "generation": 1, "bytes": _BYTES} if one_object else events.summary(keys, _BYTES)
    elif name == events.DATASET_PENDING:
        found = {"dataset": subject, "wakeup": 1, "attempt": 1}
    elif name == events.DATASET_LOADED:
        found = {**events.summary(keys, _BYTES), "rows": 1, "rejected": 0, "run": str(uuid4())}
    elif name == events.SCHEMA_CHANGED:
        found = events.schema_change("csv", None, _SCHEMA, "first object")
    elif name in {events.OBJECT_QUARANTINED, events.OBJECT_LOST}:
        found = {"key": keys[0], "object": f"{_BUCKET}/{keys[0]}@1", "reason": reason}
        if name == events.OBJECT_QUARANTINED:
            found["run"] = str(uuid4())
    elif name == events.DELIVERY_ACCEPTED:
        resource = events.source_resource(project, subject)
        found = {"delivery": str(uuid4()), "dataset": subject, "bytes": _BYTES, "request": uuid4().hex}
    return made(name, resource, related=related, payload={**found, **(payload or {})}, occurred=occurred)


def made(
    name: str,
    resource: dict[str, str],
    *,
    occurred: datetime,
    related: list[dict[str, str]] | None = None,
    payload: dict[str, Any] | None = None,
) -> Event:
    """Any event, as Prefect has it."""
    return {
        "id": str(uuid4()),
        "occurred": occurred.isoformat(),
        "event": name,
        "resource": resource,
        "related": related or [],
        "payload": payload or {},
    }


def since(begin: datetime, at: datetime | timedelta | None) -> datetime:
    """A moment, or so long after the beginning."""
    if isinstance(at, datetime):
        return at
    return begin + (at or timedelta(0))
