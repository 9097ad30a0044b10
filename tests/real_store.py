"""Real object stores for tests, on a free loopback port with random keys: `with real_store("minio") as store:`."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from penstock.cli.free_ports import free_port
from penstock.errors import SettingsError, StoreUnavailable
from penstock.object_server import LocalStore, Webhook, local_store
from penstock.objects import ObjectStore
from tests.waiting import wait_for

Kind = Literal["minio", "embedded"]


@dataclass(kw_only=True)
class RealStore:
    """A store that runs. `process` is its only process; `data` is the folder its objects are in."""

    kind: Kind
    endpoint: str
    access_key: str
    secret_key: str
    data: Path
    log: Path
    plan: LocalStore
    process: subprocess.Popen[bytes] | None = None

    def client(self) -> ObjectStore:
        """A new client with the right keys."""
        return ObjectStore(self.endpoint, self.access_key, self.secret_key)

    def kill(self) -> None:
        """Send it SIGKILL and wait until it is gone."""
        if self.process:
            self.process.kill()
            self.process.wait(30)

    def start(self) -> None:
        """Start it (again) on the same port and folder, and wait until it answers."""
        with self.log.open("ab") as log:
            process = self.process = subprocess.Popen(self.plan.argv, env=self.plan.env, stdout=log, stderr=log)
        # A request that MinIO takes while it still starts is sometimes never answered; the next one is.
        client = ObjectStore(self.endpoint, self.access_key, self.secret_key, timeout=2)

        def answers() -> bool:
            assert process.poll() is None, f"{self.kind} ended: {self.log.read_text()[-2000:]}"
            try:
                client.ping()
            except StoreUnavailable:
                return False
            return True

        wait_for(answers, seconds=60, what=f"{self.kind} answers at {self.endpoint}")


@contextmanager
def real_store(kind: Kind, webhook: Webhook | None = None) -> Iterator[RealStore]:
    """Start a store in a temporary folder, yield it when it answers, kill it and remove the folder at the end."""
    folder = Path(tempfile.mkdtemp(prefix=f"penstock-{kind}-"))
    store = None
    try:
        data = folder / "data"
        data.mkdir()
        port, access_key, secret_key = free_port(), secrets.token_hex(8), secrets.token_hex(16)
        try:
            plan = local_store(kind, data, port, None, access_key, secret_key, webhook)
        except SettingsError as error:
            raise AssertionError(f"{error} (run make minio)") from None
        store = RealStore(
            kind=kind,
            endpoint=f"127.0.0.1:{port}",
            access_key=access_key,
            secret_key=secret_key,
            data=data,
            log=folder / "log",
            plan=plan,
        )
        store.start()
        yield store
    finally:
        if store:
            store.kill()
        shutil.rmtree(folder, ignore_errors=True)
