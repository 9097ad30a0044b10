"""What follows a load, an alert's beginning and end, and a silence."""

import os
from datetime import timedelta

from prefect.events import EventTrigger
from prefect.events.actions import DoNothing

from penstock import Automation, notify, on_arrival, run_deployment_with, when_silent

# A notification block, such as slack-webhook/ops (README.md says how it is made). Without one nobody is told.
BLOCK = os.environ.get("MONITORING_BLOCK")
SILENCE = timedelta(seconds=float(os.environ.get("MONITORING_SILENCE_SECONDS", "300")))

# Loads come every second or two. The first of 5 seconds asks for a run, and the run begins when they are over: so it
# sees the others too, for which none is asked. `throttles` is what the lint says of the first half alone. A second
# more, because Prefect rounds what a run has to wait to whole ones.
EVERY = timedelta(seconds=5)
THEN = EVERY + timedelta(seconds=1)


def told(body):
    """Tell whoever the block reaches; `body` may be a template."""
    return notify(BLOCK, subject="monitoring", body=body) if BLOCK else DoNothing()


AUTOMATIONS = [
    on_arrival("readings"),
    Automation(
        name="{project}: windows of what was loaded",
        description="Computes the windows at most once in 5 seconds, when they are over.",
        trigger=EventTrigger(
            expect={"penstock.dataset.loaded"},
            match={"prefect.resource.id": "penstock.{project}.dataset.readings"},
            threshold=1,
            within=EVERY,
        ),
        actions=[run_deployment_with("summarize/{project}", schedule_after=THEN)],
        allow=["throttles"],
    ),
    on_arrival("windows", flow="judge"),
    on_arrival("alerts"),
    Automation(
        name="{project}: alerts are told",
        description="Each alert's beginning and its end.",
        trigger=EventTrigger(
            expect={"monitoring.alert.fired", "monitoring.alert.resolved"},
            match_related={"prefect.resource.role": "deployment", "prefect.resource.name": "{project}.windows"},
            threshold=1,
        ),
        actions=[
            told(
                "{{ event.payload.sensor }}: {{ 'below' if event.payload.until else 'above' }} its threshold, "
                "{{ event.payload.mean | round(1) }} °C on average"
            )
        ],
    ),
    when_silent("readings", SILENCE, told(f"no readings for {SILENCE.total_seconds():g} seconds")),
]
