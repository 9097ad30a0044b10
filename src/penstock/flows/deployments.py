"""One work pool per project, and one deployment per dataset: `ingest/<project>.<dataset>`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.utilities.callables import parameter_schema

from penstock.declarations import Dataset
from penstock.events import deployment_name
from penstock.flows.ingest import ingest
from penstock.settings import Settings

ENTRYPOINT = "penstock.flows.ingest.ingest"
POOL_TYPE = "penstock"


def wanted_deployment(dataset: Dataset, settings: Settings) -> dict[str, Any]:
    """The deployment of a dataset, as the arguments of Prefect's `create_deployment`. Holds no secret."""
    return {
        "name": deployment_name(settings.project, dataset.name),
        "entrypoint": ENTRYPOINT,
        "work_pool_name": settings.project,
        "parameters": {"dataset": dataset.name},
        "description": f"Loads what is new in {dataset.prefix} into the table {dataset.name}.",
        "tags": sorted([f"penstock:{settings.project}", dataset.name]),
        "job_variables": {"working_dir": str(settings.project_dir)},
        "enforce_parameter_schema": True,
    }


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
    flow_id = await client.create_flow_from_name(ingest.name)
    for dataset in datasets:
        wanted = wanted_deployment(dataset, settings)
        schedules = wanted_schedules(dataset)
        name = f"{ingest.name}/{wanted['name']}"
        try:
            there = await client.read_deployment_by_name(name)
        except ObjectNotFound:
            there = None
        if there is not None and _same(there, wanted, schedules):
            done.append((name, "unchanged"))
            continue
        await client.create_deployment(
            flow_id,
            **wanted,
            schedules=schedules,
            parameter_openapi_schema=parameter_schema(ingest).model_dump_for_openapi(),
        )
        done.append((name, "created" if there is None else "updated"))
    return done


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


def _same(there: Any, wanted: dict[str, Any], schedules: Sequence[DeploymentScheduleCreate]) -> bool:
    fields = all(
        sorted(there.tags) == value if field == "tags" else getattr(there, field) == value
        for field, value in wanted.items()
    )
    return fields and sorted(map(_key, there.schedules)) == sorted(map(_key, schedules))


def _key(item: Any) -> str:
    schedule = item.schedule
    if isinstance(schedule, IntervalSchedule):
        return f"every {schedule.interval / timedelta(seconds=1)}"
    return f"cron {schedule.cron}"
