"""What is fuzzed: a source of every kind that there is, the same as an object here and as a file of the project."""

from __future__ import annotations

from collections.abc import Mapping

from penstock.sources import Emit, Source, dataset_by_path, dataset_by_template
from penstock.verification import (
    basic,
    bearer,
    github,
    hmac_signed,
    slack,
    standard_webhooks,
    stripe,
    svix,
    unverified,
)
from penstock.webhook.verify import new_secret

MAX_BYTES = 200_000
META_TOKEN = "META_VERIFY_TOKEN"

SOURCES: Mapping[str, Source] = {
    source.name: source
    for source in (
        Source(name="standard", dataset="fuzz", verify=standard_webhooks("STANDARD_SECRET"), max_bytes=MAX_BYTES),
        Source(name="svix", dataset="fuzz", verify=svix("SVIX_SECRET"), max_bytes=MAX_BYTES),
        Source(name="stripe", dataset="fuzz", verify=stripe("STRIPE_SECRET"), max_bytes=MAX_BYTES),
        Source(
            name="github",
            dataset="fuzz",
            verify=github("GITHUB_SECRET"),
            headers=("x-github-event",),
            max_bytes=MAX_BYTES,
        ),
        Source(name="slack", dataset="fuzz", verify=slack("SLACK_SECRET"), max_bytes=MAX_BYTES),
        Source(
            name="shopify",
            dataset="fuzz",
            verify=hmac_signed(
                "SHOPIFY_SECRET", header="X-Shopify-Hmac-Sha256", encoding="base64", id_header="X-Shopify-Webhook-Id"
            ),
            max_bytes=MAX_BYTES,
        ),
        Source(name="gitlab", dataset="fuzz", verify=bearer("GITLAB_SECRET", header="X-Gitlab-Token")),
        Source(name="token", dataset="fuzz", verify=bearer("TOKEN_SECRET"), challenge=META_TOKEN),
        Source(name="password", dataset="fuzz", verify=basic("PASSWORD_SECRET", user="shop"), keep_rejected_days=1),
        Source(name="open", dataset="fuzz", verify=unverified(because="the fuzzer's"), max_bytes=MAX_BYTES),
        Source(name="events", dataset="fuzz", verify=bearer("EVENTS_SECRET"), cloudevents=True),
        Source(
            name="path",
            dataset=dataset_by_path("body.kind", among=["fuzz", "other"], otherwise="fuzz"),
            verify=standard_webhooks("PATH_SECRET"),
            keep_rejected_days=1,
        ),
        Source(
            name="template",
            dataset=dataset_by_template("{{ body.kind }}", among=["fuzz", "other"], otherwise="fuzz"),
            verify=standard_webhooks("TEMPLATE_SECRET"),
            emit=(Emit(name="fuzz.sent", resource="fuzz.{{ body.kind }}", payload={"n": "body.n"}, when="body.n"),),
        ),
        Source(
            name="typed",
            dataset="fuzz",
            verify=standard_webhooks("TYPED_SECRET"),
            content_types=("application/json",),
        ),
        Source(name="limited", dataset="fuzz", verify=bearer("LIMITED_SECRET"), rate="10/minute"),
        Source(name="each", dataset="fuzz", verify=bearer("EACH_SECRET"), rate_per_address="10/minute"),
        Source(name="retired", dataset="fuzz", verify=bearer("RETIRED_SECRET"), retired=True),
    )
}

_IMPORTS = """import datetime

from penstock import verification
from penstock.sources import Chosen, Emit, Source
from penstock.verification import DeliveryId, Hmac, Verification

"""


def files() -> dict[str, str]:
    """The project's declarations, by path."""
    datasets = {
        f"flows/{name}.py": f'from penstock import Dataset\n\nDATASET = Dataset(name="{name}")\n'
        for name in ("fuzz", "other")
    }
    senders = {f"webhook/{name}.py": f"{_IMPORTS}SOURCE = {source!r}\n" for name, source in SOURCES.items()}
    return {**datasets, **senders}


def secrets() -> dict[str, str]:
    """A secret for each name, the same each time: a request has to be repeatable."""
    made = {}
    for source in SOURCES.values():
        for name in source.verify.secrets:
            made[name] = new_secret(source.verify, name.encode().ljust(32, b".")[:32])
    return {**made, META_TOKEN: "a-token-of-the-fuzzer"}
