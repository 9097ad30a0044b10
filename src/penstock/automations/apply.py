"""Makes a Prefect server's automations be as planned: the only writes of this room.

What is equal is not written: a PUT gives the triggers new ids and so forgets their window counts.
"""

from __future__ import annotations

from httpx import HTTPStatusError, codes
from prefect.client.orchestration import PrefectClient

from penstock.automations.compare import comparable, marked
from penstock.automations.forms import Names, references, stand_in, with_ids
from penstock.automations.server import ServerAutomation, ask, read_named
from penstock.errors import ServerChanged
from penstock.ownership import owner, owner_tag
from penstock.plan import Change


async def apply_change(client: PrefectClient, change: Change, *, names: Names, project: str) -> Names:
    """Make one change of an automation; returns the names that there are then.

    Raises ServerChanged, having written nothing, when what is there is not what was planned for; httpx.HTTPError.
    """
    if change.kind == "unchanged":
        return names
    if change.kind == "create":
        return await _create(client, change, names, project)
    found = [one for one in await read_named(client, change.name, names) if one.id == change.existing]
    if not found or not _as_planned(found[0], change):
        raise ServerChanged(f"automation {change.name!r} was changed since the plan: look with `penstock plan`")
    if change.kind == "delete":
        await _delete(client, change.existing)
        return names
    assert change.new is not None
    enabled = change.new.get("enabled", found[0].enabled)
    if {**change.new, "enabled": None} != {**(change.old or {}), "enabled": None}:
        body = {**with_ids(marked(change.new), names), "enabled": found[0].enabled}
        await ask(client, "PUT", f"/automations/{change.existing}", body)
    if enabled != found[0].enabled:
        await ask(client, "PATCH", f"/automations/{change.existing}", {"enabled": enabled})
    return names


async def _create(client: PrefectClient, change: Change, names: Names, project: str) -> Names:
    assert change.new is not None
    for one in await read_named(client, change.name, names):
        if owner_tag(project) in one.tags:
            raise ServerChanged(f"automation {change.name!r} was created since the plan: look with `penstock plan`")
    form = marked(change.new)
    own = ("automation", change.name) in references(form)
    # One that acts on itself has no id to refer to yet.
    known = names.having("automation", change.name, stand_in("automation", change.name)) if own else names
    made = await ask(client, "POST", "/automations/", with_ids(form, known))
    # Prefect's client sends again what was not answered, and somebody else may have applied at the same moment.
    there = await read_named(client, change.name, names)
    mine = sorted((one for one in there if owner_tag(project) in one.tags), key=lambda one: (one.created, one.id))
    for twin in mine[1:]:
        await _delete(client, twin.id)
    made_id = mine[0].id if mine else made["id"]
    names = names.having("automation", change.name, made_id)
    if own:
        await ask(client, "PUT", f"/automations/{made_id}", with_ids(form, names))
    return names


async def _delete(client: PrefectClient, found_id: str | None) -> None:
    try:
        await ask(client, "DELETE", f"/automations/{found_id}")
    except HTTPStatusError as error:
        if error.response.status_code != codes.NOT_FOUND:
            raise


def _as_planned(found: ServerAutomation, change: Change) -> bool:
    old = change.old or {}
    return comparable(found.form, old) == old and owner(found.tags) == owner(old["tags"])
