"""Serves the edge with uvicorn."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from penstock.errors import SettingsError

LOOPBACK = "127.0.0.1"
MAX_CONNECTIONS = 1000
KEEP_ALIVE_SECONDS = 15
HEAD_SECONDS = 15.0
SHUTDOWN_SECONDS = 30
_BACKLOG = 2048


class EdgeServer(uvicorn.Server):
    """A uvicorn server on a socket that is bound already; set `should_exit` to stop it from another thread."""

    def __init__(self, config: uvicorn.Config, bound: socket.socket, on_ready: Callable[[str], None] | None) -> None:
        super().__init__(config)
        self._bound = bound
        self._on_ready = on_ready

    @property
    def url(self) -> str:
        """Where it listens; the port is the real one also when 0 was asked for."""
        host, port = self._bound.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def serve_until_stopped(self) -> None:
        """Serve; return after a graceful stop. In the main thread SIGINT and SIGTERM stop it."""
        try:
            self.run(sockets=[self._bound])
        finally:
            self._bound.close()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening, then tell `on_ready`."""
        url = self.url
        await super().startup(sockets=sockets)
        if self.started and self._on_ready is not None:
            self._on_ready(url)


def bind(
    app: FastAPI,
    host: str = LOOPBACK,
    port: int = 8484,
    *,
    on_ready: Callable[[str], None] | None = None,
    head_seconds: float = HEAD_SECONDS,
) -> EdgeServer:
    """A server for `app` on `host` and `port` (0: a free one), not yet serving.

    Connections wait in the backlog from now on. `on_ready` is called with the URL once requests are answered.
    `head_seconds` is the time a client has to send a request's head. Raises SettingsError when the address is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise SettingsError(
            f"cannot listen on {host}:{port} ({error.strerror or error}); set PENSTOCK_HOST and PENSTOCK_PORT"
        ) from None
    # asyncio turns Nagle's algorithm off only for a socket that names its protocol; an answer's last bytes would
    # otherwise wait for the sender's delayed acknowledgement, 40 ms each.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=listening.detach())
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=_with_head_limit(head_seconds),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MAX_CONNECTIONS,
        backlog=_BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    return EdgeServer(config, bound, on_ready)


def run(app: FastAPI, host: str = LOOPBACK, port: int = 8484, *, on_ready: Callable[[str], None] | None = None) -> None:
    """Serve `app` until a signal, then finish what is in flight. Raises SettingsError when the address is taken.

    uvicorn raises the signal again once it has stopped: SIGINT arrives as KeyboardInterrupt.
    """
    bind(app, host, port, on_ready=on_ready).serve_until_stopped()


def _with_head_limit(seconds: float) -> type[asyncio.Protocol]:
    """Whichever HTTP protocol is installed, closing connections on which no request's head comes to its end.

    uvicorn itself waits for a head for ever, so that MAX_CONNECTIONS idle sockets would shut out every sender.
    """
    base: Any = AutoHTTPProtocol

    class _HeadLimit(base):  # type: ignore[misc]
        _deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            super().connection_lost(exc)

        def on_response_complete(self) -> None:
            self._stop()
            super().on_response_complete()

        def _watch(self) -> None:
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop()
            elif self._deadline is None and not self.transport.is_closing():
                self._deadline = asyncio.get_running_loop().call_later(seconds, self.transport.close)

        def _stop(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

    return _HeadLimit
