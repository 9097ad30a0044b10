"""What a Prefect server has: every page of its automations, and the names of what they refer to. Reads only.

Sources: `POST /api/{automations,deployments,flows,work_pools,work_queues,block_documents}/filter`, a page being at most
200; the client's own `read_automations` reads one page only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prefect.client.orchestration import PrefectClient

from penstock.automations.forms import Form, Names, normalised, with_names

_PAGE = 200
# By age, so that one which is created meanwhile moves nothing over the edge of a page unseen.
_BY_AGE = {"automations": "CREATED_DESC"}


@dataclass(frozen=True, kw_only=True)
class ServerAutomation:
    """An automation as it is there. `form` is normalised, with names; `enabled` is in it as well."""

    id: str
    name: str
    tags: frozenset[str]
    enabled: bool
    created: str
    form: Form


@dataclass(frozen=True, kw_only=True)
class Server:
    """What was read. `deployments` are the raw answers by `flow/deployment`."""

    automations: Sequence[ServerAutomation] = ()
    names: Names = field(default_factory=Names)
    deployments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


async def read_server(client: PrefectClient, *, prefer: str = "") -> Server:
    """Read automations, deployments, and the names of what automations can refer to.

    Where several automations have one name, it means the one with the tag `prefer`, and then the oldest.
    Raises httpx.HTTPError.
    """
    raw = await _pages(client, "automations")
    raw.sort(key=lambda item: (prefer not in item["tags"], str(item["created"]), item["id"]))
    deployments = await _deployments(client)
    queues = await _pages(client, "work_queues")
    blocks = await _pages(client, "block_documents", include_secrets=False)
    names = Names.of(
        {
            "deployment": [(name, item["id"]) for name, item in deployments.items()],
            "automation": [(item["name"], item["id"]) for item in raw],
            "work pool": [(item["name"], item["id"]) for item in await _pages(client, "work_pools")],
            "work queue": [(f"{item['work_pool_name']}/{item['name']}", item["id"]) for item in queues],
            "block": [(f"{item['block_type']['slug']}/{item['name']}", item["id"]) for item in blocks if item["name"]],
        }
    )
    return Server(automations=[as_read(item, names) for item in raw], names=names, deployments=deployments)


async def read_named(client: PrefectClient, name: str, names: Names) -> list[ServerAutomation]:
    """Every automation of one name, as it is now."""
    found = await _pages(client, "automations", automations={"name": {"any_": [name]}})
    return [as_read(item, names) for item in found]


def as_read(item: Mapping[str, Any], names: Names) -> ServerAutomation:
    """An automation as the server's API has it."""
    return ServerAutomation(
        id=str(item["id"]),
        name=item["name"],
        tags=frozenset(item.get("tags") or ()),
        enabled=item["enabled"],
        created=str(item.get("created") or ""),
        form=with_names(normalised(dict(item)), names),
    )


async def ask(client: PrefectClient, method: Any, path: Any, body: Any = None) -> Any:
    """One request to the server's API, and what it answers. Raises httpx.HTTPError."""
    response = await client.request(method, path, json=body)
    response.raise_for_status()
    return response.json() if response.content else None


async def _deployments(client: PrefectClient) -> dict[str, dict[str, Any]]:
    flows = {item["id"]: item["name"] for item in await _pages(client, "flows")}
    found = await _pages(client, "deployments")
    return {f"{flows.get(item['flow_id'], '?')}/{item['name']}": item for item in found}


async def _pages(client: PrefectClient, what: str, **body: Any) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    offset = 0
    sort = {"sort": _BY_AGE[what]} if what in _BY_AGE else {}
    while True:
        page = await ask(client, "POST", f"/{what}/filter", {"limit": _PAGE, "offset": offset, **sort, **body})
        found.update({item["id"]: item for item in page})
        offset += len(page)
        if len(page) < _PAGE:
            return list(found.values())
