"""Errors as problem details (RFC 9457), of a closed set of kinds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
BODY_READ = "penstock.body_read"
RETRY_AFTER_SECONDS = 5

# How long and how far the rest of a refused body is thrown away. Closing with bytes unread resets the connection,
# and many senders would then report the reset and not the refusal.
LINGER_SECONDS = 1.0
LINGER_BYTES = 8_000_000


class Problem(BaseModel):
    """An error as problem details (RFC 9457). `type` names the kind and is what a program may rely on."""

    type: str
    title: str
    status: int
    detail: str


# kind -> (status, title). Kinds are metric labels too, so the set is closed.
KINDS: Mapping[str, tuple[int, str]] = {
    "bad-content-length": (400, "Content-Length is not a number"),
    "empty-body": (400, "The body is empty"),
    "cut-off": (400, "The request ended before its body did"),
    "unparseable": (400, "The body cannot be read"),
    "bad-cloudevent": (400, "No CloudEvents 1.0"),
    "unverified": (401, "The request is not verified"),
    "not-local": (403, "Not from here"),
    "unknown-source": (404, "No such source"),
    "wrong-method": (405, "The source does not take this method"),
    "too-slow": (408, "The body took too long"),
    "retired": (410, "The source is retired"),
    "too-large": (413, "The body is too large"),
    "content-encoding": (415, "The body's encoding is not taken"),
    "content-type": (415, "The body's type is not taken"),
    "too-many": (429, "Too many requests"),
    "busy": (503, "Too much is waiting"),
    "unavailable": (503, "It cannot be made durable now"),
    "secret-unset": (503, "The source's secret is not usable"),
    "notifications-off": (503, "Notifications are off"),
    "operations-off": (503, "There is no token to ask with"),
    "not-ready": (503, "Not ready"),
}


class Refusal(Exception):
    """A request is answered with the problem `kind`; `detail` must hold nothing that its sender may not know.

    `why` says more, for the source's own people.
    """

    def __init__(self, kind: str, detail: str, headers: Mapping[str, str] | None = None, *, why: str = "") -> None:
        super().__init__(f"{kind}: {detail}")
        self.why = why
        self.kind = kind
        self.detail = detail
        self.headers = dict(headers or {})


def try_later(kind: str, detail: str) -> Refusal:
    """A refusal that asks the sender to come back."""
    return Refusal(kind, detail, {"Retry-After": str(RETRY_AFTER_SECONDS)})


def documented(*kinds: str) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI responses of a route that may refuse with `kinds`; every route may fail with 500."""
    titles: dict[int, list[str]] = {500: ["Something went wrong in penstock"]}
    for kind in kinds:
        status, title = KINDS[kind]
        titles.setdefault(status, []).append(f"{title} (`{_type(kind)}`)")
    return {status: _response(status, "; ".join(titles[status])) for status in sorted(titles)}


def problem(refusal: Refusal) -> Problem:
    """What is said to whoever is refused."""
    status, title = KINDS[refusal.kind]
    return Problem(type=_type(refusal.kind), title=title, status=status, detail=refusal.detail)


def answer(request: Request, refusal: Refusal) -> Response:
    """The answer to a request that is refused; it ends the connection when the request's body was not read."""
    if request.scope.get(BODY_READ) or not _has_body(request):
        return _ProblemResponse(problem(refusal), refusal.headers)
    return _LastResponse(problem(refusal), refusal.headers)


def install(app: FastAPI) -> None:
    """Answer every error of `app`, the framework's own included, with a problem."""
    app.add_exception_handler(Refusal, _on_refusal)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(Exception, _on_crash)


class _ProblemResponse(Response):
    media_type = MEDIA_TYPE

    def __init__(self, problem: Problem, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(problem.model_dump_json(), status_code=problem.status, headers=headers)


class _LastResponse(_ProblemResponse):
    """The last response of its connection: it closes while the body is not read to its end."""

    def __init__(self, problem: Problem, headers: Mapping[str, str]) -> None:
        super().__init__(problem, {**headers, "Connection": "close"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_open(message: Message) -> None:
            await send({**message, "more_body": True} if message["type"] == "http.response.body" else message)

        await super().__call__(scope, receive, send_open)
        await discard(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def discard(receive: Receive) -> None:
    """Read on to the body's end, within bounds: who still sends does not read an answer."""
    discarded = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            while discarded < LINGER_BYTES:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body"):
                    return
                discarded += len(message.get("body", b""))


def _type(kind: str) -> str:
    return f"urn:penstock:problem:{kind}"


def _response(status: int, description: str) -> dict[str, Any]:
    documented: dict[str, Any] = {
        "description": description,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    if status in (429, 503):
        documented["headers"] = {
            "Retry-After": {"description": "Seconds to wait, where waiting helps", "schema": {"type": "integer"}}
        }
    return documented


async def _on_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return answer(request, error)


def _has_body(request: Request) -> bool:
    return "transfer-encoding" in request.headers or request.headers.get("content-length", "0") != "0"


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code < 400 or error.status_code in (204, 304):
        return Response(status_code=error.status_code, headers=error.headers)
    return _ProblemResponse(_plain(error.status_code, str(error.detail)), error.headers)


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    wrong = "; ".join(f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors())
    return _ProblemResponse(_plain(422, wrong))


async def _on_crash(request: Request, error: Exception) -> Response:
    return _ProblemResponse(_plain(500, "Something went wrong in penstock; its log says what."))


def _plain(status: int, detail: str) -> Problem:
    return Problem(type="about:blank", title=HTTPStatus(status).phrase, status=status, detail=detail)
