"""The ledger's database: connections, transactions and migrations.

SQLite runs in WAL mode with `synchronous=FULL`, and a writing transaction begins IMMEDIATE: a commit survives kill -9,
and a power cut as far as the disk keeps its word. `now` is the ledger's clock, by which leases expire.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import filelock
from sqlalchemy import Connection, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import ConnectionPoolEntry

from penstock.errors import LedgerUnavailable, NotMigrated

Clock = Callable[[], datetime]

# The newest of `migrations/versions/`, whose numbers sort; a test holds the two together.
HEAD = "0002"

_BUSY_SECONDS = 30
_READ = "penstock_read"


def utc_now() -> datetime:
    """The machine's clock, in UTC."""
    return datetime.now(UTC)


class Database:
    """One ledger database. Safe to share between threads."""

    def __init__(self, url: str, *, clock: Clock = utc_now) -> None:
        self.url = make_url(url)
        self.clock = clock
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        if self.is_sqlite and self.url.database:
            Path(self.url.database).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.engine = create_engine(self.url, pool_pre_ping=not self.is_sqlite)
        if self.is_sqlite:
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that writes. Raises LedgerUnavailable when the database does not take it."""
        with _translated(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads, and so waits for no writer."""
        with (
            _translated(),
            self.engine.connect().execution_options(**{_READ: True}) as connection,
            connection.begin(),
        ):
            yield connection

    def migrate(self, *, lock_folder: Path) -> tuple[str | None, str]:
        """Bring the schema to this penstock's revision under an exclusive lock; returns (before, after)."""
        lock_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Imported here, because a process that only works with the ledger should not wait for Alembic.
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", "penstock.ledger:migrations")
        with filelock.FileLock(lock_folder / "migrate.lock"), self.write() as connection:
            before = _revision(connection)
            _refuse_newer(before)
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
        return before, HEAD

    def check(self) -> None:
        """Raise NotMigrated unless the database has the revision this penstock works with."""
        with self.read() as connection:
            current = _revision(connection)
        if current is None:
            raise NotMigrated("the ledger is empty: start it with `penstock up`, or make it with `penstock migrate`")
        _refuse_newer(current)
        if current != HEAD:
            raise NotMigrated(f"the ledger has revision {current}, this penstock needs {HEAD}: penstock migrate")

    def close(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        raise LedgerUnavailable(f"the ledger does not answer: {error.orig}") from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise LedgerUnavailable(f"the ledger's connection broke: {error.orig}") from error
        raise


def _prepare_sqlite(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
    # The driver's own transaction handling would begin late and DEFERRED; `_begin_sqlite` begins instead.
    connection.isolation_level = None
    for pragma in (f"busy_timeout={_BUSY_SECONDS * 1000}", "journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    deferred = connection.get_execution_options().get(_READ, False)
    connection.exec_driver_sql("BEGIN" if deferred else "BEGIN IMMEDIATE")


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _refuse_newer(current: str | None) -> None:
    if current is not None and current > HEAD:
        raise NotMigrated(f"the ledger has revision {current}, made by a newer penstock: install that one")
