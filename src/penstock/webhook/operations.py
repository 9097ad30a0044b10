"""What those who run the edge ask it: is it up, is it ready, and its metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import anyio.to_thread
from anyio import CapacityLimiter
from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.responses import Response

from penstock.errors import LedgerUnavailable, StoreUnavailable, Transient
from penstock.webhook.guard import REFUSALS
from penstock.webhook.metrics import Metrics
from penstock.webhook.ports import Intake
from penstock.webhook.problems import documented, try_later

_PARTS: Mapping[type[Transient], str] = {StoreUnavailable: "object store", LedgerUnavailable: "ledger"}
_METRICS_MEDIA_TYPE = "text/plain"
# The scheme is declared with the others, in `app`; on loopback nothing is asked for.
_SECURED: dict[str, Any] = {"security": [{}, {"operations": []}]}


class Health(BaseModel):
    """The process is up."""

    status: str


def add_operations(app: FastAPI, intake: Intake, metrics: Metrics, check_seconds: float) -> None:
    """Give `app` /healthz, /readyz and /metrics. A readiness check may take `check_seconds`."""
    checking = CapacityLimiter(2)

    async def healthz() -> Health:
        """The process is up."""
        return Health(status="up")

    async def readyz() -> Health:
        """Store and ledger answer."""
        try:
            async with asyncio.timeout(check_seconds):
                await anyio.to_thread.run_sync(intake.check, limiter=checking, abandon_on_cancel=True)
        except TimeoutError:
            raise try_later("not-ready", f"Store and ledger did not answer in {check_seconds:g} seconds.") from None
        except Transient as error:
            part = next((name for kind, name in _PARTS.items() if isinstance(error, kind)), "way in")
            raise try_later("not-ready", f"The {part} does not answer.") from error
        return Health(status="ready")

    async def scrape() -> Response:
        """Prometheus metrics, of all workers."""
        text = await anyio.to_thread.run_sync(metrics.text)
        return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    app.add_api_route("/healthz", healthz, methods=["GET"], responses=documented())
    app.add_api_route(
        "/readyz", readyz, methods=["GET"], responses=documented("not-ready", *REFUSALS), openapi_extra=_SECURED
    )
    app.add_api_route(
        "/metrics",
        scrape,
        methods=["GET"],
        response_class=Response,
        responses={
            200: {"content": {_METRICS_MEDIA_TYPE: {"schema": {"type": "string"}}}, "description": "The metrics"},
            **documented(*REFUSALS),
        },
        openapi_extra=_SECURED,
    )
