"""The edge behind a real uvicorn on loopback: what only a socket can show."""

from __future__ import annotations

import concurrent.futures
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from penstock.errors import SettingsError
from penstock.sources import Source
from penstock.testing.intake import MemoryIntake
from penstock.verification import unverified
from penstock.webhook.app import Limits, create_app
from penstock.webhook.serve import EdgeServer, bind
from tests.waiting import wait_for

LIMIT = 1000
OPEN = Source(name="open", dataset="open", verify=unverified(because="a test"), max_bytes=LIMIT)


class Running:
    """A served edge and its double."""

    def __init__(self, *, limits: Limits | None = None, head_seconds: float = 10.0) -> None:
        self.intake = MemoryIntake()
        self.ready = threading.Event()
        app = create_app(
            sources=[OPEN],
            intake=self.intake,
            resolve_secret=lambda name: "",
            notify_token="",
            buckets=[],
            clock=lambda: datetime.now(UTC),
            version="0",
            limits=limits,
        )
        self.server: EdgeServer = bind(app, port=0, on_ready=self._on_ready, head_seconds=head_seconds)
        self.url = self.server.url
        self.thread = threading.Thread(target=self.server.serve_until_stopped, daemon=True)

    def _on_ready(self, url: str) -> None:
        assert url == self.url
        self.ready.set()

    def start(self) -> None:
        """Serve in a thread; return once it answers."""
        self.thread.start()
        assert self.ready.wait(timeout=20)

    def stop(self) -> None:
        """Stop, and make sure that it stopped."""
        self.intake.gate.set()
        self.server.should_exit = True
        self.thread.join(timeout=40)
        assert not self.thread.is_alive()

    def connect(self) -> socket.socket:
        """A raw connection."""
        return socket.create_connection(("127.0.0.1", int(self.url.rpartition(":")[2])), timeout=10)

    def metric(self, line: str) -> float:
        """The value of a metric by its name and labels; 0 while there is none."""
        for found in httpx.get(f"{self.url}/metrics").text.splitlines():
            if found.startswith(line + " "):
                return float(found.rpartition(" ")[2])
        return 0.0


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    with ExitStack() as stack:

        def start(**settings: Any) -> Running:
            running = Running(**settings)
            running.start()
            stack.callback(running.stop)
            return running

        yield start


def head(*lines: str) -> bytes:
    return "\r\n".join(["POST /hooks/open HTTP/1.1", "Host: edge", *lines, "", ""]).encode()


def read_to_end(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    """The status and the problem of a response, up to the server's end of the connection."""
    received = b""
    while piece := connection.recv(65536):
        received += piece
    top, _, body = received.partition(b"\r\n\r\n")
    assert b"server:" not in top.lower()
    return int(top.split()[1]), json.loads(body)


def test_concurrent_posts_share_commits(start: Callable[..., Running]) -> None:
    """Fifty posts at once are 202 each, in fewer calls of the intake, and none is lost."""
    edge = start()
    edge.intake.gate.clear()
    with (
        httpx.Client(base_url=edge.url, limits=httpx.Limits(max_connections=60), timeout=30) as client,
        concurrent.futures.ThreadPoolExecutor(50) as pool,
    ):
        posts = [pool.submit(client.post, "/hooks/open", content=b"%d" % n) for n in range(50)]
        try:
            wait_for(lambda: _in_flight(edge) + edge.metric("penstock_webhook_waiting") == 50, what="all 50 are there")
        finally:
            edge.intake.gate.set()
        answers = [post.result() for post in posts]
    assert [answer.status_code for answer in answers] == [202] * 50
    assert not any(answer.json()["duplicate"] for answer in answers)
    assert sorted(int(kept.body) for kept in edge.intake.deliveries) == list(range(50))
    # Those whose bodies ended in the same turn of the event loop ride with the first.
    assert len(edge.intake.accept_calls) == 2


def _in_flight(edge: Running) -> int:
    return sum(len(call) for call in edge.intake.accept_calls)


def test_an_answer_does_not_wait_for_an_acknowledgement(start: Callable[..., Running]) -> None:
    """The answer's head and body leave at once, though the sender has not acknowledged the head."""
    edge = start()
    took = []
    with edge.connect() as connection:
        for n in range(30):
            body = b"%d" % n
            began = time.perf_counter()
            connection.sendall(head(f"Content-Length: {len(body)}") + body)
            received = b""
            while not received.endswith(b"}"):
                received += connection.recv(65536)
            took.append(time.perf_counter() - began)
    # A delayed acknowledgement takes 40 ms, each time but at a connection's beginning; a busy machine not each time.
    assert sorted(took[10:])[2] < 0.035


def test_a_declared_length_over_the_limit_is_refused_at_once(start: Callable[..., Running]) -> None:
    """The answer is there before a single byte of the body was sent, and the connection ends."""
    with start().connect() as connection:
        connection.sendall(head("Content-Length: 10000000000"))
        status, problem = read_to_end(connection)
    assert (status, problem["type"]) == (413, "urn:penstock:problem:too-large")


def test_an_undeclared_length_is_refused_before_the_end(start: Callable[..., Running]) -> None:
    """A chunked body is refused once it passes the limit, and its sender reads the answer and no reset."""
    with start().connect() as connection:
        connection.sendall(head("Transfer-Encoding: chunked"))
        for _ in range(200):
            connection.sendall(b"1000\r\n" + b"x" * 0x1000 + b"\r\n")
        status, _problem = read_to_end(connection)
    assert status == 413


def test_a_sender_waiting_for_continue_is_told_first(start: Callable[..., Running]) -> None:
    """With Expect: 100-continue a body that is too large is never asked for."""
    with start().connect() as connection:
        connection.sendall(head("Content-Length: 5000", "Expect: 100-continue"))
        status, _problem = read_to_end(connection)
    assert status == 413


def test_a_slow_body_is_cut_off(start: Callable[..., Running]) -> None:
    """A body that dribbles is 408 after the total time, and the connection ends."""
    edge = start(limits=Limits(read_seconds=0.3))
    with edge.connect() as connection:
        connection.sendall(head("Content-Length: 100") + b"x")
        status, problem = read_to_end(connection)
    assert (status, problem["type"]) == (408, "urn:penstock:problem:too-slow")
    assert edge.intake.accept_calls == []


@pytest.mark.parametrize("sent", [b"", b"POST /hooks/open HTTP/1.1\r\nHost: ed"])
def test_a_head_that_does_not_end_is_cut_off(start: Callable[..., Running], sent: bytes) -> None:
    """A connection that sends nothing, or half a head, is closed after its time; others are served."""
    edge = start(head_seconds=0.3)
    with edge.connect() as connection:
        connection.sendall(sent)
        assert connection.recv(100) == b""
    assert httpx.post(f"{edge.url}/hooks/open", content=b"x").status_code == 202


def test_a_head_limit_does_not_cut_off_a_long_answer(start: Callable[..., Running]) -> None:
    """Once the head is there, the time limit of heads is over for that request."""
    edge = start(head_seconds=0.2)
    edge.intake.gate.clear()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        post = pool.submit(httpx.post, f"{edge.url}/hooks/open", content=b"x", timeout=20)
        wait_for(lambda: edge.intake.accept_calls)
        with edge.connect() as idle:
            assert idle.recv(100) == b""  # the limit has passed by now
        edge.intake.gate.set()
        assert post.result().status_code == 202


def test_a_client_that_leaves_mid_body_costs_nothing(start: Callable[..., Running]) -> None:
    """Half a body is never accepted, is counted, and the next sender is served."""
    edge = start()
    with edge.connect() as connection:
        connection.sendall(head("Content-Length: 100") + b"x" * 50)
    line = 'penstock_webhook_requests_total{outcome="cut-off",source="open"}'
    wait_for(lambda: edge.metric(line) == 1, what="the cut-off is counted")
    assert edge.intake.accept_calls == []
    assert httpx.post(f"{edge.url}/hooks/open", content=b"x").status_code == 202


def test_a_client_that_leaves_while_waiting_keeps_its_delivery(start: Callable[..., Running]) -> None:
    """A whole request whose sender left is made durable, so that the retry is a duplicate."""
    edge = start()
    edge.intake.gate.clear()
    with edge.connect() as connection:
        connection.sendall(head("Content-Length: 1") + b"x")
        wait_for(lambda: edge.intake.accept_calls)
    edge.intake.gate.set()
    wait_for(lambda: edge.intake.deliveries)
    assert httpx.post(f"{edge.url}/hooks/open", content=b"x").json()["duplicate"] is True


def test_stopping_finishes_what_is_in_flight(start: Callable[..., Running]) -> None:
    """A delivery in flight when the server is told to stop is still answered 202, and then the server ends."""
    edge = start()
    edge.intake.gate.clear()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        post = pool.submit(httpx.post, f"{edge.url}/hooks/open", content=b"x", timeout=20)
        wait_for(lambda: edge.intake.accept_calls)
        edge.server.should_exit = True
        wait_for(lambda: not _listens(edge), what="no new connections")
        edge.intake.gate.set()
        assert post.result().status_code == 202
    edge.thread.join(timeout=20)
    assert not edge.thread.is_alive()


def _listens(edge: Running) -> bool:
    try:
        edge.connect().close()
    except OSError:
        return False
    return True


def test_a_taken_port_is_an_error_that_names_the_settings(start: Callable[..., Running]) -> None:
    """Two edges cannot have one port, and the message says which variables to change."""
    edge = start()
    port = int(edge.url.rpartition(":")[2])
    with pytest.raises(SettingsError, match="PENSTOCK_PORT"):
        bind(edge.server.config.app, port=port)  # type: ignore[arg-type]
