"""`penstock serve` as real processes on a real store and ledger: several workers, killed, counted, drained."""

from __future__ import annotations

import concurrent.futures
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from penstock.cli.free_ports import free_port
from penstock.ledger import Ledger
from penstock.ledger.database import utc_now
from penstock.settings import Settings, load_settings
from penstock.verification import standard_webhooks
from penstock.webhook.verify import sign
from penstock.wiring import prepare_store
from tests.real_store import RealStore, real_store
from tests.waiting import wait_for

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
TOKEN = "token-of-the-operations"
DATASET = 'from penstock import Dataset\n\nDATASET = Dataset(name="things")\n'
SHOP = """from penstock import Source, standard_webhooks

SOURCE = Source(name="shop", dataset="things", verify=standard_webhooks("SHOP_SECRET"))
"""
OPEN = """from penstock import Source, unverified

SOURCE = Source(name="open", dataset="things", verify=unverified(because="a test"))
"""
OWN = """def extend(app):
    def own():
        return "own"

    app.add_api_route("/own", own)
"""
VERIFY = standard_webhooks("SHOP_SECRET")
OUTCOMES = ("accepted", "duplicate")


@dataclass(kw_only=True)
class Served:
    """A `penstock serve` and its project."""

    folder: Path
    settings: Settings
    process: subprocess.Popen[bytes]
    host: str
    port: int

    @property
    def url(self) -> str:
        """Where it answers, from this machine."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What it wrote besides the access log."""
        return (self.folder / "serve.log").read_text()

    def lines(self) -> list[dict[str, Any]]:
        """The access log."""
        return [json.loads(line) for line in (self.folder / "access.log").read_text().splitlines()]

    def workers(self) -> list[int]:
        """The pids of its workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def post(self, number: int, client: httpx.Client, headers: dict[str, str] | None = None) -> httpx.Response:
        """A signed delivery."""
        body = b'{"id": %d}' % number
        signed = sign(VERIFY, SECRET, f"d-{number}", body, utc_now())
        return client.post(f"{self.url}/hooks/shop", content=body, headers={**signed, **(headers or {})})

    def durable(self) -> set[int]:
        """The numbers of the deliveries that are in the ledger."""
        ledger = Ledger(self.settings.ledger, project=self.settings.project)
        try:
            known = ledger.deliveries.known("shop", [f"d-{number}" for number in range(5000)])
        finally:
            ledger.close()
        return {int(name.removeprefix("d-")) for name in known}

    def metric(self, line: str) -> float:
        """The value of a metric by its name and labels; 0 while there is none."""
        answer = httpx.get(f"{self.url}/metrics", headers={"authorization": f"Bearer {TOKEN}"})
        assert answer.status_code == 200, answer.text
        for found in answer.text.splitlines():
            if found.startswith(line + " "):
                return float(found.rpartition(" ")[2])
        return 0.0

    def end(self) -> None:
        """End it and its workers whatever happened."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(45)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait(10)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


def answers(url: str) -> bool:
    """Whether the process at `url` is up."""
    try:
        return httpx.get(f"{url}/healthz", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def store() -> Iterator[RealStore]:
    with real_store("embedded") as running:
        yield running


@pytest.fixture
def serve(store: RealStore, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Served]]:
    with ExitStack() as stack:

        def start(*, workers: int = 1, host: str = "127.0.0.1", **settings: str) -> Served:
            for name, content in {
                "flows/things.py": DATASET,
                "webhook/shop.py": SHOP,
                "webhook/open.py": OPEN,
                "webhook/app.py": OWN,
            }.items():
                (tmp_path / name).parent.mkdir(exist_ok=True)
                (tmp_path / name).write_text(content)
            kept = {name: value for name, value in os.environ.items() if not name.startswith(("PENSTOCK_", "PREFECT_"))}
            given = {
                "host": host,
                "port": str(free_port()),
                "s3_endpoint": store.endpoint,
                "s3_access_key": store.access_key,
                "s3_secret_key": store.secret_key,
                "bucket": "workers" + re.sub(r"[^a-z0-9]", "", request.node.name.lower())[-40:],
                "bucket_events": "none",
                "api_token": TOKEN,
                "webhook_workers": str(workers),
                **settings,
            }
            loaded = load_settings(tmp_path, **given)
            Ledger(loaded.ledger, project=loaded.project).migrate(lock_folder=loaded.home)
            prepare_store(loaded)
            env = {
                **kept,
                **{f"PENSTOCK_{name.upper()}": value for name, value in given.items()},
                "SHOP_SECRET": SECRET,
            }
            with (tmp_path / "serve.log").open("ab") as log, (tmp_path / "access.log").open("ab") as access:
                process = subprocess.Popen(
                    [sys.executable, "-m", "penstock.cli", "--project", str(tmp_path), "serve"],
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=access,
                    stderr=log,
                    start_new_session=True,
                )
            served = Served(folder=tmp_path, settings=loaded, process=process, host=host, port=loaded.port)
            stack.callback(served.end)

            def up() -> bool:
                assert process.poll() is None, served.log
                return answers(served.url)

            wait_for(up, seconds=60, what="the webhook is up")
            return served

        yield start


def everybody_works(served: Served, count: int, *, without: int = 0) -> list[int]:
    """Waits until each worker listens, and one that was killed is replaced; returns their pids."""

    def listening() -> list[int]:
        pids = [pid for pid in served.workers() if pid != without]
        started = [pid for pid in pids if f"process {pid} is up" in served.log]
        return pids if len(pids) == count and len(started) == count else []

    return wait_for(listening, seconds=60, what=f"{count} workers are up")


def test_a_killed_worker_is_started_again_and_nothing_is_lost(serve: Callable[..., Served]) -> None:
    """Kill -9 of one of two: the other goes on answering, a new one comes, and the counts add up over all of them."""
    served = serve(workers=2)
    first = everybody_works(served, 2)
    accepted: list[int] = []
    failed: list[int] = []
    numbers = iter(range(400))
    lock = threading.Lock()
    killed = threading.Event()

    def send() -> None:
        # A connection each: which worker takes it is by chance.
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            try:
                with httpx.Client(timeout=30, verify=False) as client:  # noqa: S501 - no TLS at all
                    answer = served.post(number, client)
            except httpx.HTTPError:
                with lock:
                    failed.append(number)
                continue
            assert answer.status_code == 202, answer.text
            with lock:
                accepted.append(number)
                if len(accepted) == 100 and not killed.is_set():
                    killed.set()
                    os.kill(first[0], signal.SIGKILL)

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        for done in [pool.submit(send) for _ in range(16)]:
            done.result()
    assert killed.is_set()
    assert len(failed) <= 16, "only what the killed one had in hand may fail"
    assert served.durable() >= set(accepted)
    assert first[1] in everybody_works(served, 2, without=first[0])
    assert f"worker {first[0]} ended with code -9" in served.log
    # What failed is sent again, as senders do, and is accepted once.
    with httpx.Client(timeout=30) as client:
        for number in failed:
            assert served.post(number, client).status_code == 202
    assert served.durable() == set(range(400))
    counted = sum(served.metric(f'penstock_webhook_requests_total{{outcome="{o}",source="shop"}}') for o in OUTCOMES)
    # Counted before it is answered: the killed one may have counted what it could not answer any more.
    assert 400 <= counted <= 400 + len(failed)


@pytest.mark.slow
@pytest.mark.long
def test_the_metrics_of_all_workers_are_one_sum(serve: Callable[..., Served]) -> None:
    """Whichever worker is asked tells the same sum, of requests of both; a killed one's gauge goes, its counts stay."""
    served = serve(workers=2)
    workers = everybody_works(served, 2)
    # Both at the same time, or one of them might answer all.
    with (
        httpx.Client(limits=httpx.Limits(max_connections=40)) as client,
        concurrent.futures.ThreadPoolExecutor(40) as pool,
    ):
        posts = [pool.submit(served.post, number, client) for number in range(800)]
        assert {post.result().status_code for post in posts} == {202}
    line = 'penstock_webhook_requests_total{outcome="accepted",source="shop"}'
    assert [served.metric(line) for _ in range(6)] == [800.0] * 6
    assert served.metric('penstock_webhook_seconds_count{source="shop"}') == 800.0
    files = served.settings.home / f"metrics-{served.port}"
    there = {path.name for path in files.iterdir()}
    assert {"counter_0.db", "counter_1.db", "gauge_livesum_0.db", "gauge_livesum_1.db"} <= there
    os.kill(workers[0], signal.SIGKILL)
    everybody_works(served, 2, without=workers[0])
    assert served.metric(line) == 800.0
    with httpx.Client(timeout=30) as client:
        assert served.post(800, client).status_code == 202
    assert served.metric(line) == 801.0
    # However often one is started again: it goes on with the files of the one before.
    assert {path.name for path in files.iterdir()} == there
    served.end()
    assert served.process.returncode == 0
    assert not files.exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_answers_what_came_whole(serve: Callable[..., Served], workers: int) -> None:
    """Posts without end while it is told to end: each is answered or refused, and what is durable was answered."""
    served = serve(workers=workers)
    if workers > 1:
        everybody_works(served, workers)
    answered: list[int] = []
    unanswered: list[int] = []
    lock = threading.Lock()
    numbers = iter(range(5000))
    flowing, ended = threading.Event(), threading.Event()

    def send() -> None:
        with httpx.Client(timeout=60) as client:
            while not ended.is_set():
                with lock:
                    number = next(numbers)
                try:
                    answer = served.post(number, client)
                except httpx.HTTPError:
                    with lock:
                        unanswered.append(number)
                    if flowing.is_set():
                        return
                    raise
                assert answer.status_code == 202, answer.text
                with lock:
                    answered.append(number)
                    if len(answered) > 100:
                        flowing.set()

    with concurrent.futures.ThreadPoolExecutor(40) as pool:
        sending = [pool.submit(send) for _ in range(40)]
        try:
            assert flowing.wait(60)
            served.process.send_signal(signal.SIGTERM)
            code = served.process.wait(45)
        finally:
            ended.set()
        for done in sending:
            done.result()
    assert code == (0 if workers > 1 else -signal.SIGTERM)
    durable = served.durable()
    assert set(answered) <= durable
    assert durable & set(unanswered) == set()
    assert "Traceback" not in served.log
    # Each answer is a line of the log.
    statuses = [line["status"] for line in served.lines() if line["route"] == "/hooks/shop"]
    assert statuses == [202] * len(answered)


def test_an_unfinished_body_does_not_hold_up_the_end(serve: Callable[..., Served]) -> None:
    """A body that does not come to its end is cut off some seconds after SIGTERM, while its sender might go on."""
    served = serve()
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as slow:
        slow.sendall(b"POST /hooks/open HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n12345")
        # Not before the server has it: another connection's answer comes later than that.
        wait_for(lambda: answers(served.url), what="the server reads")
        began = time.monotonic()
        served.process.send_signal(signal.SIGTERM)
        assert slow.recv(1000) == b""
        assert served.process.wait(40) == -signal.SIGTERM
        assert 2.0 < time.monotonic() - began < 15.0


def test_the_workers_end_with_their_parent(serve: Callable[..., Served]) -> None:
    """Kill -9 of the parent: its workers drain and end, and the port is free."""
    served = serve(workers=2)
    workers = everybody_works(served, 2)
    served.process.kill()
    served.process.wait(10)

    def gone() -> bool:
        return not any(Path(f"/proc/{pid}").exists() for pid in workers)

    wait_for(gone, what="the workers are gone")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{served.url}/healthz")


@pytest.mark.slow
@pytest.mark.long
def test_what_cannot_be_declared_ends_all(serve: Callable[..., Served]) -> None:
    """A project that no worker can load ends the command with 2 and the reason, not in restarts without end."""
    served = serve(workers=2)
    served.end()
    (served.folder / "webhook" / "shop.py").write_text("SOURCE = 7\n")
    done = subprocess.run(
        [sys.executable, "-m", "penstock.cli", "--project", str(served.folder), "serve"],
        env={**os.environ, "PENSTOCK_WEBHOOK_WORKERS": "2", "PENSTOCK_PORT": str(free_port())},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "shop.py" in done.stderr


def test_on_loopback_a_web_page_gets_nothing(serve: Callable[..., Served]) -> None:
    """The real server: operations and the source that verifies nothing are refused to pages, own routes too."""
    served = serve()
    page = {"origin": "https://evil.example"}
    rebound = {"host": f"rebound.example:{served.port}"}
    with httpx.Client(base_url=served.url) as client:
        for path in ("/readyz", "/metrics", "/openapi.json", "/own"):
            assert client.get(path).status_code == 200, path
            for headers in (page, rebound, {"x-forwarded-for": "203.0.113.9"}):
                refused = client.get(path, headers=headers)
                assert refused.status_code in (401, 403), path
                assert refused.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert client.post("/hooks/open", content=b"{}", headers=page).status_code == 403
        assert client.post("/hooks/open", content=b"{}", headers=rebound).status_code == 403
        assert client.post("/hooks/open", content=b"{}").status_code == 202
        assert served.post(1, client, rebound).status_code == 202
        assert client.get("/healthz", headers=rebound).json() == {"status": "up"}


def test_elsewhere_the_operations_ask_for_the_token(serve: Callable[..., Served]) -> None:
    """Bound to every address: readiness, metrics and own routes need the token, the sources do not."""
    served = serve(host="0.0.0.0")  # noqa: S104 - what compose binds to
    with httpx.Client(base_url=served.url) as client:
        for path in ("/readyz", "/metrics", "/openapi.json", "/own"):
            assert client.get(path).status_code == 401
            assert client.get(path, headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
        assert client.get("/healthz").status_code == 200
        assert served.post(1, client).status_code == 202


@pytest.mark.parametrize("trusted", ["", "192.0.2.0/24", "127.0.0.1,192.0.2.0/24"])
def test_a_proxys_word_counts_only_where_it_is_trusted(serve: Callable[..., Served], trusted: str) -> None:
    """X-Forwarded-For and X-Request-Id of a peer that is no trusted proxy change neither the address nor the id."""
    served = serve(trusted_proxies=trusted)
    with httpx.Client() as client:
        answer = served.post(1, client, {"x-forwarded-for": "192.0.2.1, 198.51.100.4", "x-request-id": "the-proxys"})
    assert answer.status_code == 202
    served.end()
    [line] = [line for line in served.lines() if line["route"] == "/hooks/shop"]
    believed = trusted.startswith("127.0.0.1")
    assert line["peer"] == ("198.51.100.4" if believed else "127.0.0.1")
    assert (line["request"] == "the-proxys") == believed
    assert line["request"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("wrong", ["proxy.example", "10.0.0.1/8", "*", "10.0.0.0/8,0.0.0.0/0"])
def test_a_proxy_that_is_none_is_said_at_the_start(tmp_path: Path, wrong: str) -> None:
    """What is no address or network, or every one, ends the command with the setting's name."""
    done = subprocess.run(
        [sys.executable, "-m", "penstock.cli", "--project", str(tmp_path), "serve"],
        env={**os.environ, "PENSTOCK_TRUSTED_PROXIES": wrong},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "PENSTOCK_TRUSTED_PROXIES" in done.stderr
