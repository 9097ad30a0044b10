"""What the DuckDB warehouse does with its tables, on a connection in a transaction of the caller's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime

import duckdb
import pyarrow as pa

from penstock.errors import LeaseLost
from penstock.quoting import quoted
from penstock.warehouse.base import (
    FENCES,
    LOADED_AT,
    MARKERS,
    OBJECT,
    REJECTED_SUFFIX,
    REPLACED,
    RESCUED,
    ROW,
    LoadPart,
)
from penstock.warehouse.rows import together
from penstock.widening import JSON, TEXT, nested

NAMES = "(SELECT name FROM named)"

OWN_TABLES = f"""
CREATE TABLE IF NOT EXISTS {FENCES} (dataset VARCHAR, token BIGINT);
CREATE TABLE IF NOT EXISTS {MARKERS} (object VARCHAR, dataset VARCHAR, rows BIGINT, rejected BIGINT, token BIGINT,
    run VARCHAR, loaded_at TIMESTAMPTZ, arrived_at TIMESTAMPTZ, sequence BIGINT, gone BIGINT DEFAULT 0);
CREATE TABLE IF NOT EXISTS {REPLACED} (object VARCHAR, dataset VARCHAR, by_object VARCHAR);
"""


def take_token(connection: duckdb.DuckDBPyConnection, dataset: str, token: int) -> None:
    """Be the holder of `token` for the dataset. Raises LeaseLost when a greater one is there."""
    row = connection.execute(f"SELECT max(token) FROM {FENCES} WHERE dataset = ?", [dataset]).fetchone()
    there = row[0] if row else None
    if there is not None and there > token:
        raise LeaseLost(
            f"dataset {dataset}: token {there} is in the warehouse, this run holds {token}; it writes nothing",
            greater=there,
        )
    if there != token:
        connection.execute(f"DELETE FROM {FENCES} WHERE dataset = ?", [dataset])
        connection.execute(f"INSERT INTO {FENCES} VALUES (?, ?)", [dataset, token])


def markers(connection: duckdb.DuckDBPyConnection, names: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Rows and rejected rows of those of `names` that have a marker. The warehouse's own tables are there."""
    with registered(connection, names):
        found = connection.execute(f"SELECT object, rows, rejected FROM {MARKERS} WHERE object IN {NAMES}").fetchall()
    return {row[0]: (row[1], row[2]) for row in found}


def add_marker_columns(connection: duckdb.DuckDBPyConnection) -> None:
    """Give the markers of an older warehouse the columns that they lack."""
    if "gone" not in described(connection, MARKERS):
        for column in ("arrived_at TIMESTAMPTZ", "sequence BIGINT", "gone BIGINT DEFAULT 0"):
            connection.execute(f"ALTER TABLE {MARKERS} ADD COLUMN IF NOT EXISTS {column}")


def described(connection: duckdb.DuckDBPyConnection, table: str) -> dict[str, str]:
    """Name and type of each column of a table that is there. DuckDB's lists of columns take ten times as long."""
    return {row[0]: row[1] for row in connection.execute(f"DESCRIBE {quoted(table)}").fetchall()}


def has_table(connection: duckdb.DuckDBPyConnection, name: str) -> bool:
    """Whether the warehouse has a table of this name."""
    sql = (
        "SELECT 1 FROM duckdb_tables() WHERE table_name = ? AND schema_name = 'main' "
        "AND database_name = current_database()"
    )
    return connection.execute(sql, [name]).fetchone() is not None


def replaced(connection: duckdb.DuckDBPyConnection, names: Sequence[str]) -> set[str]:
    """Those of `names` that a newer generation replaced."""
    with registered(connection, names):
        return {
            row[0] for row in connection.execute(f"SELECT object FROM {REPLACED} WHERE object IN {NAMES}").fetchall()
        }


def damaged(connection: duckdb.DuckDBPyConnection, dataset: str) -> list[str]:
    """Objects whose rows are not as many as their marker says, sorted."""
    found: set[str] = set()
    if not has_table(connection, MARKERS):
        return []
    left = "rows - gone" if "gone" in described(connection, MARKERS) else "rows"
    for table, column in ((dataset, left), (dataset + REJECTED_SUFFIX, "rejected")):
        there = quoted(table) if has_table(connection, table) else f"(SELECT NULL::VARCHAR AS {OBJECT} LIMIT 0)"
        totals = connection.execute(
            f"SELECT (SELECT count(*) FROM {there}), "
            f"(SELECT coalesce(sum({column}), 0) FROM {MARKERS} WHERE dataset = ?)",
            [dataset],
        ).fetchone()
        if totals is not None and totals[0] == totals[1]:
            continue
        sql = (
            f"SELECT coalesce(m.object, t.{OBJECT}) FROM (SELECT object, sum({column}) AS n FROM {MARKERS} "
            f"WHERE dataset = ? GROUP BY 1) m FULL JOIN (SELECT {OBJECT}, count(*) AS n FROM {there} GROUP BY 1) t "
            f"ON m.object = t.{OBJECT} WHERE coalesce(m.n, 0) <> coalesce(t.n, 0)"
        )
        found.update(row[0] for row in connection.execute(sql, [dataset]).fetchall())
    return sorted(found)


def replace(connection: duckdb.DuckDBPyConnection, dataset: str, part: LoadPart) -> None:
    """Take out what the part replaces, and remember it."""
    if not part.replaces:
        return
    names = list(part.replaces)
    remove(connection, dataset, names)
    with registered(connection, names):
        connection.execute(f"INSERT INTO {REPLACED} SELECT name, ?, ? FROM named", [dataset, part.ref.name])


def remove(connection: duckdb.DuckDBPyConnection, dataset: str, names: Sequence[str], *, rows_too: bool = True) -> None:
    """Take out the rows, rejected rows and markers of objects; unless `rows_too`, the good rows stay."""
    if not names:
        return
    places = [(dataset, OBJECT)] if rows_too else []
    with registered(connection, names):
        for table, column in (*places, (dataset + REJECTED_SUFFIX, OBJECT), (MARKERS, "object")):
            connection.execute(f"DELETE FROM {quoted(table)} WHERE {column} IN {NAMES}")


@contextmanager
def registered(connection: duckdb.DuckDBPyConnection, names: Sequence[str]) -> Iterator[None]:
    """`names` can be asked for as NAMES."""
    # As a parameter each of the names costs DuckDB half a millisecond, since it looks for numpy every time.
    connection.register("named", pa.table({"name": pa.array(names, pa.string())}))
    try:
        yield
    finally:
        connection.unregister("named")


def rejected(
    connection: duckdb.DuckDBPyConnection, dataset: str, name: str
) -> dict[int, tuple[int | None, str | None]]:
    """Line and raw text of the rejected rows of an object, by their numbers."""
    sql = f"SELECT {ROW}, line, raw FROM {quoted(dataset + REJECTED_SUFFIX)} WHERE {OBJECT} = ?"
    return {row[0]: (row[1], row[2]) for row in connection.execute(sql, [name]).fetchall()}


def gone(connection: duckdb.DuckDBPyConnection, name: str) -> int:
    """How many rows of an object others have taken the place of."""
    row = connection.execute(f"SELECT gone FROM {MARKERS} WHERE object = ?", [name]).fetchone()
    return row[0] or 0 if row else 0


def row_numbers(connection: duckdb.DuckDBPyConnection, dataset: str, name: str) -> pa.ChunkedArray:
    """The numbers of the rows that an object has in the table."""
    found = connection.execute(f"SELECT {ROW} FROM {quoted(dataset)} WHERE {OBJECT} = ?", [name])
    return found.to_arrow_table().column(ROW)


def insert(
    connection: duckdb.DuckDBPyConnection,
    dataset: str,
    schema_columns: Sequence[tuple[str, str]],
    parts: Sequence[LoadPart],
    now: datetime,
    *,
    there: Mapping[str, str],
) -> None:
    """Add the parts' rows and rejected rows; `there` has the type of each of the table's columns."""
    rows = together(parts, [part.rows for part in parts])
    if rows.num_rows:
        text_or_json = {name.lower() for name, kind in there.items() if kind in (TEXT, JSON)}
        values = [
            f"to_json({quoted(name)}) AS {quoted(name)}, "
            if nested(kind) and name.lower() in text_or_json
            else f"{quoted(name)}, "
            for name, kind in schema_columns
            if name in rows.column_names
        ]
        connection.register("arriving", rows)
        connection.execute(
            f"INSERT INTO {quoted(dataset)} BY NAME SELECT {''.join(values)}"
            f"{OBJECT}, {ROW}, CAST(? AS TIMESTAMPTZ) AS {LOADED_AT}, {RESCUED} FROM arriving",
            [now],
        )
        connection.unregister("arriving")
    rejected = together(parts, [part.rejected for part in parts])
    if rejected.num_rows:
        connection.register("arriving", rejected)
        connection.execute(
            f"INSERT INTO {quoted(dataset + REJECTED_SUFFIX)} BY NAME SELECT {OBJECT}, {ROW}, line, reason, raw, "
            f'CAST(? AS TIMESTAMPTZ) AS {LOADED_AT}, "column" AS column_name, "check" AS check_name FROM arriving',
            [now],
        )
        connection.unregister("arriving")


def mark(
    connection: duckdb.DuckDBPyConnection,
    dataset: str,
    parts: Sequence[LoadPart],
    token: int,
    run: str,
    now: datetime,
    *,
    kept: Mapping[str, tuple[int, int]],
) -> None:
    """Add the parts' markers; `kept` has what an object's marker said: its rows, and those of them that are gone."""
    marks = pa.table(
        {
            "object": [part.ref.name for part in parts],
            "rows": [part.rows.num_rows + kept.get(part.ref.name, (0, 0))[0] for part in parts],
            "gone": [kept.get(part.ref.name, (0, 0))[1] for part in parts],
            "rejected": [part.rejected.num_rows for part in parts],
            "arrived_at": pa.array([part.ref.arrived_at for part in parts], pa.timestamp("us", "UTC")),
            "sequence": [part.ref.id for part in parts],
        }
    )
    connection.register("arriving", marks)
    connection.execute(
        f"INSERT INTO {MARKERS} BY NAME SELECT object, ? AS dataset, rows, rejected, ? AS token, ? AS run, "
        "CAST(? AS TIMESTAMPTZ) AS loaded_at, arrived_at, sequence, gone FROM arriving",
        [dataset, token, run, now],
    )
    connection.unregister("arriving")
