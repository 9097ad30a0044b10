"""The PostgreSQL warehouse: rows by COPY, with markers, fence and what was replaced in the same transaction.

The row of the dataset's fence is locked from the first statement to the commit, so that loads of one dataset queue,
and a load with an older token commits before a newer fence or not at all. A newer holder does not wait for a stalled
one: it ends the older sessions in the server. Connections are opened for each call and never held idle.

Tables lie in the connection's schema (`?options=-csearch_path%3Dname` chooses another). PostgreSQL cannot store U+0000
in text: it becomes U+FFFD. Names over 63 bytes are cut and get a hash; `postgres_types` has all of that.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict

from penstock import faults
from penstock.errors import QueryRefused, QueryTooLong, SettingsError, TableMissing, WarehouseLocked
from penstock.errors import WarehouseUnavailable as Unavailable
from penstock.warehouse.base import (
    APPEND,
    MARKERS,
    NO_NAMES,
    REJECTED_SUFFIX,
    REPLACED,
    LoadPart,
    LoadResult,
    QueryResult,
    Write,
    missing_table,
    plan_load,
    steps,
)
from penstock.warehouse.postgres_columns import prepare
from penstock.warehouse.postgres_errors import meaning
from penstock.warehouse.postgres_merge import take_out_losers
from penstock.warehouse.postgres_session import Session, session_mark
from penstock.warehouse.postgres_types import like
from penstock.warehouse.rows import missing

_MISSING_TABLE = re.compile(r'relation "(.+)" does not exist')
# A server whose machine or network went away without a word is given up after half a minute, not after hours.
_CONNECT_ARGUMENTS: dict[str, Any] = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
# A session that died without a word, or stands still in a transaction, is ended by the server after so long.
_STALLED_SECONDS = 60
# How long a newer holder lets the older one's load come to its end before it ends it.
_GRACE_SECONDS = 3


class PostgresWarehouse:
    """The warehouse in the database of `url`; `wait_seconds` is how long another load of a dataset is waited for.

    What `project` loads into no other project may load, of which the database has a dataset of the same name.
    """

    def __init__(
        self,
        url: str,
        *,
        project: str | None = None,
        wait_seconds: float = 60,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # SQLAlchemy's spelling names a driver besides.
        self._url = re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", url)
        _refuse_misread(self._url)
        self._project = project
        self._wait_seconds = wait_seconds
        self._clock = clock

    def fence(self, dataset: str, token: int) -> None:
        """Write the greater token; see `Warehouse`. Older sessions that do not end by themselves are ended."""
        deadline = self._clock() + self._wait_seconds
        while True:
            wait = min(_GRACE_SECONDS, max(0.1, deadline - self._clock()))
            try:
                with self._transaction(dataset, token, wait) as session:
                    session.take_token(dataset, token, self._project)
            except WarehouseLocked:
                if self._clock() > deadline:
                    raise
                with self._opened() as session:
                    session.end_older(dataset, token)
            else:
                return

    def load(
        self,
        dataset: str,
        schema_columns: Sequence[tuple[str, str]],
        parts: Sequence[LoadPart],
        *,
        token: int,
        run: str,
        now: datetime,
        write: Write = APPEND,
        originals: Mapping[str, str] = NO_NAMES,
    ) -> LoadResult:
        """All new parts in one transaction; see `Warehouse`."""
        names = [part.ref.name for part in parts]
        with self._transaction(dataset, token, self._wait_seconds) as session:
            session.take_token(dataset, token, self._project)
            there = session.markers(names)
            fresh, result = plan_load(parts, there=there, replaced=session.replaced(names))
            if fresh:
                columns = prepare(session, dataset, schema_columns, originals, fresh, write)
                for part in fresh:
                    session.replace(dataset, part)
                anew, mended = steps(fresh, there=there)
                session.remove(dataset, anew)
                kept = {name: session.row_numbers(dataset, name) for name in mended}
                bad = {name: session.rejected(dataset, name) for name in mended}
                counts = {name: (there[name][0], session.gone(name)) for name in mended}
                session.remove(dataset, mended, rows_too=False)
                fresh = [
                    missing(part, kept[part.ref.name], bad[part.ref.name]) if part.ref.name in kept else part
                    for part in fresh
                ]
                session.insert(dataset, schema_columns, fresh, now, there=columns)
                session.mark(dataset, fresh, token, run, now, kept=counts)
                take_out_losers(session, dataset, write, fresh, columns)
            faults.point("warehouse.before_commit")
        faults.point("warehouse.after_commit")
        return result

    def markers(self, names: Sequence[str]) -> set[str]:
        """Those of `names` that were loaded."""
        return set(self.loaded(names))

    def loaded(self, names: Sequence[str]) -> dict[str, tuple[int, int]]:
        """Rows and rejected rows of those of `names` that were loaded."""
        if not names:
            return {}
        with self._opened() as session:
            return session.markers(names) if session.has_table(MARKERS) else {}

    def gone(self, names: Sequence[str]) -> dict[str, int]:
        """Of each of `names`, how many rows gave way to others; see `Warehouse`."""
        if not names:
            return {}
        with self._opened() as session:
            columns = session.columns(MARKERS)[MARKERS]
            there = session.markers(names) if columns else {}
            return {name: session.gone(name) if "gone" in columns else 0 for name in there}

    def replaced(self, names: Sequence[str]) -> set[str]:
        """Those of `names` that a newer generation replaced."""
        if not names:
            return set()
        with self._opened() as session:
            return session.replaced(names) if session.has_table(REPLACED) else set()

    def rejected(self, dataset: str, name: str) -> dict[int, tuple[int | None, str | None]]:
        """Line and raw text of an object's rejected rows; see `Warehouse`."""
        with self._opened() as session:
            return session.rejected(dataset, name) if session.has_table(dataset + REJECTED_SUFFIX) else {}

    def columns(self, dataset: str) -> dict[str, str]:
        """Name and type of the columns of the dataset's table; see `Warehouse`."""
        with self._opened() as session:
            return {name: like(kind) for name, (_, kind) in session.columns(dataset)[dataset].items()}

    def damaged(self, dataset: str) -> list[str]:
        """Objects whose rows are not as many as their marker says; see `Warehouse`."""
        with self._opened() as session:
            return session.damaged(dataset) if session.has_table(MARKERS) else []

    def count(self, dataset: str) -> int:
        """Rows of the dataset's table."""
        with self._opened() as session:
            if not session.has_table(dataset):
                return 0
            return int(session.ask(f"SELECT count(*) FROM {session.table(dataset)}")[0][0])

    def query(self, sql: str, *, limit: int, seconds: float = 30) -> QueryResult:
        """The answer to one statement that reads; see `Warehouse`. What the role may read besides, it may here too."""
        with self._connected(f"SET statement_timeout = {max(1, int(seconds * 1000))}") as connection:
            connection.read_only = True
            try:
                # DECLARE takes nothing but one SELECT, VALUES or a table, and FETCH takes no more than is wanted.
                with connection.cursor(name="penstock_query") as cursor:
                    cursor.execute(sql.encode())
                    rows = cursor.fetchmany(limit + 1)
                    columns = tuple(column.name for column in cursor.description or ())
            except errors.QueryCanceled:
                raise QueryTooLong(f"the query took more than {seconds:g} s and was stopped") from None
            except errors.UndefinedTable as error:
                # Of this kind are wrong names of what the query itself joins, too.
                named = _MISSING_TABLE.search(str(error))
                raise (missing_table(named[1]) if named else TableMissing(str(error).strip())) from None
            except psycopg.Error as error:
                if connection.closed:
                    raise
                raise QueryRefused(str(error).strip() or "give one SQL statement") from None
            # Some functions write even in a transaction that only reads.
            connection.rollback()
        return QueryResult(columns=columns, rows=rows[:limit], truncated=len(rows) > limit)

    @contextmanager
    def _transaction(self, dataset: str, token: int, wait: float) -> Iterator[Session]:
        with self._opened(
            f"SET lock_timeout = {max(1, int(wait * 1000))}",
            f"SET application_name = '{session_mark(dataset)} {token}'",
            dataset=dataset,
        ) as session:
            try:
                session.make_own_tables()
                yield session
            except errors.LockNotAvailable:
                raise WarehouseLocked(
                    f"another session of PostgreSQL has held {dataset} or its fence for {wait:g} s; try again"
                ) from None

    @contextmanager
    def _opened(self, *settings: str, dataset: str = "") -> Iterator[Session]:
        with self._connected(*settings, dataset=dataset) as connection:
            row = connection.execute("SELECT current_schema()").fetchone()
            if row is None or row[0] is None:
                raise Unavailable("the warehouse's role has no schema: set its search_path, or GRANT it one")
            yield Session(connection, row[0])

    @contextmanager
    def _connected(self, *settings: str, dataset: str = "") -> Iterator[psycopg.Connection]:
        """A connection; the end of the block commits. Its errors come out as what `meaning` makes of them."""
        given = (
            "SET TimeZone = 'UTC'",
            f"SET idle_in_transaction_session_timeout = '{_STALLED_SECONDS}s'",
            # Under a role's default of repeatable read, what the fence's last holder committed would not be seen.
            "SET default_transaction_isolation = 'read committed'",
            *settings,
        )
        broken = True
        try:
            with psycopg.connect(
                self._url, client_encoding="utf8", autocommit=True, application_name="penstock", **_CONNECT_ARGUMENTS
            ) as connection:
                try:
                    connection.execute("; ".join(given).encode())
                    connection.autocommit = False
                    yield connection
                    connection.commit()
                except psycopg.Error:
                    # Here and not below: by then the connection is closed in any case.
                    broken = connection.closed
                    raise
        except psycopg.Error as error:
            raise meaning(error, dataset=dataset, broken=broken) from error


def _refuse_misread(url: str) -> None:
    # Before the driver does, whose message would hold a part of the password.
    try:
        ports = str(conninfo_to_dict(url).get("port") or "")
    except psycopg.Error:
        ports = "?"
    if ports.strip("0123456789,"):
        raise SettingsError(
            "the warehouse's URL cannot be read; it is postgresql://user:password@host:port/database, in which / ? # @ "
            "and % of a password are written %2F %3F %23 %40 %25"
        )
