"""Makes a Prefect server be as the project declares: the only I/O of this room.

Applying twice changes nothing. Foreign automations, those without the project's tag, are never touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags

from penstock.automations.define import Automation, owner_tag, resolve
from penstock.automations.diff import Change, compare

_PAGE = 200


async def apply_automations(client: PrefectClient, automations: Sequence[Automation], *, project: str) -> list[Change]:
    """Create or update the declared automations by name; returns what was done, in the order of the names.

    Raises DeclarationError, having changed nothing.
    """
    ids = await deployment_ids(client)
    wanted = [resolve(automation, project=project, deployment_ids=ids) for automation in automations]
    changes = compare(
        "automation", [core.model_dump(mode="json") for core in wanted], await _owned(client, owner_tag(project))
    )
    by_name = {core.name: core for core in wanted}
    for change in changes:
        if change.kind == "create":
            await client.create_automation(by_name[change.name])
        elif change.kind == "update":
            # A PUT resets the trigger's window counts, so it is made only where something differs.
            await client.update_automation(change.existing, by_name[change.name])
    return changes


async def deployment_ids(client: PrefectClient, *, tag: str | None = None) -> dict[str, Any]:
    """Every deployment's id by `flow/deployment`, whatever the page size."""
    flows = {}
    offset = 0
    while page := await client.read_flows(limit=_PAGE, offset=offset):
        flows.update({flow.id: flow.name for flow in page})
        offset += len(page)
    found: dict[str, Any] = {}
    offset = 0
    only = DeploymentFilter(tags=DeploymentFilterTags(all_=[tag])) if tag else None
    while deployments := await client.read_deployments(limit=_PAGE, offset=offset, deployment_filter=only):
        found.update({f"{flows.get(item.flow_id, '?')}/{item.name}": item.id for item in deployments})
        offset += len(deployments)
    return found


async def _owned(client: PrefectClient, tag: str) -> list[tuple[Any, dict[str, Any]]]:
    # The client's own `read_automations` reads one page only.
    found: list[tuple[Any, dict[str, Any]]] = []
    offset = 0
    while True:
        response = await client.request("POST", "/automations/filter", json={"limit": _PAGE, "offset": offset})
        response.raise_for_status()
        page = response.json()
        found += [(item["id"], item) for item in page if tag in item.get("tags", [])]
        offset += len(page)
        if len(page) < _PAGE:
            return found
