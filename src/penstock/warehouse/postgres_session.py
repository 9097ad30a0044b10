"""One transaction's questions to the PostgreSQL warehouse, and its changes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.csv as pa_csv
from psycopg import errors
from psycopg.sql import Literal

from penstock.errors import LeaseLost, SettingsError
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
from penstock.warehouse.postgres_types import column_name, csv, table_name
from penstock.warehouse.rows import together

# The first number is "penstock"'s own among a database's advisory locks.
_MAKING_TABLES = f"{0x70656E73}, 3"

_OWN_TABLES = f"""
CREATE TABLE IF NOT EXISTS {{schema}}.{FENCES} (dataset text PRIMARY KEY, token bigint NOT NULL);
ALTER TABLE {{schema}}.{FENCES} ADD COLUMN IF NOT EXISTS project text;
CREATE TABLE IF NOT EXISTS {{schema}}.{MARKERS} (object text PRIMARY KEY, dataset text NOT NULL, rows bigint NOT NULL,
    rejected bigint NOT NULL, token bigint NOT NULL, run text NOT NULL, loaded_at timestamptz NOT NULL);
ALTER TABLE {{schema}}.{MARKERS} ADD COLUMN IF NOT EXISTS arrived_at timestamptz,
    ADD COLUMN IF NOT EXISTS sequence bigint, ADD COLUMN IF NOT EXISTS gone bigint NOT NULL DEFAULT 0;
CREATE TABLE IF NOT EXISTS {{schema}}.{REPLACED} (object text NOT NULL, dataset text NOT NULL, by_object text NOT NULL);
CREATE INDEX IF NOT EXISTS _penstock_objects_of_dataset ON {{schema}}.{MARKERS} (dataset);
CREATE INDEX IF NOT EXISTS _penstock_replaced_object ON {{schema}}.{REPLACED} (object);
"""
_REJECTED = (
    (OBJECT, "VARCHAR"),
    (ROW, "BIGINT"),
    ("line", "BIGINT"),
    ("reason", "VARCHAR"),
    ("raw", "VARCHAR"),
    ("column", "VARCHAR"),
    ("check", "VARCHAR"),
)
_REJECTED_TARGETS = (OBJECT, ROW, "line", "reason", "raw", "column_name", "check_name")
_OWN_COLUMNS = ((OBJECT, "VARCHAR"), (ROW, "BIGINT"), (RESCUED, "VARCHAR"))


class Session:
    """A transaction in `schema`. Errors are psycopg's, and LeaseLost."""

    def __init__(self, connection: psycopg.Connection, schema: str) -> None:
        self._connection = connection
        self._schema = quoted(schema)

    def table(self, name: str) -> str:
        """The name of a table with its schema: without it a dataset may be called like one of PostgreSQL's own."""
        return f"{self._schema}.{quoted(table_name(name))}"

    def ask(self, sql: str, values: Sequence[Any] | None = None) -> list[tuple[Any, ...]]:
        """Every row of the answer."""
        return self._connection.execute(sql.encode(), values).fetchall()

    def do(self, sql: str, values: Sequence[Any] | None = None) -> None:
        """A statement without an answer."""
        self._connection.execute(sql.encode(), values)

    def fits(self, sql: str) -> bool:
        """Whether a statement is within PostgreSQL's limits; where it is not, the transaction goes on without it."""
        try:
            with self._connection.transaction():
                self.do(sql)
        except errors.ProgramLimitExceeded:
            return False
        return True

    def literal(self, value: Any) -> str:
        """A value as a part of a statement, for where parameters are not taken."""
        return str(Literal(value).as_string(self._connection))

    def has_table(self, name: str) -> bool:
        """Whether the schema has a table or view of that name."""
        return bool(
            self.ask(
                "SELECT 1 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
                "WHERE c.relname = %s AND n.nspname = current_schema()",
                [table_name(name)],
            )
        )

    def columns(self, *tables: str) -> dict[str, dict[str, tuple[str, str]]]:
        """Of each table by the lower-case name, as DuckDB compares, name and type of its columns; none without it."""
        names = {table_name(table): table for table in tables}
        found: dict[str, dict[str, tuple[str, str]]] = {table: {} for table in tables}
        for table, column, kind in self.ask(
            "SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_catalog.pg_attribute a "
            "JOIN pg_catalog.pg_class c ON c.oid = a.attrelid JOIN pg_catalog.pg_namespace n "
            "ON n.oid = c.relnamespace WHERE c.relname = ANY(%s) AND n.nspname = current_schema() AND a.attnum > 0 "
            "AND NOT a.attisdropped",
            [list(names)],
        ):
            found[names[table]][column.lower()] = (column, kind)
        return found

    def make_own_tables(self) -> None:
        """Make fences, markers and replaced the first time, and what an older version did not have yet."""
        # What is made last tells of all.
        if "gone" not in self.columns(MARKERS)[MARKERS]:
            # Two at once would both find nothing, and one would fail.
            self.do(f"SELECT pg_advisory_xact_lock({_MAKING_TABLES})")
            self.do(_OWN_TABLES.format(schema=self._schema))

    def take_token(self, dataset: str, token: int, project: str | None) -> None:
        """Lock the dataset's fence and write the token. Raises LeaseLost when a greater one is there.

        Raises SettingsError where the dataset is another project's: its objects may have the names of ours, and what
        that one loaded would pass for loaded. None: the project is not looked at.
        """
        # Locks the row, even where the token is there already, and sees what its last holder committed.
        taken = self.ask(
            f"INSERT INTO {self.table(FENCES)} AS there (dataset, token, project) VALUES (%s, %s, %s) "
            "ON CONFLICT (dataset) DO UPDATE SET token = excluded.token, "
            "project = coalesce(excluded.project, there.project) WHERE there.token <= excluded.token "
            "AND coalesce(there.project = excluded.project, true) RETURNING token",
            [dataset, token, project],
        )
        if not taken:
            ((there, owner),) = self.ask(
                f"SELECT token, project FROM {self.table(FENCES)} WHERE dataset = %s", [dataset]
            )
            if project is not None and owner not in (None, project):
                raise SettingsError(
                    f"dataset {dataset} in this warehouse is that of the project {owner!r}: give {project!r} a "
                    "database of its own, or a schema (PENSTOCK_WAREHOUSE_URL=…?options=-csearch_path%3Dname)"
                )
            raise LeaseLost(
                f"dataset {dataset}: token {there} is in the warehouse, this run holds {token}; it writes nothing",
                greater=there,
            )

    def end_older(self, dataset: str, token: int) -> None:
        """End the sessions of the dataset's older holders, wherever they are."""
        self.ask(
            "SELECT pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE datname = current_database() "
            "AND usename = current_user AND pid <> pg_backend_pid() "
            "AND CASE WHEN split_part(application_name, ' ', 1) = %s "
            "THEN split_part(application_name, ' ', 2)::bigint < %s END",
            [session_mark(dataset), token],
        )

    def markers(self, names: Sequence[str]) -> dict[str, tuple[int, int]]:
        """Rows and rejected rows of those of `names` that have a marker."""
        sql = f"SELECT object, rows, rejected FROM {self.table(MARKERS)} WHERE object = ANY(%s)"
        return {row[0]: (row[1], row[2]) for row in self.ask(sql, [list(names)])}

    def replaced(self, names: Sequence[str]) -> set[str]:
        """Those of `names` that a newer generation replaced."""
        sql = f"SELECT object FROM {self.table(REPLACED)} WHERE object = ANY(%s)"
        return {row[0] for row in self.ask(sql, [list(names)])}

    def replace(self, dataset: str, part: LoadPart) -> None:
        """Take out what the part replaces, and remember it."""
        if part.replaces:
            self.remove(dataset, part.replaces)
            self.do(
                f"INSERT INTO {self.table(REPLACED)} SELECT unnest(%s::text[]), %s, %s",
                [list(part.replaces), dataset, part.ref.name],
            )

    def remove(self, dataset: str, names: Sequence[str], *, rows_too: bool = True) -> None:
        """Take out rows, rejected rows and markers of objects; unless `rows_too`, the good rows stay."""
        if not names:
            return
        places = [(dataset, OBJECT)] if rows_too else []
        for table, column in (*places, (dataset + REJECTED_SUFFIX, OBJECT), (MARKERS, "object")):
            self.do(f"DELETE FROM {self.table(table)} WHERE {column} = ANY(%s)", [list(names)])

    def rejected(self, dataset: str, name: str) -> dict[int, tuple[int | None, str | None]]:
        """Line and raw text of the rejected rows of an object, by their numbers."""
        sql = f"SELECT {ROW}, line, raw FROM {self.table(dataset + REJECTED_SUFFIX)} WHERE {OBJECT} = %s"
        return {row[0]: (row[1], row[2]) for row in self.ask(sql, [name])}

    def gone(self, name: str) -> int:
        """How many rows of an object others have taken the place of."""
        found = self.ask(f"SELECT gone FROM {self.table(MARKERS)} WHERE object = %s", [name])
        return found[0][0] if found else 0

    def row_numbers(self, dataset: str, name: str) -> pa.ChunkedArray:
        """The numbers of the rows that an object has in the table."""
        sql = f"COPY (SELECT {ROW} FROM {self.table(dataset)} WHERE {OBJECT} = %s) TO STDOUT (FORMAT csv)"
        with self._connection.cursor() as cursor, cursor.copy(sql.encode(), [name]) as copy:
            numbers = b"".join(copy)
        if not numbers:
            return pa.chunked_array([], pa.int64())
        return pa_csv.read_csv(pa.BufferReader(numbers), pa_csv.ReadOptions(column_names=[ROW])).column(ROW)

    def insert(
        self,
        dataset: str,
        schema_columns: Sequence[tuple[str, str]],
        parts: Sequence[LoadPart],
        now: datetime,
        *,
        there: Mapping[str, tuple[str, str]],
    ) -> None:
        """Copy the parts' rows and rejected rows; `there` are the table's columns, as `columns` has them."""
        rows = together(parts, [part.rows for part in parts])
        own = [(name, kind) for name, kind in schema_columns if name in rows.column_names]
        targets = [there[column_name(name).lower()][0] for name, _ in own]
        self._copy(dataset, rows, [*own, *_OWN_COLUMNS], [*targets, OBJECT, ROW, RESCUED], now)
        rejected = together(parts, [part.rejected for part in parts])
        self._copy(dataset + REJECTED_SUFFIX, rejected, _REJECTED, _REJECTED_TARGETS, now)

    def mark(
        self,
        dataset: str,
        parts: Sequence[LoadPart],
        token: int,
        run: str,
        now: datetime,
        *,
        kept: Mapping[str, tuple[int, int]],
    ) -> None:
        """Write the parts' markers; `kept` has what an object's marker said: its rows, and those that are gone."""
        marks = []
        for p in parts:
            rows, gone = kept.get(p.ref.name, (0, 0))
            counts = (rows + p.rows.num_rows, p.rejected.num_rows, gone)
            marks.append((p.ref.name, dataset, *counts, token, run, now, p.ref.arrived_at, p.ref.id))
        with self._connection.cursor() as cursor:
            cursor.executemany(
                f"INSERT INTO {self.table(MARKERS)} (object, dataset, rows, rejected, gone, token, run, "
                "loaded_at, arrived_at, sequence) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)".encode(),
                marks,
            )

    def damaged(self, dataset: str) -> list[str]:
        """Objects whose rows are not as many as their marker says; see `Warehouse`."""
        found: set[str] = set()
        left = "rows - gone" if "gone" in self.columns(MARKERS)[MARKERS] else "rows"
        for table, column in ((dataset, left), (dataset + REJECTED_SUFFIX, "rejected")):
            there = self.table(table) if self.has_table(table) else f"(SELECT NULL::text AS {OBJECT} LIMIT 0) nothing"
            marked = f"{self.table(MARKERS)} WHERE dataset = %s"
            ((rows, said),) = self.ask(
                f"SELECT (SELECT count(*) FROM {there}), (SELECT coalesce(sum({column}), 0) FROM {marked})", [dataset]
            )
            if rows == said:
                continue
            sql = (
                f"SELECT coalesce(m.object, t.{OBJECT}) FROM (SELECT object, {column} AS n FROM {marked}) m "
                f"FULL JOIN (SELECT {OBJECT}, count(*) AS n FROM {there} GROUP BY 1) t ON m.object = t.{OBJECT} "
                "WHERE coalesce(m.n, 0) <> coalesce(t.n, 0)"
            )
            found.update(row[0] for row in self.ask(sql, [dataset]))
        return sorted(found)

    def _copy(
        self,
        table: str,
        rows: pa.Table,
        columns: Sequence[tuple[str, str]],
        targets: Sequence[str],
        now: datetime,
    ) -> None:
        if not rows.num_rows:
            return
        into = ", ".join(quoted(name) for name in [*targets, LOADED_AT])
        statement = f"COPY {self.table(table)} ({into}) FROM STDIN (FORMAT csv)"
        with self._connection.cursor() as cursor, cursor.copy(statement.encode()) as copy:
            for some in csv(rows, columns, now):
                copy.write(some)


def session_mark(dataset: str) -> str:
    """What names a dataset's sessions: an application's name holds 63 bytes."""
    return f"penstock-{hashlib.sha256(dataset.encode()).hexdigest()[:16]}"
