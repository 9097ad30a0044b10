"""Serves the edge with uvicorn."""

from __future__ import annotations

import asyncio
import gc
import resource
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import FastAPI

from penstock.errors import SettingsError
from penstock.webhook.connections import HEAD_SECONDS, MOST_CONNECTIONS, READER_SECONDS, limited

LOOPBACK = "127.0.0.1"
MOST_REQUESTS = 1000
KEEP_ALIVE_SECONDS = 15
SHUTDOWN_SECONDS = 30
# A body that is under way when the end is asked for must come within this time. Together with the longest wait for an
# answer it is less than SHUTDOWN_SECONDS: whatever came to its end is answered, whatever did not is sent again.
LAST_BODY_SECONDS = 3.0
_BACKLOG = 2048
# Of what a request leaves behind next to nothing is a cycle. As often as Python would look for one otherwise, each time
# through all that the process has imported, it costs a third of what a delivery does.
_LOOK_FOR_CYCLES = (10_000, 50, 100)
# Files that one process needs at most: its connections, those that wait to be taken, and what it has open itself.
_MOST_FILES = 8192


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
            connection.cut()


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
    reader_seconds: float = READER_SECONDS,
    most_connections: int = MOST_CONNECTIONS,
) -> EdgeServer:
    """A server for `app` on `host` and `port` (0: a free one), not yet serving; see `listen` and `server`."""
    return server(
        app,
        listen(host, port),
        on_ready=on_ready,
        head_seconds=head_seconds,
        reader_seconds=reader_seconds,
        most_connections=most_connections,
    )


def server(
    app: FastAPI,
    bound: socket.socket,
    *,
    on_ready: Callable[[str], None] | None = None,
    on_stopped: Callable[[], None] = lambda: None,
    head_seconds: float = HEAD_SECONDS,
    reader_seconds: float = READER_SECONDS,
    most_connections: int = MOST_CONNECTIONS,
) -> EdgeServer:
    """A server for `app` on a socket of `listen`, not yet serving.

    `on_ready` is called with the URL once requests are answered, `on_stopped` once all are. `head_seconds` is the time
    a client has to send a request's head, `reader_seconds` to read an answer.
    """
    config = uvicorn.Config(
        app,
        http=limited(head_seconds=head_seconds, reader_seconds=reader_seconds, most=most_connections),
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
    most = min(MOST_CONNECTIONS, may_open() // 2)

    def ready(url: str) -> None:
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_LOOK_FOR_CYCLES)
        if on_ready is not None:
            on_ready(url)

    server(app, bound, on_ready=ready, on_stopped=on_stopped, most_connections=most).serve_until_stopped()


def may_open() -> int:
    """Let this process open as many files as it may ask for, within reason; returns how many that are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(_MOST_FILES, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return _MOST_FILES if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted
