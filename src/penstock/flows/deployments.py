"""A project's work pool and deployments: its own flows, `ingest/<project>.<dataset>` for each dataset that none of them
consumes, `verify/<project>`, and `retain/<project>` where objects are retained for a time only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any
from uuid import UUID

from httpx import HTTPStatusError, codes
from prefect import Flow
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.objects import (
    ConcurrencyLimitConfig,
    ConcurrencyLimitStrategy,
    ConcurrencyOptions,
    DeploymentSchedule,
)
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule
from prefect.exceptions import ObjectAlreadyExists
from prefect.utilities.callables import parameter_schema

from penstock.declarations import Dataset
from penstock.errors import DeclarationError, ServerChanged
from penstock.events import deployment_name
from penstock.flows.ingest import ingest
from penstock.flows.retain import EVERY, retain
from penstock.flows.verify import verify
from penstock.own_flows import Deployment, OwnFlow
from penstock.ownership import owner_tag
from penstock.plan import Change, Finding, Kind
from penstock.schedules import shown_rule
from penstock.settings import Settings

POOL_TYPE = "penstock"

Schedules = Sequence[DeploymentScheduleCreate]

# Where a deployment can differ; what else it has is the server's or its operator's.
_FIELDS = (
    "name",
    "entrypoint",
    "parameters",
    "description",
    "work_pool_name",
    "job_variables",
    "enforce_parameter_schema",
    "parameter_openapi_schema",
)

# What of a limit differs; it is an operator's where the declaration says none.
_LIMIT = ("concurrency_limit", "collision")
_ENQUEUE = ConcurrencyLimitStrategy.ENQUEUE.value


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A deployment as it should be: `fields` are the arguments of Prefect's `create_deployment`. Holds no secret.

    `limit` is how many of its runs may be under way at once; None: as it is on the server.
    """

    flow: Flow[Any, Any]
    fields: dict[str, Any]
    schedules: Schedules
    limit: ConcurrencyLimitConfig | None = None

    @property
    def name(self) -> str:
        """`flow/deployment`."""
        return f"{self.flow.name}/{self.fields['name']}"

    @cached_property
    def parameter_schema(self) -> dict[str, Any]:
        """What its flow takes, as Prefect has it."""
        return dict(parameter_schema(self.flow).model_dump_for_openapi())


def wanted_deployment(dataset: Dataset, settings: Settings) -> Wanted:
    """The deployment that loads a dataset."""
    fields = {
        "name": deployment_name(settings.project, dataset.name),
        "entrypoint": "penstock.flows.ingest.ingest",
        "parameters": {"dataset": dataset.name},
        "description": f"Loads what is new in {dataset.prefix} into the table {dataset.name}.",
        "tags": sorted([owner_tag(settings.project), dataset.name]),
        **_alike(settings),
    }
    return Wanted(flow=ingest, fields=fields, schedules=_each_once(wanted_schedules(dataset)))


def wanted_verification(settings: Settings) -> Wanted:
    """The deployment that compares warehouse and ledger, now and then."""
    fields = {
        "name": settings.project,
        "entrypoint": "penstock.flows.verify.verify",
        "parameters": {},
        "description": "Compares the warehouse with the ledger; what the warehouse lost is loaded again.",
        "tags": [owner_tag(settings.project)],
        **_alike(settings),
    }
    every = IntervalSchedule(interval=timedelta(seconds=settings.verify_seconds))
    return Wanted(flow=verify, fields=fields, schedules=[DeploymentScheduleCreate(schedule=every)])


def wanted_retention(settings: Settings) -> Wanted:
    """The deployment that removes what the datasets no longer retain."""
    fields = {
        "name": settings.project,
        "entrypoint": "penstock.flows.retain.retain",
        "parameters": {},
        "description": "Removes what was loaded long enough ago from the store, and archives it in the ledger.",
        "tags": [owner_tag(settings.project)],
        **_alike(settings),
    }
    every = IntervalSchedule(interval=EVERY)
    return Wanted(flow=retain, fields=fields, schedules=[DeploymentScheduleCreate(schedule=every)])


def wanted_of_own(own: OwnFlow, dataset: Dataset | None, settings: Settings) -> Wanted:
    """The deployment of a flow of the project's own, and of the dataset that it consumes, if any.

    Raises DeclarationError for a schedule that Prefect does not take.
    """
    declared, flow = own.declared, own.declared.flow
    fields = {
        "name": declared.deployed_name(settings.project),
        "entrypoint": own.entrypoint,
        "parameters": dict(declared.parameters),
        "description": declared.description or flow.description or f"The flow {flow.name} in {own.file}.",
        "tags": sorted({owner_tag(settings.project), *([dataset.name] if dataset else []), *declared.tags}),
        **_alike(settings),
    }
    try:
        schedules = _own_schedules(declared)
    except ValueError as error:
        said = str(error).strip().splitlines()
        raise DeclarationError(f"{own.file}: a schedule of the flow {flow.name}: {' '.join(said)}") from error
    limit = declared.concurrency_limit
    return Wanted(
        flow=flow,
        fields=fields,
        schedules=_each_once([*schedules, *(wanted_schedules(dataset) if dataset else [])]),
        limit=None
        if limit is None
        else ConcurrencyLimitConfig(
            limit=limit, collision_strategy=ConcurrencyLimitStrategy(declared.collision.upper())
        ),
    )


def _own_schedules(declared: Deployment) -> list[DeploymentScheduleCreate]:
    every = [IntervalSchedule(interval=declared.every)] if declared.every is not None else []
    crons = [CronSchedule(cron=cron, timezone=declared.timezone) for cron in declared.cron]
    rules = [RRuleSchedule(rrule=rule, timezone=declared.timezone) for rule in declared.rrule]
    return [DeploymentScheduleCreate(schedule=schedule) for schedule in (*every, *crons, *rules)]


def _each_once(schedules: Sequence[DeploymentScheduleCreate]) -> list[DeploymentScheduleCreate]:
    """A consumer may say what its dataset says; twice it would be two runs, or one that never settles."""
    return list({_key(one.schedule): one for one in schedules}.values())


def all_wanted(datasets: Sequence[Dataset], settings: Settings, own: Sequence[OwnFlow] = ()) -> list[Wanted]:
    """Every deployment of a project. Raises DeclarationError for what is wrong with one of its own."""
    consumed = {one.declared.consumes for one in own}
    wanted = [wanted_deployment(dataset, settings) for dataset in datasets if dataset.name not in consumed]
    by_name = {dataset.name: dataset for dataset in datasets}
    wanted += [wanted_of_own(one, by_name.get(one.declared.consumes or ""), settings) for one in own]
    wanted.append(wanted_verification(settings))
    if any(dataset.retain_days is not None for dataset in datasets):
        wanted.append(wanted_retention(settings))
    return wanted


def wanted_schedules(dataset: Dataset) -> list[DeploymentScheduleCreate]:
    """The safety net: an interval, cron expressions, or both."""
    schedules: list[DeploymentScheduleCreate] = []
    if dataset.every is not None:
        schedules.append(DeploymentScheduleCreate(schedule=IntervalSchedule(interval=dataset.every)))
    schedules += [DeploymentScheduleCreate(schedule=CronSchedule(cron=cron)) for cron in dataset.cron]
    return schedules


def plan_deployments(
    wanted: Sequence[Wanted], there: Mapping[str, Mapping[str, Any]], *, tag: str
) -> tuple[list[Change], list[Change]]:
    """What has to change so that the deployments are as wanted, and what is there although nothing wants it.

    `there` are the answers of Prefect's API by `flow/deployment`; only those with `tag` are the project's.
    """
    changes = [_change(one, there.get(one.name)) for one in sorted(wanted, key=lambda one: one.name)]
    names = {one.name for one in wanted}
    gone = [
        Change(kind="delete", what="deployment", name=name, old=_form_there(found), existing=str(found["id"]))
        for name, found in sorted(there.items())
        if name not in names and tag in found["tags"]
    ]
    return changes, gone


def foreign_deployments(wanted: Sequence[Wanted], there: Mapping[str, Mapping[str, Any]], *, tag: str) -> list[Finding]:
    """What has the name of a deployment of the project's, and is not the project's."""
    return [
        Finding(
            rule="foreign-name",
            severity="error",
            name=one.name,
            reason=f"the deployment {one.name!r} is on the server and has not the tag {tag!r}: it is somebody else's. "
            "Delete or rename it, or give it that tag to have it overwritten",
        )
        for one in wanted
        if one.name in there and tag not in there[one.name]["tags"]
    ]


async def apply_deployment(client: PrefectClient, change: Change, wanted: Sequence[Wanted]) -> None:
    """Make one change of a deployment. Raises ServerChanged, having written nothing, where another did meanwhile."""
    try:
        flow, _, deployment = change.name.partition("/")
        response = await client.request(
            "GET",
            "/deployments/name/{flow_name}/{deployment_name}",
            path_params={"flow_name": flow, "deployment_name": deployment},
        )
        there = response.json()
        old: dict[str, Any] | None = _form_there(there)
    except HTTPStatusError as error:
        if error.response.status_code != codes.NOT_FOUND:
            raise
        old = None
    if old != change.old:
        raise ServerChanged(f"deployment {change.name!r} was changed since the plan: look with `penstock plan`")
    if change.kind == "delete":
        await client.delete_deployment(UUID(change.existing))
        return
    (one,) = [one for one in wanted if one.name == change.name]
    if change.new is None or change.old is None:
        await client.create_deployment(
            await client.create_flow_from_name(one.flow.name),
            **one.fields,
            schedules=list(one.schedules),
            parameter_openapi_schema=one.parameter_schema,
            concurrency_limit=one.limit.limit if one.limit else None,
            concurrency_options=ConcurrencyOptions(collision_strategy=one.limit.collision_strategy)
            if one.limit
            else None,
        )
        return
    # Creating it anew would take a concurrency limit and a queue from it that its operator gave it.
    names = (*_FIELDS, "tags", "concurrency_limit")
    fields = {name: change.new[name] for name in names if change.new[name] != change.old[name]}
    if change.new["collision"] != change.old["collision"]:
        options = there["concurrency_options"] or {}
        fields["concurrency_options"] = {**options, "collision_strategy": change.new["collision"]}
    if fields:
        await _send(client, "PATCH", f"/deployments/{change.existing}", fields)
    await _reschedule(client, change.existing, one, there["schedules"], paused=change.new["paused_schedules"])


async def _reschedule(
    client: PrefectClient, found_id: str | None, wanted: Wanted, there: Sequence[Any], *, paused: Sequence[str]
) -> None:
    path = f"/deployments/{found_id}/schedules"
    missing = {_key(item.schedule): item for item in wanted.schedules}
    for found in there:
        if missing.pop(_key(DeploymentSchedule.model_validate(found).schedule), None) is None:
            await _send(client, "DELETE", f"{path}/{found['id']}")
    for key, item in missing.items():
        await _send(client, "POST", path, [{**item.model_dump(mode="json"), "active": key not in paused}])


async def _send(client: PrefectClient, method: Any, path: Any, body: Any = None) -> None:
    (await client.request(method, path, json=body)).raise_for_status()


async def apply_pool(client: PrefectClient, name: str, job_template: dict[str, Any]) -> None:
    """Create the project's work pool. `job_template` is the worker's."""
    pool = WorkPoolCreate(
        name=name,
        type=POOL_TYPE,
        description=f"Runs of the penstock project {name}.",
        base_job_template=job_template,
    )
    # The worker, which makes a pool it does not find, may be faster.
    with suppress(ObjectAlreadyExists):
        await client.create_work_pool(pool)


def _alike(settings: Settings) -> dict[str, Any]:
    return {
        "work_pool_name": settings.project,
        "job_variables": {"working_dir": str(settings.project_dir)},
        "enforce_parameter_schema": True,
    }


def _change(wanted: Wanted, found: Mapping[str, Any] | None) -> Change:
    old = _form_there(found) if found else None
    new = _form(wanted)
    if old is not None and wanted.limit is None:
        new.update({name: old[name] for name in _LIMIT})
    # Pausing is an operator's, also where all that is scheduled is scheduled otherwise.
    paused = old["paused_schedules"] if old else []
    all_paused = bool(paused) and old is not None and paused == old["schedules"]
    new["paused_schedules"] = [key for key in new["schedules"] if all_paused or key in paused]
    kind: Kind = "create" if old is None else "unchanged" if old == new else "update"
    return Change(
        kind=kind,
        what="deployment",
        name=wanted.name,
        old=old,
        new=new,
        existing=str(found["id"]) if found else None,
    )


def _form(wanted: Wanted) -> dict[str, Any]:
    return {
        **wanted.fields,
        "schedules": sorted(_key(item.schedule) for item in wanted.schedules),
        "concurrency_limit": wanted.limit.limit if wanted.limit else None,
        "collision": wanted.limit.collision_strategy.value if wanted.limit else _ENQUEUE,
        "parameter_openapi_schema": wanted.parameter_schema,
    }


def _form_there(found: Mapping[str, Any]) -> dict[str, Any]:
    schedules = [DeploymentSchedule.model_validate(item) for item in found["schedules"]]
    # Prefect's answers say it here; what it was given as is always None in them.
    limit = found.get("global_concurrency_limit") or {}
    options = found.get("concurrency_options") or {}
    return {
        **{field: found[field] for field in _FIELDS},
        "tags": sorted(found["tags"]),
        "concurrency_limit": limit.get("limit"),
        "collision": options.get("collision_strategy", _ENQUEUE),
        "schedules": sorted(_key(item.schedule) for item in schedules),
        "paused_schedules": sorted(_key(item.schedule) for item in schedules if not item.active),
    }


def _key(schedule: Any) -> str:
    if isinstance(schedule, IntervalSchedule):
        seconds = schedule.interval / timedelta(seconds=1)
        return f"every {int(seconds) if seconds.is_integer() else seconds} s"
    zone = f" {schedule.timezone}" if schedule.timezone not in (None, "UTC") else ""
    if isinstance(schedule, RRuleSchedule):
        return f"rrule {shown_rule(schedule.rrule)}{zone}"
    return f"cron {schedule.cron}{zone}"
