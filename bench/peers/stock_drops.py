"""Measures stock Prefect: its own server, `stock_prefect.py`, files dropped one after the other."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import httpx

from bench import rows
from bench.figures import Wrong, spread
from bench.session import Session
from penstock.cli.free_ports import free_port

_ROOT = Path(__file__).resolve().parents[2]
_HERE = Path(__file__).with_name("stock_prefect.py")
_LONGEST = 60.0


@dataclass(frozen=True, kw_only=True)
class Stock:
    """Seconds from drop to commit, with Prefect's own settings and with the runner polling each second."""

    as_it_comes: list[float]
    tuned: list[float]
    verified: str

    def spreads(self) -> dict[str, dict[str, float]]:
        """How they lie."""
        return {"stock, as it comes": spread(self.as_it_comes), "stock, 1 s poll": spread(self.tuned)}


def measure_stock(session: Session) -> Stock:
    """Ten drops each way; one before them is not counted. With `quick` it is one, and that one counts."""
    count = session.pick(10, 1)
    session.say(f"stock Prefect: {count} drops as it comes, {count} with a 1 s poll")
    as_it_comes = _measure(session, count, {})
    tuned = _measure(session, count, {"PREFECT_RUNNER_POLL_FREQUENCY": "1"})
    return Stock(
        as_it_comes=as_it_comes,
        tuned=tuned,
        verified=f"stock Prefect: {2 * (count + session.pick(1, 0))} rows, each once",
    )


def _measure(session: Session, count: int, settings: dict[str, str]) -> list[float]:
    home = session.new_folder("stock")
    inbox = home / "inbox"
    inbox.mkdir(parents=True)
    seconds = []
    ids = rows.Ids()
    not_counted = session.pick(1, 0)
    drops = count + not_counted
    with _stock(home, inbox, settings) as wait:
        for number in range(drops):
            session.pause(0.0, 2.0)
            name = f"{number}.csv"
            (home / name).write_bytes(rows.csv(ids.take(1)))
            at = time.time()
            (home / name).rename(inbox / name)
            committed = wait(lambda name=name: _committed(home).get(name), f"stock Prefect loads {name}")
            seconds.append(committed - at)
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as connection:
        found = connection.execute("SELECT count(*), count(DISTINCT id) FROM drops").fetchone()
    if found != (drops, drops):
        raise Wrong(f"stock Prefect loaded {found} rows and ids of {drops}")
    return seconds[not_counted:]


@contextmanager
def _stock(home: Path, inbox: Path, settings: dict[str, str]) -> Iterator[Callable[..., float]]:
    port = free_port()
    env = {
        **os.environ,
        "PREFECT_HOME": str(home),
        "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home / 'prefect.db'}",
        "BENCH_STOCK_HOME": str(home),
        **settings,
    }
    processes: list[subprocess.Popen[bytes]] = []

    def start(name: str, *argv: str) -> None:
        with (home / f"{name}.log").open("wb") as log:
            processes.append(subprocess.Popen(argv, env=env, cwd=_ROOT, stdout=log, stderr=log))

    def wait(condition: Callable[[], float | None], what: str, longest: float = _LONGEST) -> float:
        deadline = time.monotonic() + longest
        while (found := condition()) is None or not found:
            if time.monotonic() > deadline or any(process.poll() is not None for process in processes):
                raise Wrong(f"not seen: {what}; logs in {home}")
            time.sleep(0.02)
        return found

    def deployed() -> float:
        try:
            found = httpx.get(f"http://127.0.0.1:{port}/api/deployments/name/load-file/stock", timeout=5)
        except httpx.HTTPError:
            return 0.0
        return float(found.status_code == httpx.codes.OK)

    with ExitStack() as stack:
        stack.callback(_end, processes)
        prefect = str(Path(sys.executable).with_name("prefect"))
        start("server", prefect, "server", "start", "--host", "127.0.0.1", "--port", str(port))
        health = f"http://127.0.0.1:{port}/api/health"
        wait(lambda: _answers(health), "stock Prefect's server answers", 120)
        start("serve", sys.executable, str(_HERE), "serve")
        start("watch", sys.executable, str(_HERE), "watch", str(inbox))
        wait(deployed, "stock Prefect's deployment is there", 120)
        watching = home / "watch.log"
        wait(lambda: float("watching" in watching.read_text()), "watchdog watches", 120)
        yield wait


def _answers(url: str) -> float:
    try:
        return float(httpx.get(url, timeout=2).status_code == httpx.codes.OK)
    except httpx.HTTPError:
        return 0.0


def _committed(home: Path) -> dict[str, float]:
    try:
        lines = (home / "committed").read_text().splitlines()
    except FileNotFoundError:
        return {}
    return {name: float(at) for name, _, at in (line.partition(" ") for line in lines if line.count(" ") == 1)}


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in reversed(processes):
        process.terminate()
    for process in reversed(processes):
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
