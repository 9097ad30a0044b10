"""What keeps several webhook workers running, with small programs in their place; and what the settings say of them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from penstock.cli.doctor import _webhook
from penstock.cli.secrets import made_secrets
from penstock.cli.serve import WORKERS_SECONDS
from penstock.cli.stack import DRAIN_SECONDS
from penstock.cli.supervisor import Child, Supervisor
from penstock.cli.workers import Workers, _Worker
from penstock.errors import PenstockError, SettingsError
from penstock.settings import load_settings
from penstock.webhook.app import Limits
from penstock.webhook.serve import LAST_BODY_SECONDS, SHUTDOWN_SECONDS, listen, server
from tests.compose_file import SERVICES, environment, seconds
from tests.waiting import wait_for


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Workers]]:
    with socket.create_server(("127.0.0.1", 0)) as bound:

        def workers(program: str, **settings: Any) -> Workers:
            return Workers(
                argv=[sys.executable, "-c", program],
                bound=bound,
                metrics=tmp_path / "metrics",
                **{"count": 2, "env": {}, "grace_seconds": 10.0, **settings},
            )

        yield workers


def test_one_that_dies_again_and_again_is_given_time(make: Callable[..., Workers], tmp_path: Path) -> None:
    """At once the first time, then after 1, 2, 4 and at most 30 seconds; one that ran for a while begins anew."""
    now = [0.0]
    workers, worker = make("raise SystemExit(1)", monotonic=lambda: now[0]), _Worker()
    (tmp_path / "metrics").mkdir()
    workers._look(worker, 0)
    pauses = []
    for ran in (0, 0, 0, 0, 0, 0, 0, 60, 0):
        assert worker.process is not None
        worker.process.wait(20)
        now[0] += ran
        workers._look(worker, 0)  # sees it dead
        pauses.append(worker.start_at - now[0])
        now[0] = worker.start_at
        workers._look(worker, 0)  # starts it where it was not yet
    assert worker.process is not None
    worker.process.wait(20)
    assert pauses == [0, 1, 2, 4, 8, 16, 30, 0, 1]


def test_one_that_dies_again_and_again_leaves_no_more_files(make: Callable[..., Workers], tmp_path: Path) -> None:
    """The next of its number goes on with its counts; what it had waiting is not counted any more."""
    program = "\n".join(
        [
            "import pathlib, sys",
            "from penstock.webhook.metrics import Metrics",
            "given = dict(zip(sys.argv[1::2], sys.argv[2::2]))",
            "metrics = Metrics(pathlib.Path(given['--metrics']), int(given['--number']))",
            "metrics.hook('shop', 'accepted', 0.1)",
            "metrics.watch_waiting(lambda: 5)",
            "metrics.tell_waiting()",
            "print(metrics.text().decode(), file=open(given['--metrics'] + '.text', 'w'))",
            "raise SystemExit(1)",
        ]
    )
    now = [0.0]
    workers, worker = make(program, monotonic=lambda: now[0], env={**os.environ}), _Worker(number=1)
    folder = tmp_path / "metrics"
    folder.mkdir()
    for _ in range(4):
        workers._look(worker, 0)
        assert worker.process is not None
        worker.process.wait(60)
        assert "gauge_livesum_1.db" in {path.name for path in folder.iterdir()}
        workers._look(worker, 0)  # sees it dead, and starts it once it is due
        if worker.process is not None:
            worker.process.wait(60)
        now[0] += 100
    files = {path.name for path in folder.iterdir()}
    assert files <= {"counter_1.db", "histogram_1.db", "gauge_livesum_1.db"}
    text = Path(f"{folder}.text").read_text()
    counted = [line for line in text.splitlines() if line.startswith("penstock_webhook_requests_total{")]
    assert counted == ['penstock_webhook_requests_total{outcome="accepted",source="shop"} 5.0']


def test_one_that_does_not_go_is_killed(make: Callable[..., Workers], tmp_path: Path) -> None:
    """SIGTERM first, and SIGKILL when the time is over; nobody is left and the folder is gone."""
    mark = tmp_path / "is up"
    program = (
        f"import pathlib, signal; signal.signal(signal.SIGTERM, lambda *_: None); pathlib.Path({str(mark)!r}).touch()"
    )
    workers, stop = make(program + "\nwhile True: signal.pause()", count=1, grace_seconds=0.3), threading.Event()
    codes: list[int] = []
    running = threading.Thread(target=lambda: codes.append(workers.run(stop)))
    running.start()
    try:
        wait_for(mark.exists, what="the program runs")
    finally:
        stop.set()
        running.join(20)
    assert codes == [0]
    [worker] = workers._workers
    assert worker.process is not None
    assert worker.process.returncode == -9
    assert not (tmp_path / "metrics").exists()


def test_one_that_can_never_start_ends_all(make: Callable[..., Workers]) -> None:
    """The code for settings and declarations ends the others and is passed on."""
    assert make("raise SystemExit(2)").run(threading.Event()) == 2


def test_the_log_of_a_part_does_not_grow_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large one is set aside while its part runs; the part goes on writing to the same file, from its beginning."""
    monkeypatch.setattr("penstock.cli.supervisor._LARGEST_LOG", 10)
    supervisor, log, told = Supervisor(logs=tmp_path / "logs"), tmp_path / "logs" / "part.log", tmp_path / "go on"
    program = "\n".join(
        [
            "import os, pathlib, time",
            "os.write(1, b'x' * 11)",
            f"while not pathlib.Path({str(told)!r}).exists(): time.sleep(0.01)",
            "os.write(1, b'more')",
            "time.sleep(60)",
        ]
    )
    supervisor.start(Child(name="part", argv=[sys.executable, "-c", program], env={}))
    try:
        wait_for(lambda: log.stat().st_size == 11, what="the first line")
        assert supervisor.watch() == []
        assert log.read_bytes() == b""
        told.touch()
        wait_for(lambda: log.read_bytes() == b"more", what="the second line")
        supervisor.watch()
        assert log.with_suffix(".log.1").read_bytes() == b"x" * 11
        assert log.read_bytes() == b"more"
    finally:
        supervisor.stop()


@pytest.mark.parametrize(
    ("given", "networks"),
    [
        ("", []),
        (" , ", []),
        ("10.0.0.5", ["10.0.0.5/32"]),
        ("10.0.0.0/8, ::1 ,2001:db8::/32", ["10.0.0.0/8", "::1/128", "2001:db8::/32"]),
    ],
)
def test_trusted_proxies_are_addresses_and_networks(tmp_path: Path, given: str, networks: list[str]) -> None:
    """By commas, of both families; none by default."""
    assert [str(network) for network in load_settings(tmp_path, trusted_proxies=given).proxies] == networks
    assert load_settings(tmp_path).proxies == []


@pytest.mark.parametrize("wrong", ["proxy.example", "10.0.0.1/8", "*", "0.0.0.0/0", "::/0", "10.0.0.1;10.0.0.2"])
def test_a_proxy_that_is_none_names_the_setting(tmp_path: Path, wrong: str) -> None:
    """A name, a network with a host's bits, and one of every address are refused."""
    with pytest.raises(SettingsError, match="PENSTOCK_TRUSTED_PROXIES"):
        load_settings(tmp_path, trusted_proxies=wrong)


def test_doctor_says_who_may_ask(tmp_path: Path) -> None:
    """On loopback this machine; elsewhere the token's name, and what to do where there is none. Never its value."""
    assert "this machine" in _webhook(load_settings(tmp_path))
    elsewhere = _webhook(load_settings(tmp_path, host="192.0.2.1", api_token="the-value"))
    assert "PENSTOCK_API_TOKEN" in elsewhere
    assert "the-value" not in elsewhere
    for place in ({"host": "192.0.2.1"}, {"trusted_proxies": "127.0.0.1"}):
        with pytest.raises(PenstockError, match="set PENSTOCK_API_TOKEN"):
            _webhook(load_settings(tmp_path, **place))


def test_the_token_is_made_once(tmp_path: Path) -> None:
    """`up` makes it with the others; it is kept, and found by the settings."""
    made = made_secrets(tmp_path / ".penstock", [], has=lambda name: False)["PENSTOCK_API_TOKEN"]
    assert len(made) >= 32
    assert made_secrets(tmp_path / ".penstock", [], has=lambda name: False)["PENSTOCK_API_TOKEN"] == made
    assert load_settings(tmp_path).api_token.get_secret_value() == made


def test_the_end_is_told_once_all_is_answered() -> None:
    """What still has to be written, such as the last lines of the log, is told to be when the last answer is out."""
    gate, told, ready = threading.Event(), list[str](), threading.Event()
    app = FastAPI()

    async def slow() -> None:
        told.append("asked")
        await asyncio.to_thread(gate.wait, 20)
        told.append("answered")

    app.add_api_route("/slow", slow)
    running = server(
        app, listen("127.0.0.1", 0), on_ready=lambda _: ready.set(), on_stopped=lambda: told.append("stopped")
    )
    url = running.url
    thread = threading.Thread(target=running.serve_until_stopped)
    thread.start()
    try:
        assert ready.wait(20)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            asking = pool.submit(httpx.get, f"{url}/slow", timeout=20)
            wait_for(lambda: told, what="the request is under way")
            running.should_exit = True
            gate.set()
            assert asking.result().status_code == 200
    finally:
        gate.set()
        running.should_exit = True
        thread.join(20)
    assert told == ["asked", "answered", "stopped"]


def test_whoever_ends_the_webhook_waits_for_its_answers() -> None:
    """The last body and its answer fit into the drain, the drain into what `up` gives, and that into Compose's."""
    assert LAST_BODY_SECONDS + Limits().answer_seconds < SHUTDOWN_SECONDS
    assert SHUTDOWN_SECONDS < WORKERS_SECONDS < DRAIN_SECONDS < seconds(SERVICES["webhook"]["stop_grace_period"])


def test_in_compose_the_health_check_has_the_token() -> None:
    """The webhook is bound to every address there, so that its readiness asks for it."""
    assert environment("webhook")["PENSTOCK_HOST"] == "0.0.0.0"  # noqa: S104 - compared, not bound
    assert "PENSTOCK_API_TOKEN" in environment("webhook")
    assert "os.environ['PENSTOCK_API_TOKEN']" in SERVICES["webhook"]["healthcheck"]["test"][3]
