"""The FastAPI application of the webhook edge."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import anyio.to_thread
from anyio import CapacityLimiter
from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from penstock.errors import DeclarationError, LedgerUnavailable, StoreUnavailable, Transient
from penstock.sources import Source
from penstock.webhook import hints, hooks
from penstock.webhook.bodies import Memory
from penstock.webhook.deliveries import GroupCommit
from penstock.webhook.hints import Noted, Notifications
from penstock.webhook.hooks import Accepted, Hooks
from penstock.webhook.metrics import Metrics
from penstock.webhook.ports import Intake
from penstock.webhook.problems import Problem, documented, install, try_later
from penstock.webhook.verify import sender_headers

_PARTS: Mapping[type[Transient], str] = {StoreUnavailable: "object store", LedgerUnavailable: "ledger"}
_METRICS_MEDIA_TYPE = "text/plain"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What bounds the edge: seconds a body, an answer and a readiness check may take, deliveries, bytes."""

    read_seconds: float = 30.0
    answer_seconds: float = 25.0
    check_seconds: float = 5.0
    max_waiting: int = 1000
    max_group: int = 500
    stuck_seconds: float = 300.0
    memory_bytes: int = 256_000_000


class Health(BaseModel):
    """The process is up."""

    status: str


def create_app(
    *,
    sources: Sequence[Source],
    intake: Intake,
    resolve_secret: Callable[[str], str],
    notify_token: str,
    buckets: Sequence[str],
    clock: Callable[[], datetime],
    version: str,
    limits: Limits | None = None,
    alive: Callable[[], None] = lambda: None,
) -> FastAPI:
    """The edge for `sources`.

    `resolve_secret` gives a secret's value by the name of its variable, empty where it is unset. `notify_token`
    guards notifications and turns them off when empty; those of other buckets than `buckets` are ignored. `alive` is
    called each second while nothing stands still. Raises DeclarationError when two sources have one name.
    """
    limits = limits or Limits()
    by_name = {source.name: source for source in sources}
    if len(by_name) != len(sources):
        raise DeclarationError("two sources have the same name")
    metrics = Metrics()
    deliveries = GroupCommit(
        intake,
        max_waiting=limits.max_waiting,
        max_group=limits.max_group,
        answer_seconds=limits.answer_seconds,
        observe=metrics.group,
    )
    metrics.watch_waiting(lambda: deliveries.waiting)
    memory = Memory(limits.memory_bytes)
    taking = Hooks(
        sources=by_name,
        deliveries=deliveries,
        resolve_secret=resolve_secret,
        clock=clock,
        memory=memory,
        metrics=metrics,
        read_seconds=limits.read_seconds,
    )
    noting = Notifications(
        intake=intake,
        token=notify_token,
        buckets=buckets,
        memory=memory,
        metrics=metrics,
        read_seconds=limits.read_seconds,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        telling = asyncio.create_task(_tell(alive, deliveries, limits.stuck_seconds))
        yield
        await deliveries.close()
        telling.cancel()

    # The documentation pages load scripts from elsewhere, so there are none; /openapi.json is served.
    app = _Edge(
        title="penstock",
        version=version,
        summary="Webhooks become rows, exactly once.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.security_headers = _security_headers(sources)
    install(app)
    _add_hooks(app, taking, sources)
    _add_notifications(app, noting)
    _add_operations(app, intake, metrics, limits.check_seconds)
    return app


async def _tell(alive: Callable[[], None], deliveries: GroupCommit, stuck_seconds: float) -> None:
    while True:
        if deliveries.slowest(asyncio.get_running_loop().time()) < stuck_seconds:
            alive()
        await asyncio.sleep(1.0)


class _Direct(APIRoute):
    """A route that FastAPI documents and does not run: `endpoint` gets the request as it is and gives the response.

    Dependencies, validation and the response model are what a request costs most without them being used here.
    """

    def __init__(self, path: str, endpoint: Callable[[Request], Awaitable[Response]], **settings: Any) -> None:
        super().__init__(path, endpoint, **settings)

        async def run(scope: Scope, receive: Receive, send: Send) -> None:
            response = await endpoint(Request(scope, receive, send))
            await response(scope, receive, send)

        self.app = run


class _Edge(FastAPI):
    security_headers: Mapping[str, dict[str, Any]]

    def openapi(self) -> dict[str, Any]:
        schema = super().openapi()
        components = schema.setdefault("components", {})
        components.setdefault("schemas", {})["Problem"] = Problem.model_json_schema()
        components["securitySchemes"] = {**self.security_headers, "notify": {"type": "http", "scheme": "bearer"}}
        return schema


def _add_hooks(app: FastAPI, taking: Hooks, sources: Sequence[Source]) -> None:
    async def hook(request: Request) -> Response:
        """Take one webhook request; 202 once it is durable. The body's size is bounded per source."""
        # Taken by hand: a declared parameter would put a 422 into the document that never happens.
        accepted = await taking.take(request, request.path_params["source"])
        return Response(accepted.model_dump_json(), status_code=202, media_type="application/json")

    app.router.add_api_route(
        "/hooks/{source}",
        hook,
        methods=["POST"],
        status_code=202,
        response_model=Accepted,
        route_class_override=_Direct,
        response_description="The delivery is durable",
        responses=documented(*hooks.REFUSALS),
        openapi_extra={
            "parameters": [{"name": "source", "in": "path", "required": True, "schema": {"type": "string"}}],
            "requestBody": _any_body("What the sender sends, byte for byte as it was signed"),
            "security": _security(sources),
        },
    )


def _add_notifications(app: FastAPI, noting: Notifications) -> None:
    async def notification(request: Request) -> Noted:
        """Take a bucket notification. What cannot be used is counted, not refused."""
        return await noting.take(request)

    app.add_api_route(
        "/notifications/s3",
        notification,
        methods=["POST"],
        response_description="The notification was read",
        responses=documented(*hints.REFUSALS),
        openapi_extra={
            "requestBody": _any_body("An S3 event message, versions 2.x"),
            "security": [{"notify": []}],
        },
    )


def _add_operations(app: FastAPI, intake: Intake, metrics: Metrics, check_seconds: float) -> None:
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
        """Prometheus metrics."""
        return Response(generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app.add_api_route("/healthz", healthz, methods=["GET"], responses=documented())
    app.add_api_route("/readyz", readyz, methods=["GET"], responses=documented("not-ready"))
    app.add_api_route(
        "/metrics",
        scrape,
        methods=["GET"],
        response_class=Response,
        responses={
            200: {"content": {_METRICS_MEDIA_TYPE: {"schema": {"type": "string"}}}, "description": "The metrics"},
            **documented(),
        },
    )


def _any_body(description: str) -> dict[str, Any]:
    return {"required": True, "description": description, "content": {"application/json": {}, "*/*": {}}}


def _security(sources: Sequence[Source]) -> list[dict[str, list[str]]]:
    """One alternative per way in use: all of its headers, or nothing at all."""
    found = {
        () if source.verify.scheme == "none" else tuple(name.lower() for name in sender_headers(source.verify))
        for source in sources
    }
    return [{name: [] for name in names} for names in sorted(found)]


def _security_headers(sources: Sequence[Source]) -> dict[str, dict[str, Any]]:
    return {
        name.lower(): {"type": "apiKey", "in": "header", "name": name, "description": meaning}
        for source in sources
        if source.verify.scheme != "none"
        for name, meaning in sender_headers(source.verify).items()
    }
