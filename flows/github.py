"""What GitHub's webhook delivers: one row a delivery, the payload kept whole."""

from penstock import Dataset

DATASET = Dataset(
    name="github",
    format="delivery",
    derive={
        "event": "headers->>'x-github-event'",
        "action": "payload->>'action'",
        "repository": "payload->'repository'->>'full_name'",
        "sender": "payload->'sender'->>'login'",
    },
    select=("delivery", "received_at", "event", "action", "repository", "sender", "payload"),
    report={"deliveries_by_event": "histogram(event)"},
)
