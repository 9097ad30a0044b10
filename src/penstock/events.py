"""Names, resource ids and payloads of the Prefect events penstock emits. Pure.

Resource ids are `penstock.<project>.dataset.<name>`, `….object.<bucket>/<key>` and `….source.<name>`.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from penstock.model import Schema

OBJECT_ARRIVED = "penstock.object.arrived"
DATASET_PENDING = "penstock.dataset.pending"
DATASET_LOADED = "penstock.dataset.loaded"
SCHEMA_CHANGED = "penstock.dataset.schema_changed"
OBJECT_QUARANTINED = "penstock.object.quarantined"
OBJECT_LOST = "penstock.object.lost"
DELIVERY_ACCEPTED = "penstock.delivery.accepted"

# Events whose names begin so are penstock's and Prefect's own: nobody else may have them sent.
RESERVED = ("prefect.", "prefect-cloud.", "penstock.")

# The label by which a further event's related source names the HTTP request that brought it.
REQUEST = "penstock.request"

# Prefect drops an event over 1.5 MB silently; a summary names only so many keys.
SUMMARY_KEYS = 10
# An object may bring ten thousand columns, with types and names of any length.
_CHANGES, _LONGEST = 100, 300

_SUMMARY = {"objects": "integer", "bytes": "integer", "keys": "array"}
PAYLOADS: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    # The summary of a batch is always sent; one event for each object besides where the dataset asks for it.
    OBJECT_ARRIVED: {
        "dataset": _SUMMARY,
        "object": {"key": "string", "generation": "integer", "bytes": "integer"},
    },
    DATASET_PENDING: {"dataset": {"dataset": "string", "wakeup": "integer", "attempt": "integer"}},
    DATASET_LOADED: {"dataset": {**_SUMMARY, "rows": "integer", "rejected": "integer", "run": "string"}},
    SCHEMA_CHANGED: {
        "dataset": {
            "format": "string",
            "version": "integer",
            "before": "integer",
            "columns": "integer",
            "added": "array",
            "widened": "array",
            "cause": "string",
        },
    },
    OBJECT_QUARANTINED: {"object": {"key": "string", "object": "string", "reason": "string", "run": "string"}},
    OBJECT_LOST: {"object": {"key": "string", "object": "string", "reason": "string"}},
    DELIVERY_ACCEPTED: {
        "source": {"delivery": "string", "dataset": "string", "bytes": "integer", "request": "string"},
    },
}
"""What the payload of each event has: by the kind of its resource, each field with its type in JSON Schema's words.

Who changes an emitter changes this: the lint tells by it which fields a template may name.
"""

SENT: Mapping[str, str] = {
    OBJECT_ARRIVED: "objects were recorded as new; for each object too where the dataset says `event_per_object`",
    DATASET_PENDING: "something waits and no run is at it: the wake-up, sent again until a run takes the dataset",
    DATASET_LOADED: "rows and markers are committed; one event for each transaction, which may be of many objects",
    SCHEMA_CHANGED: "the remembered schema of a dataset has a new version",
    OBJECT_QUARANTINED: "an object or a delivery went into quarantine",
    OBJECT_LOST: "the warehouse no longer has what was loaded; it is loaded again where the store still has it",
    DELIVERY_ACCEPTED: "a delivery was accepted for the first time, where the source says `event_per_delivery`",
}
"""When each event is sent."""

FIELDS: Mapping[str, str] = {
    "added": "columns that are new, each with `name` and `type`; the first 100",
    "attempt": "how often it was sent, from 1 on",
    "before": "the version before; 0: this is the first",
    "bytes": "how many bytes it has, or they have together",
    "cause": "the object that brought the change",
    "columns": "how many columns there are now",
    "dataset": "the dataset's name",
    "delivery": "the delivery's id",
    "format": "the format that the schema is of",
    "generation": "which writing of the key it is",
    "key": "the object's key",
    "keys": "the keys of the first 10",
    "object": "the name in ledger and warehouse: bucket/key@generation",
    "objects": "how many objects",
    "reason": "why, in words",
    "rejected": "how many rows were put aside",
    "request": "the id of the HTTP request, as in the access log",
    "rows": "how many rows were loaded",
    "run": "the flow run that did it",
    "version": "the version that it is now",
    "wakeup": "the wake-up's number",
    "widened": "columns of a wider type, each with `name`, `from` and `to`; the first 100",
}
"""What each field of a payload says."""

_NAMESPACE = uuid.UUID("7f0e3a58-52a8-5d0c-9a3c-6d1c8d0b7a11")


def event_id(*parts: object) -> str:
    """The same content gives the same id, so that sending an event again is not a second event."""
    return str(uuid.uuid5(_NAMESPACE, "\x1f".join(str(part) for part in parts)))


def dataset_resource(project: str, dataset: str) -> dict[str, str]:
    """The resource of everything that happens to a dataset."""
    return {
        "prefect.resource.id": f"penstock.{project}.dataset.{dataset}",
        "prefect.resource.name": dataset,
        "penstock.project": project,
        "penstock.dataset": dataset,
    }


def object_resource(project: str, bucket: str, key: str) -> dict[str, str]:
    """The resource of what happens to one key."""
    return {
        "prefect.resource.id": f"penstock.{project}.object.{bucket}/{key}",
        "prefect.resource.name": key,
        "penstock.project": project,
    }


def source_resource(project: str, source: str) -> dict[str, str]:
    """The resource of what a webhook sender sent."""
    return {
        "prefect.resource.id": f"penstock.{project}.source.{source}",
        "prefect.resource.name": source,
        "penstock.project": project,
    }


def summary(keys: list[str], total_bytes: int) -> dict[str, Any]:
    """The payload of one event for a batch of arrivals: counts and the first keys."""
    return {"objects": len(keys), "bytes": total_bytes, "keys": keys[:SUMMARY_KEYS]}


def schema_change(form: str, before: Schema | None, after: Schema, cause: str) -> dict[str, Any]:
    """The payload of a schema's new version: what it has more, and wider; `before` is 0 for the first one."""
    was = {column.name: column.type for column in before.columns} if before else {}
    added = [column for column in after.columns if column.name not in was]
    wider = [column for column in after.columns if was.get(column.name, column.type) != column.type]
    return {
        "format": form,
        "version": after.version,
        "before": before.version if before else 0,
        "columns": len(after.columns),
        "added": [{"name": c.name, "type": _cut(c.type)} for c in added[:_CHANGES]],
        "widened": [{"name": c.name, "from": _cut(was[c.name]), "to": _cut(c.type)} for c in wider[:_CHANGES]],
        "cause": _cut(cause),
    }


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def deployment_name(project: str, dataset: str) -> str:
    """The dataset's deployment under the flow `ingest`: many projects share one server."""
    return f"{project}.{dataset}"
