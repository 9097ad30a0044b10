"""A real `penstock serve` on a real store and a ledger of its own, without the rest of `up`; ended also on failure."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from penstock.cli.free_ports import free_port
from penstock.ledger import Ledger
from tests.acceptance.running import PENSTOCK
from tests.real_store import RealStore, real_store
from tests.waiting import wait_for

BUCKET = "landing"
NOTIFY_TOKEN = "a token of the tests alone"


@dataclass(kw_only=True)
class Served:
    """The folder of a project, its store, and the `penstock serve` that runs for it, in a process group of its own."""

    folder: Path
    store: RealStore
    extra: Mapping[str, str]
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens, also when it was started again."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        """What it has said."""
        return self.folder / "serve.log"

    @property
    def ledger_url(self) -> str:
        """The ledger's database."""
        return f"sqlite:///{self.folder / '.penstock' / 'ledger.db'}"

    @property
    def env(self) -> dict[str, str]:
        """A clean environment: no setting of the machine's own reaches the test."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PENSTOCK_", "PREFECT_"))}
        return {
            **kept,
            "PENSTOCK_S3_ENDPOINT": self.store.endpoint,
            "PENSTOCK_S3_ACCESS_KEY": self.store.access_key,
            "PENSTOCK_S3_SECRET_KEY": self.store.secret_key,
            "PENSTOCK_BUCKET": BUCKET,
            "PENSTOCK_PORT": str(self.port),
            "PENSTOCK_NOTIFY_TOKEN": NOTIFY_TOKEN,
            **self.extra,
        }

    def runs(self) -> bool:
        """Whether its first process is there."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start it (again) on the same port, and wait until it answers."""
        with self.log.open("ab") as output:
            process = self.process = subprocess.Popen(
                [*PENSTOCK, "--project", str(self.folder), "serve"],
                env=self.env,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

        def answers() -> bool:
            assert process.poll() is None, f"serve ended with {process.returncode}: {self.log.read_text()[-2000:]}"
            try:
                return httpx.get(f"{self.url}/healthz", timeout=5).is_success
            except httpx.HTTPError:
                return False

        wait_for(answers, seconds=60, what=f"serve answers; its log is {self.log}")

    def kill(self) -> None:
        """Send SIGKILL to it and to every process it started, and wait until it is gone."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(30)

    def pids(self) -> list[int]:
        """Its processes: the first one, and its workers where it has several."""
        assert self.process is not None
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                except (FileNotFoundError, ProcessLookupError):
                    continue
                if fields[0] != "Z" and int(fields[2]) == self.process.pid:
                    found.append(int(entry.name))
        return sorted(found)


@contextmanager
def serving(folder: Path, files: Mapping[str, str], **extra: str) -> Iterator[Served]:
    """The project of these declarations in `folder`, served; `extra` are variables of its environment."""
    for name, content in files.items():
        folder.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
        folder.joinpath(name).write_text(content)
    with real_store("minio") as store:
        store.client().ensure_bucket(BUCKET)
        served = Served(folder=folder, store=store, extra=extra)
        folder.joinpath(".penstock").mkdir(mode=0o700)
        ledger = Ledger(served.ledger_url, project="served")
        ledger.migrate(lock_folder=folder / ".penstock")
        ledger.close()
        try:
            served.start()
            yield served
        finally:
            served.kill()
