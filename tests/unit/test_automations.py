"""Automations as code: how they are resolved, and what the plan says."""

from __future__ import annotations

import copy
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.events.actions import PauseAutomation
from prefect.events.schemas.automations import CompoundTrigger, EventTrigger, Posture

from penstock.automations.define import Automation, on_arrival, resolve, run_deployment
from penstock.automations.diff import Change, compare, normalised
from penstock.declarations import Dataset
from penstock.errors import DeclarationError
from penstock.flows.deployments import all_wanted, wanted_deployment, wanted_schedules
from penstock.settings import Settings

DEPLOYMENT = uuid4()
IDS = {"ingest/shop.sales": DEPLOYMENT, "ingest/shop.weather": uuid4()}


def form(automation: Automation, project: str = "shop", ids: Any = None) -> dict[str, Any]:
    return resolve(automation, project=project, deployment_ids=ids or IDS).model_dump(mode="json")


def from_server(declared: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """What a server gives back for it: sets in another order, ids and times of its own."""
    found = copy.deepcopy(declared)
    for name in ("expect", "after", "for_each"):
        found["trigger"][name] = list(reversed(found["trigger"][name]))
    found["trigger"]["id"] = str(uuid4())
    found["tags"] = list(reversed(found["tags"]))
    found |= {"id": str(uuid4()), "created": "2026-03-01", "updated": "2026-03-02", "owner_resource": None}
    return found["id"], found


def test_on_arrival() -> None:
    """A wake-up of the project's own dataset runs that dataset's deployment, once for each event."""
    found = form(on_arrival("sales"))
    assert found["name"] == "shop: sales on arrival"
    assert found["tags"] == ["penstock:shop"]
    assert found["enabled"] is True
    trigger = found["trigger"]
    assert trigger["match"] == {"prefect.resource.id": "penstock.shop.dataset.sales"}
    assert trigger["expect"] == ["penstock.dataset.pending"]
    assert (trigger["posture"], trigger["threshold"], trigger["within"]) == ("Reactive", 1, 0)
    (action,) = found["actions"]
    assert (action["type"], action["source"], action["deployment_id"]) == (
        "run-deployment",
        "selected",
        str(DEPLOYMENT),
    )


def test_the_project_is_named_everywhere_it_is_meant() -> None:
    """{project} stands for the project's name in names, triggers within triggers, and deployments."""
    automation = Automation(
        name="{project}: both",
        trigger=CompoundTrigger(
            require="all",
            within=timedelta(minutes=1),
            triggers=[
                EventTrigger(match={"prefect.resource.id": "penstock.{project}.dataset.sales"}, expect={"a"}),
                EventTrigger(match_related={"prefect.resource.id": ["x.{project}", "y"]}, expect={"b.{project}"}),
            ],
        ),
        actions=[run_deployment("ingest/{project}.sales", table="t"), PauseAutomation(automation_id=uuid4())],
        tags=["mine"],
    )
    found = form(automation)
    assert "{project}" not in str(found)
    one, other = found["trigger"]["triggers"]
    assert one["match"] == {"prefect.resource.id": "penstock.shop.dataset.sales"}
    assert other["match_related"] == {"prefect.resource.id": ["x.shop", "y"]}
    assert other["expect"] == ["b.shop"]
    assert found["actions"][0]["parameters"] == {"table": "t"}
    assert found["actions"][1]["type"] == "pause-automation"
    assert found["tags"] == ["mine", "penstock:shop"]


def test_an_unknown_deployment_is_named() -> None:
    """A deployment that does not exist is named, with the automation and with those that do."""
    with pytest.raises(
        DeclarationError, match=r"rain on arrival.*'ingest/shop.rain'.*ingest/shop.sales, ingest/shop.w"
    ):
        form(on_arrival("rain"))
    with pytest.raises(DeclarationError, match="there are: none"):
        resolve(on_arrival("sales"), project="shop", deployment_ids={})


@pytest.mark.parametrize("name", ["sales", "a/b/c", ""])
def test_a_deployment_is_flow_and_name(name: str) -> None:
    """A deployment that is not written flow/deployment is refused where it is declared."""
    with pytest.raises(DeclarationError, match="flow/deployment"):
        run_deployment(name)


def test_what_the_server_adds_and_reorders_is_no_difference() -> None:
    """Equal automations are unchanged, whatever order their sets have and whatever ids the server gave."""
    trigger = EventTrigger(
        expect={"a", "b", "c"}, after={"d", "e"}, for_each={"f", "g"}, posture=Posture.Reactive, threshold=3
    )
    automation = Automation(name="x", trigger=trigger, actions=[run_deployment("ingest/shop.sales")], tags=["t", "u"])
    found_id, found = from_server(form(automation))
    (change,) = compare("automation", [form(automation)], [(found_id, found)])
    assert (change.kind, change.fields, change.existing) == ("unchanged", [], found_id)


def test_a_paused_one_stays_paused() -> None:
    """Pausing is an operator's decision and no difference."""
    found_id, found = from_server(form(on_arrival("sales")))
    (change,) = compare("automation", [form(on_arrival("sales"))], [(found_id, found | {"enabled": False})])
    assert change.kind == "unchanged"


def test_changes_name_their_fields() -> None:
    """The plan says which fields differ, creates what is not there, and is in the order of the names."""
    sales, weather = form(on_arrival("sales")), form(on_arrival("weather"))
    found_id, found = from_server(sales)
    found["description"] = "another"
    found["trigger"]["threshold"] = 7
    plan = compare("automation", [weather, sales], [(found_id, found)])
    assert [(change.kind, change.name, change.fields) for change in plan] == [
        ("update", "shop: sales on arrival", ["description", "trigger"]),
        ("create", "shop: weather on arrival", []),
    ]
    assert plan[0].existing == found_id
    assert plan[0].old is not None
    assert plan[0].new is not None
    assert (plan[0].old["trigger"]["threshold"], plan[0].new["trigger"]["threshold"]) == (7, 1)


@pytest.mark.parametrize(
    ("was", "is_now"),
    [({"id": 5}, {"id": 6}), ({"enabled": True}, {"enabled": False}), ({"tags": ["a", "b"]}, {"tags": ["b", "a"]})],
)
@pytest.mark.parametrize("field", ["parameters", "job_variables"])
def test_a_flows_own_parameters_are_compared_as_they_are(field: str, was: Any, is_now: Any) -> None:
    """A parameter may be called like something the server adds, and a change of it is a change."""

    def with_parameters(values: Any) -> dict[str, Any]:
        made = form(on_arrival("sales"))
        made["actions"][0][field] = values
        return made

    (change,) = compare("automation", [with_parameters(is_now)], [from_server(with_parameters(was))])
    assert (change.kind, change.fields) == ("update", ["actions"])
    (change,) = compare("automation", [with_parameters(was)], [from_server(with_parameters(was))])
    assert change.kind == "unchanged"


def test_two_with_one_name_are_refused() -> None:
    """Automations go by name, so that two of one name cannot both be applied; {project} counts as the name."""
    one, other = on_arrival("sales"), on_arrival("weather")
    with pytest.raises(DeclarationError, match="two automations are named 'shop: sales on arrival'"):
        compare("automation", [form(one), form(other) | {"name": "shop: sales on arrival"}], [])
    assert len(compare("automation", [form(one), form(other)], [])) == 2


def test_normalised_keeps_what_says_something() -> None:
    """None says nothing, an empty list or 0 does."""
    assert normalised({"b": 0, "a": [], "c": None, "id": 1, "d": [{"id": 1, "x": None}]}) == {
        "b": 0,
        "a": [],
        "d": [{}],
    }


def test_a_created_one_has_no_fields_to_name() -> None:
    """What is not there yet differs in nothing."""
    assert Change(kind="create", what="automation", name="x", new={"a": 1}).fields == []


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
