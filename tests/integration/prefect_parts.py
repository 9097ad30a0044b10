"""A real Prefect server, worker and relay for one dataset, without sensors and webhook; each can be killed alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
from pydantic import SecretStr
from sqlalchemy import delete, update

from penstock.cli.free_ports import free_port
from penstock.cli.prefect_processes import client_env, server_argv, server_env
from penstock.declarations import Dataset
from penstock.landing import Landing
from penstock.ledger import Ledger, tables
from penstock.model import State, Via
from penstock.settings import Settings, load_settings
from penstock.warehouse.duckdb import DuckDBWarehouse
from tests.real_store import RealStore, real_store
from tests.waiting import wait_for

PROJECT = "demo"
_AUTH = "tester:of runs"
_SALES = 'from penstock import Dataset\n\nDATASET = Dataset(name="sales")\n'
_AUTOMATIONS = 'from penstock import on_arrival\n\nAUTOMATIONS = [on_arrival("sales")]\n'
_SERVER_SECONDS = 90.0


@dataclass(kw_only=True)
class PrefectParts:
    """A project folder with the dataset `sales`, its store and ledger, and the processes that a test starts."""

    folder: Path
    store: RealStore
    port: int = field(default_factory=free_port)
    lease_seconds: int = 60
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        """Where the processes keep their state."""
        return self.folder / ".penstock"

    @property
    def faults(self) -> Path:
        """The folder of the fault points."""
        return self.folder / "faults"

    @property
    def url(self) -> str:
        """The server's API."""
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def env(self) -> dict[str, str]:
        """What the processes get: nothing of the machine's own settings."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PENSTOCK_", "PREFECT_"))}
        return {
            **kept,
            "PENSTOCK_PROJECT": PROJECT,
            "PENSTOCK_HOME": str(self.home),
            "PENSTOCK_S3_ENDPOINT": self.store.endpoint,
            "PENSTOCK_S3_ACCESS_KEY": self.store.access_key,
            "PENSTOCK_S3_SECRET_KEY": self.store.secret_key,
            "PENSTOCK_PREFECT_API_URL": self.url,
            "PENSTOCK_PREFECT_AUTH": _AUTH,
            "PENSTOCK_FAULTS": str(self.faults),
            "PENSTOCK_LEASE_SECONDS": str(self.lease_seconds),
        }

    def make(self) -> None:
        """Write the project and migrate its ledger."""
        for name, text in (("flows/sales.py", _SALES), ("automations/arrival.py", _AUTOMATIONS)):
            path = self.folder / name
            path.parent.mkdir(parents=True)
            path.write_text(text)
        self.faults.mkdir()
        self.home.mkdir(mode=0o700)
        self.store.client().ensure_bucket("landing")
        ledger = self.ledger()
        ledger.migrate(lock_folder=self.home)
        ledger.close()

    def settings(self) -> Settings:
        """The project's settings, as the processes have them."""
        return load_settings(self.folder, home=self.home, project=PROJECT)

    def ledger(self) -> Ledger:
        """The ledger, to be closed."""
        return Ledger(self.settings().ledger, project=PROJECT)

    def start(self, name: str, argv: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        """Start a process that leads a group of its own."""
        assert name not in self.processes, name
        with (self.folder / f"{name}.log").open("ab") as output:
            self.processes[name] = subprocess.Popen(
                list(argv), env=env or self.env, cwd=self.folder, stdout=output, stderr=output, start_new_session=True
            )

    def start_server(self, more: Mapping[str, str] | None = None) -> None:
        """Start Prefect's server as `up` does, with `more` in its environment, and wait until it answers."""
        (self.home / "prefect").mkdir(exist_ok=True)
        env = {**server_env(self.env, home=self.home, port=self.port, auth=_AUTH), **(more or {})}
        self.start("server", server_argv(self.port), env)

        def answers() -> bool:
            assert self.processes["server"].poll() is None, self.log("server")
            try:
                return httpx.get(f"{self.url}/health", auth=self._auth, timeout=2).is_success
            except httpx.HTTPError:
                return False

        wait_for(answers, seconds=_SERVER_SECONDS, what="Prefect's server answers")

    def start_worker(self, before: str = "") -> None:
        """Start the warm worker, after executing `before` in its process."""
        code = f"{before}\nfrom penstock.worker.main import main; main()"
        self.start("worker", [sys.executable, "-c", code], self.client_env())

    def client_env(self) -> dict[str, str]:
        """What a process gets that works with the server by Prefect's own client."""
        update = {"prefect_api_url": self.url, "prefect_auth": SecretStr(_AUTH)}
        return client_env(self.env, self.settings().model_copy(update=update))

    def start_relay(self) -> None:
        """Start the relay."""
        self.start("relay", [*self.penstock, "relay"])

    @property
    def penstock(self) -> list[str]:
        """The command line."""
        return [sys.executable, "-m", "penstock.cli", "--project", str(self.folder)]

    def apply(self) -> None:
        """Create the deployments and automations."""
        done = subprocess.run(
            [*self.penstock, "apply"], env=self.env, capture_output=True, text=True, timeout=90, check=False
        )
        assert done.returncode == 0, done.stderr

    def kill(self, name: str) -> None:
        """Kill a process and its whole group, as the supervisor does with what is left of a dead child."""
        process = self.processes.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)

    def stop(self, name: str, seconds: float = 20) -> int:
        """Ask a process to end; returns its exit code."""
        process = self.processes[name]
        process.terminate()
        try:
            return process.wait(seconds)
        finally:
            self.kill_if_alive(name)

    def kill_if_alive(self, name: str) -> None:
        """Leave nothing of a process's group."""
        process = self.processes.pop(name)
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            assert process.poll() is not None
        process.wait(30)

    def log(self, name: str, *, most: int = 4000) -> str:
        """The end of a process's log."""
        return (self.folder / f"{name}.log").read_text(errors="replace")[-most:]

    def arrive(self, key: str, rows: int = 3) -> None:
        """PUT a file and record its arrival, as a sensor does."""
        data = "id\n" + "".join(f"{number}\n" for number in range(rows))
        self.store.client().put_bytes("landing", key, data.encode())
        ledger = self.ledger()
        try:
            datasets = [Dataset(name="sales")]
            landing = Landing(store=self.store.client(), ledger=ledger, datasets=datasets, bucket="landing")
            assert landing.seen("landing", [key], Via.NOTIFICATION) == 1
        finally:
            ledger.close()

    def forget(self) -> None:
        """Nothing waits any more, and nobody holds the dataset; its token stays, or the warehouse would refuse all."""
        ledger = self.ledger()
        try:
            with ledger.database.write() as connection:
                for table in (tables.history, tables.wakeups, tables.outbox, tables.objects):
                    connection.execute(delete(table))
                connection.execute(update(tables.leases).values(holder=None, hold_until=None))
        finally:
            ledger.close()

    def rest(self) -> None:
        """Leave the server alone: no worker, no fault, no run that is not over, nothing in the ledger that waits."""
        if "worker" in self.processes:
            self.kill_if_alive("worker")
        for left in self.faults.iterdir():
            left.unlink()
        if "server" not in self.processes:
            self.start_server()
        for run in self.runs():
            if run["state_type"] in ("SCHEDULED", "PENDING", "RUNNING", "CANCELLING"):
                self.set_state(UUID(run["id"]), "CANCELLED")
        self.forget()

    def states(self, *keys: str) -> list[State]:
        """The newest generation's state of each key."""
        ledger = self.ledger()
        try:
            return [ledger.facts.stories(key)[0].state for key in keys]
        finally:
            ledger.close()

    def count(self) -> int:
        """How many rows the warehouse has."""
        return DuckDBWarehouse(self.settings().warehouse).count("sales")

    # Prefect's API

    def answer(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """One request; its answer. A 503 (SQLite was busy) is asked again, as Prefect's own client does."""

        def asked() -> list[httpx.Response]:
            answer = httpx.request(method, f"{self.url}{path}", json=body, auth=self._auth, timeout=20)
            return [] if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE else [answer]

        return wait_for(asked, seconds=60, what=f"{method} {path} is not answered with 503")[0]

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """What a request that succeeds is answered with."""
        answer = self.answer(method, path, body)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def patch(self, path: str, body: Any) -> None:
        """Change something on the server."""
        answer = self.answer("PATCH", path, body)
        assert answer.is_success, f"PATCH {path}: {answer.status_code} {answer.text}"

    def create_run(self) -> UUID:
        """A run of the dataset's deployment, due now; asking again makes no second one."""
        deployment = self.ask("GET", f"/deployments/name/ingest/{PROJECT}.sales")
        wanted = {"state": {"type": "SCHEDULED"}, "idempotency_key": str(uuid4())}
        return UUID(self.ask("POST", f"/deployments/{deployment['id']}/create_flow_run", wanted)["id"])

    def set_state(self, run: UUID, state: str) -> None:
        """Have the server set a state, as a click in its user interface does."""
        self.ask("POST", f"/flow_runs/{run}/set_state", {"state": {"type": state}, "force": state != "CANCELLING"})

    def state(self, run: UUID) -> tuple[str, str]:
        """A run's state and its message."""
        found = self.ask("GET", f"/flow_runs/{run}")["state"]
        return found["type"], found["message"] or ""

    def past(self, run: UUID) -> list[str]:
        """The types of all the states that a run was in, in order."""
        return [state["type"] for state in self.ask("GET", f"/flow_run_states/?flow_run_id={run}")]

    def becomes(self, run: UUID, state: str, *, seconds: float = 60) -> str:
        """Wait for a run's state; its message."""
        last = ("", "")

        def reached() -> bool:
            nonlocal last
            last = self.state(run)
            return last[0] == state

        wait_for(reached, seconds=seconds, what=f"{run} is {state}; the worker's log: {self.log('worker')}")
        return last[1]

    def runs(self) -> list[dict[str, Any]]:
        """Every run of the ingest flow that the server has."""
        only = {"flows": {"name": {"any_": ["ingest"]}}, "limit": 200}
        found: list[dict[str, Any]] = self.ask("POST", "/flow_runs/filter", only)
        return found

    @property
    def _auth(self) -> tuple[str, str]:
        user, _, password = _AUTH.partition(":")
        return user, password


@contextmanager
def prefect_parts(folder: Path, store: RealStore) -> Iterator[PrefectParts]:
    """The parts, with nothing started yet; ends what a test started, the last first."""
    parts = PrefectParts(folder=folder, store=store)
    parts.make()
    try:
        yield parts
    finally:
        for name in reversed(list(parts.processes)):
            parts.kill_if_alive(name)


@contextmanager
def prefect_server(folder: Path) -> Iterator[PrefectParts]:
    """The parts on an embedded store, with the server up and the deployment there: one for all tests of a module."""
    with real_store("embedded") as store, prefect_parts(folder, store) as parts:
        parts.start_server()
        parts.apply()
        yield parts
