"""Opens the parts that the settings name. The rooms above get them from here; none reads settings for another.

A part is imported when it is opened: a command's help must not wait for SQLAlchemy and MinIO's client.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.bell import bell_path, ring
from penstock.errors import NotRunning, SettingsError
from penstock.project import Project
from penstock.settings import Settings
from penstock.warehouse.base import Warehouse

if TYPE_CHECKING:
    from penstock.landing import Landing
    from penstock.ledger import Ledger
    from penstock.objects import ObjectStore
    from penstock.outbox.prefect_api import PrefectApi


def open_store(settings: Settings) -> ObjectStore:
    """The object store. Raises NotRunning when none is configured and `up` does not run."""
    from penstock.objects import ObjectStore

    if not settings.s3_endpoint:
        raise NotRunning("no object store: set PENSTOCK_S3_ENDPOINT, or start one with `penstock up`")
    return ObjectStore(
        settings.s3_endpoint,
        settings.s3_access_key,
        settings.s3_secret_key.get_secret_value(),
        region=settings.s3_region,
        secure=settings.s3_secure,
    )


def prepare_store(settings: Settings) -> bool:
    """Make the bucket, and have the store notify of new objects where it is to; returns whether it keeps versions."""
    from penstock.object_server import WEBHOOK_NAME

    store = open_store(settings)
    versioned = store.ensure_bucket(settings.bucket)
    if settings.bucket_events == "webhook":
        store.notify(settings.bucket, WEBHOOK_NAME)
    return versioned


def open_ledger(settings: Settings) -> Ledger:
    """The ledger, checked. Raises NotMigrated when it has another revision."""
    from penstock.ledger import Ledger

    ledger = Ledger(settings.ledger, project=settings.project, ring=partial(ring, bell_path(settings.home)))
    ledger.check()
    return ledger


def open_warehouse(settings: Settings, *, wait_seconds: float = 60) -> Warehouse:
    """The warehouse; nothing is opened until it is used. Raises SettingsError when its URL cannot be used.

    `wait_seconds` is how long somebody else who holds it is waited for.
    """
    # Sensors and webhook never load, and need not wait for DuckDB.
    if url := settings.warehouse_url.get_secret_value():
        if not url.startswith(("postgresql://", "postgres://", "postgresql+psycopg://")):
            raise SettingsError("PENSTOCK_WAREHOUSE_URL must begin with postgresql://; without it rows go into DuckDB")
        try:
            from penstock.warehouse.postgres import PostgresWarehouse
        except ImportError as error:
            raise SettingsError(f"no PostgreSQL driver ({error}); install penstock[postgres]") from None
        return PostgresWarehouse(url, project=settings.project, wait_seconds=wait_seconds)
    from penstock.warehouse.duckdb import DuckDBWarehouse

    return DuckDBWarehouse(settings.warehouse, wait_seconds=wait_seconds)


def open_landing(settings: Settings, project: Project, store: ObjectStore, ledger: Ledger) -> Landing:
    """The one way in, for sensors and webhook."""
    from penstock.landing import Landing

    return Landing(
        store=store,
        ledger=ledger,
        datasets=project.datasets,
        bucket=settings.bucket,
        announce_each=frozenset(source.name for source in project.sources if source.event_per_delivery),
    )


def open_prefect(settings: Settings) -> PrefectApi:
    """Prefect's server. Raises NotRunning when none is configured and `up` does not run."""
    from penstock.outbox.prefect_api import PrefectApi

    if not settings.prefect_api_url:
        raise NotRunning("no Prefect server: set PENSTOCK_PREFECT_API_URL, or start one with `penstock up`")
    return PrefectApi(settings.prefect_api_url, settings.prefect_auth.get_secret_value())


def spool_folder(settings: Settings) -> Path:
    """Where runs keep objects while they read them; what a killed run left there, `up` removes."""
    return settings.home / "spool"
