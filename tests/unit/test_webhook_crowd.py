"""Too many requests at once are asked to come back, and say when."""

from __future__ import annotations

import asyncio

import httpx
from starlette.types import Receive, Scope, Send

from penstock.webhook.crowd import Crowd


def test_beyond_so_many_at_once_the_answer_is_503() -> None:
    """With the time to wait, as a problem; the next is passed on once one is answered, also where it failed."""

    async def run() -> tuple[list[httpx.Response], list[httpx.Response]]:
        go_on, all_there = asyncio.Event(), asyncio.Event()
        there: list[str] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            there.append(scope["path"])
            if len(there) == 3:
                all_there.set()
            await go_on.wait()
            if scope["path"] == "/fails":
                raise ValueError
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        crowd = Crowd(app, most=2)
        transport = httpx.ASGITransport(crowd, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://edge") as client:
            first = [asyncio.create_task(client.get(path)) for path in ("/a", "/fails", "/healthz")]
            await all_there.wait()
            refused = [await client.get("/b") for _ in range(3)]
            go_on.set()
            await asyncio.gather(*first)
            return refused, [await client.get("/c") for _ in range(3)]

    refused, later = asyncio.run(run())
    assert {answer.status_code for answer in refused} == {503}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert refused[0].json()["type"] == "urn:penstock:problem:busy"
    assert {answer.status_code for answer in later} == {200}
