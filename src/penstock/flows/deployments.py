"""A project's work pool and deployments: `ingest/<project>.<dataset>` for each dataset, `verify/<project>`, and
`retain/<project>` where objects are retained for a time only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from prefect import Flow
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.utilities.callables import parameter_schema

from penstock.declarations import Dataset
from penstock.events import deployment_name
from penstock.flows.ingest import ingest
from penstock.flows.retain import EVERY, retain
from penstock.flows.verify import verify
from penstock.settings import Settings

POOL_TYPE = "penstock"

Schedules = Sequence[DeploymentScheduleCreate]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A deployment as it should be: `fields` are the arguments of Prefect's `create_deployment`. Holds no secret."""

    flow: Flow[Any, Any]
    fields: dict[str, Any]
    schedules: Schedules

    @property
    def name(self) -> str:
        """`flow/deployment`."""
        return f"{self.flow.name}/{self.fields['name']}"


def wanted_deployment(dataset: Dataset, settings: Settings) -> Wanted:
    """The deployment that loads a dataset."""
    fields = {
        "name": deployment_name(settings.project, dataset.name),
        "entrypoint": "penstock.flows.ingest.ingest",
        "parameters": {"dataset": dataset.name},
        "description": f"Loads what is new in {dataset.prefix} into the table {dataset.name}.",
        "tags": sorted([f"penstock:{settings.project}", dataset.name]),
        **_alike(settings),
    }
    return Wanted(flow=ingest, fields=fields, schedules=wanted_schedules(dataset))


def wanted_verification(settings: Settings) -> Wanted:
    """The deployment that compares warehouse and ledger, now and then."""
    fields = {
        "name": settings.project,
        "entrypoint": "penstock.flows.verify.verify",
        "parameters": {},
        "description": "Compares the warehouse with the ledger; what the warehouse lost is loaded again.",
        "tags": [f"penstock:{settings.project}"],
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
        "tags": [f"penstock:{settings.project}"],
        **_alike(settings),
    }
    every = IntervalSchedule(interval=EVERY)
    return Wanted(flow=retain, fields=fields, schedules=[DeploymentScheduleCreate(schedule=every)])


def all_wanted(datasets: Sequence[Dataset], settings: Settings) -> list[Wanted]:
    """Every deployment of a project."""
    wanted = [*(wanted_deployment(dataset, settings) for dataset in datasets), wanted_verification(settings)]
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


async def apply_deployments(
    client: PrefectClient, datasets: Sequence[Dataset], settings: Settings, *, job_template: dict[str, Any]
) -> list[tuple[str, str]]:
    """Create or update the pool and the deployments; returns (name, 'created' | 'updated' | 'unchanged') of each.

    `job_template` is the worker's, for a pool that does not exist yet.
    """
    done = [(settings.project, await _apply_pool(client, settings.project, job_template))]
    for wanted in all_wanted(datasets, settings):
        try:
            there = await client.read_deployment_by_name(wanted.name)
        except ObjectNotFound:
            there = None
        if there is not None and _same(there, wanted):
            done.append((wanted.name, "unchanged"))
            continue
        await client.create_deployment(
            await client.create_flow_from_name(wanted.flow.name),
            **wanted.fields,
            schedules=list(wanted.schedules),
            parameter_openapi_schema=parameter_schema(wanted.flow).model_dump_for_openapi(),
        )
        done.append((wanted.name, "created" if there is None else "updated"))
    return done


def _alike(settings: Settings) -> dict[str, Any]:
    return {
        "work_pool_name": settings.project,
        "job_variables": {"working_dir": str(settings.project_dir)},
        "enforce_parameter_schema": True,
    }


async def _apply_pool(client: PrefectClient, name: str, job_template: dict[str, Any]) -> str:
    try:
        await client.read_work_pool(name)
    except ObjectNotFound:
        pool = WorkPoolCreate(
            name=name,
            type=POOL_TYPE,
            description=f"Runs of the penstock project {name}.",
            base_job_template=job_template,
        )
        try:
            await client.create_work_pool(pool)
        except ObjectAlreadyExists:
            # The worker, which makes a pool it does not find, was faster.
            return "unchanged"
        return "created"
    return "unchanged"


def _same(there: Any, wanted: Wanted) -> bool:
    fields = all(
        sorted(there.tags) == value if field == "tags" else getattr(there, field) == value
        for field, value in wanted.fields.items()
    )
    return fields and sorted(map(_key, there.schedules)) == sorted(map(_key, wanted.schedules))


def _key(item: Any) -> str:
    schedule = item.schedule
    if isinstance(schedule, IntervalSchedule):
        return f"every {schedule.interval / timedelta(seconds=1)}"
    return f"cron {schedule.cron}"
