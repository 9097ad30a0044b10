"""`penstock apply`: bucket, deployments and automations as declared. Applying twice changes nothing."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass
from pathlib import Path

import click

from penstock.errors import NotRunning, PrefectUnavailable
from penstock.settings import Settings, load_settings
from penstock.wiring import prepare_store


@dataclass(frozen=True, kw_only=True)
class Applied:
    """One thing on the Prefect server and what was done about it."""

    what: str
    name: str
    done: str


def apply_project(settings: Settings) -> list[Applied]:
    """Create or update the project's pool, deployments and automations. Raises PrefectUnavailable."""
    from penstock.cli.prefect_processes import client_env

    if not settings.prefect_api_url:
        raise NotRunning("no Prefect server: set PENSTOCK_PREFECT_API_URL, or start one with `penstock up`")
    # Prefect reads its settings when it is imported.
    os.environ.update({name: value for name, value in client_env({}, settings).items() if name.startswith("PREFECT_")})
    return asyncio.run(_apply(settings))


async def _apply(settings: Settings) -> list[Applied]:
    import httpx
    from prefect.client.orchestration import get_client

    from penstock.automations.apply import apply_automations
    from penstock.flows.deployments import apply_deployments
    from penstock.project import load_project
    from penstock.worker import PenstockWorker

    project = load_project(settings.project_dir)
    try:
        async with get_client() as client:
            deployed = await apply_deployments(
                client,
                project.datasets,
                settings,
                job_template=PenstockWorker.get_default_base_job_template(),
            )
            changes = await apply_automations(client, project.automations, project=settings.project)
    except httpx.HTTPError as error:
        raise PrefectUnavailable(f"Prefect's server did not take it: {error}") from error
    done = {"create": "created", "update": "updated", "unchanged": "unchanged"}
    return [
        *(Applied(what="deployment" if "/" in name else "work pool", name=name, done=how) for name, how in deployed),
        *(Applied(what="automation", name=change.name, done=done[change.kind]) for change in changes),
    ]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print facts for a program.")
@click.pass_obj
def apply(project_dir: Path, as_json: bool) -> None:
    """Create or update the project's deployments and automations on its Prefect server."""
    settings = load_settings(project_dir)
    if settings.s3_endpoint:
        prepare_store(settings)
    applied = apply_project(settings)
    if as_json:
        click.echo(json.dumps([vars(one) for one in applied], indent=2))
        return
    for one in applied:
        if one.done != "unchanged":
            click.echo(f"{one.done:9}  {one.what:10}  {one.name}")
    unchanged = sum(one.done == "unchanged" for one in applied)
    click.echo(f"{len(applied) - unchanged} changed, {unchanged} unchanged. Next: penstock status")
