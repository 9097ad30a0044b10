"""The DuckDB warehouse: one file, opened for the load only.

DuckDB lets one process hold the file. Users therefore queue on `<path>.lock` (flock: the kernel releases it when its
holder dies) before they open it. Lock and file are never held idle. There are no primary keys and no indexes: DuckDB's
indexes have open corruption bugs, and the single writer under the lock needs none.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

import duckdb
from filelock import FileLock, Timeout

from penstock import faults
from penstock.errors import QueryRefused, QueryTooLong, TableMissing, WarehouseLocked, WarehouseUnavailable
from penstock.holders import holders, process
from penstock.machine_faults import advice, first_line, machine_fault
from penstock.quoting import quoted
from penstock.warehouse import duckdb_tables as tables
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
from penstock.warehouse.duckdb_columns import prepare
from penstock.warehouse.duckdb_merge import take_out_losers
from penstock.warehouse.rows import missing

log = logging.getLogger(__name__)

_PID = re.compile(r"PID (\d+)")
_MISSING_TABLE = re.compile(
    # DuckDB's own tables are near to everything.
    r'Table with name "?(?P<name>.+?)"? does not exist'
    r'(?:!\nDid you mean "(?!pg_|sqlite_|duckdb_|information_schema|_penstock)(?P<near>[^"]+)")?'
)
_HELD = re.compile(r"Could not set lock|Conflicting lock|already open", re.IGNORECASE)
# Loads and queries come and go; what holds the file for longer is worth a line.
_SAY_AFTER_SECONDS = 5.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5


class DuckDBWarehouse:
    """The warehouse in the DuckDB file `path`; `wait_seconds` is how long a foreign holder is waited for."""

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait_seconds: float = 60,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.path = path
        self._clock = clock
        self._pause = pause
        self._wait_seconds = wait_seconds

    def fence(self, dataset: str, token: int) -> None:
        """Write the greater token; see `Warehouse`."""
        with self._transaction() as connection:
            tables.take_token(connection, dataset, token)

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
        with self._transaction() as connection:
            tables.take_token(connection, dataset, token)
            tables.add_marker_columns(connection)
            there, replaced = tables.markers(connection, names), tables.replaced(connection, names)
            fresh, result = plan_load(parts, there=there, replaced=replaced)
            if fresh:
                columns = prepare(connection, dataset, schema_columns, originals, fresh, write)
                for part in fresh:
                    tables.replace(connection, dataset, part)
                anew, mended = steps(fresh, there=there)
                tables.remove(connection, dataset, anew)
                kept = {name: tables.row_numbers(connection, dataset, name) for name in mended}
                bad = {name: tables.rejected(connection, dataset, name) for name in mended}
                counts = {name: (there[name][0], tables.gone(connection, name)) for name in mended}
                tables.remove(connection, dataset, mended, rows_too=False)
                fresh = [
                    missing(part, kept[part.ref.name], bad[part.ref.name]) if part.ref.name in kept else part
                    for part in fresh
                ]
                tables.insert(connection, dataset, schema_columns, fresh, now, there=columns)
                tables.mark(connection, dataset, fresh, token, run, now, kept=counts)
                take_out_losers(connection, dataset, write, fresh, columns)
            faults.point("warehouse.before_commit")
        faults.point("warehouse.after_commit")
        return result

    def markers(self, names: Sequence[str]) -> set[str]:
        """Those of `names` that were loaded."""
        return set(self.loaded(names))

    def loaded(self, names: Sequence[str]) -> dict[str, tuple[int, int]]:
        """Rows and rejected rows of those of `names` that were loaded."""
        if not names or not self.path.exists():
            return {}
        with self._opened(read_only=True) as connection:
            return tables.markers(connection, names) if tables.has_table(connection, MARKERS) else {}

    def gone(self, names: Sequence[str]) -> dict[str, int]:
        """Of each of `names`, how many rows gave way to others; see `Warehouse`."""
        if not names or not self.path.exists():
            return {}
        with self._opened(read_only=True) as connection:
            if not tables.has_table(connection, MARKERS):
                return {}
            there = tables.markers(connection, names)
            if "gone" not in tables.described(connection, MARKERS):
                return dict.fromkeys(there, 0)
            return {name: tables.gone(connection, name) for name in there}

    def replaced(self, names: Sequence[str]) -> set[str]:
        """Those of `names` that a newer generation replaced."""
        if not names or not self.path.exists():
            return set()
        with self._opened(read_only=True) as connection:
            return tables.replaced(connection, names) if tables.has_table(connection, REPLACED) else set()

    def rejected(self, dataset: str, name: str) -> dict[int, tuple[int | None, str | None]]:
        """Line and raw text of an object's rejected rows; see `Warehouse`."""
        if not self.path.exists():
            return {}
        with self._opened(read_only=True) as connection:
            there = tables.has_table(connection, dataset + REJECTED_SUFFIX)
            return tables.rejected(connection, dataset, name) if there else {}

    def columns(self, dataset: str) -> dict[str, str]:
        """Name and type of the columns of the dataset's table; see `Warehouse`."""
        if not self.path.exists():
            return {}
        with self._opened(read_only=True) as connection:
            found = tables.described(connection, dataset) if tables.has_table(connection, dataset) else {}
        return {name.lower(): kind for name, kind in found.items()}

    def damaged(self, dataset: str) -> list[str]:
        """Objects whose rows are not as many as their marker says; see `Warehouse`."""
        if not self.path.exists():
            return []
        with self._opened(read_only=True) as connection:
            return tables.damaged(connection, dataset)

    def count(self, dataset: str) -> int:
        """Rows of the dataset's table."""
        if not self.path.exists():
            return 0
        with self._opened(read_only=True) as connection:
            if not tables.has_table(connection, dataset):
                return 0
            row = connection.execute(f"SELECT count(*) FROM {quoted(dataset)}").fetchone()
            return int(row[0]) if row else 0

    def query(self, sql: str, *, limit: int, seconds: float = 30) -> QueryResult:
        """The answer to one statement that reads; see `Warehouse`."""
        if not self.path.exists():
            raise TableMissing(
                f"there is no warehouse at {self.path} yet: it is made with the first load. What waits for one: "
                "penstock status"
            )
        with self._opened(read_only=True) as connection:
            connection.execute("SET enable_external_access = false; SET lock_configuration = true")
            return _ask(connection, sql, limit, seconds)

    @contextmanager
    def _transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with self._opened(read_only=False) as connection:
            connection.execute("BEGIN")
            try:
                connection.execute(tables.OWN_TABLES)
                yield connection
            except BaseException:
                with suppress(duckdb.Error):
                    connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    @contextmanager
    def _opened(self, *, read_only: bool) -> Iterator[duckdb.DuckDBPyConnection]:
        try:
            with self._held(read_only=read_only) as connection:
                yield connection
        except (duckdb.Error, OSError, MemoryError) as error:
            fault = machine_fault(error)
            if fault is None and isinstance(error, duckdb.IOException | duckdb.FatalException):
                fault = OSError(first_line(error))
            if fault is None:
                raise
            # What disk and memory do, no object is to blame for.
            raise WarehouseUnavailable(
                f"the warehouse {self.path} does not do it: {first_line(error)}; {advice(fault)}, and it is tried again"
            ) from error

    @contextmanager
    def _held(self, *, read_only: bool) -> Iterator[duckdb.DuckDBPyConnection]:
        deadline = self._clock() + self._wait_seconds
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = FileLock(f"{self.path}.lock", mode=0o600, thread_local=False)
        try:
            lock.acquire(timeout=self._wait_seconds)
        except Timeout:
            raise WarehouseLocked(
                f"{self.path}.lock is held by {_who_has(Path(f'{self.path}.lock'))} and did not come free for "
                f"{self._wait_seconds:g} s; end that if it hangs, or try again when it is done"
            ) from None
        try:
            connection = self._connect(deadline, read_only=read_only)
            try:
                connection.execute("SET TimeZone = 'UTC'; SET python_enable_replacements = false")
                yield connection
            finally:
                connection.close()
        finally:
            lock.release()

    def _connect(self, deadline: float, *, read_only: bool) -> duckdb.DuckDBPyConnection:
        pause, say_at = _FIRST_PAUSE, self._clock() + _SAY_AFTER_SECONDS
        while True:
            try:
                connection = duckdb.connect(str(self.path), read_only=read_only, config=_CONFIG)
            except duckdb.Error as error:
                # In this process DuckDB reports a second opening as a ConnectionException.
                if not isinstance(error, duckdb.IOException | duckdb.ConnectionException) or not _HELD.search(
                    str(error)
                ):
                    raise
                if self._clock() + pause > deadline:
                    raise WarehouseLocked(
                        f"{self.path} has been held by {_holder(str(error))} for {self._wait_seconds:g} s; "
                        "end that, or try again when it is done"
                    ) from None
                if self._clock() >= say_at:
                    log.warning("%s is held by %s; what is to be done waits for that", self.path, _holder(str(error)))
                    say_at = deadline
                self._pause(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
            else:
                if not read_only:
                    self.path.chmod(0o600)
                return connection


_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}


def _ask(connection: duckdb.DuckDBPyConnection, sql: str, limit: int, seconds: float) -> QueryResult:
    try:
        statements = connection.extract_statements(sql)
    except duckdb.Error as error:
        raise QueryRefused(str(error).strip()) from None
    if len(statements) != 1:
        raise QueryRefused("give one SQL statement")
    timer = threading.Timer(seconds, connection.interrupt)
    timer.daemon = True
    timer.start()
    try:
        answer = connection.execute(statements[0])
        columns = tuple(column[0] for column in answer.description or ())
        rows = answer.fetchmany(limit + 1)
    except duckdb.InterruptException:
        raise QueryTooLong(f"the query took more than {seconds:g} s and was stopped") from None
    except duckdb.IOException:
        raise
    except duckdb.CatalogException as error:
        found = _MISSING_TABLE.search(str(error))
        raise (missing_table(found["name"], found["near"]) if found else QueryRefused(str(error).strip())) from None
    except duckdb.Error as error:
        raise QueryRefused(str(error).strip()) from None
    finally:
        timer.cancel()
    return QueryResult(columns=columns, rows=rows[:limit], truncated=len(rows) > limit)


def _holder(message: str) -> str:
    found = _PID.search(message)
    if not found:
        return "this process" if "already open" in message.lower() else "another process"
    return process(found[1])


def _who_has(lock: Path) -> str:
    try:
        found = holders(lock.stat().st_ino)
    except OSError:
        found = []
    return ", ".join(found) or "another process"
