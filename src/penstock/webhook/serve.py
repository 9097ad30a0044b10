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
MOST_REQUESTS = 1000
KEEP_ALIVE_SECONDS = 15
HEAD_SECONDS = 15.0
SHUTDOWN_SECONDS = 30
# A body that is under way when the end is asked for must come within this time. Together with the longest wait for an
# answer it is less than SHUTDOWN_SECONDS: whatever came to its end is answered, whatever did not is sent again.
LAST_BODY_SECONDS = 3.0
_BACKLOG = 2048


class EdgeServer(uvicorn.Server):
    """A uvicorn server on a socket that is bound already; set `should_exit` to stop it from another thread."""

    def __init__(
        self,
        config: uvicorn.Config,
        bound: socket.socket,
        on_ready: Callable[[str], None] | None,
        on_stopped: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._bound = bound
        self._on_ready = on_ready
        self._on_stopped = on_stopped

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

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take nothing new, answer what came whole, and tell `on_stopped`: the signal may end the process next."""
        cutting = asyncio.get_running_loop().call_later(LAST_BODY_SECONDS, self._cut_unfinished)
        try:
            await super().shutdown(sockets=sockets)
        finally:
            cutting.cancel()
            self._on_stopped()

    def _cut_unfinished(self) -> None:
        connections: list[Any] = list(self.server_state.connections)
        for connection in connections:
            cycle = connection.cycle
            if cycle is not None and cycle.more_body and not cycle.response_complete:
                connection.transport.close()


def listen(host: str, port: int) -> socket.socket:
    """A socket on `host` and `port` (0: a free one); connections wait in its backlog from now on.

    Raises SettingsError when the address is taken.
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
    return socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=listening.detach())


def inherited(descriptor: int) -> socket.socket:
    """A socket that `listen` made in the process that started this one."""
    found = socket.socket(fileno=descriptor)
    return socket.socket(found.family, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=found.detach())


def bind(
    app: FastAPI,
    host: str = LOOPBACK,
    port: int = 8484,
    *,
    on_ready: Callable[[str], None] | None = None,
    head_seconds: float = HEAD_SECONDS,
) -> EdgeServer:
    """A server for `app` on `host` and `port` (0: a free one), not yet serving; see `listen` and `server`."""
    return server(app, listen(host, port), on_ready=on_ready, head_seconds=head_seconds)


def server(
    app: FastAPI,
    bound: socket.socket,
    *,
    on_ready: Callable[[str], None] | None = None,
    on_stopped: Callable[[], None] = lambda: None,
    head_seconds: float = HEAD_SECONDS,
) -> EdgeServer:
    """A server for `app` on a socket of `listen`, not yet serving.

    `on_ready` is called with the URL once requests are answered, `on_stopped` once all are. `head_seconds` is the time
    a client has to send a request's head.
    """
    config = uvicorn.Config(
        app,
        http=_with_head_limit(head_seconds),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    return EdgeServer(config, bound, on_ready, on_stopped)


def run(
    app: FastAPI,
    bound: socket.socket,
    *,
    on_ready: Callable[[str], None] | None = None,
    on_stopped: Callable[[], None] = lambda: None,
) -> None:
    """Serve `app` until a signal, then finish what is in flight.

    uvicorn raises the signal again once it has stopped: SIGTERM ends the process, SIGINT arrives as KeyboardInterrupt.
    """
    server(app, bound, on_ready=on_ready, on_stopped=on_stopped).serve_until_stopped()


def _with_head_limit(seconds: float) -> type[asyncio.Protocol]:
    """Whichever HTTP protocol is installed, closing connections on which no request's head comes to its end.

    uvicorn itself waits for a head for ever, so that idle sockets would use up what the process may open.
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
