"""A whole `penstock up` in a folder of its own, with the store and Prefect behind proxies that can be cut.

`up` restarts its own parts; the store and Prefect, which it is told of as if they were elsewhere, are restarted here.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import httpx
from minio import Minio
from sqlalchemy import func, select

from penstock import object_server
from penstock.cli.free_ports import free_port
from penstock.cli.prefect_processes import server_argv, server_env
from penstock.cli.supervisor import Child, Supervisor
from penstock.errors import LedgerUnavailable
from penstock.ledger import Ledger
from penstock.ledger.tables import objects
from penstock.model import State
from penstock.settings import read_made
from penstock.warehouse.base import Warehouse
from penstock.warehouse.duckdb import DuckDBWarehouse
from penstock.warehouse.postgres import PostgresWarehouse
from tests.acceptance.running import Up
from tests.real_postgres import RealPostgres
from tests.soak.plan import Content, Link
from tests.soak.proxy import Proxy, proxied

BUCKET = "landing"

_FILES = {
    "flows/drops.py": """
        from penstock import Dataset

        DATASET = Dataset(name="drops", columns={"n": "BIGINT"}, checks={"counted": "n >= 0"}, threshold=0.9)
    """,
    "flows/posts.py": """
        from penstock import Dataset

        DATASET = Dataset(
            name="posts",
            format="delivery",
            derive={"id": "payload->>'id'", "n": "(payload->>'n')::BIGINT", "text": "payload->>'text'"},
            select=("id", "n", "text"),
        )
    """,
    "sensors/inbox.py": """
        from datetime import timedelta

        from penstock import Folder

        SENSOR = Folder(settle=timedelta(seconds=1))
    """,
    "sensors/landing.py": """
        from datetime import timedelta

        from penstock import Bucket

        SENSOR = Bucket(every=timedelta(seconds=10))
    """,
    "webhook/shop.py": """
        from penstock import Source, standard_webhooks

        SOURCE = Source(name="shop", dataset="drops", verify=standard_webhooks("SHOP_WEBHOOK_SECRET"))
    """,
    "webhook/hub.py": """
        from penstock import Source, github

        SOURCE = Source(name="hub", dataset="posts", verify=github("HUB_WEBHOOK_SECRET"))
    """,
    "automations/on_arrival.py": """
        from penstock import on_arrival

        AUTOMATIONS = [on_arrival("drops"), on_arrival("posts")]
    """,
}


@dataclass(kw_only=True)
class World:
    """What runs, and how to reach it from outside: through the proxies."""

    up: Up
    outside: Supervisor
    links: dict[Link, Proxy]
    access_key: str
    secret_key: str
    ledger: Ledger
    warehouse: Warehouse
    postgres: RealPostgres | None = None

    def watch(self) -> None:
        """Start the store and Prefect again when they were killed; from the main thread, several times a second."""
        self.outside.watch()
        assert self.up.process is not None
        assert self.up.process.poll() is None, f"`up` ended with {self.up.process.returncode}: see up.log"

    def has_loaded(self, key: str, content: Content) -> bool:
        """Whether the ledger says so of this content of the key; False also while the ledger cannot tell."""
        etag = hashlib.md5(content.body()).hexdigest()  # noqa: S324 - the store's etag
        wanted = (objects.c.key == key, objects.c.etag == etag, objects.c.state == State.LOADED.value)
        try:
            with self.ledger.database.read() as connection:
                return connection.execute(select(objects.c.id).where(*wanted)).first() is not None
        except LedgerUnavailable:
            return False

    def last_load(self) -> datetime | None:
        """When something was loaded last; None before the first, and while the ledger cannot tell."""
        newest = select(func.max(objects.c.changed_at)).where(objects.c.state == State.LOADED.value)
        try:
            with self.ledger.database.read() as connection:
                return connection.execute(newest).scalar()
        except LedgerUnavailable:
            return None

    def kill_postgres(self) -> None:
        """Kill -9 it, and start it again; returns when it answers."""
        assert self.postgres is not None
        self.postgres.kill()
        self.postgres.start()

    def client(self) -> Minio:
        """A client of the store as an uploader has it, behind the proxy."""
        return Minio(
            endpoint=f"127.0.0.1:{self.links['store'].port}",
            access_key=self.access_key,
            secret_key=self.secret_key,
            secure=False,
            region="us-east-1",
        )

    @property
    def hooks(self) -> str:
        """Where senders post to, behind the proxy."""
        return f"http://127.0.0.1:{self.links['webhook'].port}/hooks"

    def secret(self, source: str) -> str:
        """The secret that a source signs with."""
        return str(read_made(self.up.home, "secrets.json")[f"{source.upper()}_WEBHOOK_SECRET"])


def write_project(folder: Path) -> None:
    """The declarations of the soak's own project."""
    for name, text in _FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [line.removeprefix(" " * 8) for line in text.strip("\n").splitlines()]
        path.write_text("\n".join(lines).rstrip() + "\n")


@contextlib.contextmanager
def running_world(folder: Path, *, bucket_events: str, postgres: RealPostgres | None) -> Iterator[World]:
    """Start all of it, yield when it works, and end all of it; with `postgres`, ledger and warehouse are there."""
    write_project(folder)
    home = folder / ".penstock"
    home.mkdir(mode=0o700)
    access_key, secret_key, auth = secrets.token_hex(8), secrets.token_hex(16), f"soak:{secrets.token_hex(8)}"
    # Not kept: `up` is to have it.
    token, port = secrets.token_hex(8), free_port(keep=False)
    outside = Supervisor(logs=folder / "outside-logs")
    with contextlib.ExitStack() as stack:
        stack.callback(outside.stop)
        store_port, prefect_port = free_port(), free_port()
        links: dict[Link, Proxy] = {
            "store": stack.enter_context(proxied(free_port, store_port)),
            "prefect": stack.enter_context(proxied(free_port, prefect_port)),
            "webhook": stack.enter_context(proxied(free_port, port)),
        }
        hook = object_server.Webhook(
            url=f"http://127.0.0.1:{links['webhook'].port}/notifications/s3",
            token=token,
        )
        outside.start(_store(folder / "store", store_port, access_key, secret_key, hook))
        outside.start(_prefect(home, prefect_port, auth))
        outside.wait_ready("minio", "prefect", seconds=90)
        urls = _urls(postgres)
        up = Up(
            folder=folder,
            extra={
                **urls,
                "PENSTOCK_S3_ENDPOINT": f"127.0.0.1:{links['store'].port}",
                "PENSTOCK_S3_ACCESS_KEY": access_key,
                "PENSTOCK_S3_SECRET_KEY": secret_key,
                "PENSTOCK_BUCKET_EVENTS": bucket_events,
                "PENSTOCK_NOTIFY_TOKEN": token,
                "PENSTOCK_PREFECT_API_URL": f"http://127.0.0.1:{links['prefect'].port}/api",
                "PENSTOCK_PREFECT_AUTH": auth,
                "PENSTOCK_PORT": str(port),
                "PENSTOCK_LEASE_SECONDS": "5",
                "PENSTOCK_WAKEUP_SECONDS": "2",
            },
        )
        stack.callback(_end, up)
        up.start()
        ledger = Ledger(urls.get("PENSTOCK_LEDGER_URL") or f"sqlite:///{home / 'ledger.db'}", project=folder.name)
        stack.callback(ledger.close)
        yield World(
            up=up,
            outside=outside,
            links=links,
            access_key=access_key,
            secret_key=secret_key,
            ledger=ledger,
            warehouse=_warehouse(home, urls),
            postgres=postgres,
        )


def _urls(postgres: RealPostgres | None) -> dict[str, str]:
    if postgres is None:
        return {}
    return {"PENSTOCK_LEDGER_URL": postgres.ledger_url(), "PENSTOCK_WAREHOUSE_URL": postgres.warehouse_url()}


def _warehouse(home: Path, urls: dict[str, str]) -> Warehouse:
    url = urls.get("PENSTOCK_WAREHOUSE_URL")
    return PostgresWarehouse(url) if url else DuckDBWarehouse(home / "warehouse.duckdb")


def _end(up: Up) -> None:
    if up.process is not None:
        up.stop(signal.SIGTERM)


def _store(data: Path, port: int, access_key: str, secret_key: str, hook: object_server.Webhook) -> Child:
    data.mkdir()
    plan = object_server.local_store("minio", data, port, None, access_key, secret_key, hook)
    return Child(
        name="minio",
        argv=plan.argv,
        env={"PATH": os.environ["PATH"], **plan.env},
        ready=lambda: _accepts(port),
        cwd=data.parent,
    )


def _prefect(home: Path, port: int, auth: str) -> Child:
    (home / "prefect").mkdir(mode=0o700)
    user, _, password = auth.partition(":")

    def answers() -> bool:
        try:
            found = httpx.get(f"http://127.0.0.1:{port}/api/health", auth=(user, password), timeout=2)
        except httpx.HTTPError:
            return False
        return found.status_code == httpx.codes.OK

    env = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
    return Child(
        name="prefect",
        argv=server_argv(port),
        env=server_env(env, home=home, port=port, auth=auth),
        ready=answers,
        cwd=home,
    )


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0
