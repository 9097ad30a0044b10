"""What those who run the edge ask it: is it up, is it ready, and its metrics."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import anyio.to_thread
from anyio import CapacityLimiter
from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.responses import Response

from penstock.errors import (
    LedgerUnavailable,
    NotMigrated,
    ObjectMissing,
    PenstockError,
    Refused,
    SettingsError,
    StoreUnavailable,
)
from penstock.webhook.guard import REFUSALS
from penstock.webhook.metrics import Metrics
from penstock.webhook.ports import Intake
from penstock.webhook.problems import documented, try_later
from penstock.webhook.routes import HEALTH, METRICS, READINESS

log = logging.getLogger(__name__)

# What is said, in words of our own: the error's may hold addresses and names. They are in the log.
_SAID: Mapping[type[PenstockError], str] = {
    StoreUnavailable: "The object store does not answer.",
    ObjectMissing: "The landing bucket is not there.",
    SettingsError: "The object store does not take our keys.",
    Refused: "The object store refuses the landing bucket.",
    LedgerUnavailable: "The ledger does not answer.",
    NotMigrated: "The ledger has another revision.",
}
_TELL_SECONDS = 60.0
_METRICS_MEDIA_TYPE = "text/plain"
# The scheme is declared with the others, in `app`; on loopback nothing is asked for.
_SECURED: dict[str, Any] = {"security": [{}, {"operations": []}]}


class Health(BaseModel):
    """The process is up."""

    status: str


def add_operations(app: FastAPI, intake: Intake, metrics: Metrics, check_seconds: float) -> None:
    """Give `app` /healthz, /readyz and /metrics. A readiness check may take `check_seconds`."""
    checking = CapacityLimiter(2)
    told: dict[str, float] = {}

    async def healthz() -> Health:
        """The process is up."""
        return Health(status="up")

    async def readyz() -> Health:
        """The landing bucket is there for our keys, and the ledger answers."""
        try:
            async with asyncio.timeout(check_seconds):
                await anyio.to_thread.run_sync(intake.check, limiter=checking, abandon_on_cancel=True)
        except TimeoutError:
            raise try_later("not-ready", f"Store and ledger did not answer in {check_seconds:g} seconds.") from None
        except PenstockError as error:
            said = next((words for kind, words in _SAID.items() if isinstance(error, kind)), "The way in is closed.")
            now = asyncio.get_running_loop().time()
            if now - told.get(said, -_TELL_SECONDS) >= _TELL_SECONDS:
                told[said] = now
                log.warning("not ready: %s", error)
            raise try_later("not-ready", said) from error
        return Health(status="ready")

    async def scrape() -> Response:
        """Prometheus metrics, of all workers."""
        text = await anyio.to_thread.run_sync(metrics.text)
        return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    app.add_api_route(HEALTH, healthz, methods=["GET"], response_description="It is up", responses=documented())
    app.add_api_route(
        READINESS,
        readyz,
        methods=["GET"],
        response_description="What is sent now can be made durable",
        responses=documented("not-ready", *REFUSALS),
        openapi_extra=_SECURED,
    )
    app.add_api_route(
        METRICS,
        scrape,
        methods=["GET"],
        response_class=Response,
        responses={
            200: {"content": {_METRICS_MEDIA_TYPE: {"schema": {"type": "string"}}}, "description": "The metrics"},
            **documented(*REFUSALS),
        },
        openapi_extra=_SECURED,
    )
