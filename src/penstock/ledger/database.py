"""The ledger's database: connections, transactions and migrations.

SQLite runs in WAL mode with `synchronous=FULL`, and a writing transaction begins IMMEDIATE: a commit survives kill -9,
and a power cut as far as the disk keeps its word. `clock` is the ledger's clock, by which leases expire: the machine's,
or that of the PostgreSQL server, which all machines share.

Errors of the database end in logs, and so tell nothing of the rows, which hold what people sent.

On PostgreSQL a writing transaction begins with an advisory lock, which is IMMEDIATE's equal: READ COMMITTED alone would
let an arrival see the live lease that is being let go of at that moment, and each believe that the other wakes the next
run. So one transaction writes at a time there too; what is written is small, and many readers read meanwhile.
"""

from __future__ import annotations

import os
import sqlite3
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import filelock
from sqlalchemy import Connection, Engine, ExceptionContext, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from penstock.errors import LedgerUnavailable, NotMigrated, SettingsError
from penstock.ledger import owner
from penstock.ledger.at_work import WRITE_LOCK, alone_with_file, attend, be_alone

if TYPE_CHECKING:
    import psycopg
    from alembic.config import Config

Clock = Callable[[], datetime]

# The newest of `migrations/versions/`, whose numbers sort; a test holds the two together.
HEAD = "0006"

_BUSY_SECONDS = 30
_READ = "penstock_read"
_TO_SEND = "penstock_to_send"


def utc_now() -> datetime:
    """The machine's clock, in UTC."""
    return datetime.now(UTC)


def brought(before: str | None, after: str) -> list[tuple[str, str]]:
    """The revisions that led from one to the other, each with what it brought, the oldest first."""
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(_config()).walk_revisions()
    steps = [(script.revision, script.doc.partition("\n")[0]) for script in scripts]
    return [step for step in reversed(steps) if (before or "") < step[0] <= after]


def to_send(connection: Connection) -> None:
    """Note that this transaction leaves the relay something to send."""
    connection.info[_TO_SEND] = True


class Database:
    """One ledger database. Safe to share between threads."""

    def __init__(
        self, url: str, *, project: str, clock: Clock | None = None, ring: Callable[[], None] = lambda: None
    ) -> None:
        self.url = make_url(url)
        self._project = project
        self._ring = ring
        if self.url.drivername in ("postgresql", "postgres"):
            self.url = self.url.set(drivername="postgresql+psycopg")
        self._clock = clock
        # How far the server's clock is ahead of ours, as of the last transaction that wrote.
        self._ahead = timedelta(0)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._at_work: weakref.finalize[..., Database] | None = None
        self._checked = False
        self.engine = self._make_engine()

    def _make_engine(self, *, migrating: bool = False) -> Engine:
        if self.is_sqlite:
            engine = create_engine(self.url, hide_parameters=True)
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
            return engine
        try:
            from penstock.ledger import postgres
        except ImportError as error:
            raise SettingsError(f"no PostgreSQL driver ({error}); install penstock[postgres]") from None

        def prepare(connection: psycopg.Connection, _: ConnectionPoolEntry) -> None:
            postgres.prepare(connection, lock_seconds=_BUSY_SECONDS)
            if migrating:
                return
            revision = postgres.attend(connection)
            if self._checked and revision != HEAD:
                # The server was away, and with it our lock: what was migrated meanwhile is no longer ours to write.
                connection.close()
                _refuse_other(revision)

        limits = postgres.CONNECT_ARGUMENTS
        if migrating:
            engine = create_engine(self.url, poolclass=NullPool, connect_args=limits, hide_parameters=True)
        else:
            engine = create_engine(self.url, pool_pre_ping=True, connect_args=limits, hide_parameters=True)
        event.listen(engine, "connect", prepare)
        event.listen(engine, "begin", self._begin_postgres)
        event.listen(engine, "handle_error", _hide_rows)
        return engine

    def clock(self) -> datetime:
        """Now, by the ledger's clock."""
        return self._clock() if self._clock is not None else utc_now() + self._ahead

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that writes. Raises LedgerUnavailable when the database does not take it.

        When it has left something to send (`to_send`), the relay's bell rings after the commit.
        """
        with _translated(), self.engine.begin() as connection:
            connection.info.pop(_TO_SEND, None)
            yield connection
            rings = _TO_SEND in connection.info
        if rings:
            self._ring()

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
        if self.is_sqlite and self.url.database:
            Path(self.url.database).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Imported here, because a process that only works with the ledger should not wait for Alembic.
        from alembic import command

        config = _config()
        self._leave()
        # Whoever waits to be at work is let in after the commit only: the stack ends last.
        with ExitStack() as stack, filelock.FileLock(lock_folder / "migrate.lock"), self._migration() as connection:
            before = _revision(connection)
            _refuse_newer(before)
            if before != HEAD:
                config.attributes["connection"] = connection
                stack.enter_context(self._alone(connection))
                command.upgrade(config, "head")
            if not self.is_sqlite:
                owner.take(connection, self._project)
        return before, HEAD

    def check(self) -> None:
        """Raise NotMigrated unless the database has the revision this penstock works with.

        Raises SettingsError where it is another project's; a file is not asked, because a folder that is moved may give
        its project a new name. From then on this process is at work: until `close`, or its end, nobody migrates.
        """
        if self.is_sqlite and self.url.database and self._at_work is None:
            if not Path(self.url.database).exists():
                # Opened, it would be made.
                _refuse_other(None)
            self._at_work = weakref.finalize(self, os.close, attend(Path(self.url.database)))
        try:
            with self.read() as connection:
                _refuse_other(_revision(connection))
                if not self.is_sqlite:
                    owner.refuse_another(connection, self._project)
        except BaseException:
            self._leave()
            raise
        self._checked = True

    def close(self) -> None:
        """Close every pooled connection."""
        self._leave()

    def _begin_postgres(self, connection: Connection) -> None:
        if connection.get_execution_options().get(_READ, False):
            # One snapshot for all of a transaction's questions, as SQLite gives it.
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            return
        now = connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITE_LOCK}), clock_timestamp()").one()[1]
        self._ahead = now - utc_now()

    @contextmanager
    def _migration(self) -> Iterator[Connection]:
        if self.is_sqlite:
            with self.write() as connection:
                yield connection
            return
        engine = self._make_engine(migrating=True)
        with _translated(), engine.begin() as connection:
            yield connection

    @contextmanager
    def _alone(self, connection: Connection) -> Iterator[None]:
        if not self.is_sqlite:
            be_alone(connection)
        if self.is_sqlite and self.url.database:
            with alone_with_file(Path(self.url.database)):
                yield
        else:
            yield

    def _leave(self) -> None:
        self.engine.dispose()
        if self._at_work is not None:
            self._at_work()
            self._at_work = None


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        if _is_about_the_row(error):
            raise
        raise LedgerUnavailable(f"the ledger does not answer: {_one_line(error)}") from error
    except PoolTimeout as error:
        raise LedgerUnavailable("every connection to the ledger is in use; try again") from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise LedgerUnavailable(f"the ledger's connection broke: {_one_line(error)}") from error
        raise


def _is_about_the_row(error: DBAPIError) -> bool:
    """Whether PostgreSQL is there, but takes no such value, or none that large: trying again would never end."""
    return str(getattr(error.orig, "sqlstate", None))[:2] in ("22", "54")


def _one_line(error: DBAPIError) -> str:
    return " ".join(str(error.orig).split())


def _hide_rows(context: ExceptionContext) -> None:
    """PostgreSQL tells the row that breaks a rule, in the lines after an error's first."""
    for error in (context.original_exception, context.sqlalchemy_exception):
        if error is not None:
            error.args = tuple(part.partition("\n")[0] if isinstance(part, str) else part for part in error.args)


def _prepare_sqlite(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
    # The driver's own transaction handling would begin late and DEFERRED; `_begin_sqlite` begins instead.
    connection.isolation_level = None
    for pragma in (f"busy_timeout={_BUSY_SECONDS * 1000}", "journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    deferred = connection.get_execution_options().get(_READ, False)
    connection.exec_driver_sql("BEGIN" if deferred else "BEGIN IMMEDIATE")


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "penstock.ledger:migrations")
    return config


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _refuse_other(current: str | None) -> None:
    if current is None:
        raise NotMigrated("the ledger is empty: start it with `penstock up`, or make it with `penstock migrate`")
    _refuse_newer(current)
    if current != HEAD:
        raise NotMigrated(f"the ledger has revision {current}, this penstock needs {HEAD}: penstock migrate")


def _refuse_newer(current: str | None) -> None:
    if current is not None and current > HEAD:
        raise NotMigrated(
            f"the ledger has revision {current}, made by a newer penstock; this one knows {HEAD}. Nothing was changed: "
            "install that one"
        )
