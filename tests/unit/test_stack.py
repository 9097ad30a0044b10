"""What `penstock up` has to say about what it found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from penstock.cli.stack import applied_elsewhere
from penstock.declarations import Dataset
from penstock.flows.deployments import all_wanted, plan_deployments
from penstock.ownership import owner_tag
from penstock.plan import Plan
from penstock.settings import Settings


def planned(*, before: str | None, now: str) -> Plan:
    """What `up` plans in one folder when the same project was applied from another."""

    def wanted(folder: str) -> Any:
        return all_wanted([Dataset(name="sales")], Settings(project="shop", project_dir=Path(folder)))

    there = {
        one.name: {"id": "1", "schedules": [], "parameter_openapi_schema": one.parameter_schema, **one.fields}
        for one in (wanted(before) if before else ())
    }
    changes, _ = plan_deployments(wanted(now), there, tag=owner_tag("shop"))
    return Plan(project="shop", changes=changes)


@pytest.mark.parametrize(
    ("before", "said"),
    [("/there/shop", "/there/shop"), ("/here/shop", None), (None, None)],
    ids=["other", "same", "new"],
)
def test_two_folders_of_one_name_are_told(before: str | None, said: str | None) -> None:
    """A second project of the same name on one server, or one that was moved, is told which folder was before."""
    assert applied_elsewhere(planned(before=before, now="/here/shop")) == said
