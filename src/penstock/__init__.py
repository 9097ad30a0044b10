"""penstock: drop a file or post a webhook, and its rows are in the warehouse, exactly once.

These are the public names; a project imports from here only.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from penstock.declarations import (
    Bucket,
    Dataset,
    Folder,
    Source,
    Verification,
    github,
    standard_webhooks,
    unverified,
)
from penstock.errors import PenstockError

if TYPE_CHECKING:
    from penstock.automations.define import Automation, on_arrival, run_deployment

# These need Prefect, whose import takes a second: they are loaded when first used.
_LATE = {
    "Automation": "penstock.automations.define",
    "on_arrival": "penstock.automations.define",
    "run_deployment": "penstock.automations.define",
}

__all__ = [
    "Automation",
    "Bucket",
    "Dataset",
    "Folder",
    "PenstockError",
    "Source",
    "Verification",
    "github",
    "on_arrival",
    "run_deployment",
    "standard_webhooks",
    "unverified",
]


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module 'penstock' has no attribute {name!r}")
    return getattr(import_module(_LATE[name]), name)
