"""penstock: drop a file or post a webhook, and its rows are in the warehouse, exactly once.

These are the public names; a project imports from here only.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from penstock.checks import Check, accepted, matches, not_null, row_count, unique
from penstock.declarations import Backfill, Bucket, Dataset, Folder, Ready
from penstock.dialects import Csv, Excel
from penstock.errors import ObjectMissing, PenstockError, QueryRefused, TableMissing
from penstock.own_flows import Deployment
from penstock.sources import Chosen, Emit, Source, dataset_by_path, dataset_by_template
from penstock.verification import (
    DeliveryId,
    Verification,
    basic,
    bearer,
    github,
    hmac_signed,
    id_field,
    id_header,
    id_of_body,
    prefect_secret,
    slack,
    standard_webhooks,
    stripe,
    svix,
    unverified,
)

if TYPE_CHECKING:
    from penstock.automations.define import (
        Automation,
        ByName,
        call_webhook,
        notify,
        pause_automation,
        pause_deployment,
        pause_work_pool,
        pause_work_queue,
        resume_automation,
        resume_deployment,
        resume_work_pool,
        resume_work_queue,
        run_deployment,
        run_deployment_with,
    )
    from penstock.automations.everyday import (
        after_all,
        on_arrival,
        on_loaded,
        on_quarantined,
        when_failing,
        when_silent,
    )
    from penstock.flows.claim import claim
    from penstock.flows.exchange import keep, kept, land, query

# These need Prefect or Arrow, whose imports take their time: they are loaded when first used.
_LATE = {
    "Automation": "penstock.automations.define",
    "ByName": "penstock.automations.define",
    "call_webhook": "penstock.automations.define",
    "notify": "penstock.automations.define",
    "pause_automation": "penstock.automations.define",
    "pause_deployment": "penstock.automations.define",
    "pause_work_pool": "penstock.automations.define",
    "pause_work_queue": "penstock.automations.define",
    "resume_automation": "penstock.automations.define",
    "resume_deployment": "penstock.automations.define",
    "resume_work_pool": "penstock.automations.define",
    "resume_work_queue": "penstock.automations.define",
    "run_deployment": "penstock.automations.define",
    "run_deployment_with": "penstock.automations.define",
    "after_all": "penstock.automations.everyday",
    "on_arrival": "penstock.automations.everyday",
    "on_loaded": "penstock.automations.everyday",
    "on_quarantined": "penstock.automations.everyday",
    "when_failing": "penstock.automations.everyday",
    "when_silent": "penstock.automations.everyday",
    "claim": "penstock.flows.claim",
    "keep": "penstock.flows.exchange",
    "kept": "penstock.flows.exchange",
    "land": "penstock.flows.exchange",
    "query": "penstock.flows.exchange",
}

__all__ = [
    "Automation",
    "Backfill",
    "Bucket",
    "ByName",
    "Check",
    "Chosen",
    "Csv",
    "Dataset",
    "DeliveryId",
    "Deployment",
    "Emit",
    "Excel",
    "Folder",
    "ObjectMissing",
    "PenstockError",
    "QueryRefused",
    "Ready",
    "Source",
    "TableMissing",
    "Verification",
    "accepted",
    "after_all",
    "basic",
    "bearer",
    "call_webhook",
    "claim",
    "dataset_by_path",
    "dataset_by_template",
    "github",
    "hmac_signed",
    "id_field",
    "id_header",
    "id_of_body",
    "keep",
    "kept",
    "land",
    "matches",
    "not_null",
    "notify",
    "on_arrival",
    "on_loaded",
    "on_quarantined",
    "pause_automation",
    "pause_deployment",
    "pause_work_pool",
    "pause_work_queue",
    "prefect_secret",
    "query",
    "resume_automation",
    "resume_deployment",
    "resume_work_pool",
    "resume_work_queue",
    "row_count",
    "run_deployment",
    "run_deployment_with",
    "slack",
    "standard_webhooks",
    "stripe",
    "svix",
    "unique",
    "unverified",
    "when_failing",
    "when_silent",
]


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module 'penstock' has no attribute {name!r}")
    return getattr(import_module(_LATE[name]), name)
