"""A FastAPI route that reads the body and answers 202, served as penstock's edge is. Prints its URL, and serves."""

from __future__ import annotations

from fastapi import FastAPI, Request

from penstock.webhook.serve import bind


def make() -> FastAPI:
    """The application."""
    app = FastAPI()

    @app.post("/hooks/{source}", status_code=202)
    async def accept(source: str, request: Request) -> dict[str, object]:
        await request.body()
        return {"delivery": source, "duplicate": False}

    return app


if __name__ == "__main__":
    bind(make(), port=0, on_ready=lambda url: print(url, flush=True)).serve_until_stopped()
