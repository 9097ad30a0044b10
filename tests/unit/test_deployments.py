"""A project's deployments: what they are, and what the plan says of them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule

from penstock.declarations import Dataset
from penstock.flows.deployments import (
    Wanted,
    _key,
    all_wanted,
    foreign_deployments,
    plan_deployments,
    wanted_deployment,
    wanted_schedules,
)
from penstock.own_flows import Deployment, OwnFlow
from penstock.settings import Settings

TAG = "penstock:shop"


def test_a_schedule_that_is_said_twice_is_one() -> None:
    """Intervals that differ by little are two; numbers are told whole."""
    spans = [timedelta(days=15), timedelta(days=15, seconds=2), timedelta(seconds=0.5)]
    assert {_key(IntervalSchedule(interval=span)) for span in spans} == {
        "every 1296000 s",
        "every 1296002 s",
        "every 0.5 s",
    }
    wanted = wanted_deployment(Dataset(name="sales", cron=("0 3 * * *", "0 3 * * *")), Settings(project="shop"))
    assert len(wanted.schedules) == 1


def test_wanted_schedules() -> None:
    """The safety net is an interval, cron expressions, both or none."""
    assert wanted_schedules(Dataset(name="sales")) == []
    both = wanted_schedules(Dataset(name="sales", every=timedelta(minutes=15), cron=("0 3 * * *", "0 4 * * 1")))
    assert [type(item.schedule) for item in both] == [IntervalSchedule, CronSchedule, CronSchedule]
    assert [getattr(item.schedule, "cron", None) for item in both] == [None, "0 3 * * *", "0 4 * * 1"]
    interval = both[0].schedule
    assert isinstance(interval, IntervalSchedule)
    assert interval.interval == timedelta(minutes=15)


def test_retention_is_deployed_where_something_is_retained_for_a_time() -> None:
    """Only a dataset with `retain_days` brings the deployment that removes what is too old, by its own schedule."""
    settings = Settings(project="shop")
    keeps, retains = Dataset(name="sales"), Dataset(name="logs", retain_days=30)
    assert [wanted.name for wanted in all_wanted([keeps], settings)] == ["ingest/shop.sales", "verify/shop"]
    assert [wanted.name for wanted in all_wanted([keeps, retains], settings)][-1] == "retain/shop"
    (schedule,) = all_wanted([retains], settings)[-1].schedules
    assert isinstance(schedule.schedule, IntervalSchedule)


def test_wanted_deployment() -> None:
    """A dataset's deployment goes by project and dataset, and starts from a module path."""
    wanted = wanted_deployment(Dataset(name="sales"), Settings(project="shop")).fields
    assert wanted["name"] == "shop.sales"
    assert wanted["work_pool_name"] == "shop"
    assert wanted["entrypoint"] == "penstock.flows.ingest.ingest"
    assert wanted["parameters"] == {"dataset": "sales"}
    assert wanted["tags"] == ["penstock:shop", "sales"]


def on_server(wanted: Wanted, **changed: Any) -> dict[str, Any]:
    """What the server answers for a deployment that was applied."""
    schedules = [
        {
            "id": f"00000000-0000-4000-8000-{index:012}",
            "active": True,
            "schedule": item.schedule.model_dump(mode="json"),
        }
        for index, item in enumerate(wanted.schedules)
    ]
    return {
        **wanted.fields,
        "id": "one",
        "tags": list(reversed(wanted.fields["tags"])),
        "schedules": schedules,
        "parameter_openapi_schema": wanted.parameter_schema,
        "paused": False,
        **changed,
    }


SALES = wanted_deployment(
    Dataset(name="sales", every=timedelta(minutes=5), cron=("0 3 * * *",)), Settings(project="shop")
)


def test_what_is_not_there_is_created_and_what_is_equal_unchanged() -> None:
    """Order and ids of what the server keeps are no difference."""
    ((created,), _) = plan_deployments([SALES], {}, tag=TAG)
    assert (created.kind, created.name) == ("create", "ingest/shop.sales")
    ((unchanged,), gone) = plan_deployments([SALES], {SALES.name: on_server(SALES)}, tag=TAG)
    assert (unchanged.kind, unchanged.differences, gone) == ("unchanged", [], [])


@pytest.mark.parametrize(
    ("changed", "path"),
    [
        ({"parameters": {"dataset": "other"}}, "parameters.dataset"),
        ({"work_pool_name": "other"}, "work_pool_name"),
        ({"schedules": []}, "schedules"),
        ({"parameter_openapi_schema": {}}, "parameter_openapi_schema.properties"),
        ({"tags": [TAG]}, "tags"),
    ],
)
def test_a_difference_is_named(changed: dict[str, Any], path: str) -> None:
    """Whatever differs from what is wanted is an update, with the path of what differs."""
    ((change,), _) = plan_deployments([SALES], {SALES.name: on_server(SALES, **changed)}, tag=TAG)
    assert change.kind == "update"
    assert path in [difference.path for difference in change.differences]


def test_a_paused_schedule_stays_paused() -> None:
    """Pausing a schedule is an operator's decision and no difference."""
    there = on_server(SALES)
    there["schedules"][0]["active"] = False
    ((change,), _) = plan_deployments([SALES], {SALES.name: there}, tag=TAG)
    assert change.kind == "unchanged"
    assert change.new is not None
    assert change.new["paused_schedules"] == ["every 300 s"]


def test_only_the_projects_own_can_go() -> None:
    """What no declaration wants is named when it has the project's tag, and is nobody's business otherwise."""
    old = on_server(SALES, name="shop.old")
    other = on_server(SALES, name="shop2.sales", tags=["penstock:shop2"])
    _, gone = plan_deployments([], {"ingest/shop.old": old, "ingest/shop2.sales": other, "x/y": {"tags": []}}, tag=TAG)
    assert [(change.kind, change.name, change.existing) for change in gone] == [("delete", "ingest/shop.old", "one")]


def test_a_schedule_of_any_kind_is_told() -> None:
    """A schedule that somebody made by hand is a difference, also by its time zone."""
    for by_hand in ({"rrule": "FREQ=DAILY", "timezone": "UTC"}, {"cron": "0 3 * * *", "timezone": "Europe/Berlin"}):
        there = on_server(SALES)
        there["schedules"][1]["schedule"] = by_hand
        ((change,), _) = plan_deployments([SALES], {SALES.name: there}, tag=TAG)
        assert [difference.path for difference in change.differences] == ["schedules"]


@flow
def sync() -> None:
    """A flow of the project's own."""


def deployed(**options: Any) -> Wanted:
    own = OwnFlow(declared=Deployment(flow=sync, **options), file=Path("flows/a.py"), entrypoint="flows.a.sync")
    return all_wanted([], Settings(project="shop"), [own])[0]


def limited(wanted: Wanted, limit: int | None, collision: str | None = None, **changed: Any) -> dict[str, Any]:
    """A deployment on the server with this limit."""
    return on_server(
        wanted,
        concurrency_limit=None,
        global_concurrency_limit=None if limit is None else {"limit": limit, "active": True},
        concurrency_options=None if collision is None else {"collision_strategy": collision},
        **changed,
    )


@pytest.mark.parametrize(
    ("limit", "collision", "paths"),
    [
        (1, "CANCEL_NEW", []),
        (2, "CANCEL_NEW", ["concurrency_limit"]),
        (1, "ENQUEUE", ["collision"]),
        (None, None, ["collision", "concurrency_limit"]),
    ],
)
def test_a_declared_limit_is_compared(limit: int | None, collision: str | None, paths: list[str]) -> None:
    """What differs from the declared limit, or from what becomes of a run beyond it, is put back."""
    wanted = deployed(concurrency_limit=1, collision="cancel_new")
    ((change,), _) = plan_deployments([wanted], {wanted.name: limited(wanted, limit, collision)}, tag=TAG)
    assert change.kind == ("update" if paths else "unchanged")
    assert [difference.path for difference in change.differences] == paths


def test_a_limit_that_nothing_declares_is_its_operators() -> None:
    """Where the declaration says none, that of the server stays; a new one has none."""
    wanted = deployed()
    ((change,), _) = plan_deployments([wanted], {wanted.name: limited(wanted, 3, "CANCEL_NEW")}, tag=TAG)
    assert change.kind == "unchanged"
    ((created,), _) = plan_deployments([wanted], {}, tag=TAG)
    assert created.new is not None
    assert created.new["concurrency_limit"] is None


@pytest.mark.parametrize(
    ("rule", "there", "same"),
    [
        ("FREQ=DAILY;BYHOUR=6", "DTSTART:20200101T000000\nFREQ=DAILY;BYHOUR=6", True),
        ("FREQ=DAILY;BYHOUR=6", "DTSTART:20210101T000000\nFREQ=DAILY;BYHOUR=6", False),
        ("FREQ=MINUTELY;INTERVAL=7", "DTSTART:20200101T000700\nFREQ=MINUTELY;INTERVAL=7", True),
        ("FREQ=MINUTELY;INTERVAL=7", "DTSTART:20200101T000800\nFREQ=MINUTELY;INTERVAL=7", False),
    ],
)
def test_where_prefect_lets_a_rule_begin_is_no_difference(rule: str, there: str, same: bool) -> None:
    """It writes a beginning into a rule that has none, for frequent ones another one each time it is asked."""
    wanted = deployed(rrule=[rule])
    found = on_server(wanted)
    found["schedules"][0]["schedule"]["rrule"] = there
    ((change,), _) = plan_deployments([wanted], {wanted.name: found}, tag=TAG)
    assert (change.kind == "unchanged") is same
    assert change.new is not None
    assert change.new["schedules"] == [f"rrule {rule}"]


def test_all_paused_stays_paused_when_it_is_scheduled_otherwise() -> None:
    """Where an operator paused every schedule, a new one begins paused."""
    there = on_server(SALES)
    for found in there["schedules"]:
        found["active"] = False
    otherwise = wanted_deployment(Dataset(name="sales", every=timedelta(hours=1)), Settings(project="shop"))
    ((change,), _) = plan_deployments([otherwise], {SALES.name: there}, tag=TAG)
    assert change.new is not None
    assert change.new["paused_schedules"] == ["every 3600 s"]


def test_somebody_elses_deployment_is_not_overwritten() -> None:
    """A deployment of that name without the project's tag is an error."""
    there = {SALES.name: on_server(SALES, tags=["theirs"])}
    (found,) = foreign_deployments([SALES], there, tag=TAG)
    assert (found.severity, found.name) == ("error", "ingest/shop.sales")
    assert foreign_deployments([SALES], {SALES.name: on_server(SALES)}, tag=TAG) == []
