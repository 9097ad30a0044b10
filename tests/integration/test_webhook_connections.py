"""What one client can do to the edge with its connections, on real sockets."""

from __future__ import annotations

import json
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from starlette.responses import Response

from penstock.webhook import connections
from penstock.webhook.connections import MOST_AHEAD, MOST_HEAD_BYTES, MOST_HEADERS
from penstock.webhook.serve import EdgeServer, bind, may_open
from tests.waiting import wait_for

LARGE = b"x" * 40_000_000
GET = b"GET /quick HTTP/1.1\r\nHost: edge\r\n\r\n"


class Running:
    """A server of three routes: at once, when the gate opens, and with an answer that no socket holds."""

    def __init__(self, **settings: Any) -> None:
        self.gate = threading.Event()
        self.ready = threading.Event()
        self.asked: list[str] = []
        app = FastAPI()

        async def quick(request: Request) -> Response:
            self.asked.append("quick")
            return Response(b"quick")

        def slow() -> Response:
            self.asked.append("slow")
            self.gate.wait(60)
            return Response(b"slow")

        async def large() -> Response:
            self.asked.append("large")
            return Response(LARGE)

        async def take(request: Request) -> Response:
            return Response(b"%d" % len(await request.body()))

        for route in (quick, slow, large):
            app.add_api_route(f"/{route.__name__}", route, response_class=Response)
        app.add_api_route("/take", take, methods=["POST"], response_class=Response)
        self.server: EdgeServer = bind(app, port=0, on_ready=lambda _: self.ready.set(), **settings)
        self.url = self.server.url
        self.thread = threading.Thread(target=self.server.serve_until_stopped, daemon=True)
        self.thread.start()
        assert self.ready.wait(timeout=20)

    def stop(self) -> None:
        """Stop, and make sure that it stopped."""
        self.gate.set()
        self.server.should_exit = True
        self.thread.join(timeout=40)
        assert not self.thread.is_alive()

    def connect(self, sent: bytes = b"", *, buffer: int = 0) -> socket.socket:
        """A raw connection on which `sent` was sent, and of which the system keeps `buffer` bytes to read."""
        connection = socket.socket()
        connection.settimeout(20)
        if buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        connection.connect(("127.0.0.1", int(self.url.rpartition(":")[2])))
        connection.sendall(sent)
        return connection

    def open(self) -> list[Any]:
        """The connections that the server has."""
        return list(self.server.server_state.connections)


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    with ExitStack() as stack:

        def start(**settings: Any) -> Running:
            running = Running(**settings)
            stack.callback(running.stop)
            return running

        yield start


def rest(connection: socket.socket) -> bytes:
    """What is to be read up to the end, which may be a reset."""
    received = b""
    try:
        while piece := connection.recv(65536):
            received += piece
    except ConnectionError:
        pass
    return received


def test_requests_sent_ahead_are_bounded(start: Callable[..., Running]) -> None:
    """Thousands of heads at once on one connection are not queued: 400, and the connection ends. Others are served."""
    edge = start()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    queued = []
    with edge.connect() as connection:
        try:
            # Kibibytes of tiny heads behind one that is not answered yet.
            connection.sendall(GET.replace(b"quick", b"slow"))
            wait_for(lambda: edge.asked == ["slow"])
            [held] = edge.open()
            for _ in range(200):
                connection.sendall(b"GET /quick HTTP/1.1\r\n\r\n" * 4000)
                queued.append(len(held.pipeline))
        except ConnectionError:
            pass
        assert b"400 Bad Request" in rest(connection)
        queued.append(len(held.pipeline))
    assert max(queued) <= MOST_AHEAD + 1
    assert edge.asked == ["slow"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
    assert httpx.get(f"{edge.url}/quick").text == "quick"


def test_a_few_requests_ahead_are_answered_in_turn(start: Callable[..., Running]) -> None:
    """A client that pipelines as HTTP/1.1 allows gets every answer."""
    edge = start()
    with edge.connect(GET * MOST_AHEAD + GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")) as connection:
        assert rest(connection).count(b"200 OK") == MOST_AHEAD + 1


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"GET /quick HTTP/1.1\r\n" + b"a: b\r\n" * (MOST_HEADERS + 2), id="many headers"),
        pytest.param(b"GET /quick HTTP/1.1\r\na: " + b"a" * 1_000_000, id="a long header"),
        pytest.param(b"GET /" + b"a" * 1_000_000, id="a long path"),
        pytest.param(
            b"POST /take HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * 1000, id="after the body"
        ),
        pytest.param(
            b"POST /take HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\na: " + b"a" * 1_000_000,
            id="long after the body",
        ),
    ],
)
def test_a_head_is_bounded(start: Callable[..., Running], sent: bytes) -> None:
    """One without end is cut off by its size, long before its time is over."""
    edge = start(head_seconds=60)
    with edge.connect() as connection:
        with suppress(ConnectionError):
            connection.sendall(sent)
        rest(connection)
    assert edge.asked == []


def test_a_large_body_is_no_large_head(start: Callable[..., Running]) -> None:
    """What a body may have is no business of the connection's, in one piece and in many."""
    edge = start()
    body = b"x" * (20 * MOST_HEAD_BYTES)
    assert httpx.post(f"{edge.url}/take", content=body).text == str(len(body))
    pieces = (body[n : n + 1000] for n in range(0, len(body), 1000))
    assert httpx.post(f"{edge.url}/take", content=pieces).text == str(len(body))


def test_who_does_not_read_is_cut_off(start: Callable[..., Running]) -> None:
    """An answer that is not read in its time ends its connection; one that is read slowly in time is whole."""
    edge = start(reader_seconds=0.5)
    with edge.connect(GET.replace(b"quick", b"large"), buffer=4096) as connection:
        wait_for(lambda: edge.asked == ["large"])
        # Well before an idle connection would be closed.
        wait_for(lambda: not edge.open(), seconds=8, what="the connection is gone")
        assert len(rest(connection)) < len(LARGE)
    assert len(httpx.get(f"{edge.url}/large").content) == len(LARGE)


def test_who_does_not_read_holds_no_closing_connection(start: Callable[..., Running]) -> None:
    """Closing waits for what is written to be read: that has the same limit, also when little is left."""
    edge = start(reader_seconds=0.5)
    asking = GET.replace(b"quick", b"large").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    with edge.connect(buffer=4096) as connection:
        [held] = wait_for(edge.open)
        # As if it were little, of which nobody tells the connection.
        held.transport.set_write_buffer_limits(high=10 * len(LARGE))
        connection.sendall(asking)
        wait_for(lambda: edge.asked == ["large"])
        wait_for(lambda: not edge.open(), seconds=8, what="the connection is gone")


def test_who_does_not_read_does_not_hold_up_the_end(
    start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is cut off with the bodies that do not end, long before its own time is over."""
    monkeypatch.setattr("penstock.webhook.serve.LAST_BODY_SECONDS", 0.3)
    edge = start(reader_seconds=60)
    with edge.connect(GET.replace(b"quick", b"large"), buffer=4096):
        wait_for(lambda: any(found.flow.write_paused for found in edge.open()), what="nobody reads")
        began = time.monotonic()
        edge.server.should_exit = True
        edge.thread.join(20)
        assert not edge.thread.is_alive()
        assert time.monotonic() - began < 10


def test_one_connection_more_takes_the_place_of_the_idlest(start: Callable[..., Running]) -> None:
    """At the limit the one that waits longest for a request is closed, and the newest is answered."""
    edge = start(most_connections=5, head_seconds=60)
    with ExitStack() as stack:
        idle = [stack.enter_context(edge.connect()) for _ in range(4)]
        wait_for(lambda: len(edge.open()) == 4)
        # The first becomes the last to wait.
        idle[0].sendall(GET)
        assert b"200 OK" in idle[0].recv(65536)
        with httpx.Client() as client:
            assert client.get(f"{edge.url}/quick").text == "quick"
            assert len(edge.open()) == 5
            assert httpx.get(f"{edge.url}/quick").text == "quick"
            assert rest(idle[1]) == b""
            # The others are still there.
            for connection in (idle[0], idle[2], idle[3]):
                connection.sendall(GET)
                assert b"200 OK" in connection.recv(65536)
            assert client.get(f"{edge.url}/quick").text == "quick"


def test_one_connection_more_than_are_answered_is_told_to_come_back(
    start: Callable[..., Running], caplog: pytest.LogCaptureFixture
) -> None:
    """While each has a request under way: 503, a problem and when to come back; then all is as before."""
    edge = start(most_connections=3)
    with ExitStack() as stack:
        busy = [stack.enter_context(edge.connect(GET.replace(b"quick", b"slow"))) for _ in range(3)]
        wait_for(lambda: len(edge.asked) == 3)
        for _ in range(3):
            answer = httpx.get(f"{edge.url}/quick")
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.json()["type"] == "urn:penstock:problem:busy"
        with edge.connect() as silent:
            head, _, found = rest(silent).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503 ")
            assert json.loads(found)["status"] == 503
        assert "quick" not in edge.asked
        assert len([record for record in caplog.records if record.name == connections.__name__]) == 1
        edge.gate.set()
        for connection in busy:
            assert b"slow" in connection.recv(65536)
    assert httpx.get(f"{edge.url}/quick").text == "quick"


def test_those_sent_away_are_bounded_too(start: Callable[..., Running]) -> None:
    """What is beyond twice the limit is closed without a word."""
    edge = start(most_connections=2)
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(edge.connect(GET.replace(b"quick", b"slow")))
        wait_for(lambda: len(edge.asked) == 2)
        answers = [stack.enter_context(edge.connect()) for _ in range(20)]
        told = [rest(connection) for connection in answers]
    assert b"" in told
    assert any(found.startswith(b"HTTP/1.1 503 ") for found in told)


def test_it_may_open_as_many_files_as_it_may_ask_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The soft limit becomes the hard one, within reason; one that is higher already stays."""
    asked: list[tuple[int, int]] = []
    unlimited = resource.RLIM_INFINITY
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    for given in ((1024, 4096), (1024, 1_000_000), (1024, unlimited), (20_000, 1_000_000), (unlimited, unlimited)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, found=given: found)
        asked.append((may_open(), -1))
    assert asked == [
        *((4096, 4096), (4096, -1)),
        *((8192, 1_000_000), (8192, -1)),
        *((8192, unlimited), (8192, -1)),
        (20_000, -1),
        (8192, -1),
    ]
