"""Store, ledger and warehouse without the processes around them: for what is measured inside one process."""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from penstock.cli.free_ports import free_port
from penstock.cli.supervisor import Child, Supervisor
from penstock.errors import StoreUnavailable
from penstock.ledger import Ledger
from penstock.object_server import local_store
from penstock.objects import ObjectStore
from penstock.warehouse.base import MARKERS

BUCKET = "landing"
DATASET = "grown"


@dataclass(frozen=True, kw_only=True)
class Store:
    """A MinIO that runs, and how to reach it."""

    client: ObjectStore
    endpoint: str
    key: str
    secret: str


@contextmanager
def minio(folder: Path) -> Iterator[Store]:
    """A MinIO of its own with the bucket `landing`, ended with the block."""
    data = folder / "store"
    data.mkdir(parents=True)
    port, key, secret = free_port(), secrets.token_hex(8), secrets.token_hex(16)
    plan = local_store("minio", data, port, None, key, secret)
    store = ObjectStore(f"127.0.0.1:{port}", key, secret)
    supervisor = Supervisor(logs=folder / "logs")
    try:
        supervisor.start(Child(name="minio", argv=plan.argv, env=plan.env, ready=lambda: _answers(store), cwd=folder))
        supervisor.wait_ready("minio", seconds=60)
        store.ensure_bucket(BUCKET)
        yield Store(client=store, endpoint=store.endpoint, key=key, secret=secret)
    finally:
        supervisor.stop()


@contextmanager
def ledger(folder: Path) -> Iterator[Ledger]:
    """A new ledger in a file."""
    made = Ledger(f"sqlite:///{folder / 'ledger.db'}", project="bench")
    made.migrate(lock_folder=folder)
    try:
        yield made
    finally:
        made.close()


def key_of(number: int) -> str:
    """The key of one of very many objects."""
    return f"{DATASET}/{number:07}.csv"


def etag_of(number: int) -> str:
    """The etag of one of very many objects."""
    return f"{number:032x}"


def fill_ledger(file: Path, count: int) -> None:
    """Loaded objects 1 to `count`, with a line of history each, as if they had come and been loaded."""
    now = int(time.time() * 1e6)
    with sqlite3.connect(file, isolation_level=None) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(
            "INSERT INTO objects (dataset, bucket, key, generation, entry, etag, size, via, state, run, rows, rejected,"
            " arrived_at, changed_at) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count) "
            "SELECT :dataset, :bucket, printf(:dataset || '/%07d.csv', i), 1, 0, printf('%032x', i), 100, 'bucket', "
            "'loaded', 'an earlier run', 1, 0, :now, :now FROM n",
            {"count": count, "dataset": DATASET, "bucket": BUCKET, "now": now},
        )
        connection.execute(
            "INSERT INTO history (object_id, at, what, detail, run) "
            "SELECT id, changed_at, 'loaded', '1 rows, 0 rejected', run FROM objects"
        )
        connection.execute("COMMIT")
    connection.close()


def fill_warehouse(file: Path, count: int) -> None:
    """The rows and markers of those objects, beside what was loaded before."""
    name = f"printf('{BUCKET}/{DATASET}/%07d.csv@1', i)"
    with duckdb.connect(str(file)) as connection:
        connection.execute(
            f"INSERT INTO {MARKERS} (object, dataset, rows, rejected, token, run, loaded_at) "
            f"SELECT {name}, '{DATASET}', 1, 0, 1, 'an earlier run', now() FROM range(1, {count + 1}) t(i)"
        )
        connection.execute(
            f"INSERT INTO {DATASET} (id, name, amount, moment, _penstock_object, _penstock_row, _penstock_loaded_at) "
            f"SELECT -i, 'n', 1.0, TIMESTAMP '2026-01-01', {name}, 1, now() FROM range(1, {count + 1}) t(i)"
        )


def _answers(store: ObjectStore) -> bool:
    try:
        store.ping()
    except StoreUnavailable:
        return False
    return True
