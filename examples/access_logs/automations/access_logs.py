"""A file that was dropped is read at once, its figures are loaded, and an hour with too many errors calls a webhook."""

import os

from prefect.events import EventTrigger
from prefect.events.actions import DoNothing

from penstock import Automation, call_webhook, on_arrival

# The block that has the webhook's address (README.md says how it is made); without one nobody is told.
BLOCK = os.environ.get("ACCESS_LOGS_BLOCK")
TOLD = '{"text": {{ event.payload.text | tojson }}, "hour": "{{ event.payload.hour }}"}'

AUTOMATIONS = [
    on_arrival("access_logs", flow="analyse"),
    on_arrival("access_hours"),
    Automation(
        name="{project}: an hour with too many errors",
        trigger=EventTrigger(
            expect={"access_logs.errors.high"},
            match={"prefect.resource.id": "{project}.access_logs.hour.*"},
            # Each hour of its own, also when several come at once.
            for_each={"prefect.resource.id"},
        ),
        actions=[call_webhook(BLOCK, payload=TOLD) if BLOCK else DoNothing()],
    ),
]
