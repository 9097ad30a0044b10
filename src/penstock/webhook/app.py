"""The FastAPI application of the webhook edge."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from penstock.errors import DeclarationError
from penstock.sources import Source
from penstock.webhook import hints, hooks
from penstock.webhook.bodies import Memory
from penstock.webhook.deliveries import GroupCommit
from penstock.webhook.hints import Noted, Notifications
from penstock.webhook.hooks import Accepted, AcceptedBatch, Hooks, Shaken
from penstock.webhook.metrics import Metrics
from penstock.webhook.operations import add_operations
from penstock.webhook.ports import Intake
from penstock.webhook.problems import Problem, documented, install
from penstock.webhook.rates import Rates
from penstock.webhook.rejected import Rejected
from penstock.webhook.routes import HOOK, NOTIFICATIONS
from penstock.webhook.verify import sender_headers


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What bounds the edge: seconds a body, an answer and a readiness check may take, deliveries, bytes."""

    read_seconds: float = 30.0
    answer_seconds: float = 25.0
    check_seconds: float = 5.0
    # Eight batches of CloudEvents; their bytes are bounded by memory_bytes.
    max_waiting: int = 4000
    max_group: int = 500
    stuck_seconds: float = 300.0
    memory_bytes: int = 256_000_000
    free_bytes: int = 64 * 1024


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
    metrics: Metrics | None = None,
    reject: Callable[[Rejected], None] = lambda _: None,
    processes: int = 1,
    around: Callable[[ASGIApp], ASGIApp] = lambda app: app,
) -> FastAPI:
    """The edge for `sources`.

    `resolve_secret` gives a secret's value by the name of its variable, empty where it is unset. `notify_token`
    guards notifications and turns them off when empty; those of other buckets than `buckets` are ignored. `alive` is
    called each second while nothing stands still. `around` is what every request passes first, and every answer last,
    that of a crash too. `reject` is told what was refused of a source that keeps it; it neither waits nor raises.
    `processes` is how many such apps share the rates. Raises DeclarationError when two sources have one name, and for a
    path or template that is none.
    """
    limits = limits or Limits()
    by_name = {source.name: source for source in sources}
    if len(by_name) != len(sources):
        raise DeclarationError("two sources have the same name")
    metrics = metrics or Metrics()
    deliveries = GroupCommit(
        intake,
        max_waiting=limits.max_waiting,
        max_group=limits.max_group,
        answer_seconds=limits.answer_seconds,
        observe=metrics.group,
    )
    metrics.watch_waiting(lambda: deliveries.waiting)
    memory = Memory(limits.memory_bytes, free=limits.free_bytes)
    taking = Hooks(
        sources=by_name,
        deliveries=deliveries,
        resolve_secret=resolve_secret,
        clock=clock,
        memory=memory,
        metrics=metrics,
        rates=Rates(sources, processes=processes),
        reject=reject,
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
        telling = asyncio.create_task(_tell(alive, deliveries, metrics, limits.stuck_seconds))
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
        # A redirect would lead wherever the request's Host says.
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.security_headers = _security_headers(sources)
    app.around = around
    install(app)
    _add_hooks(app, taking, sources)
    _add_notifications(app, noting)
    add_operations(app, intake, metrics, limits.check_seconds)
    return app


async def _tell(alive: Callable[[], None], deliveries: GroupCommit, metrics: Metrics, stuck_seconds: float) -> None:
    while True:
        metrics.tell_waiting()
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
    around: Callable[[ASGIApp], ASGIApp]

    def build_middleware_stack(self) -> ASGIApp:
        return self.around(super().build_middleware_stack())

    def openapi(self) -> dict[str, Any]:
        schema = super().openapi()
        components = schema.setdefault("components", {})
        components.setdefault("schemas", {})["Problem"] = Problem.model_json_schema()
        bearer = {"type": "http", "scheme": "bearer"}
        components["securitySchemes"] = {**self.security_headers, "notify": bearer, "operations": bearer}
        return schema


def _add_hooks(app: FastAPI, taking: Hooks, sources: Sequence[Source]) -> None:
    # The source is taken by hand: a declared parameter would put a 422 into the document that never happens.
    parameters = [{"name": "source", "in": "path", "required": True, "schema": {"type": "string"}}]

    async def hook(request: Request) -> Response:
        """Take one webhook request; 202 once it is durable. The body's size is bounded per source."""
        return await taking.take(request, request.path_params["source"])

    app.router.add_api_route(
        HOOK,
        hook,
        methods=["POST"],
        status_code=202,
        response_model=Accepted | AcceptedBatch,
        route_class_override=_Direct,
        response_description="What was sent is durable",
        responses={
            200: {"model": Shaken, "description": "A handshake was answered, nothing was delivered"},
            **documented(*hooks.REFUSALS),
        },
        openapi_extra={
            "parameters": parameters,
            "requestBody": _any_body("What the sender sends, byte for byte as it was signed"),
            "security": _security(sources),
        },
    )

    async def challenge(request: Request) -> Response:
        """Answer the challenge of a sender that asks by GET, with the secret that it was given."""
        return await taking.greet(request, request.path_params["source"])

    async def permission(request: Request) -> Response:
        """Tell a sender of CloudEvents that it may send."""
        return await taking.greet(request, request.path_params["source"])

    for method, endpoint, content in (
        ("GET", challenge, {"text/plain": {"schema": {"type": "string"}}}),
        ("OPTIONS", permission, {}),
    ):
        app.router.add_api_route(
            HOOK,
            endpoint,
            methods=[method],
            response_class=Response,
            route_class_override=_Direct,
            responses={
                200: {"content": content, "description": "The sender may send"},
                **documented(*hooks.GREETING_REFUSALS),
            },
            openapi_extra={"parameters": parameters},
        )


def _add_notifications(app: FastAPI, noting: Notifications) -> None:
    async def notification(request: Request) -> Noted:
        """Take a bucket notification. What cannot be used is counted, not refused."""
        return await noting.take(request)

    app.add_api_route(
        NOTIFICATIONS,
        notification,
        methods=["POST"],
        response_description="The notification was read",
        responses=documented(*hints.REFUSALS),
        openapi_extra={
            "requestBody": _any_body("An S3 event message, versions 2.x"),
            "security": [{"notify": []}],
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
