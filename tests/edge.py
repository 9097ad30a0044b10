"""The edge over ASGI: each answer that a test sees is compared with the document."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import httpx
from fastapi import FastAPI

from penstock.sources import Source
from penstock.testing.intake import MemoryIntake
from penstock.webhook.app import Limits, create_app
from penstock.webhook.rejected import Rejected
from penstock.webhook.verify import sign

TOKEN = "a-token"
BODY = b'{"a": 1}'


class Edge:
    """The app for these sources, with a double behind it. `rejected` is what it was told to keep."""

    def __init__(
        self,
        sources: Sequence[Source],
        secrets: Mapping[str, str],
        *,
        limits: Limits | None = None,
        notify_token: str = TOKEN,
    ) -> None:
        self.sources = {source.name: source for source in sources}
        self.intake = MemoryIntake()
        self.now = datetime(2026, 3, 1, 12, tzinfo=UTC)
        self.secrets = dict(secrets)
        self.rejected: list[Rejected] = []
        self.app: FastAPI = create_app(
            sources=sources,
            intake=self.intake,
            resolve_secret=lambda name: self.secrets.get(name, ""),
            notify_token=notify_token,
            buckets=["landing"],
            clock=lambda: self.now,
            version="1.2.3",
            limits=limits,
            reject=self.rejected.append,
        )
        self.document: dict[str, Any] = self.get("/openapi.json").json()

    async def _send(self, method: str, path: str, **parts: Any) -> httpx.Response:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://edge") as client:
            return await client.request(method, path, **parts)

    def send(self, method: str, path: str, **parts: Any) -> httpx.Response:
        """Send, and check that the answer is documented and a problem where it is an error."""
        found = asyncio.run(self._send(method, path, **parts))
        route = "/hooks/{source}" if path.startswith("/hooks/") else path
        operation = getattr(self, "document", {}).get("paths", {}).get(route, {}).get(method.lower())
        if operation is not None:
            documented = operation["responses"].get(str(found.status_code))
            assert documented, f"{method} {route} answered {found.status_code}, which is not documented"
            if found.content:
                assert found.headers["content-type"].partition(";")[0] in documented["content"]
        if found.status_code >= 400 and method != "HEAD":
            assert found.headers["content-type"] == "application/problem+json"
            problem = found.json()
            assert problem["status"] == found.status_code
            assert set(problem) == {"type", "title", "status", "detail"}
        return found

    def get(self, path: str) -> httpx.Response:
        """GET a path."""
        return self.send("GET", path)

    def hook(self, source: str, content: Any = BODY, headers: Mapping[str, str] | None = None) -> httpx.Response:
        """POST to a source."""
        return self.send("POST", f"/hooks/{source}", content=content, headers=dict(headers or {}))

    def signed(
        self,
        delivery: str = "d-1",
        body: bytes = BODY,
        headers: Mapping[str, str] | None = None,
        *,
        source: str = "shop",
    ) -> httpx.Response:
        """POST to a source, signed with the first of its secrets."""
        how = self.sources[source].verify
        signature = sign(how, self.secrets[how.secrets[0]], delivery, body, self.now) if how.secrets else {}
        return self.hook(source, body, {**signature, **(headers or {})})

    def notify(self, content: bytes, token: str = f"Bearer {TOKEN}") -> httpx.Response:
        """POST a notification."""
        return self.send("POST", "/notifications/s3", content=content, headers={"authorization": token})


def kind(response: httpx.Response) -> str:
    """The problem's kind."""
    found: str = response.json()["type"]
    return found.removeprefix("urn:penstock:problem:")
