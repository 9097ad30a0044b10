"""The in-memory DuckDB that reads objects: one per process, a cursor per use."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import duckdb

from penstock.errors import Unreadable
from penstock.machine_faults import first_line, raise_machine_fault

# DuckDB takes some milliseconds to plan a query for each column, and a table of that width is of little use to anybody.
MOST_COLUMNS = 4096
_WIDE = 300
# What DuckDB raises of data and SQL that it met, its own state being sound.
BY_THE_DATA = (duckdb.DataError, duckdb.ProgrammingError, duckdb.NotSupportedError)
# What it raises of a value that an expression cannot take.
AT_WORK = (duckdb.ConversionException, duckdb.OutOfRangeException, duckdb.InvalidInputException)
_LITTLE = "600MB"
# Each thread has a buffer of 16 of a CSV's longest lines. Smaller ones would fit more threads into the limit, but with
# them DuckDB gives up lines behind a quote that stays open for longer than the buffer.
_FEW_THREADS = 2


@contextmanager
def cursor() -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection of its own to the process's in-memory database; its temporary tables end with it.

    What disk and memory do comes out as OSError or MemoryError, because no object is to blame for it.
    """
    connection = _database(os.getpid()).cursor()
    try:
        # These three hold per connection, not per database.
        connection.execute(
            "SET TimeZone = 'UTC'; SET python_enable_replacements = false; SET enable_progress_bar = false"
        )
        yield connection
    except duckdb.Error as error:
        raise_machine_fault(error)
        raise
    finally:
        connection.close()


@contextmanager
def little_memory(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Have DuckDB write to disk what would fill the memory with a large object's rows."""
    threads, usual = _threads(connection), _usual_memory(os.getpid())
    try:
        connection.execute(f"SET memory_limit = '{_LITTLE}'; SET threads = {min(threads, _FEW_THREADS)}")
        yield
    finally:
        # RESET would show the old limit, but leave this one in force.
        connection.execute(f"SET memory_limit = '{usual}'; SET threads = {threads}")


def refuse_wide(columns: int) -> None:
    """Raise Unreadable for more columns than are read."""
    if columns > MOST_COLUMNS:
        raise Unreadable(
            f"it has {columns} columns, more than the {MOST_COLUMNS} that are read; write what they hold as rows of a "
            "name and a value, or leave out what is not wanted before it is sent"
        )


@contextmanager
def many_columns(connection: duckdb.DuckDBPyConnection, columns: int) -> Iterator[None]:
    """Have DuckDB compute twice what occurs twice: to look for that takes it the square of the columns."""
    if columns <= _WIDE:
        yield
        return
    connection.execute("SET disabled_optimizers = 'common_subexpressions'")
    try:
        yield
    finally:
        connection.execute("RESET disabled_optimizers")


def in_words(error: Exception) -> str:
    """What an error of DuckDB's says, but for the values that it may name."""
    return "it fails on the data" if isinstance(error, AT_WORK) else first_line(error)


def _threads(connection: duckdb.DuckDBPyConnection) -> int:
    row = connection.execute("SELECT current_setting('threads')").fetchone()
    assert row is not None
    return int(row[0])


@lru_cache(maxsize=1)
def _usual_memory(pid: int) -> str:
    row = _database(pid).execute("SELECT current_setting('memory_limit')").fetchone()
    assert row is not None
    return str(row[0])


@lru_cache(maxsize=1)
def _database(pid: int) -> duckdb.DuckDBPyConnection:
    # Keyed by pid: a forked child must not use its parent's threads.
    spill = Path(tempfile.gettempdir()) / f"penstock-{pid}"
    return duckdb.connect(
        ":memory:",
        config={
            "temp_directory": str(spill),
            # By its name and time a file that took another's place at once may be taken for it; and it costs memory.
            "enable_external_file_cache": "false",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
        },
    )
