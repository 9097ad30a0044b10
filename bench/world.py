"""A real project that runs: `penstock up` in a temporary folder, with MinIO; always ended, whatever happens."""

from __future__ import annotations

import os
import secrets
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import httpx
from minio import Minio
from minio.notificationconfig import NotificationConfig

from bench import project, rows
from bench.figures import Wrong
from penstock.ledger.database import utc_now
from penstock.project import FOLDERS, load_project
from penstock.sensors.sweep import Sweep, Swept
from penstock.settings import Settings, load_settings
from penstock.wiring import open_landing, open_ledger, open_store, open_warehouse

T = TypeVar("T")
_READY_SECONDS = 180
_END_SECONDS = 60
_PUTTERS = 8


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What the ledger says of something that was loaded; moments are seconds since 1970.

    `at` is when the ledger's transaction began that records the load: just after the warehouse had committed it.
    """

    recorded: float
    at: float
    run: str


@dataclass(kw_only=True)
class World:
    """A project folder, and what runs for it."""

    folder: Path
    sweep_seconds: int = 30
    ids: rows.Ids = field(default_factory=rows.Ids)
    process: subprocess.Popen[bytes] | None = None
    settings: Settings = field(init=False)
    _client: httpx.Client = field(init=False)

    def start(self) -> None:
        """Write the project, and start it."""
        self.folder.mkdir(parents=True)
        project.write(self.folder, sweep_seconds=self.sweep_seconds)
        log = self.folder / "up.log"
        env = {**os.environ, "PENSTOCK_STORE": "minio", project.SECRET_NAME: project.SECRET}
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "penstock.cli", "--project", str(self.folder), "up"],
                env=env,
                stdout=output,
                stderr=output,
            )
        self.wait(lambda: b"Ready." in log.read_bytes(), seconds=_READY_SECONDS, what="penstock up is ready")
        self.settings = load_settings(self.folder)
        user, _, password = self.settings.prefect_auth.get_secret_value().partition(":")
        self._client = httpx.Client(base_url=self.settings.prefect_api_url, auth=(user, password), timeout=30)

    def stop(self) -> None:
        """End it, as Ctrl-C does."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def warm(self, *datasets: str) -> None:
        """Load a first file into datasets that have none, so that the tables are there and the schemas known.

        So it is in any project but on its first day.
        """
        cold = [dataset for dataset in datasets if not self.count(dataset)]
        for dataset in cold:
            self.put(f"{dataset}/first.csv", rows.csv(self.ids.take(1)))
        for dataset in cold:
            if dataset in ("known", "held"):
                self.wait(partial(self.count, dataset), seconds=30, what=f"{dataset} is recorded")
                self.run_by_hand(dataset)
            self.wait_loaded(dataset, 1, seconds=60)

    def wait(self, condition: Callable[[], T | None], *, seconds: float, what: str, every: float = 0.05) -> T:
        """The first truthy value of a condition. Raises Wrong when it does not come, or `up` ended."""
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            if self.process is None or self.process.poll() is not None:
                raise Wrong(f"penstock up ended; its log: {self._log_end()}")
            if time.monotonic() > deadline:
                raise Wrong(f"not within {seconds:.0f} s: {what}; {self._log_end()}")
            time.sleep(every)
        return value

    # What goes in.

    def drop(self, dataset: str, name: str, data: bytes) -> float:
        """Move a finished file into the watched folder; returns when."""
        draft = self.folder / name
        draft.write_bytes(data)
        at = time.time()
        draft.rename(self.settings.inbox / dataset / name)
        return at

    def put(self, key: str, data: bytes) -> float:
        """PUT as any S3 client does; returns when it was sent."""
        at = time.time()
        open_store(self.settings).put_bytes(self.settings.bucket, key, data)
        return at

    def put_all(self, items: Sequence[tuple[str, bytes]], *, bucket: str = "") -> float:
        """PUT many objects by 8 threads; returns how many seconds that took."""
        store = open_store(self.settings)
        began = time.monotonic()
        with ThreadPoolExecutor(_PUTTERS) as pool:
            for _ in pool.map(lambda item: store.put_bytes(bucket or self.settings.bucket, *item), items):
                pass
        return time.monotonic() - began

    def minio(self, **options: Any) -> Minio:
        """A bare client of the store, which knows nothing of penstock."""
        return Minio(
            self.settings.s3_endpoint,
            self.settings.s3_access_key,
            self.settings.s3_secret_key.get_secret_value(),
            region=self.settings.s3_region,
            secure=False,
            **options,
        )

    @contextmanager
    def silenced(self) -> Iterator[None]:
        """The store tells nobody of new objects: they wait in the bucket until a sweep finds them."""
        client, bucket = self.minio(), self.settings.bucket
        before = client.get_bucket_notification(bucket)
        client.set_bucket_notification(bucket, NotificationConfig())
        try:
            yield
        finally:
            client.set_bucket_notification(bucket, before)

    def sweep(self, prefix: str) -> Swept:
        """What `penstock sweep` does for the keys under a prefix, in this process."""
        # An earlier bench's project had the same names.
        for name in [name for name in sys.modules if name.partition(".")[0] in FOLDERS]:
            del sys.modules[name]
        declared = load_project(self.settings.project_dir, only=["flows", "sensors", "webhook"])
        store, ledger = open_store(self.settings), open_ledger(self.settings)
        try:
            sweep = Sweep(
                self.settings.bucket,
                store=store,
                ledger=ledger,
                landing=open_landing(self.settings, declared, store, ledger),
                datasets=declared.datasets,
                clock=utc_now,
            )
            return sweep.run_once(prefix)
        finally:
            ledger.close()

    def run_by_hand(self, dataset: str) -> float:
        """Create a run of the dataset's deployment, as the UI's button does; returns when."""
        found = self.api("GET", f"/deployments/name/ingest/{self.settings.project}.{dataset}")
        at = time.time()
        asked = {"state": {"type": "SCHEDULED"}, "idempotency_key": secrets.token_hex(8)}
        self.api("POST", f"/deployments/{found['id']}/create_flow_run", asked)
        return at

    # What came of it.

    def ask(self, sql: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """A question to the ledger's file, on a connection that can only read."""
        connection = sqlite3.connect(f"file:{self.settings.home / 'ledger.db'}?mode=ro", uri=True, timeout=30)
        try:
            return connection.execute(sql, arguments).fetchall()
        finally:
            connection.close()

    def count(self, dataset: str, state: str = "") -> int:
        """How many objects of a dataset the ledger knows, or has in a state."""
        where, arguments = ("dataset = ? AND state = ?", (dataset, state)) if state else ("dataset = ?", (dataset,))
        return int(self.ask(f"SELECT count(*) FROM objects WHERE {where}", *arguments)[0][0])

    def wait_loaded(self, dataset: str, count: int, *, seconds: float, every: float = 0.1) -> None:
        """Wait until so many objects of a dataset are loaded. Raises Wrong when one is in quarantine instead.

        The moments that count are the ledger's own: these looks need not be quick, and must not cost much.
        """

        def loaded() -> bool:
            if self.count(dataset, "loaded") >= count:
                return True
            if self.count(dataset, "quarantined"):
                raise Wrong(f"{dataset}: {self.count(dataset, 'quarantined')} objects are in quarantine")
            return False

        self.wait(loaded, seconds=seconds, what=f"{count} objects of {dataset} are loaded", every=every)

    def loads(self, dataset: str) -> dict[str, Loaded]:
        """Everything of a dataset that is loaded, by key, or by the delivery's id."""
        found = self.ask(
            "SELECT coalesce(delivery, key), arrived_at, changed_at, run FROM objects "
            "WHERE dataset = ? AND state = 'loaded'",
            dataset,
        )
        return {key: Loaded(recorded=a / 1e6, at=c / 1e6, run=run) for key, a, c, run in found}

    def last_load(self, dataset: str, prefix: str) -> float:
        """When the last object under a prefix was loaded."""
        sql = "SELECT max(changed_at) FROM objects WHERE dataset = ? AND state = 'loaded' AND substr(key, 1, ?) = ?"
        return float(self.ask(sql, dataset, len(prefix), prefix)[0][0]) / 1e6

    def runs(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Flow runs by id, as Prefect knows them."""
        found: dict[str, dict[str, Any]] = {}
        distinct = sorted(set(ids))
        for start in range(0, len(distinct), 200):
            chosen = {"flow_runs": {"id": {"any_": distinct[start : start + 200]}}, "limit": 200}
            found |= {run["id"]: run for run in self.api("POST", "/flow_runs/filter", chosen)}
        return found

    def count_runs(self, dataset: str) -> int:
        """How many flow runs a dataset ever had."""
        name = f"{self.settings.project}.{dataset}"
        return int(self.api("POST", "/flow_runs/count", {"deployments": {"name": {"any_": [name]}}}))

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """A call of Prefect's API, asked again while the server is busy, as Prefect's own client does."""

        def answered() -> httpx.Response | None:
            found = self._client.request(method, path, json=body)
            return None if found.status_code == httpx.codes.SERVICE_UNAVAILABLE else found

        answer = self.wait(answered, seconds=60, what=f"Prefect answers {method} {path}", every=0.2)
        answer.raise_for_status()
        return answer.json()

    def verify(self, table: str, ids: range, *, objects: int, delivered: bool = False) -> str:
        """Raise Wrong unless a table has one row for each id, from so many objects; returns that in words."""
        total = (ids.start + ids.stop - 1) * len(ids) // 2
        wanted = (len(ids), len(ids), total, len(ids), objects)
        # With one object the row numbers alone tell rows apart, which is quicker to count among millions.
        apart = "_penstock_row" if objects == 1 else "(_penstock_object, _penstock_row)"
        sql = (
            f"SELECT count(*), count(DISTINCT id), sum(id)::BIGINT, count(DISTINCT {apart}), "
            f"count(DISTINCT _penstock_object) FROM {table} WHERE id BETWEEN {ids.start} AND {ids.stop - 1}"
        )
        found = open_warehouse(self.settings).query(sql, limit=2, seconds=120).rows[0]
        if tuple(found) != wanted:
            raise Wrong(
                f"{table}: rows, ids, their sum, (object, row) and objects are {tuple(found)}, and must be {wanted}"
            )
        what = "deliveries" if delivered else "objects"
        return f"{table}: {len(ids):,} rows of {objects:,} {what}, each once"

    def check(self) -> None:
        """Raise Wrong when a part of it died while it was measured."""
        if self.process is None or self.process.poll() is not None or b"ended with code" in self._log():
            raise Wrong(f"a process ended while it was measured: {self._log_end()}")

    def _log(self) -> bytes:
        return (self.folder / "up.log").read_bytes()

    def _log_end(self) -> str:
        return self._log().decode(errors="replace")[-1500:]


@contextmanager
def world(folder: Path, *, sweep_seconds: int = 30) -> Iterator[World]:
    """A running project in a new folder, ended with the block."""
    made = World(folder=folder, sweep_seconds=sweep_seconds)
    try:
        made.start()
        yield made
        made.check()
    finally:
        made.stop()
