"""Makes the plan of a project for its Prefect server, and carries it out; `plan`, `apply` and `up` share it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from penstock.errors import NotRunning, PenstockError, PrefectRefused, PrefectUnavailable
from penstock.ownership import owner_tag
from penstock.plan import Change, Plan
from penstock.settings import Settings

if TYPE_CHECKING:
    import httpx
    from prefect.client.orchestration import PrefectClient

    from penstock.automations.define import Kind
    from penstock.automations.forms import Names
    from penstock.flows.deployments import Wanted

_Result = TypeVar("_Result")
_REFUSALS = frozenset({400, 403, 404, 409, 422})


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A plan and what is needed to carry it out."""

    plan: Plan
    names: Names
    wanted: Sequence[Wanted]


def with_prefect(settings: Settings, work: Callable[[PrefectClient], Coroutine[Any, Any, _Result]]) -> _Result:
    """What `work` returns, given a client of the project's Prefect server.

    Raises NotRunning, PrefectUnavailable, and PrefectRefused for what the server does not take as it is.
    """
    from penstock.cli.prefect_processes import client_env

    if not settings.prefect_api_url:
        raise NotRunning("no Prefect server: set PENSTOCK_PREFECT_API_URL, or start one with `penstock up`")
    env = {name: value for name, value in client_env({}, settings).items() if name.startswith("PREFECT_")}
    # Else Prefect warns that it could not make it.
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    (settings.home / "prefect").mkdir(exist_ok=True, mode=0o700)
    # Prefect reads its settings when it is imported, which may have been before.
    os.environ.update(env)
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    server = {PREFECT_API_URL: env["PREFECT_API_URL"], PREFECT_API_AUTH_STRING: env["PREFECT_API_AUTH_STRING"] or None}

    async def working() -> _Result:
        with temporary_settings(server):
            async with _client() as client:
                return await work(client)

    return asyncio.run(working())


@asynccontextmanager
async def _client() -> AsyncIterator[PrefectClient]:
    import httpx
    from prefect.client.orchestration import get_client

    try:
        async with get_client() as client:
            yield client
    except httpx.HTTPStatusError as error:
        kind = PrefectRefused if error.response.status_code in _REFUSALS else PrefectUnavailable
        asked = f"{error.request.method} {error.request.url.path}"
        raise kind(
            f"Prefect's server answered {error.response.status_code} to {asked}{_why(error.response)}"
        ) from error
    except httpx.HTTPError as error:
        raise PrefectUnavailable(f"Prefect's server does not answer: {type(error).__name__}: {error}") from error


def _why(response: httpx.Response) -> str:
    """What the server says is wrong; not the request, which it repeats and in which a secret may be."""
    try:
        found = response.json()
    except ValueError:
        return ""
    if details := found.get("exception_detail"):
        return ": " + "; ".join(f"{'.'.join(map(str, one.get('loc', ())))}: {one.get('msg')}" for one in details)
    return f": {found['detail']}" if isinstance(found.get("detail"), str) else ""


async def make_plan(client: PrefectClient, settings: Settings, *, prune: bool = False) -> Planned:
    """Compare what the project declares with what the server has. Writes nothing."""
    from penstock.automations.compare import Compared, SameName, compare, foreign_names
    from penstock.automations.forms import as_deployed, form_of, with_names
    from penstock.automations.lint import lint
    from penstock.automations.parameters import Accepts
    from penstock.automations.server import read_server
    from penstock.flows.deployments import all_wanted, foreign_deployments, plan_deployments
    from penstock.project import load_project
    from penstock.webhook import choice

    project = load_project(settings.project_dir)
    for source in project.sources:
        choice.check(source)
    tag = owner_tag(settings.project)
    forms = [form_of(automation, project=settings.project) for automation in project.automations]
    server = await read_server(client, prefer=tag)
    wanted = all_wanted(project.datasets, settings, project.own_flows)
    there = {*server.deployments, *(one.name for one in wanted)}
    declared = [
        (as_deployed(with_names(form, server.names), there), automation)
        for form, automation in zip(forms, project.automations, strict=True)
    ]
    deployments, gone = plan_deployments(wanted, server.deployments, tag=tag)
    try:
        compared = compare(declared, server.automations, project=settings.project, prune=prune)
    except SameName:
        # The lint says which, and in which files.
        compared = Compared(changes=(), kept=(), owned=0)
    to_be: dict[Kind, list[str]] = {
        "deployment": [one.name for one in wanted],
        "work pool": [settings.project],
        "work queue": [f"{settings.project}/default"],
        "automation": [form["name"] for form, _ in declared],
    }
    going = {
        change.existing
        for change in (*compared.changes, *(gone if prune else ()))
        if change.kind == "delete" and change.existing
    }
    findings = lint(
        declared,
        names=server.names.without(going).knowing(to_be).consumed_by(project.consumers, project=settings.project),
        schemas={
            **{name: Accepts.of(raw) for name, raw in server.deployments.items() if raw["id"] not in going},
            **{one.name: Accepts(schema=one.parameter_schema, given=one.fields["parameters"]) for one in wanted},
        },
        foreign=foreign_names(server.automations, tag),
        files=project.declared_in,
    )
    findings += foreign_deployments(wanted, server.deployments, tag=tag)
    pool = Change(
        kind="unchanged" if server.names.id_of("work pool", settings.project) else "create",
        what="work pool",
        name=settings.project,
    )
    plan = Plan(
        project=settings.project,
        changes=[pool, *deployments, *compared.changes, *(gone if prune else ())],
        findings=findings,
        owned=compared.owned + sum(tag in found["tags"] for found in server.deployments.values()),
        kept=[*compared.kept, *(() if prune else gone)],
    )
    return Planned(plan=plan, names=server.names, wanted=wanted)


def leaving_out(planned: Planned, rule: str) -> Planned:
    """The plan without the automations that break a rule, and those that refer to one which is not there then."""
    from penstock.automations.forms import references

    plan = planned.plan
    declared = [change for change in plan.changes if change.what == "automation" and change.new]
    out = {found.name for found in plan.errors if found.rule == rule}
    while True:
        away = {change.name for change in declared if change.name in out and not change.existing}
        more = {
            change.name
            for change in declared
            if change.name not in out
            and any(kind == "automation" and name in away for kind, name in references(change.new or {}))
        }
        if not more:
            return replace(planned, plan=plan.without(out, rule, "refers to an automation that is left out"))
        out |= more


async def carry_out(client: PrefectClient, planned: Planned, *, say: Callable[[Change], None]) -> None:
    """Make every change of the plan, in its order; `say` is told of each that was made.

    What was made before an error stays: planned again, the rest is left to do. Raises ServerChanged.
    """
    from penstock.automations.apply import apply_change
    from penstock.automations.server import read_server
    from penstock.flows.deployments import apply_deployment, apply_pool
    from penstock.worker import PenstockWorker

    names, project = planned.names, planned.plan.project
    stale = False
    for change in planned.plan.to_do:
        if change.what == "work pool":
            await apply_pool(client, change.name, PenstockWorker.get_default_base_job_template())
            stale = True
        elif change.what == "deployment":
            await apply_deployment(client, change, planned.wanted)
            stale = True
        else:
            if stale:
                names, stale = (await read_server(client, prefer=owner_tag(project))).names, False
            names = await apply_change(client, change, names=names, project=project)
        say(change)


def refuse_errors(plan: Plan) -> None:
    """Raise PenstockError with everything that must be mended first."""
    if plan.errors:
        raise PenstockError("\n".join(f"{found.rule}: {found.reason}" for found in plan.errors))
