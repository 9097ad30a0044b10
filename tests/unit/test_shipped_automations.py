"""The automations that this project ships, each on the event that it is for; and what the documents show."""

from __future__ import annotations

from datetime import timedelta

import pytest

from automations.on_arrival import AUTOMATIONS
from penstock import Automation, notify, on_quarantined, when_silent
from penstock.testing import arrived, does_not_fire, fires, pending, quarantined, why_not

DATASETS = ("bird_strikes", "earthquakes", "github", "sales", "weather")


@pytest.mark.parametrize(("dataset", "automation"), list(zip(DATASETS, AUTOMATIONS, strict=True)), ids=DATASETS)
def test_what_waits_in_a_dataset_runs_its_ingest(dataset: str, automation: Automation) -> None:
    """One wake-up is one run of that dataset's deployment, and another dataset's is none."""
    (firing,) = fires(automation, [pending(dataset)])
    assert [action.action["deployment"] for action in firing.actions] == [f"ingest/test.{dataset}"]
    does_not_fire(automation, [pending("another")], because="prefect.resource.id")


def test_what_the_documents_show() -> None:
    """The examples of README and docs/automations.md do what is written there."""
    told = on_quarantined(
        "sales", notify("slack-webhook/ops", body="{{ event.payload.key }}: {{ event.payload.reason }}")
    )
    (firing,) = fires(told, [quarantined("sales", key="sales/a.csv", reason="no columns")])
    assert firing.actions[0].fields["body"] == "sales/a.csv: no columns"
    quiet = when_silent("sales", timedelta(hours=6), notify("slack-webhook/ops", body="no sales for 6 hours"))
    assert fires(quiet, [arrived("sales")], until=timedelta(hours=7))
    assert "expected event came" in why_not(quiet, [arrived("sales"), arrived("sales", at=timedelta(hours=5))])
