"""How many requests are answered at once. uvicorn's own limit answers without saying when to come back."""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from penstock.webhook.problems import answer, try_later
from penstock.webhook.routes import HEALTH


class Crowd:
    """Passes on at most `most` requests at a time; beyond that the answer is 503 with Retry-After."""

    def __init__(self, app: ASGIApp, *, most: int) -> None:
        self._app = app
        self._most = most
        self._there = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it."""
        # Whoever watches whether the process lives must not end it because it has much to do.
        if scope["type"] != "http" or scope["path"] == HEALTH:
            await self._app(scope, receive, send)
            return
        if self._there >= self._most:
            await answer(Request(scope), try_later("busy", "Too many requests are under way."))(scope, receive, send)
            return
        self._there += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._there -= 1
